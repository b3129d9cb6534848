"""The subcommand `options`: this package's own options with type, default and meaning; also as Markdown."""

import inspect
import os
import re
import textwrap
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import docstring_parser  # comes with jsonargparse[signatures], which reads the same docstrings for --help
import jsonargparse
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from kd_lightning import data, methods, modules, nets, teachers
from kd_lightning.cli.arguments import (
    ARGUMENTS,
    OPTIONS_COMMAND,
    OTHER_COMMANDS_HELP,
    typed_command,
    typed_program,
)
from kd_lightning.cli.inspect import inspect_parser
from kd_lightning.cli.messages import closest
from kd_lightning.cli.study_parser import study_parser
from kd_lightning.data.augment import Augment
from kd_lightning.export.command import export_parser
from kd_lightning.methods.base import FeatureLoss, SoftLoss
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.lightning_internals import actions_of
from kd_lightning.nets.construction import constructor_parameters
from kd_lightning.reports.console import table_console
from kd_lightning.reports.page import report_parser

# Classes that a configuration can name: the place of their options, what they are, and what has such a class: the
# public classes below these bases, or, by name, those that have no common one.
_BASES: tuple[tuple[str, str, tuple[type | str, ...]], ...] = (
    ("model", "what trains", (ClassifierModule,)),
    ("data", "what it trains on", (LightningDataModule,)),
    ("data.augment", "views of the training images", (Augment, "Mixtures")),
    ("model.student, model.net", "the net", (nn.Sequential, "AdaptedNet")),
    ("model.teachers", "where a path is not enough", ("Teacher", "LogitsFile", "PretrainedNet")),
    ("model.temperature", "where a number is not enough; likewise model.soft_weight", ("Linear",)),
    ("model.store", "the teachers' logits, kept on disk", ("StoreOptions",)),
    ("model.scheduler", "in addition to those of torch", (LRScheduler,)),
    ("model.soft_loss", "KL by default", (SoftLoss,)),
    ("model.feature_losses", "further terms", (FeatureLoss,)),
)


def _names(kinds: tuple[type | str, ...]) -> tuple[str, ...]:
    """Names of the public classes that are no abstract ones, below these bases or so called."""
    rooms = (data, methods, modules, nets, teachers)
    public = {name: getattr(room, name) for room in rooms for name in room.__all__}
    made = {name: each for name, each in public.items() if isinstance(each, type) and not inspect.isabstract(each)}
    bases = tuple(kind for kind in kinds if isinstance(kind, type))
    return tuple(name for name, each in made.items() if name in kinds or issubclass(each, bases))


GROUPS = tuple((place, what, _names(kinds)) for place, what, kinds in _BASES)
# What the subcommands other than fit, validate, test and predict take.
PARSERS = {"inspect": inspect_parser, "study": study_parser, "report": report_parser, "export": export_parser}
SHOWN_FIRST = (("model", "DistillModule"), ("data", "MNISTDataModule"))
REQUIRED = "required"
_NO_CHOICE = "Must be None"  # an option that is only there for older files
_WIDE = 110  # characters of a line from which there is room for types
_TYPE_WIDTH = 20


class Option(NamedTuple):
    """An option as people read it.

    Attributes:
        name: As in a YAML file.
        type: What it takes.
        default: As in a YAML file; REQUIRED where there is none.
        text: What it means.
    """

    name: str
    type: str
    default: str
    text: str


def run_options(arguments: Sequence[str]) -> None:
    """Print the options of the package, or of one class.

    Args:
        arguments: A class's name, and --markdown.

    Raises:
        ValueError: If there is no such class.
    """
    parser = jsonargparse.ArgumentParser(
        prog=OPTIONS_COMMAND,
        description="This package's own options: name, type, default, meaning. Those of the trainer are Lightning's.",
        exit_on_error=False,
    )
    parser.add_argument("name", nargs="?", help="A class, such as MLP or my_project.MyNet.")
    parser.add_argument("--markdown", type=bool, default=False, help="Print docs/options.md, with all classes.")
    given = parser.parse_args(list(arguments))
    if given.markdown:
        print(markdown(), end="")
    elif given.name:
        _print_class(find_class(given.name))
    else:
        _print_screen()


def options_of(cls: type) -> list[Option]:
    """A class's options; where its constructor hands on `**options`, those of the next class too."""
    found: dict[str, Option] = {}
    for owner, parameter in constructor_parameters(cls):
        texts = {p.arg_name: p.description or "" for p in docstring_parser.parse(inspect.getdoc(owner) or "").params}
        found.setdefault(parameter.name, _option(parameter, " ".join(texts.get(parameter.name, "").split())))
    return [option for option in found.values() if not option.text.startswith(_NO_CHOICE)]


def options_of_run() -> list[Option]:
    """The options that `fit` and the like have in addition to Lightning's."""
    return [Option(name, type(default).__name__, _value(default), text) for name, (default, text) in ARGUMENTS.items()]


def options_of_command(parser: jsonargparse.ArgumentParser) -> list[Option]:
    """What a subcommand takes: positional arguments by their names, options with their dashes."""
    actions = [action for action in actions_of(parser) if action.default is not SUPPRESS]
    return [
        Option(
            next(iter(action.option_strings), action.dest),
            _kind(getattr(action, "_typehint", list[str] if action.nargs else str)),
            _value(action.default) if action.option_strings else REQUIRED,
            str(action.help),
        )
        for action in actions
    ]


