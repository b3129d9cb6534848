"""The report: run folders -> one HTML page that needs nothing else, and the same as Markdown, CSV and PNG."""

import base64
import html
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.reports import plots
from kd_lightning.reports.rows import Row, group_runs, print_table, table_rows, title, write_tables
from kd_lightning.reports.run_folders import Run, common_parent, find_runs, read_run
from kd_lightning.runs.files import EVENT_FILES, flat, shown, write_atomically, write_text

PROG = "python -m kd_lightning report"
# Values that say where a run lies or what it shows, not what it is.
NOT_COMPARED = ("run_dir", "seed_everything", "save_every", "pictures_every", "data.init_args.data_dir")
NAME_LENGTH = 100  # of a picture's file, at most
POINTS = 500  # of a curve, at most; more can't be told apart on the page

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e5e5e5; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #999; }
.problem { color: #a33; } .scroll { overflow-x: auto; } code { background: #f4f4f4; padding: .1rem .3rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; }
figcaption { color: #666; font-size: .85rem; } svg, img { max-width: 100%; height: auto; }
"""


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
        name: Of its PNG file.
        caption: What it shows, for people.
        content: A figure to draw, or a PNG's bytes.
    """

    name: str
    caption: str
    content: Figure | bytes


class Curves(NamedTuple):
    """What a run's event files hold.

    Attributes:
        scalars: Steps and values by tag.
        images: The last PNG by tag.
    """

    scalars: dict[str, tuple[list[int], list[float]]]
    images: dict[str, bytes]


def run_report(arguments: Sequence[str]) -> None:
    """Print the table of the runs that a command line names, and write the report.

    Args:
        arguments: Run folders, or folders of runs, and --output.

    Raises:
        FileNotFoundError: If a folder holds no run.
    """
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
    options = parser.parse_args(list(arguments))
    folders = find_runs(options.runs)
    groups = group_runs([read_run(folder) for folder in folders])
    rows = table_rows(groups)
    # One run that is named itself keeps its report; a folder of runs keeps that of all, be there one or many.
    named = len(folders) == len(options.runs) == 1 and Path(options.runs[0]) == folders[0]
    by_default = folders[0] if named else common_parent(folders)
    output = Path(options.output) if options.output else by_default
    print_table(rows)
    problems = [f"{shown(run.folder)}: {run.problem}" for members in groups for run in members if run.problem]
    for problem in problems:
        if " is damaged: " in problem:  # the table says the others
            print(problem)
    write_tables(rows, problems, output)
    pictures = dict(_sections(groups))
    for section in pictures.values():
        for picture in section:
            _write_png(picture, output / "report-pictures")
    page = _page(rows, groups, problems, pictures)
    write_text(output / "report.html", page)
    print(f"written: {output / 'report.html'}, report.md, report.csv, report-pictures/")


def read_curves(run: Path) -> Curves:
    """Curves and pictures of a run's event files; what is damaged in them is left out."""
    if not any(run.glob(EVENT_FILES)):
        return Curves({}, {})
    events = EventAccumulator(str(run), size_guidance={"scalars": POINTS, "images": 1})
    with suppress(Exception):  # a damaged record raises whatever its parser does; the rest is still there
        events.Reload()
    tags: dict[str, Any] = events.Tags()
    scalars = {}
    for tag in tags["scalars"]:
        points = events.Scalars(tag)
        scalars[tag] = ([point.step for point in points], [point.value for point in points])
    images = {tag: events.Images(tag)[-1].encoded_image_string for tag in tags["images"]}
    return Curves(scalars, images)


def _sections(groups: Sequence[Sequence[Run]]) -> Iterator[tuple[str, list[Picture]]]:
    """Headings and pictures of the page; each group is shown by its first tested run."""
    shown = [next((run for run in members if run.metrics), members[0]) for members in groups]
    curves = {run.folder: read_curves(run.folder) for run in shown}
    names = _names(shown)
    yield (
        "Loss curves",
        [
            Picture(
                f"{names[run.folder]}-loss",
                f"{names[run.folder]}: {what}",
                plots.curves(series, "nats per example", log=True),
            )
            for run in shown
            for what, series in _loss_series(curves[run.folder].scalars)
        ],
    )
    unit = " and ".join(dict.fromkeys(str(run.metrics.get("unit", "images")) for run in shown))
    accuracy = {
        f"{names[run.folder]} {tag.partition('/')[0]}": points
        for run in shown
        for tag, points in curves[run.folder].scalars.items()
        if tag == "val/accuracy"
    }
    if accuracy:
        yield "Accuracy", [Picture("accuracy", f"on validation {unit}", plots.curves(accuracy, "accuracy", log=False))]
    tables = {names[run.folder]: run.details.get("tables", {}) for run in shown}
    bins = {name: table["reliability"] for name, table in tables.items() if "reliability" in table}
    rates = {name: _class_errors(table["confusion"]) for name, table in tables.items() if "confusion" in table}
    if bins:
        yield "Reliability", [Picture("reliability", "how right, how sure", plots.reliability(bins))]
    if rates:
        yield "Errors by class", [Picture("errors-by-class", f"test {unit}", plots.errors_by_class(rates))]
    yield (
        "Confusion",
        [
            Picture(f"{name}-{kind.replace('_', '-')}", f"{name}, {what}", plots.confusion(table[kind], ylabel=ylabel))
            for name, table in tables.items()
            for kind, what, ylabel in (
                ("confusion", f"test {unit}", "label"),
                ("teacher_confusion", "student against its teachers", "teachers' prediction"),
                ("sequence_confusion", "whole sequences", "label"),
            )
            if kind in table
        ],
    )
    yield (
        "Pictures",
        [
            Picture(
                f"{names[run.folder]}-{tag.replace(' ', '-')}", f"{names[run.folder]}: {tag}, validation {unit}", image
            )
            for run in shown
            for tag, image in sorted(curves[run.folder].images.items())
            if tag != "confusion"
        ],
    )


def _names(runs: Sequence[Run]) -> dict[Path, str]:
    """What to call each run: its folder's name, or more of its path where that is not enough."""
    parent = common_parent([run.folder for run in runs])
    counted = Counter(run.name for run in runs)
    return {
        run.folder: run.name if counted[run.name] == 1 else shown(run.folder.absolute().relative_to(parent))
        for run in runs
    }


def _loss_series(scalars: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    soft = "train/soft_loss" in scalars
    names = ["soft_loss", "hard_loss"] if soft else ["loss"]
    series = {f"{part}/{name}": scalars.get(f"{part}/{name}") for part in ("train", "val") for name in names}
    found = {name: points for name, points in series.items() if points is not None}
    if found:
        yield "soft and hard loss" if soft else "loss", found


def _class_errors(confusion: Sequence[Sequence[int]]) -> list[float]:
    """Error rate of each class in percent, from counts by [label][prediction]."""
    return [100 * (sum(line) - line[label]) / sum(line) if sum(line) else 0.0 for label, line in enumerate(confusion)]


def _differences(groups: Sequence[Sequence[Run]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the values that the groups' configurations differ in."""
    configs = [dict(flat(members[0].config)) for members in groups]
    keys = sorted({key for config in configs for key in config})
    lines = []
    for key in keys:
        values = [json.dumps(config.get(key)) if key in config else "" for config in configs]
        if len(set(values)) > 1 and not key.startswith(NOT_COMPARED):
            lines.append([key.replace("init_args.", ""), *(value.strip('"') for value in values)])
    names = _names([members[0] for members in groups])
    return ["setting", *(names[members[0].folder] for members in groups)], lines


def _page(
    rows: Sequence[Row],
    groups: Sequence[Sequence[Run]],
    problems: Sequence[str],
    pictures: dict[str, list[Picture]],
) -> str:
    cells = [row.cells() for row in rows]
    body = [f"<p>{html.escape(title(rows))}.</p>", _table(list(cells[0]), [list(line.values()) for line in cells])]
    if problems:
        items = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems)
        body.append(f'<h2>Not finished or damaged</h2><ul class="problem">{items}</ul>')
    costs = _cost_lines(groups)
    if costs:
        header = ["net", "parameters", "file", "FLOPs an example", "one example", "a batch", "batch size"]
        body.append(f"<h2>What the nets cost</h2>{_table(header, costs)}")
    for heading, section in pictures.items():
        if section:
            figures = "".join(map(_figure, section))
            body.append(f'<h2>{html.escape(heading)}</h2><div class="pictures">{figures}</div>')
    header, lines = _differences(groups)
    if lines:
        body.append(f"<h2>What the configurations differ in</h2>{_table(header, lines)}")
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Distillation report</title>'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'\">"
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body><h1>Distillation report</h1>'
        f"{''.join(body)}<p><small>{now}, {sum(map(len, groups))} runs, <code>{PROG}</code></small></p></body></html>\n"
    )


def _cost_lines(groups: Sequence[Sequence[Run]]) -> list[list[str]]:
    lines = []
    names = _names([members[0] for members in groups])
    for members in groups:
        run = next((run for run in members if run.metrics.get("costs")), None)
        for who, costs in run.metrics["costs"].items() if run else ():
            lines.append(
                [
                    names[members[0].folder] + (", its teachers" if who == "teachers" else ""),
                    f"{costs['parameters']:,}",
                    f"{costs['file_bytes'] / 1e6:.2f} MB",
                    f"{costs['flops'] / 1e6:,.2f} M",
                    f"{costs['single_ms']:.3f} ms",
                    f"{costs['batch_ms']:.2f} ms",
                    str(costs["batch_size"]),
                ]
            )
    return lines


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(picture: Picture) -> str:
    if isinstance(picture.content, bytes):
        source = base64.b64encode(picture.content).decode()
        drawn = f'<img alt="{html.escape(picture.caption)}" src="data:image/png;base64,{source}">'
    else:
        drawn = plots.as_svg(picture.content)
    return f"<figure>{drawn}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"


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
