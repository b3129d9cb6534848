"""A run's curves and pictures: from TensorBoard's event files, and from the metrics.csv of Lightning's CSVLogger."""

import csv
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.scalar.metadata import PLUGIN_NAME as SCALARS
from tensorboard.util.tensor_util import make_ndarray

from kd_lightning.runs.files import CONFIG_FILE, EVENT_FILES

POINTS = 500  # of a curve, at most; more can't be seen on the page
CSV_FILE = "metrics.csv"
OWN_LOSSES = ("soft_loss", "hard_loss")
OTHER_CHARTS = 6  # of tags that others named, at most
_NO_CURVES = ("epoch", "step", "hp_metric")  # what Lightning logs in addition to the metrics

Curve = tuple[list[int], list[float]]  # steps and values


class Curves(NamedTuple):
    """What a run logged.

    Attributes:
        scalars: Steps and values by tag.
        images: The last PNG by tag.
    """

    scalars: dict[str, Curve]
    images: dict[str, bytes]


class Chart(NamedTuple):
    """Curves that belong together.

    Attributes:
        title: What they are.
        curves: By tag.
        log: Whether their axis is logarithmic.
    """

    title: str
    curves: dict[str, Curve]
    log: bool


def read_curves(run: Path) -> Curves:
    """Curves and pictures of a run; what is damaged in its files is left out.

    Loggers of Lightning write into folders of their own: these are looked for below the run's folder, too.
    """
    scalars: dict[str, Curve] = {}
    images: dict[str, bytes] = {}
    for folder in _folders(run, EVENT_FILES):
        found = _read_events(folder)
        _add(scalars, found.scalars)
        images |= found.images
    from_csv: dict[str, Curve] = {}
    for folder in _folders(run, CSV_FILE):
        _add(from_csv, _read_csv(folder / CSV_FILE))
    return Curves(from_csv | scalars, images)


def charts_of(scalars: Mapping[str, Curve]) -> list[Chart]:
    """The loss curves of a run, or, where others named the tags, whatever is there but accuracies."""
    own_losses = (
        [name for name in OWN_LOSSES if f"train/{name}" in scalars] if "train/soft_loss" in scalars else ["loss"]
    )
    tags = [f"{part}/{name}" for part in ("train", "val") for name in own_losses]
    own = {tag: scalars[tag] for tag in tags if tag in scalars}
    if own:
        return [Chart("soft and hard loss" if len(own_losses) > 1 else "loss", own, log=True)]
    shown = {tag: curve for tag, curve in scalars.items() if tag not in _NO_CURVES and not is_accuracy(tag)}
    losses = {tag: curve for tag, curve in shown.items() if "loss" in tag.lower()}
    others = [Chart(tag, {tag: shown[tag]}, log=False) for tag in shown if tag not in losses]
    return ([Chart("loss", losses, log=True)] if losses else []) + others[:OTHER_CHARTS]


def accuracy_of(scalars: Mapping[str, Curve]) -> Curve | None:
    """The accuracy on validation examples; where others named the tags, what looks most like it."""
    tags = sorted(filter(is_accuracy, scalars), key=lambda tag: (tag != "val/accuracy", "val" not in tag.lower(), tag))
    usable = [tag for tag in tags if not tag.startswith(("train", "test", "teachers/"))]
    return scalars[usable[0]] if usable else None


def is_accuracy(tag: str) -> bool:
    """Whether a tag names an accuracy."""
    return "acc" in tag.lower()


def _folders(run: Path, pattern: str) -> list[Path]:
    """Folders with such files: the run's own, or else those below it that belong to no other run."""
    if any(run.glob(pattern)):
        return [run]
    found = {file.parent for file in run.rglob(pattern)}
    return sorted(
        (folder for folder in found if not any((each / CONFIG_FILE).is_file() for each in _between(folder, run))),
        key=_version,
    )


def _between(folder: Path, run: Path) -> Iterator[Path]:
    """The folder and those above it, below the run's."""
    yield from (each for each in (folder, *folder.parents) if each.is_relative_to(run) and each != run)


def _version(folder: Path) -> tuple[str, int, str]:
    """Sorts version_2 before version_10: a resumed run goes on in a new one."""
    number = folder.name.rpartition("_")[2]
    return str(folder.parent), int(number) if number.isdigit() else -1, folder.name


def _read_events(folder: Path) -> Curves:
    events = EventAccumulator(str(folder), size_guidance={"scalars": POINTS, "images": 1, "tensors": POINTS})
    with suppress(Exception):  # a damaged record raises whatever its parser does; the rest is still there
        events.Reload()
    tags: dict[str, Any] = events.Tags()
    scalars = {tag: _curve((point.step, point.value) for point in events.Scalars(tag)) for tag in tags["scalars"]}
    for tag in tags["tensors"]:  # where TensorFlow writes its scalars
        if events.SummaryMetadata(tag).plugin_data.plugin_name == SCALARS:
            points = ((point.step, float(make_ndarray(point.tensor_proto))) for point in events.Tensors(tag))
            scalars[tag] = _curve(points)
    images = {tag: events.Images(tag)[-1].encoded_image_string for tag in tags["images"]}
    return Curves(scalars, images)


def _read_csv(file: Path) -> dict[str, Curve]:
    """The columns of a metrics.csv; a row holds some of them."""
    points: dict[str, list[tuple[int, float]]] = {}
    with suppress(OSError, ValueError, csv.Error), file.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(opened):
            step = int(float(row["step"] or 0)) if row.get("step") else 0
            for tag, text in row.items():
                if tag and text and isinstance(text, str) and tag != "step":
                    with suppress(ValueError):  # a text among the numbers
                        points.setdefault(tag, []).append((step, float(text)))
    return {tag: _thinned(_curve(found)) for tag, found in points.items()}


def _curve(points: Any) -> Curve:  # Any: pairs of step and value
    found = list(points)
    return [step for step, _ in found], [value for _, value in found]


def _thinned(curve: Curve) -> Curve:
    every = math.ceil(len(curve[0]) / POINTS) or 1
    return curve[0][::every], curve[1][::every]


def _add(scalars: dict[str, Curve], newer: Mapping[str, Curve]) -> None:
    """Add the curves of a later part of the run, which replaces what it did again."""
    for tag, (steps, values) in newer.items():
        before = scalars.get(tag, ([], []))
        kept = [(step, value) for step, value in zip(*before, strict=True) if not steps or step < steps[0]]
        scalars[tag] = _curve([*kept, *zip(steps, values, strict=True)])
