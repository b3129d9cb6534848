"""The code blocks of README and the guides, which tests run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def blocks(guide: Path, language: str) -> list[str]:
    """The blocks of a language, in order; a command that goes on after a backslash is one line."""
    text = guide.read_text(encoding="utf-8").replace("\\\n", "")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def arguments_of(block: str) -> list[list[str]]:
    """The arguments of each `python -m kd_lightning` in a block of commands, without the shell's quotes."""
    lines = (line.partition("#")[0].replace("'", "") for line in block.splitlines())
    return [line.partition("python -m kd_lightning ")[2].split() for line in lines if "python -m kd_lightning " in line]
