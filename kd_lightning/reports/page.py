"""The report: run folders -> one HTML page that needs nothing else, and the same as Markdown, CSV and PNG."""

import html
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import jsonargparse
from matplotlib.figure import Figure

from kd_lightning.reports import markup, plots
from kd_lightning.reports.comparison import Group, findings
from kd_lightning.reports.rows import ResultRow, group_names, group_runs, table_rows
from kd_lightning.reports.run_folders import Run, common_parent, find_runs, read_run
from kd_lightning.reports.sections import Picture, Section, sections
from kd_lightning.reports.settings import cost_table, differences
from kd_lightning.reports.tables import cells_of, notes, print_report, title, write_tables
from kd_lightning.runs.files import from_here, read_json, shown, write_atomically, write_text
from kd_lightning.runs.texts import counted, say

PROG = "python -m kd_lightning report"
NAME_LENGTH = 100  # of a picture's file, at most
VERDICT_FILE, VERDICT_PICTURE = "verdict.json", "verdict.png"  # see verdict_files


class Compared(NamedTuple):
    """Runs side by side.

    Attributes:
        groups: Runs that differ only by their seed.
        names: What each group is called.
        rows: The table's.
        findings: What is odd about the results, a line each, see `comparison.findings`.
        problems: Runs that are not whole, a line each.
    """

    groups: Sequence[Group]
    names: Sequence[str]
    rows: Sequence[ResultRow]
    findings: list[str]
    problems: list[str]


def run_report(arguments: Sequence[str]) -> None:
    """Print the table of the runs that a command line names, and write the report.

    Args:
        arguments: Run folders, or folders of runs, and --output.

    Raises:
        FileNotFoundError: If a folder holds no run.
    """
    options = report_parser().parse_args(list(arguments))
    folders = find_runs(options.runs)
    # One run that is named itself keeps its report; a folder of runs keeps that of all, be there one or many.
    named = len(folders) == len(options.runs) == 1 and Path(options.runs[0]) == folders[0]
    by_default = folders[0] if named else common_parent(folders)
    compared = compare_runs([read_run(folder) for folder in folders])
    output = Path(options.output) if options.output else by_default
    # The table shows all other problems.
    shown_too = [text for text in compared.problems if " is damaged: " in text or ": stopped after " in text]
    print_report(compared.rows, [*compared.findings, *shown_too])
    write_report(compared, output)
    say(f"written: {from_here(output) / 'report.html'}, report.md, report.csv, report-pictures/")


def report_parser() -> jsonargparse.ArgumentParser:
    """The options of `report`."""
    parser = jsonargparse.ArgumentParser(
        prog=PROG,
        description="Compare runs: a table here, and a page with curves and pictures. Reads what the runs left behind.",
        exit_on_error=False,
    )
    parser.add_argument("runs", nargs="+", help="Folders of runs, or folders that hold such folders.")
    parser.add_argument(
        "--output",
        default=None,
        help="Folder for report.html, .md, .csv and pictures; by default the runs' parent, or the one run given.",
    )
    return parser


def compare_runs(runs: Sequence[Run]) -> Compared:
    """Group runs and compare the groups.

    Args:
        runs: At least one.
    """
    groups = group_runs(runs)
    names = group_names(groups)
    return Compared(groups, names, table_rows(groups), findings(groups, names), list(_problems(groups)))


def write_report(compared: Compared, output: Path, verdict: Path | None = None) -> None:
    """Write report.html, report.md, report.csv and the pictures.

    Args:
        compared: The runs.
        output: The folder.
        verdict: Folder of a study's verdict, by default the output; one that lies there stands first on the page.
    """
    groups, names, rows, found, problems = compared
    write_tables(rows, found, problems, output)
    parts = sections(groups, names)
    for picture in (picture for section in parts for picture in section.pictures):
        _write_png(picture, output / "report-pictures")
    header = list(cells_of(rows)[0])
    made_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    body = [
        *_verdict(verdict or output),
        markup.paragraph(f"{title(rows)[0].upper()}{title(rows)[1:]}."),
        markup.table(header, [list(line.values()) for line in cells_of(rows)]),
        *([markup.items(notes(header), "note")] if notes(header) else []),
        *(markup.paragraph(text, "finding") for text in found),
        *([markup.heading("Not finished or damaged"), markup.items(problems, "problem")] if problems else []),
        *(part for section in parts for part in _section(section)),
        *_tables_at_the_end(groups, names),
        f"<p><small>{made_at}, {counted(sum(map(len, groups)), 'run')}, "
        f"<code>{html.escape(_command(groups, output))}</code></small></p>",
    ]
    write_text(output / "report.html", markup.page(f"Distillation report: {shown(from_here(output))}", body))


def _command(groups: Sequence[Group], output: Path) -> str:
    """The command that writes the report again, with the folder that holds all runs."""
    folders = [run.folder for members in groups for run in members]
    runs = folders[0] if len(folders) == 1 else common_parent(folders)
    elsewhere = f" --output {quote(shown(from_here(output)))}" if output.absolute() != runs.absolute() else ""
    return f"{PROG} {quote(shown(from_here(runs)))}{elsewhere}"


def _problems(groups: Sequence[Group]) -> Iterator[str]:
    for run in (run for members in groups for run in members):
        texts = [text for text in (run.problem, run.stopped_early) if text]
        if texts:
            yield f"{shown(run.folder)}: {'; '.join(texts)}"


def _verdict(folder: Path) -> Iterator[str]:
    """The verdict of a study, where one lies in the report's folder."""
    file, picture = folder / VERDICT_FILE, folder / VERDICT_PICTURE
    if not file.is_file():
        return
    try:
        lines = read_json(file).get("text")
    except (ValueError, OSError) as error:
        yield markup.paragraph(str(error), "problem")
        return
    if not isinstance(lines, list) or not lines:
        return
    texts = "".join(markup.paragraph(str(line)) for line in lines)
    drawn = markup.image(picture.read_bytes(), "errors by seed") if picture.is_file() else ""
    yield f'<div class="verdict">{texts}{drawn}</div>'


def _section(section: Section) -> Iterator[str]:
    yield markup.heading(section.heading)
    figures = (markup.figure(picture.content, picture.caption) for picture in section.pictures)
    yield markup.pictures(figures, wide=section.wide)


def _tables_at_the_end(groups: Sequence[Group], names: Sequence[str]) -> Iterator[str]:
    header, lines = cost_table(groups, names)
    if lines:
        yield markup.heading("What the nets cost")
        yield markup.table(header, lines)
    header, lines = differences(groups, names)
    if lines:
        yield markup.heading("What the configurations differ in")
        yield markup.table(header, lines, long=True)


def _write_png(picture: Picture, folder: Path) -> None:
    content = plots.as_png(picture.content) if isinstance(picture.content, Figure) else picture.content
    write_atomically(folder / f"{_file_name(picture.name)}.png", lambda part: part.write_bytes(content))


def _file_name(text: str) -> str:
    """A text, which may hold anything, as a file's name that every locale and file system takes."""
    name = re.sub(r"[^\w.]+", "-", text).strip(".-")
    if text.isascii() and len(name) <= NAME_LENGTH:
        return name
    plain = re.sub("[^A-Za-z0-9_.]+", "-", name)[:NAME_LENGTH]
    return f"{plain}-{zlib.crc32(text.encode('utf-8', 'replace')):08x}"  # keeps apart what is now alike
