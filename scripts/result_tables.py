"""Write the tables of studies in docs from the studies' JSON files.

    python -m scripts.result_tables

In docs/results each NAME.json has its table at the top of NAME.md. In docs/*.md a table stands between the lines
`<!-- table NAME -->` and `<!-- end of table -->`.
"""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import jsonargparse

from kd_lightning.reports.studies import COLUMNS, as_csv_line, markdown

BLOCK = re.compile(r"(?<=<!-- table )([\w-]+)( -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
_TOP = re.compile(r"\A(?:`[^\n]*\n\n)?(?:\|[^\n]*\n)+")  # the command and the table at the top of a file


def read_lines(results: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a study's table."""
    lines: list[dict[str, Any]] = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    return lines


def with_tables(text: str, results: Path) -> str:
    """A guide's text with the tables that its blocks name."""
    return BLOCK.sub(lambda block: f"{block[1]}{block[2]}\n{markdown(read_lines(results, block[1]))}\n", text)


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
        page.write_text(markdown(lines) + below, encoding="utf-8")
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(map(as_csv_line, lines))
        path.with_suffix(".csv").write_text(table.getvalue(), encoding="utf-8", newline="")
    for guide in Path(docs).glob("*.md"):
        text = guide.read_text(encoding="utf-8")
        if BLOCK.search(text):
            guide.write_text(with_tables(text, results), encoding="utf-8")


if __name__ == "__main__":
    jsonargparse.auto_cli(write)
