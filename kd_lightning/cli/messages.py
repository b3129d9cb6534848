"""What the user reads when something goes wrong: one line, and no noise beside it."""

import difflib
import inspect
import logging
import os
import re
import warnings
from collections.abc import Sequence
from importlib import import_module

import jsonargparse
from lightning.fabric.utilities.exceptions import MisconfigurationException

# What main answers with one line; anything else is a defect of the program and keeps its traceback.
USER_ERRORS = (
    jsonargparse.ArgumentError,
    ValueError,
    OSError,
    RuntimeError,
    IndexError,  # a label beyond the net's classes
    ImportError,
    MisconfigurationException,
)

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
)
_PLACE = re.compile(r"""(?P<kind>Parser key|Problem with given class_path) ["'](?P<name>[^"']+)["']:""")
_UNKNOWN = re.compile(r"Option '(?P<option>[^']+)' is not accepted")


def innermost_reason(error: BaseException) -> str:
    """The one line that says where and what is wrong.

    The parser wraps each problem in the keys and classes around it, the innermost last; torch puts a list
    below a headline.
    """
    if isinstance(error, jsonargparse.ArgumentError) and isinstance(error.__cause__, USER_ERRORS):
        cause = innermost_reason(error.__cause__)
        if cause:
            return cause
    lines = [line for line in str(error).splitlines() if line.strip(" -")]
    if not lines:
        return type(error).__name__
    if "Problems parsing config" in lines[0]:  # then come the YAML reader's lines, all of the same depth
        return re.sub(r'in "<[^>]*>", ', "in ", " ".join(line.strip() for line in lines))
    told = [line for line in lines if not line.strip(" -").startswith(_PARSER_NOISE)] or lines
    line = max(told, key=_depth)
    # torch's and Python's own types say nothing to the user
    reason = re.sub(r"^Type .* expects a function or a callable class: ", "", line.strip(" -\t"))
    keys, known = _places(lines[: lines.index(line)], _depth(line))
    unknown = _UNKNOWN.match(reason)
    if unknown and known:
        reason = f"{known} has no option {unknown['option']}{_meant(unknown['option'], known)}"
    if reason.startswith("Expected") and "Got value" not in reason:
        given = [x.strip() for x in lines[lines.index(line) :] if x.strip().startswith("Given value: ")]
        reason += "".join(given[:1]).replace("Given value:", ", got")
    return ": ".join([".".join(keys), reason] if keys else [reason])


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" -\t"))


def _places(lines: Sequence[str], depth: int) -> tuple[list[str], str]:
    """Keys around a line of the parser's message, and the class that it is about, empty where it is about none.

    Args:
        lines: Those before it.
        depth: Its indentation.
    """
    around: list[tuple[int, str, str]] = []
    for line in lines:
        place = _PLACE.match(line.strip(" -"))
        if place:
            around = [each for each in around if each[0] < _depth(line)]
            around.append((_depth(line), place["kind"], place["name"]))
    around = [each for each in around if each[0] < depth]
    keys = [name for _, kind, name in around if kind == "Parser key"]
    return keys, around[-1][2] if around and around[-1][1] != "Parser key" else ""


def _meant(option: str, class_path: str) -> str:
    """A suggestion in place of a misspelt option of a class, or its options; empty where they are not known."""
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


def raised_in_child(error: Exception) -> tuple[str, str]:
    """Name and text of the exception that ended a child process, from the traceback that torch passes on."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    # The last line that begins with an exception's name; its text may go on below.
    told = next((line for line in reversed(lines) if re.match(r"[A-Za-z_][\w.]*(: |$)", line)), lines[-1])
    name, _, reason = told.partition(": ")
    return name.rpartition(".")[2], reason or name


def hush() -> None:
    """Keep quiet about what a user of this program can't change."""
    # Lightning asks torch for a check that torch 2.14 calls deprecated.
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    # An evaluation has no use for the callbacks that wrote the checkpoint.
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    # A run without a validation split has an empty list of validation loaders.
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero.*")
    # Short epochs are logged once each, see classifier.py; a resumed run goes on in its folder; and outside a job
    # there is no use for srun.
    in_job = "SLURM_JOB_ID" in os.environ
    for text in (
        "The number of training batches",
        "Checkpoint directory .* exists and is not empty",
        *([] if in_job else ["The `srun` command"]),
    ):
        warnings.filterwarnings("ignore", message=text)
    for name in (
        "",
        "lightning.fabric.utilities.rank_zero",
        "lightning.fabric.utilities.seed",
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.logger_connector",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
        "tensorboard",
    ):
        logging.getLogger(name or None).addFilter(_of_use)


# Advertisements, and what the banner, the progress bar and the last lines of a run say as well.
_OF_NO_USE = (
    "Tip: For seamless",
    "weights_only",
    "Seed set to",
    "GPU available: False",
    "TPU available: False",
    "Loading `train_dataloader` to estimate",
    "`Trainer.fit` stopped: `max_",
    "Restoring states from",
    "Restored all states",
    "Loaded model weights",
    "`Trainer(barebones=True)`",  # export builds a trainer for the data module's sake
    "Please consider to run pre-processing before quantization",
    "out of order event.step",  # a resumed run's curves; the steps in question are dropped on purpose
)


def _of_use(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(text in message for text in _OF_NO_USE)
