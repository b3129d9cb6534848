"""Draw the pictures of docs/: one digit's targets, errors by row, mended errors, the sweep.

python -m scripts.pictures --data_dir data   # after the studies of configs/mnist
"""

import json
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kd_lightning.data.mnist_files import Digits, read_digits
from kd_lightning.reports import plots
from kd_lightning.teachers.loading import load_teachers

DOUBT = 0.9  # confidence of the teacher about the digit that is shown
MENDED = 24  # digits shown


def digit_targets(teacher: Path, test: Digits) -> Figure:
    """A test digit that the teacher gets right with some doubt: its label, and the answer at T = 1 and T = 20."""
    logits = logits_of(teacher, test.images)
    right = logits.argmax(dim=1) == test.labels
    confidence = torch.softmax(logits, dim=1).max(dim=1).values
    row = int(torch.where(right, (confidence - DOUBT).abs(), 1.0).argmin())
    answers = {
        "label": torch.nn.functional.one_hot(test.labels[row], 10).tolist(),
        "teacher, T = 1": torch.softmax(logits[row], dim=0).tolist(),
        "teacher, T = 20": torch.softmax(logits[row] / 20, dim=0).tolist(),
    }
    return plots.softened_targets((test.images[row, 0] / 255).tolist(), int(test.labels[row]), answers)


def mended_errors(plain: Path, distilled: Path, test: Digits) -> Figure:
    """Test digits that the plain student gets wrong and the distilled one right."""
    before = logits_of(plain, test.images).argmax(dim=1)
    after = logits_of(distilled, test.images).argmax(dim=1)
    mended = (before != test.labels) & (after == test.labels)
    spoilt = (before == test.labels) & (after != test.labels)
    rows = mended.nonzero().squeeze(1)[:MENDED].tolist()
    heading = (
        f"{len(rows)} of the {int(mended.sum())} digits that the plain student gets wrong and the distilled one right "
        f"(the other way round: {int(spoilt.sum())}); above each: plain → distilled"
    )
    titles = [f"{before[row]} → {after[row]}" for row in rows]
    return plots.mistakes([(test.images[row, 0] / 255).tolist() for row in rows], titles, heading, columns=12)


def table_errors(results: list[dict[str, Any]]) -> Figure:
    """Errors of each row with their spread, and the paper's where it has them."""
    rows = [(result["what"], result["mean"], result["sd"] or 0.0, result["paper"]) for result in results]
    return plots.errors_by_row(rows, "errors of 10,000 test images")


def temperature_sweep(results: list[dict[str, Any]]) -> Figure:
    """Errors against temperature, one picture per width of the student."""
    widths = sorted({int(result["row"].split("-")[1]) for result in results})
    with plots.new_figure(3 * len(widths), 2.8) as figure:
        all_axes = figure.subplots(1, len(widths), squeeze=False)[0]
        for axes, width in zip(all_axes, widths, strict=True):
            rows = [result for result in results if result["row"].startswith(f"sweep-{width}-")]
            temperatures = [float(result["row"].split("-")[2]) for result in rows]
            spreads = [result["sd"] or 0 for result in rows]
            axes.errorbar(temperatures, [result["mean"] for result in rows], yerr=spreads, fmt="o-", capsize=3)
            axes.set(xscale="log", xlabel="temperature", title=f"student 2x{width}")
            axes.set_xticks([1, 2, 4, 8, 20, 40], ["1", "2", "4", "8", "20", "40"], minor=False)
            axes.minorticks_off()
        all_axes[0].set_ylabel("errors of 10,000")
        return figure


@torch.no_grad()
def logits_of(run: Path, images: Tensor) -> Tensor:
    """Logits of a run's net on uint8 images, (examples, classes)."""
    (loaded,) = load_teachers([str(run)])
    net = loaded.net.eval()
    return torch.cat([net(part.float() / 255) for part in torch.split(images, 1000)])


def run(data_dir: str = "data", root: str = "runs", results: str = "docs/results", output: str = "docs") -> None:
    """Draw the pictures whose results exist.

    Args:
        data_dir: Where MNIST is.
        root: Folder of all studies' runs.
        results: Folder of the summaries.
        output: Folder of the pictures.
    """
    runs = Path(root) / "mnist-table"
    figures: dict[str, Figure] = {}
    teacher, plain, distilled = runs / "best-teacher-0", runs / "plain-300-0", runs / "distilled-300-0"
    if teacher.is_dir():
        _, test = read_digits("MNIST", data_dir)
        figures["targets"] = digit_targets(teacher, test)
        if plain.is_dir() and distilled.is_dir():
            figures["mended"] = mended_errors(plain, distilled, test)
    for name, groups, draw in (
        ("table", ("table", "ensemble", "strong"), table_errors),
        ("sweep", ("sweep",), temperature_sweep),
    ):
        files = [Path(results) / f"mnist-{group}.json" for group in groups]
        found = [row for file in files if file.is_file() for row in json.loads(file.read_text(encoding="utf-8"))]
        rows = {row["row"]: row for row in found}  # a row that two groups have is drawn once
        if rows:
            figures[name] = draw(list(rows.values()))
    Path(output).mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = Path(output) / f"{name}.png"
        figure.savefig(path, dpi=150)
        print(f"written: {path}")


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
