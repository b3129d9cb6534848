"""Text for people: counts with their nouns, and sentences that fit a terminal."""

import os
import sys
import textwrap
from typing import IO

COMMAND = "next: "  # begins a line that holds a command to be copied


def counted(count: float, noun: str, plural: str | None = None) -> str:
    """A count with its noun: 1 error, 2 errors, 1,234 images.

    Args:
        count: How many.
        noun: In the singular.
        plural: Where it is not the noun and an s.
    """
    return f"{count:,} {noun_for(count, noun, plural)}"


def noun_for(count: float, noun: str, plural: str | None = None) -> str:
    """Only the noun, in the form that fits the count; arguments as of `counted`."""
    return noun if count == 1 else plural or f"{noun}s"


def say(text: str, stream: IO[str] | None = None, end: str = "\n") -> None:
    """Print text for people, see `wrapped`.

    Args:
        text: One or more lines.
        stream: Where to; standard output by default.
        end: What follows it.
    """
    stream = stream or sys.stdout
    print(wrapped(text, stream), end=end, file=stream, flush=True)


def wrapped(text: str, stream: IO[str] | None) -> str:
    """Text with its lines broken between words, where it goes to a terminal; commands stay whole, to be copied.

    Args:
        text: One or more lines.
        stream: Where it will be printed.
    """
    try:
        width = 0 if stream is None else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):  # a file, a pipe, or an object that is no file
        width = 0
    if not width:
        return text
    lines = text.splitlines(keepends=True)
    return "".join(line if len(line) <= width or line.startswith(COMMAND) else _filled(line, width) for line in lines)


def _filled(line: str, width: int) -> str:
    end = "\n" * line.endswith("\n")
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) + end
