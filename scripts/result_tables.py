"""Write the tables of studies in docs from the studies' JSON files.

    python -m scripts.result_tables

In docs/results each NAME.json has its table at the top of NAME.md. In docs/*.md a table stands between the lines
`<!-- table NAME -->` and `<!-- end of table -->`. `<!-- table NAME against ROW -->` has the errors that each row saves
against another one, paired by seed. A NAME without a JSON file is the whole of NAME.md, which another script wrote.
"""

import json
import re
from pathlib import Path
from typing import Any

import jsonargparse

from kd_lightning.reports.studies import markdown, write_csv
from kd_lightning.reports.verdict import paired

BLOCK = re.compile(r"(?<=<!-- table )([\w-]+)(?: against ([\w-]+))? -->\n.*?(?=<!-- end of table -->)", re.DOTALL)
_TOP = re.compile(r"\A(?:`[^\n]*\n\n)?(?:\|[^\n]*\n)+")  # the command and the table at the top of a file


def read_lines(results: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a study's table."""
    lines: list[dict[str, Any]] = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    return lines


def with_tables(text: str, results: Path) -> str:
    """A guide's text with the tables that its blocks name."""

    def filled(block: re.Match[str]) -> str:
        name, other = block.groups()
        if not (results / f"{name}.json").is_file():
            table = (results / f"{name}.md").read_text(encoding="utf-8")
        elif other is None:
            table = unbroken(markdown(read_lines(results, name)))
        else:
            table = saved_errors(read_lines(results, name), other)
        return f"{block[0].partition(chr(10))[0]}\n\n{table}\n"

    return BLOCK.sub(filled, text)


def unbroken(table: str) -> str:
    """A table in which browsers don't break a mean from its deviation."""
    return table.replace(" ± ", "\u00a0±\u00a0")


def saved_errors(lines: list[dict[str, Any]], other: str) -> str:
    """The errors that rows of several seeds save against another row, with a 95 % interval, as Markdown."""
    runs = {line["row"]: _by_seed(line) for line in lines}
    text = "| --rows | errors saved | 95 % interval |\n| --- | ---: | ---: |\n"
    for name, own in runs.items():
        if name == other or len(own) != len(runs[other]):
            continue
        found = paired(runs[other], own)
        text += f"| `{name}` | {found.mean:.1f} | {found.low:.1f} to {found.high:.1f} |\n"
    return text


def _by_seed(line: dict[str, Any]) -> list[dict[str, int]]:
    runs = [{"seed": int(run["run"].rpartition("-")[2]), "errors": run["errors"]} for run in line["runs"]]
    return sorted(runs, key=lambda run: run["seed"])


def write(docs: str = "docs") -> None:
    """Write them.

    Args:
        docs: Folder of the guides, with results in it.
    """
    results = Path(docs) / "results"
    for path in sorted(results.glob("*.json")):
        lines, page = json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".md")
        if not (isinstance(lines, list) and lines and "what" in lines[0]):
            continue  # of another program
        below = _TOP.sub("", page.read_text(encoding="utf-8"))
        page.write_text(unbroken(markdown(lines)) + below, encoding="utf-8")
        write_csv(lines, path.with_suffix(".csv"))
    for guide in Path(docs).glob("*.md"):
        text = guide.read_text(encoding="utf-8")
        if BLOCK.search(text):
            guide.write_text(with_tables(text, results), encoding="utf-8")


if __name__ == "__main__":
    jsonargparse.auto_cli(write)
