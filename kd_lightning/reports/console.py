"""Where tables are printed."""

import os

from rich.console import Console


def table_console(width: int = 120) -> Console:
    """The terminal in its own width, or a file or pipe in COLUMNS or in a width that tables fit into.

    Args:
        width: Characters of a line where the output is no terminal; rich would take 80.
    """
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=width)
