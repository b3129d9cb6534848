"""Error messages: one line, in any locale."""

import builtins
import codecs
import difflib
import inspect
import io
import re
import sys
from collections.abc import Collection, Sequence
from importlib import import_module

import jsonargparse
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch.multiprocessing.spawn import ProcessException

from kd_lightning.cli.arguments import ARGUMENTS
from kd_lightning.cli.own_code import DEBUG_VARIABLE, own_place, raised_last, whole_traceback

# Errors that main prints in one line. Any other error is a bug in this program and keeps its traceback.
USER_ERRORS = (
    jsonargparse.ArgumentError,
    ValueError,
    OSError,
    RuntimeError,
    IndexError,  # a label beyond the net's classes
    ImportError,
    MisconfigurationException,
)

# The start of torch's message about an error in a data loader's worker.
_WORKER = "Original Traceback (most recent call last)"
# Lines of the parser's messages that repeat the input or name the alternatives that were not meant.
_PARSER_NOISE = (
    "Given value",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "Does not validate against any",
    "Problem with given class_path",
    "Parser key",
    "Subclass types expect one of:",
    "a class path (str)",
    "a dict with",
)
_PLACE = re.compile(r"""(?P<kind>Parser key|Problem with given class_path) ["'](?P<name>[^"']+)["']:""")
_UNKNOWN = re.compile(r"Option '(?P<option>[^']+)' is not accepted|unrecognized arguments: --(?P<key>[\w.]+)")
_OPTION_OF_NOTHING = re.compile(
    r"[Uu]nrecognized arguments: --(?P<flag>[\w.]+)|Subcommand '\w+' does not accept option '(?P<key>[\w.]+)'"
)
# The parser's words and what people say.
_PLAIN_WORDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Expected an? <class 'float'>", "expected a number"),
        (r"^Expected an? <class 'int'>", "expected a whole number"),
        (r"^Expected an? <class 'bool'>", "expected true or false"),
        (r"^Expected an? <class 'collections\.abc\.Sequence'>\. Got value: ", "expected a list, got "),
        (r"^Expected an? typing\.Literal\[([^]]*)\]\.? Got value: (.*)$", r"expected one of \1, got \2"),
        (r"^Expected a dot import path string: (\S+), got \1$", r"no class \1; expected its name or import path"),
        (r"^Not of type PositiveInt: .*$", "expected a whole number >= 1"),
        (r"(arguments are required: |^Option ')fit\.", r"\1"),
        (r"""^Parser key "config": File does not exist: '(.*)'$""", r"--config: no file \1"),
    )
)
_BULLET = re.compile(r"^\s*(- )?")
# What the parser read the option's text as; the message has named the text itself before.
_TAKEN_FOR = re.compile(r"\.? Got value: Namespace\(class_path='(?P<class_path>[^']+)'.*$")
# What options begin with.
_GROUPS = ("model", "data", "trainer", "config", "seed_everything", "ckpt_path", *ARGUMENTS)
# Options that Lightning's own command line has in another place.
_MOVED = {"optimizer": "model.optimizer", "lr_scheduler": "model.scheduler", "scheduler": "model.scheduler"}


def innermost_reason(error: BaseException) -> str:
    """One line that names the place and the error.

    The parser wraps each problem in the keys and classes around it, the innermost last; torch puts a list
    below a headline.
    """
    if isinstance(error, jsonargparse.ArgumentError) and isinstance(error.__cause__, USER_ERRORS):
        cause = innermost_reason(error.__cause__)
        if cause:
            return cause
    lines = [line for line in str(error).splitlines() if _BULLET.sub("", line).strip()]
    if not lines:
        return type(error).__name__
    if "Problems parsing config" in lines[0]:  # then come the YAML reader's lines, all of the same depth
        return re.sub(r'in "<[^>]*>", ', "in ", " ".join(line.strip() for line in lines))
    informative = [line for line in lines if not _BULLET.sub("", line).startswith(_PARSER_NOISE)] or lines
    line = max(informative, key=_depth)
    # torch's and Python's own types say nothing to the user
    reason = re.sub(r"^Type .* expects a function or a callable class: ", "", _BULLET.sub("", line).rstrip())
    keys, class_path = _places(lines[: lines.index(line)], _depth(line))
    taken = _TAKEN_FOR.search(reason)
    if taken:
        reason, class_path = reason[: taken.start()], class_path or taken["class_path"]
    unknown = _UNKNOWN.match(reason)
    if unknown and class_path:
        option = unknown["option"] or unknown["key"].partition(".")[0]
        keys += [unknown["key"]] if unknown["key"] else []
        reason = f"{class_path} has no option {option}{_meant(option, class_path)}"
    elif reason.startswith("Expected") and "Got value" not in reason and not taken:
        given = [x.strip() for x in lines[lines.index(line) :] if x.strip().startswith("Given value: ")]
        reason += "".join(given[:1]).replace("Given value:", ", got")
    hint, reason = _hint(reason), _in_plain_words(reason)
    return ": ".join([*([".".join(keys)] if keys else []), (reason.rstrip(".") if hint else reason) + hint])


