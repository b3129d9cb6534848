"""What the user reads when something goes wrong: one line, and no noise beside it."""

import logging
import re
import warnings

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
_PARSER_NOISE = ("Given value", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Parser key")


def innermost_reason(error: BaseException) -> str:
    """The one line of an error's text that says what is wrong.

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
    told = [line for line in lines if not line.strip(" -").startswith(_PARSER_NOISE)] or lines
    return max(told, key=lambda line: len(line) - len(line.lstrip(" -\t"))).strip(" -\t")


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
    # Tips that advertise other packages, and a notice of what this program sees to itself.
    for name in (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.trainer.connectors.logger_connector",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
    ):
        logging.getLogger(name).addFilter(_of_use)


def _of_use(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "Tip: For seamless" not in message and "weights_only" not in message
