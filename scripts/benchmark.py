"""Measure what the frame costs: against a hand-written loop, and against the loop as most people write it.

    python -m scripts.benchmark --quick true          # a minute, fewer cases
    python -m scripts.benchmark                       # everything, about 30 minutes on two cores; docs/benchmark.*
    python -m scripts.benchmark --only '["On a GPU"]'  # needs a GPU; the other parts are meant for the CPU
    python -m scripts.benchmark --only '[Training]'   # one part again, the others as they are in docs/benchmark.json
    python -m scripts.benchmark --only '["Stored teachers and the plain student"]'
    python -m scripts.benchmark --only '["Pictures in folders"]' --pictures cifar10/train

All cases of a table run in turns, several times over; medians are reported. Let nothing else run. Only the part about
stored teachers starts a process for each fit; in the others one process does all.
The images are the 5,000 of mnist5k repeated to 60,000: time does not depend on what they show. The pictures in folders
are your own, of 32 x 32 in ten classes, such as those of CIFAR-10.
"""

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonargparse
import lightning
import torch

from kd_lightning.runs.hardware import hardware_of
from scripts.benchmarks.loops import DEVICE, Bench
from scripts.benchmarks.parts import (
    measure_memory,
    time_crash_safety,
    time_data_path,
    time_fill,
    time_startup,
    time_subnormal_numbers,
)
from scripts.benchmarks.pictures import PictureFits
from scripts.benchmarks.turns import frame_cases, gpu_cases, growth_cases, step_cases, stored_cost, time_in_turns

TRAINING, DATA_PATH, START_UP = "Training", "Data path, images per second", "Start-up, seconds of a process"
STORED, PICTURES = "Stored teachers and the plain student", "Pictures in folders"
ON_GPU = "On a GPU"


def machine() -> dict[str, str]:
    """What a figure was measured with, and when."""
    return {
        "processor": hardware_of(DEVICE),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _markdown(parts: dict[str, Any]) -> Iterator[str]:
    yield "# What a step costs\n"
    yield "Written by `python -m scripts.benchmark`. Medians; teachers 2x1200.\n"
    if TRAINING in parts:
        yield from _in_words(parts[TRAINING]["result"])
    yield "- *hand-written loop*: the shortest loop over the same net, batches and optimizer, without Lightning."
    yield "- *fit*: `python -m kd_lightning fit`."
    yield "- *usual loop*: torchvision's transforms for each image, and each teacher's forward pass at each step."
    yield "- In *stored teachers and the plain student* each fit is a process of its own; elsewhere one does all."
    yield "- A *ratio* is the median of each turn's ratio, not that of the medians."
    yield "- *turns*: how often each loop ran, in turns with the others; *fastest* is the fastest of them.\n"
    for title, part in parts.items():
        rows, day = part["result"], part["measured_at"][:10]
        yield f"## {title}\n"
        yield f"On {part['processor']}, torch {part['torch']}, Lightning {part['lightning']}, {day}.\n"
        if isinstance(rows, list):
            yield "| loop | student | batch | teachers | examples | turns | s per epoch | fastest | examples/s |"
            yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
            for row in rows:
                yield (
                    f"| {row['name']} | 2x{row['width']} | {row['batch']} | {row['teachers']} | {row['examples']:,} "
                    f"| {row['turns']} | {row['seconds_per_epoch']:.2f} | {row['fastest']:.2f} "
                    f"| {row['examples_per_second']:,.0f} |"
                )
        else:
            yield "| what | figure |\n| --- | ---: |"
            yield from (f"| {name} | {_number(value)} |" for name, value in rows.items())
        yield ""


def _in_words(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What the main table says: an epoch's seconds with the most teachers, stored, live and in the usual loop."""
    most = max(row["teachers"] for row in rows)
    seconds = {row["name"]: row["seconds_per_epoch"] for row in rows if row["teachers"] in (0, most)}
    wanted = ("fit, plain", "fit, distilled, stored", "fit, distilled, live", "usual loop")
    if seconds.keys() >= set(wanted):
        plain, stored, live, usual = (f"{seconds[name]:.1f} s" for name in wanted)
        yield (
            f"An epoch of MNIST takes {plain} without a teacher, {stored} with {most} teachers whose logits are "
            f"stored, {live} with the same teachers live, and {usual} in the usual loop.\n"
        )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.2f}"


def run(
    quick: bool = False,
    output: str = "docs",
    teachers: int = 10,
    repeats: int = 5,
    only: list[str] | None = None,
    pictures: str | None = None,
    picture_teacher: str = "kd_lightning.ResNet",
    images: int = 4000,
    epochs: int = 20,
    views: int = 4,
) -> None:
    """Measure, and write benchmark.json and benchmark.md.

    Args:
        quick: A minute's run: two teachers, one turn, only the main table.
        output: Folder of the two files.
        teachers: Teachers of the large ensemble.
        repeats: Turns of the main table.
        only: Names of the parts to measure, as they stand in benchmark.md; the others stay as they are there.
        pictures: Folder with a folder of pictures per class, for the part about pictures; None leaves that part out.
        picture_teacher: Its teacher's net, as `--model.net` takes it: a class path, or JSON with class_path and
            init_args. The default is ResNet-20.
        images: How many pictures it uses.
        epochs: How long its student trains.
        views: Views of each picture under crop and mirror.
    """
    if quick:
        teachers, repeats = 2, 1
    folder = Path(output)
    with tempfile.TemporaryDirectory() as root:
        bench = cache(lambda: Bench(Path(root) / "digits", teachers))  # trains teachers, which not every part needs
        on_pictures = PictureFits(Path(root) / "fits", Path(pictures or ""), picture_teacher, images, epochs, views)
        parts: dict[str, Callable[[], Any]] = {
            TRAINING: lambda: time_in_turns(step_cases(bench(), 800, 128, usual_steps=20 if quick else 100), repeats),
            "Widths and batches": lambda: time_in_turns(frame_cases(bench(), [300, 800, 1200], [128, 512]), 3),
            STORED: lambda: stored_cost(bench(), repeats),
            "Subnormal numbers": lambda: time_subnormal_numbers(bench()),
            "Growth": lambda: time_in_turns(growth_cases(bench()), 1),
            DATA_PATH: lambda: time_data_path(bench(), repeats),
            "Filling the store, 60,000 images": lambda: time_fill(bench(), teachers, 3),
            "Peak anonymous memory, ten teachers, 25 views, MB": lambda: measure_memory(bench(), teachers),
            "Crash safety, a run of the quickstart's student": lambda: time_crash_safety(bench()),
            PICTURES: on_pictures.seconds,
            START_UP: lambda: time_startup(repeats),
            ON_GPU: lambda: time_in_turns(gpu_cases(bench(), usual_steps=100), repeats),
        }
        if DEVICE.type != "cuda":
            del parts[ON_GPU]
        if pictures is None:
            del parts[PICTURES]
        chosen = [TRAINING, DATA_PATH, START_UP] if quick else only or list(parts)
        if unknown := set(chosen) - parts.keys():
            sys.exit(f"error: no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        earlier = folder / "benchmark.json"
        kept = json.loads(earlier.read_text(encoding="utf-8"))["parts"] if not quick and earlier.is_file() else {}
        measured = {name: {**machine(), "result": parts[name]()} for name in chosen}
    results = {"parts": kept | measured}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "benchmark.md").write_text("\n".join(_markdown(results["parts"])), encoding="utf-8")
    print((folder / "benchmark.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
