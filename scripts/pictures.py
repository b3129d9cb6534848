"""Draw the pictures of docs/: softened probabilities, one digit's targets, the table's errors, the sweep over T.

python -m scripts.pictures --data_dir data   # after scripts.reproduce; needs the extra kd_lightning[pictures]
"""

import json
from pathlib import Path
from typing import Any

import jsonargparse
import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

from kd_lightning.datasets import read_digits
from kd_lightning.ensemble import load_teachers

TEMPERATURES = (1, 5, 10, 20)
DOUBT = 0.9  # confidence of the teacher about the digit that is shown
STYLE: dict[Any, Any] = {  # Any: matplotlib names 300 literals
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def softmax_curves(output: Path) -> None:
    """Softmax over logits from -10 to 10 at several temperatures, as in the text that this project began with."""
    logits = torch.linspace(-10, 10, 101)
    figure, axes = plt.subplots(figsize=(5, 3))
    for temperature in TEMPERATURES:
        axes.plot(logits, torch.softmax(logits / temperature, dim=0), label=f"T = {temperature}")
    axes.set(xlabel="logit", ylabel="probability", title="A higher T gives smoother targets")
    axes.legend(frameon=False)
    _save(figure, output / "softmax.png")


def digit_targets(teacher: Path, data_dir: str, output: Path) -> None:
    """A test digit that the teacher gets right with some doubt: its label, and the answer at T = 1 and T = 20."""
    _, test = read_digits("MNIST", data_dir)
    (loaded,) = load_teachers([str(teacher)])
    net = loaded.net.eval()
    with torch.no_grad():
        logits = torch.cat([net(part.float() / 255) for part in torch.split(test.images, 1000)])
    right = logits.argmax(dim=1) == test.labels
    confidence = torch.softmax(logits, dim=1).max(dim=1).values
    row = int(torch.where(right, (confidence - DOUBT).abs(), 1.0).argmin())
    figure, (picture, *bars) = plt.subplots(1, 4, figsize=(9, 2.3), gridspec_kw={"width_ratios": [1, 1.6, 1.6, 1.6]})
    picture.imshow(test.images[row, 0], cmap="gray_r")
    picture.set(xticks=[], yticks=[], title=f"test image {row}")
    picture.grid(visible=False)
    label = torch.nn.functional.one_hot(test.labels[row], 10).float()
    answers = {
        "label": label,
        "teacher, T = 1": torch.softmax(logits[row], dim=0),
        "teacher, T = 20": torch.softmax(logits[row] / 20, dim=0),
    }
    for axes, (name, probabilities) in zip(bars, answers.items(), strict=True):
        axes.bar(range(10), probabilities)
        axes.set(title=name, xticks=range(10), xlabel="class")
    _save(figure, output / "targets.png")


def table_errors(results: list[dict[str, Any]], output: Path) -> None:
    """Errors of each row with their spread, and the paper's where it has them."""
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(results) + 0.8))
    for place, result in enumerate(reversed(results)):
        axes.errorbar(result["mean"], place, xerr=result["sd"] or 0, fmt="o", color="C0", capsize=3)
        if result["paper"]:
            axes.plot(result["paper"], place, "x", color="C3")
    axes.plot([], [], "o", color="C0", label="here, mean and standard deviation")
    axes.plot([], [], "x", color="C3", label="paper")
    axes.set_yticks(range(len(results)), [result["what"] for result in reversed(results)])
    axes.set(xlabel="errors of 10,000 test images", xlim=(0, None))
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    _save(figure, output / "table.png")


def temperature_sweep(results: list[dict[str, Any]], output: Path) -> None:
    """Errors against temperature, one line per width of the student."""
    figure, all_axes = plt.subplots(1, 3, figsize=(9, 2.8))
    widths = sorted({int(result["row"].split("-")[1]) for result in results})
    for axes, width in zip(all_axes, widths, strict=False):
        rows = [result for result in results if result["row"].startswith(f"sweep-{width}-")]
        temperatures = [float(result["row"].split("-")[2]) for result in rows]
        spreads = [result["sd"] or 0 for result in rows]
        axes.errorbar(temperatures, [result["mean"] for result in rows], yerr=spreads, fmt="o-", capsize=3)
        axes.set(xscale="log", xlabel="temperature", title=f"student 2x{width}")
        axes.set_xticks([1, 2, 4, 8, 20, 40], ["1", "2", "4", "8", "20", "40"], minor=False)
        axes.minorticks_off()
    all_axes[0].set_ylabel("errors of 10,000")
    _save(figure, output / "sweep.png")


def run(
    data_dir: str = "data", root: str = "runs/mnist-table", results: str = "docs/results", output: str = "docs"
) -> None:
    """Draw what there are results for.

    Args:
        data_dir: Where MNIST is.
        root: Folder of the runs.
        results: Folder of the summaries.
        output: Folder of the pictures.
    """
    folder, summaries = Path(output), Path(results)
    with mpl.rc_context(STYLE):
        softmax_curves(folder)
        if (Path(root) / "teacher-0").is_dir():
            digit_targets(Path(root) / "teacher-0", data_dir, folder)
        for name, draw in {"mnist-table": table_errors, "mnist-sweep": temperature_sweep}.items():
            file = summaries / f"{name}.json"
            if file.is_file():
                draw(json.loads(file.read_text()), folder)


def _save(figure: Any, path: Path) -> None:  # Any: matplotlib's types are not complete
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    print(f"written: {path}")


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
