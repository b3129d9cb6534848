"""The code blocks of README and the guides, which tests run."""

import os
import re
import subprocess
import sys
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


def run_python(script: Path) -> str:
    """What a guide's Python file prints, run in its folder by a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, script.name]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
