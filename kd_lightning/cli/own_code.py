"""Errors in a user's own code: a net, data, a transform, a scheduler, a callback."""

import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import NamedTuple

DEBUG_VARIABLE = "KD_LIGHTNING_DEBUG"
# The packages of this program; a frame in one of them is not the user's code.
_OUR_PACKAGES = {
    *("kd_lightning", "torch", "torchvision", "torchmetrics", "lightning", "lightning_utilities", "jsonargparse"),
    *("docstring_parser", "yaml", "numpy", "PIL", "rich", "matplotlib", "tensorboard", "fsspec", "safetensors"),
    *("onnx", "onnxscript", "onnxruntime", "mlxtend", "shtab"),
}
_FRAME = re.compile(r'^ *File "(?P<file>.+)", line (?P<line>\d+)(, in (?P<function>.+))?$')
_INSTALLED = {"site-packages", "dist-packages"}
_CONTEXT = "During handling of the above exception, another exception occurred:"


class Place(NamedTuple):
    """A line of a traceback.

    Attributes:
        file: Path of the source file.
        line: Counted from 1.
        function: Name of the function that it lies in, empty where unknown.
    """

    file: Path
    line: int
    function: str

    def __str__(self) -> str:
        """The place as file:line, relative to the current folder if the file is inside it."""
        file = self.file.relative_to(Path.cwd()) if self.file.is_relative_to(Path.cwd()) else self.file
        return f"{file}:{self.line}" + (f" in {self.function}" if self.function else "")


def whole_traceback(error: BaseException) -> str:
    """An error's traceback with those of its causes, and of the process that it came from."""
    return "".join(traceback.format_exception(error))


def own_place(text: str) -> Place | None:
    """The innermost line of the user's own code in a traceback, None where there is none.

    Args:
        text: The traceback as Python prints it; of a chain of errors, the last that has such a line counts.
    """
    places = [_place(line) for line in text.rpartition(_CONTEXT)[2].splitlines()]
    found = [place for place in places if place is not None and not _is_ours(place.file)]
    # Whoever uses an installed package sees the place in the own code, and not a line of the package.
    own = [place for place in found if not _INSTALLED & set(place.file.parts)]
    chosen = own or found
    return chosen[-1] if chosen else None


def raised_last(text: str) -> tuple[str, str]:
    """Name and first line of the exception that a printed traceback ends with.

    Args:
        text: The traceback as Python prints it, with more before it or not.
    """
    lines = text.splitlines()
    last_frame = max((number for number, line in enumerate(lines) if _FRAME.match(line)), default=-1)
    below = [line for line in lines[last_frame + 1 :] if line.strip()]
    # Source lines and their marks are indented, the exception is not, its further lines may be.
    exception = next((line for line in below if not line.startswith(" ")), below[-1] if below else "")
    name, _, reason = exception.partition(": ")
    return name.rpartition(".")[2], reason or name


def _place(line: str) -> Place | None:
    match = _FRAME.match(line)
    if match is None or match["file"].startswith("<"):  # code that was made at run time has no file
        return None
    return Place(Path(match["file"]), int(match["line"]), match["function"] or "")


def _is_ours(file: Path) -> bool:
    """Whether a file belongs to this program, to a package that it is made of, or to Python."""
    loaded = [getattr(sys.modules.get(name), "__file__", None) for name in _OUR_PACKAGES]
    if any(file.is_relative_to(Path(module).parent) for module in loaded if module):
        return True
    return not _INSTALLED & set(file.parts) and file.is_relative_to(sysconfig.get_path("stdlib"))
