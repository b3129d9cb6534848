"""Results of the studies on speech: the six folds added up, and the nets' outputs for each frame of a recording.

python -m scripts.speech --data_dir data/fsdd   # after the studies of configs/speech
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kd_lightning.data.speech import SpokenDigitsDataModule
from kd_lightning.metrics.classification import error_interval
from kd_lightning.reports import plots
from kd_lightning.teachers.loading import load_teachers

SHOWN = "7_jackson_0"  # a recording of the speaker whom these nets have not heard


class Total(NamedTuple):
    """A row of the folds' study over all folds; errors are means over seeds, summed over folds.

    Attributes:
        name: Of the row, without the fold.
        folds: How many there are.
        models: Seeds of each fold; 1 for an ensemble.
        frames: Tested frames.
        frame_errors: Errors among them.
        margin: Half of the 95 % confidence interval of the frames' error rate over recordings, of the first seed; None
            where unknown.
        utterances: Tested recordings.
        digit_errors: Errors among them.
    """

    name: str
    folds: int
    models: int
    frames: int
    frame_errors: float
    margin: float | None
    utterances: int
    digit_errors: float

    def cells(self) -> list[str]:
        """The row as text: accuracy of frames, errors of digits and their rate, each with a 95 % interval."""
        low, high = error_interval(self.digit_errors, self.utterances)
        right = 1 - self.frame_errors / self.frames
        within = "" if self.margin is None else f" {_range(right - self.margin, right + self.margin)}"
        return [
            self.name,
            f"{100 * right:.2f}{within}",
            f"{self.digit_errors:.1f}",
            f"{100 * self.digit_errors / self.utterances:.2f} {_range(low, high)}",
            f"{self.folds} x {self.models}",
        ]


def _range(low: float, high: float) -> str:
    return f"({100 * low:.2f} to {100 * high:.2f})"


def totals(lines: Sequence[Mapping[str, Any]]) -> list[Total]:
    """Rows added up over the folds.

    Args:
        lines: Of the folds' study, as in its JSON file: of each fold, named by the row, in the same order.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    tested: dict[str, int] = {}  # frames of each fold
    for line in lines:
        kind, _, fold = line["row"].partition("-")
        if line["runs"]:
            tested[fold] = line["runs"][0]["examples"]
        groups.setdefault(kind if line["runs"] else "ensemble", []).append(line)  # which has no runs of its own
    return [_total(name, group, tested) for name, group in groups.items()]


def _total(name: str, group: Sequence[Mapping[str, Any]], tested: Mapping[str, int]) -> Total:
    folds = [line["row"].partition("-")[2].partition(" ")[0] for line in group]
    frames = [tested[fold] for fold in folds]
    intervals = [line["runs"][0]["error_rate_interval"] for line in group if line["runs"]]
    margin = None
    if intervals:  # the folds' recordings are drawn independently: variances add up
        halves = [count * (high - low) / 2 for count, (low, high) in zip(frames, intervals, strict=True)]
        margin = sum(half**2 for half in halves) ** 0.5 / sum(frames)
    return Total(
        name,
        len(group),
        min(line["n"] for line in group),
        sum(frames),
        sum(line["mean"] for line in group),
        margin,
        sum(line["sequences"]["count"] for line in group),
        sum(line["sequences"]["mean"] for line in group),
    )


def table(rows: Sequence[Total]) -> str:
    """The rows as Markdown."""
    header = ["row", "frame accuracy, %", f"digit errors of {rows[0].utterances:,}", "digit errors, %", "nets"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def gain_kept(rows: Sequence[Total]) -> float:
    """How much of the gain in frame accuracy, from a single model to the ensemble, the distilled model keeps.

    Below 0 it is worse than a single model.
    """
    errors = {row.name: row.frame_errors for row in rows}
    return (errors["teacher"] - errors["distilled"]) / (errors["teacher"] - errors["ensemble"])


def posteriors(bands: Tensor, answers: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """The nets' outputs for each frame of a recording, below its spectrogram.

    Args:
        bands: (40, frames), the lowest first.
        answers: (states, frames), probabilities, by net.
        names: Of the states, such as 7.1.
    """
    with plots.new_figure(6.4, 1.6 + 2.4 * len(answers)) as figure:
        above, *below = figure.subplots(1 + len(answers), 1, sharex=True, height_ratios=[1.6, *[2.4] * len(answers)])
        above.imshow(bands.tolist(), aspect="auto", origin="lower", cmap="magma")
        above.set(ylabel="mel band")
        firsts = [place for place, name in enumerate(names) if name.endswith(".1")]
        for axes, (title, probabilities) in zip(below, answers.items(), strict=True):
            axes.imshow(probabilities.tolist(), aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
            axes.set_yticks(firsts, [names[first].partition(".")[0] for first in firsts])
            axes.set(ylabel="state of digit", title=title)
        below[-1].set(xlabel="frame, 10 ms each")
        for axes in figure.axes:
            axes.grid(visible=False)
        return figure


@torch.no_grad()
def recording_posteriors(runs: Mapping[str, Path], data: SpokenDigitsDataModule, shown: str) -> Figure:
    """Draw a test recording.

    Args:
        runs: Folders by what to call them.
        data: Set up to test.
        shown: Name of the recording, without .wav.
    """
    sequences = data.sequences("test")
    number = [Path(name).stem for name in sequences.names or ()].index(shown)
    places = data.examples("test").inputs[int(sequences.starts[number]) : int(sequences.starts[number + 1])]
    inputs = data.to_inputs(places, None)  # (frames, 40, 26)
    nets = {name: load_teachers([str(run)])[0].net.eval() for name, run in runs.items()}
    answers = {name: net(inputs).softmax(dim=1).T for name, net in nets.items()}
    return posteriors(inputs[:, :, data.before].T, answers, data.class_names or ())


def run(
    data_dir: str = "data/fsdd",
    root: str = "runs",
    results: str = "docs/results",
    output: str = "docs",
    shown: str = SHOWN,
) -> None:
    """Add up and draw the results that exist.

    Args:
        data_dir: Where the recordings are.
        root: Folder of all studies' runs.
        results: Folder of the summaries; the folds' sum goes there.
        output: Folder of the picture.
        shown: Name of the recording that is drawn, without .wav.
    """
    summary = Path(results) / "speech-folds.json"
    if summary.is_file():
        rows = totals(json.loads(summary.read_text(encoding="utf-8")))
        text = f"{table(rows)}\nOf the ensemble's gain in frames, the distilled model keeps {gain_kept(rows):.0%}.\n"
        path = summary.with_name("speech-folds-total.md")
        path.write_text(text, encoding="utf-8")
        print(f"{text}written: {path}")
    fold = shown.split("_")[1]
    names = {"a teacher": f"teacher-{fold}-0", "the distilled student": f"distilled-{fold}-0"}
    runs = {title: Path(root) / "speech-folds" / name for title, name in names.items()}
    if all(folder.is_dir() for folder in runs.values()):
        data = SpokenDigitsDataModule(data_dir, fold=fold)
        data.setup("test")
        figure = recording_posteriors(runs, data, shown)
        path = Path(output) / "speech.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        print(f"written: {path}")


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
