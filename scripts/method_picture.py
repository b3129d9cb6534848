"""Draw docs/method.png: how teachers, labels and student come together in the loss.

python -m scripts.method_picture
"""

from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from kd_lightning.data.mnist_files import read_digits
from kd_lightning.reports.plots import HARD_COLOR, SOFT_COLOR, TEACHER_COLOR, new_figure

TEMPERATURE = 4
LABEL = 2
ROW = 7  # of the digits of this class in mnist5k: one that looks a little like a 3
# What a teacher and a student in training might answer to it.
TEACHER_LOGITS = (1.0, 2.5, 12.0, 8.5, -2.0, 0.5, 0.0, 6.5, 4.0, -1.0)
STUDENT_LOGITS = (2.5, 3.5, 9.0, 8.0, 0.0, 2.0, 1.0, 3.5, 5.5, 1.0)
WIDTH, HEIGHT = 12.0, 5.4  # of the picture, in the units of its axes
DARK = "#333333"


def method_picture() -> Figure:
    """The whole way from an image to the loss."""
    with new_figure(WIDTH * 0.95, HEIGHT * 0.95) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(-0.1, HEIGHT - 0.1))
        axes.axis("off")
        _image(axes)
        _box(axes, (1.9, 3.9), (1.9, 1.2), "teachers\ntrained, then frozen", TEACHER_COLOR)
        _box(axes, (1.9, 1.6), (1.9, 0.9), "student\nsmall, trains", SOFT_COLOR)
        _bars(
            axes,
            (4.7, 4.0),
            _softmax(TEACHER_LOGITS, TEMPERATURE),
            "soft targets p = softmax(logits / T)",
            TEACHER_COLOR,
        )
        _bars(axes, (4.7, 2.5), _softmax(STUDENT_LOGITS, TEMPERATURE), "q = softmax(logits / T)", SOFT_COLOR)
        _bars(axes, (4.7, 1.0), _softmax(STUDENT_LOGITS, 1), "softmax(logits), so T = 1", SOFT_COLOR)
        _box(axes, (7.6, 3.35), (1.8, 0.9), "soft loss\nT² · KL(p ‖ q)", DARK)
        _box(axes, (7.6, 0.95), (1.8, 0.9), "hard loss\ncross-entropy", DARK)
        _box(axes, (10.2, 2.1), (1.6, 1.0), "loss", DARK)
        _arrows(axes)
        axes.text(8.5, 0.25, f"label {LABEL}", ha="center", va="center", color=HARD_COLOR, fontsize=11)
        axes.text(9.95, 3.5, "soft_weight ×", ha="left", va="center", fontsize=9, color=DARK)
        axes.text(9.95, 1.65, "(1 − soft_weight) ×", ha="left", va="center", fontsize=9, color=DARK)
        return figure


def _image(axes: Axes) -> None:
    """The example, from the digits that come in a package."""
    train, _ = read_digits("mnist5k", "data")
    image = train.images[train.labels == LABEL][ROW, 0]
    inset = axes.inset_axes((0.25, 2.45, 1.0, 1.0), transform=axes.transData)
    inset.imshow(image.tolist(), cmap="gray_r")
    inset.set(xticks=[], yticks=[])
    for spine in inset.spines.values():
        spine.set_visible(True)
    axes.text(0.75, 2.2, "image", ha="center", va="center", fontsize=10, color=DARK)


def _box(axes: Axes, corner: tuple[float, float], size: tuple[float, float], text: str, color: str) -> None:
    """A box with a bold first line."""
    axes.add_patch(
        FancyBboxPatch(
            corner, *size, boxstyle="round,pad=0,rounding_size=0.12", facecolor=f"{color}18", edgecolor=color
        )
    )
    x, y = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    first, _, second = text.partition("\n")
    lift = 0.17 if second else 0.0
    axes.text(x, y + lift, first, ha="center", va="center", fontsize=11, fontweight="bold", color=color)
    axes.text(x, y - lift, second, ha="center", va="center", fontsize=9, color=DARK)


def _bars(axes: Axes, corner: tuple[float, float], probabilities: Sequence[float], title: str, color: str) -> None:
    """Probabilities of the ten classes."""
    inset = axes.inset_axes((*corner, 2.0, 0.8), transform=axes.transData)
    inset.bar(range(10), probabilities, color=color, width=0.75)
    inset.set(xticks=range(10), yticks=[], xlim=(-0.6, 9.6))
    inset.tick_params(length=0, labelsize=7, pad=1)
    inset.spines["left"].set_visible(False)
    inset.grid(visible=False)
    inset.set_title(title, fontsize=9, color=DARK, pad=2)


def _arrows(axes: Axes) -> None:
    """Lines from left to right, and the way back of the gradient."""
    ways = (
        ((1.3, 3.1), (1.85, 4.2)),
        ((1.3, 2.8), (1.85, 2.2)),
        ((3.85, 4.5), (4.6, 4.5)),
        ((3.85, 2.2), (4.6, 2.8)),
        ((3.85, 1.9), (4.6, 1.4)),
        ((6.8, 4.4), (7.55, 4.0)),
        ((6.8, 2.95), (7.55, 3.55)),
        ((6.8, 1.4), (7.55, 1.4)),
        ((8.5, 0.4), (8.5, 0.9)),
        ((9.45, 3.75), (10.15, 2.85)),
        ((9.45, 1.45), (10.15, 2.35)),
    )
    for start, end in ways:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": DARK, "linewidth": 1.1})
    back = {"arrowstyle": "-|>", "color": HARD_COLOR, "linewidth": 1.3, "linestyle": "--"}
    axes.plot([11.5, 11.5, 2.85], [2.05, 0.02, 0.02], "--", color=HARD_COLOR, linewidth=1.3, clip_on=False)
    axes.annotate("", (2.85, 1.55), (2.85, 0.02), arrowprops=back)
    axes.text(4.6, 0.22, "gradient: to the student only", ha="center", va="center", fontsize=9, color=HARD_COLOR)


def _softmax(logits: Sequence[float], temperature: float) -> list[float]:
    probabilities: list[float] = torch.softmax(torch.tensor(logits) / temperature, dim=0).tolist()
    return probabilities


def run(output: str = "docs/method.png") -> None:
    """Draw it.

    Args:
        output: The file; needs the extra kd_lightning[embedded] for the digit.
    """
    method_picture().savefig(Path(output), dpi=150)
    print(f"written: {output}")


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