def _in_plain_words(reason: str) -> str:
    """The parser's reason without names of Python's types."""
    for pattern, words in _PLAIN_WORDS:
        reason = pattern.sub(words, reason)
    return reason


def _hint(reason: str) -> str:
    """Advice about an option that is missing or unknown; empty if there is none."""
    if re.search(r"required: \w+\.model$|'\w+\.model' is required", reason):
        return "; name a configuration with --config, or a module with --model"
    match = _OPTION_OF_NOTHING.match(reason)
    if match is None:
        return ""
    name, _, rest = (match["flag"] or match["key"]).partition(".")
    of_trainer = inspect.signature(Trainer.__init__).parameters
    place = _MOVED.get(name) or (f"trainer.{name}" if name in of_trainer else "")
    if not place:
        meant = [closest(name, _GROUPS), rest] if name != "trainer" else [name, closest(rest, of_trainer)]
        if not all(meant[: 1 + bool(rest)]):
            return ""
        if meant == [name, rest]:
            return "; that is an option of fit"
        dashes = "--" * bool(match["flag"])
        return f"; did you mean {dashes}{'.'.join(filter(None, meant))}?"
    if match["flag"]:
        return f"; here it is --{place}{'.' * bool(rest)}{rest}"
    group, _, option = place.replace("model.", "model.init_args.").rpartition(".")
    return f"; here it is {option}, in {group.replace('.', ': ')}"


def closest(option: str, known: Collection[str]) -> str:
    """What was meant by a misspelt option: epochs may be max_epochs; empty if nothing is close."""
    ends_so = [name for name in known if option and name.endswith(f"_{option}")]
    return next(iter(ends_so or difflib.get_close_matches(option, known, n=1)), "")


def _depth(line: str) -> int:
    return len(line) - len(_BULLET.sub("", line))


def _places(lines: Sequence[str], depth: int) -> tuple[list[str], str]:
    """Keys around a line of the parser's message, and the class that the message is about; empty if none.

    Args:
        lines: Those before it.
        depth: Its indentation.
    """
    around: list[tuple[int, str, str]] = []
    for line in lines:
        place = _PLACE.match(_BULLET.sub("", line))
        if place:
            around = [each for each in around if each[0] < _depth(line)]
            around.append((_depth(line), place["kind"], place["name"]))
    around = [each for each in around if each[0] < depth]
    keys = [name for _, kind, name in around if kind == "Parser key"]
    return keys, around[-1][2] if around and around[-1][1] != "Parser key" else ""


def _meant(option: str, class_path: str) -> str:
    """The closest option of a class, or all its options; empty if the class can't be read."""
    module, _, name = class_path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return ""
    close = difflib.get_close_matches(option, parameters, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    whole = all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values())
    return f"; it has {', '.join(parameters)}" if whole else ""


def error_line(error: BaseException) -> str | None:
    """The line that main prints for an error; None for a bug in this program, which keeps its traceback.

    Args:
        error: As it reached main, from this process or from one that trained.
    """
    text = whole_traceback(error)
    name, reason = type(error).__name__, ""
    if isinstance(error, ProcessException) or _WORKER in str(error):  # the text of another process' traceback
        name, reason = raised_last(str(error))
    place = own_place(text)
    if place is None and not _may_be_users(error, name):
        return None
    line = reason or innermost_reason(error)
    if place is None:
        return line
    kind = (
        "" if line == name or isinstance(error, jsonargparse.ArgumentError) else f"{name} "
    )  # the parser's is no news
    return f"{line} ({kind}at {place}; {DEBUG_VARIABLE}=1 shows the whole traceback)"


def _may_be_users(error: BaseException, name: str) -> bool:
    """Whether the user may have caused an error that was raised outside the user's code.

    Args:
        error: The error.
        name: Of its class, in the process where it arose.
    """
    if isinstance(error, ProcessException):
        kind = getattr(builtins, name, ValueError)  # of others only the name is known
        return issubclass(kind, USER_ERRORS)
    return isinstance(error, USER_ERRORS)


# Characters of messages and tables that are not ASCII, with replacements for terminals that can't show them.
_PLAIN = {"–": "-", "±": "+-", "→": "->", "…": "..."}


def accept_any_text() -> None:
    """Let standard output take any text in any locale: characters that it can't show are replaced."""
    codecs.register_error(accept_any_text.__qualname__, _replaced)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook has another, which shows everything
        sys.stdout.reconfigure(errors=accept_any_text.__qualname__)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """A replacement for the first character that the encoding lacks, and the position after it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no text in this locale
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return _PLAIN.get(character, character.encode("ascii", "backslashreplace").decode()), error.start + 1


def refuse_undecoded(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not text in this locale: YAML and TensorBoard can't hold them.

    Raises:
        ValueError: If there is one.
    """
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise ValueError(
                f"{argument!a} is not text in this locale's encoding, {sys.getfilesystemencoding()}; "
                "set PYTHONUTF8=1 or LC_ALL=C.UTF-8, or rename the file"
            )
