"""Objects built by the parser, with the errors that their constructors raise."""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jsonargparse

# Errors of constructors, the innermost first, while a configuration is built.
_raised: ContextVar[list[Exception] | None] = ContextVar("raised", default=None)


@contextmanager
def constructor_errors(parser: jsonargparse.ArgumentParser, config: jsonargparse.Namespace) -> Iterator[None]:
    """Raise the first error of a constructor as it is.

    If an option may have several types, the parser tries each, and replaces the error by a message that none fits.

    Args:
        parser: What builds the objects.
        config: What it builds them from.
    """
    parser.add_instantiator(_build, object)
    for function in _functions(config.as_dict()):
        parser.add_instantiator(_build, function, subclasses=False)  # met by identity
    raised: list[Exception] = []
    token = _raised.set(raised)
    try:
        yield
    except Exception as error:
        failure = raised[0] if raised else error
        raise failure from failure.__cause__  # without what the parser made of it
    finally:
        _raised.reset(token)


def constructor_parameters(cls: type) -> Iterator[tuple[type, inspect.Parameter]]:
    """The parameters of a class's constructor, each with the class that names it.

    Where a constructor hands on `**options`, those of the next class follow.
    """
    for each in cls.__mro__:
        if "__init__" not in vars(each) or each is object:
            continue
        parameters = list(inspect.signature(vars(each)["__init__"]).parameters.values())[1:]  # without self
        yield from ((each, one) for one in parameters if one.kind not in {one.VAR_KEYWORD, one.VAR_POSITIONAL})
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return


def _build(built: Callable[..., object], /, *args: Any, **kwargs: Any) -> object:  # Any: whatever it takes
    """Call a class or function and keep its error. A function of a module: schedulers that hold it are pickled."""
    try:
        return built(*args, **kwargs)
    except Exception as error:
        raised = _raised.get()
        if raised is not None:
            raised.append(error)
        raise


def _functions(config: object) -> Iterator[Callable[..., object]]:
    """The functions that a configuration names where a class could stand."""
    if isinstance(config, dict):
        module, _, name = str(config.get("class_path", "")).rpartition(".")
        named = getattr(sys.modules.get(module), name, None)  # the parser has imported it
        if callable(named) and not isinstance(named, type):
            yield named
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _functions(value)
