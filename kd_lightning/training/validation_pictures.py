"""Pictures of what a net gets wrong on validation examples, while it trains."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import tensors_of
from kd_lightning.data.transfer_data import on_device
from kd_lightning.metrics.classification import TABLE_CLASSES
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.distill import DistillModule

# Largest number of validation examples that are used, and number of mistakes that are shown.
EXAMPLES, MISTAKES = 5000, 16
NUMBERS = 50_000_000  # pixels and channels of all of them together, at most: 200 MB
TENSORBOARD_WIDTH = 350  # pixels in which TensorBoard shows a picture; it shrinks a wider one without smoothing


class Examined(NamedTuple):
    """What the net answers to labelled validation examples, on the CPU.

    Attributes:
        pictures: (examples, 1 or 3, height, width) float, the inputs; None where they are no pictures.
        labels: (examples,) int64.
        logits: (examples, classes) float, before softmax.
        teachers: (examples, classes) float, log of the averaged teachers' softmax at T = 1; None without teachers.
    """

    pictures: Tensor | None
    labels: Tensor
    logits: Tensor
    teachers: Tensor | None


@torch.no_grad()
def examine(trainer: Trainer, module: ClassifierModule) -> Examined | None:
    """Run the net, and the teachers, over some validation examples batch by batch; None where there are none."""
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list) and loaders else loaders
    if loader is None or loader == []:
        return None
    parts: list[tuple[Tensor, ...]] = []
    count = 0
    pictures = True
    for raw in loader:
        inputs, labels, *_ = Batch.of(on_device(trainer, raw))
        if labels.ndim != 1:  # one label an example is what the pictures can show
            return None
        shown = inputs if isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.shape[1] in {1, 3} else None
        pictures = pictures and shown is not None
        teacher_log_probs = module.teacher_log_probs(inputs)
        answers = [
            labels if shown is None or not pictures else shown,
            labels,
            module(inputs).float(),
            *([] if teacher_log_probs is None else [teacher_log_probs]),
        ]
        parts.append(tuple(answer[labels >= 0].cpu() for answer in answers))
        count += len(labels)
        if count >= EXAMPLES or count * tensors_of(inputs)[0][0].numel() >= NUMBERS:
            break
    if not any(len(part[1]) for part in parts):
        return None
    images, labels, logits, *taught_logs = (torch.cat(each) for each in zip(*parts, strict=True))
    return Examined(images if pictures else None, labels, logits, taught_logs[0] if taught_logs else None)


@torch.no_grad()
def figures(
    module: ClassifierModule, examined: Examined, names: Sequence[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """Pictures by name: confusion, the most confident mistakes, the soft targets of one example.

    Args:
        module: Its teachers answer at its temperature.
        examined: The examples and the net's logits.
        names: Of the classes, their numbers by default.
    """
    from kd_lightning.reports import class_plots, plots  # matplotlib takes half a second to import

    images, labels, logits, at_one = examined
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    classes = logits.shape[1]
    class_names = names if names and len(names) == classes else None
    called = plots.short_names(class_names or [str(number) for number in range(classes)])
    if classes <= TABLE_CLASSES:
        counts = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
        figure = class_plots.confusion(counts.tolist(), names=class_names)
        figure.set_dpi(TENSORBOARD_WIDTH / figure.get_figwidth())
        yield "confusion", figure
    if images is None:
        return
    wrong = (predicted != labels).nonzero().squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True)][:MISTAKES]
    if len(worst):
        around = "\n" if class_names else " "
        titles = [
            f"{called[int(labels[n])]}{around}as {called[int(predicted[n])]}\n{100 * confidence[n]:.1f} %"
            for n in worst.tolist()
        ]
        heading = (
            f"most confident of {len(wrong)} mistakes on {len(labels):,} validation examples: "
            "label as prediction, confidence"
        )
        yield "mistakes", plots.mistakes(_as_lists(images[worst]), titles, heading)
    if not isinstance(module, DistillModule) or module.live_teachers is None or at_one is None:
        return
    temperature = module.temperature
    # Show the correctly classified example with the teachers' lowest confidence.
    highest, named = at_one.max(dim=1)
    row = int(torch.where(named == labels, highest, 2.0).argmin())
    image = images[row : row + 1]
    softened = module.live_teachers.answer(image.to(module.device), temperature).log_probs
    answers = {
        "label": torch.nn.functional.one_hot(labels[row], classes).float().tolist(),
        "teachers, T = 1": at_one[row].exp().tolist(),
        f"teachers, T = {temperature:g}": softened[0].exp().tolist(),
        f"student, T = {temperature:g}": (logits[row] / temperature).softmax(dim=0).tolist(),
    }
    yield "soft targets", plots.softened_targets(_as_lists(image)[0], int(labels[row]), answers, class_names)


def pixels(figure: Any) -> Any:
    """A figure as (3, height, width) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # (height, width, 4)
    return torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)


def _as_lists(images: Tensor) -> list[Any]:
    """Images of one channel as (height, width) lists, of three as (height, width, 3), in [0, 1]."""
    images = images.float()
    low, high = images.min(), images.max()
    if low < 0 or high > 1:  # as a data module's normalisation left them
        images = (images - low) / (high - low).clamp(min=1e-6)
    pictures: list[Any] = (images.squeeze(1) if images.shape[1] == 1 else images.permute(0, 2, 3, 1)).tolist()
    return pictures