def find_class(name: str) -> type:
    """A class of this package by its name, or any by its import path.

    Raises:
        ValueError: If there is none.
    """
    module, _, last = name.rpartition(".")
    try:
        found = getattr(import_module(module or "kd_lightning"), last)
    except (ImportError, AttributeError) as error:
        known = {each.lower(): each for *_, names in GROUPS for each in names}
        meant = known.get(closest(last.lower(), known))
        advice = f"did you mean {meant}?" if meant else f"expected one that {OPTIONS_COMMAND} lists, or an import path"
        raise ValueError(f"no class {name}; {advice}") from error
    if not isinstance(found, type):
        raise ValueError(f"{name} must be a class, got {found!r:.40}")
    return found


def markdown() -> str:
    """The content of docs/options.md."""
    lines = [
        "# Options",
        "",
        f"Written by `{OPTIONS_COMMAND} --markdown true`; a test keeps it in step with the code. In a terminal",
        f"`{OPTIONS_COMMAND}` shows the first tables, and `{OPTIONS_COMMAND} CLASS` those of a class.",
        "",
        "A class goes into a YAML file by `class_path`, its options by `init_args`; a flag sets one, such as",
        "`--model.temperature 4`. The options below `trainer` are Lightning's: `fit --help` lists them.",
        "",
        "## The run",
        "",
        *_markdown_table(options_of_run()),
        "",
        "Lightning's own are `seed_everything`, the seed; `print_config`, which prints the merged configuration; and",
        "`ckpt_path`. In `fit`, `--ckpt_path last` resumes a run or starts it. In `test`, `validate` and `predict` it",
        "is a checkpoint, or a run's folder, of which the best checkpoint counts, or the last where nothing validated.",
    ]
    for place, what, names in GROUPS:
        lines += ["", f"## {place}: {what}"]
        for name in names:
            cls = find_class(name)
            lines += [
                "",
                f"### {name}",
                "",
                _first_line(cls),
                "",
                *(_markdown_table(options_of(cls)) or ["No options."]),
            ]
    for command, parser in PARSERS.items():
        options = options_of_command(parser())
        lines += ["", f"## {command}", "", OTHER_COMMANDS_HELP[command], "", *_markdown_table(options)]
    return "\n".join(lines) + "\n"


def _markdown_table(options: Sequence[Option]) -> list[str]:
    if not options:
        return []
    cells = [tuple(each.replace("|", "\\|") for each in option) for option in options]
    rows = [f"| `{name}` | {kind} | {default} | {text} |" for name, kind, default, text in cells]
    return ["| option | type | default | meaning |", "| --- | --- | --- | --- |", *rows]


def _print_screen() -> None:
    console = table_console()
    width = console.width
    cuts = console.is_terminal or "COLUMNS" in os.environ  # in a pipe nothing is cut
    for title, options in _shown_first():
        print(title)
        of_default = max(len(option.default) for option in options)
        for name, kind, default, text in options:
            sentence = re.split(r"(?<=[.;]) ", text)[0].rstrip(".;")
            of_type = f"{_cut(kind, _TYPE_WIDTH) if cuts else kind:{_TYPE_WIDTH}} " if width >= _WIDE else ""
            line = f"  {name:26}{of_type}{default:{of_default}} {sentence}"
            print(_cut(line, width) if cuts else line)
    print("classes, for class_path")
    for place, _, names in GROUPS:
        print(_wrapped(", ".join(names), width, f"  {place:26}"))
    program = typed_program(typed_command())
    print(_wrapped(f"All of a class's options, each in full: {program} options CLASS", width))
    print(_wrapped(f"The run's in full, and those of the trainer: {program} fit --help", width))


def _shown_first() -> Iterator[tuple[str, list[Option]]]:
    yield "the run, --NAME", options_of_run()
    for place, name in SHOWN_FIRST:
        yield f"{name}, --{place}.NAME", options_of(find_class(name))


def _cut(text: str, width: int) -> str:
    """A text in so many characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _wrapped(text: str, width: int, start: str = "") -> str:
    """A text after its start, in lines of so many characters."""
    return textwrap.fill(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _print_class(cls: type) -> None:
    print(f"{cls.__name__}: {_first_line(cls)}")
    for name, kind, default, text in options_of(cls):
        print(f"\n{name}: {kind}, {default if default == REQUIRED else f'default {default}'}")
        print(textwrap.fill(text, table_console().width, initial_indent="    ", subsequent_indent="    "))


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")


def _option(parameter: inspect.Parameter, text: str) -> Option:
    empty = parameter.default is inspect.Parameter.empty
    return Option(parameter.name, _kind(parameter.annotation), REQUIRED if empty else _value(parameter.default), text)


def _kind(annotation: Any) -> str:  # Any: an annotation is a type or one of typing's forms
    """An annotation for people: class names without their modules, the words of a Literal."""
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    text = re.sub(r"(?:\w+\.)+(\w+)", r"\1", text)
    text = re.sub(
        r"Literal\[([^]]*)\]", lambda found: " | ".join(re.findall(r"'([^']*)'", found[1]) or [found[1]]), text
    )
    if "Callable" in text:  # a class that gets its first argument later, such as an optimizer
        return "class | null" if "None" in text or "Optional" in text else "class"
    return text.replace("NoneType", "null").replace("None", "null")


def _value(default: object) -> str:
    """A default as YAML writes it."""
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, str | int | float | list | tuple):
        return str(default) or '""'
    return f"{type(default).__name__}()"
