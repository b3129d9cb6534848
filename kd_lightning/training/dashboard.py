"""What TensorBoard shows of a run beside its curves: charts, hyperparameters, configuration and pictures."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch import Tensor
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from kd_lightning.data.batches import Batch
from kd_lightning.metrics.classification import TABLE_CLASSES
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.teachers.ensemble import HasTeachers, teachers_of

# One chart per entry in TensorBoard's custom scalars, with the curves that belong together.
CHARTS = {
    "distillation": {
        "soft and hard loss, train and validation": ["Multiline", [r"^(train|val)/(soft|hard)_loss$"]],
        "loss, train and validation": ["Multiline", [r"^(train|val)/loss$"]],
        "accuracy of student and teachers": ["Multiline", [r"^(train|val)/accuracy$", r"^teachers/.*accuracy$"]],
        "share of the gradient at the logits": ["Multiline", [r"^train/(soft|hard)_gradient_share$"]],
        "learning rate": ["Multiline", [r"^lr$"]],
    }
}
# What runs are sorted by in the hparams tab, by their place in the configuration.
HYPERPARAMETERS = {
    "temperature": "model.init_args.temperature",
    "soft_weight": "model.init_args.soft_weight",
    "hidden": "model.init_args.student.init_args.hidden",
    "optimizer": "model.init_args.optimizer.class_path",
    "lr": "model.init_args.optimizer.init_args.lr",
    "augment": "data.init_args.augment.class_path",
    "batch_size": "data.init_args.batch_size",
    "epochs": "trainer.max_epochs",
    "precision": "trainer.precision",
    "seed": "seed_everything",
}
NUMBERS = ("temperature", "soft_weight", "lr", "batch_size", "epochs", "seed")
FINAL_METRICS = ("val/accuracy", "val/loss", "test/errors", "test/accuracy", "test/nll", "test/ece")
# Validation images that the pictures look at, at most, and how many mistakes they show.
PICTURE_EXAMPLES, MISTAKES = 5000, 16
PICTURE_NUMBERS = 50_000_000  # pixels and channels of all of them together, at most: 200 MB


class Dashboard(LeanCallback):
    """Fills TensorBoard's tabs: custom scalars, hparams, text, and pictures of what the net gets wrong.

    Other loggers only get the curves.

    Args:
        config: The resolved configuration.
        command: The program's arguments.
        pictures_every: Epochs between two sets of pictures, >= 0; 0 for the last epoch only. A set takes a second.
    """

    def __init__(self, config: dict[str, Any], command: Sequence[str] = (), pictures_every: int = 0) -> None:
        if pictures_every < 0:
            raise ValueError(f"pictures_every must be >= 0, got {pictures_every}")
        self.config = config
        self.command = command
        self.pictures_every = pictures_every

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what stays as it is: charts, hyperparameters, configuration and command."""
        for writer in _writers(trainer):
            writer.add_custom_scalars(CHARTS)
            values = dict(_hyperparameters(self.config))
            teachers = teachers_of(pl_module)
            values["teachers"] = 0 if teachers is None else len(teachers)
            for summary in _hparams_summaries(values):
                writer.file_writer.add_summary(summary)  # add_custom_scalars has made it
            text = yaml.safe_dump(self.config, sort_keys=False)
            writer.add_text("config", _code(text), trainer.global_step)
            writer.add_text("command", _code(shlex.join(["python", "-m", "kd_lightning", *self.command])))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the teachers' accuracy as a line, and pictures where it is time; rank 0 from its share of the images."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        writers = list(_writers(trainer))
        step = trainer.global_step - 1  # counted from 0, as the curves: a resumed run drops what lies beyond its start
        records = pl_module.teacher_records if isinstance(pl_module, HasTeachers) else []
        for number, record in enumerate(records):
            if "errors" in record:
                for writer in writers:
                    accuracy = 1 - record["errors"] / record["examples"]
                    writer.add_scalar(f"teachers/{number}_accuracy", accuracy, step)
        if not writers or not self._is_due(trainer):
            return
        module = cast(ClassifierModule, pl_module)
        try:
            examined = _examine(trainer, module)
            for name, figure in _figures(module, examined) if examined is not None else ():
                for writer in writers:
                    writer.add_image(name, _pixels(figure), step)
        except Exception as error:  # a picture is never worth a run
            rank_zero_info(f"pictures are left out: {type(error).__name__}: {error}")

    def _is_due(self, trainer: Trainer) -> bool:
        done = trainer.current_epoch + 1
        last = done == trainer.max_epochs or trainer.global_step == trainer.max_steps
        return last or (self.pictures_every > 0 and done % self.pictures_every == 0)


def add_test_scalars(run: Any, metrics: dict[str, float], step: int) -> None:
    """Put the test figures into the run's event files, where the hparams tab finds them.

    Args:
        run: The run's folder.
        metrics: By name, without the test/ before it.
        step: The tested step.
    """
    with SummaryWriter(run, filename_suffix=".test") as writer:
        for name, value in metrics.items():
            writer.add_scalar(f"test/{name}", value, step)


def _writers(trainer: Trainer) -> Iterator[Any]:  # Any: torch's SummaryWriter has no types
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            yield logger.experiment


def _hyperparameters(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, place in HYPERPARAMETERS.items():
        value: Any = config
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, bool | int | float):
            yield name, value
        elif value is not None:
            yield name, str(value).rpartition(".")[2] if "." in str(value) else str(value)


def _hparams_summaries(values: dict[str, Any]) -> list[Any]:
    """The tab's columns and this run's values in them.

    TensorBoard takes the columns from whichever run it read first, a teacher perhaps, so each run names them all.
    """
    metrics = dict.fromkeys(FINAL_METRICS, 0.0)
    missing = {name: 0.0 if name in NUMBERS else "" for name in HYPERPARAMETERS}
    columns, _, _ = hparams(missing | values, metrics)  # type: ignore[no-untyped-call]
    _, start, end = hparams(values, metrics)  # type: ignore[no-untyped-call]
    return [columns, start, end]


def _code(text: str) -> str:
    """Text as a code block of TensorBoard's Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


class _Examined(NamedTuple):
    """What the net answers to validation images, on the CPU.

    Attributes:
        inputs: (examples, channels, height, width) float.
        labels: (examples,) int64.
        logits: (examples, classes) float, before softmax.
        teachers: (examples, classes) float, log of the averaged teachers' softmax at T = 1; None without teachers.
    """

    inputs: Tensor
    labels: Tensor
    logits: Tensor
    teachers: Tensor | None


@torch.no_grad()
def _examine(trainer: Trainer, module: ClassifierModule) -> _Examined | None:
    """Run the net and the teachers over some labelled validation images, in batches; None where there are none."""
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list) and loaders else loaders
    if loader is None or loader == []:
        return None
    parts: list[tuple[Tensor, ...]] = []
    count = 0
    for raw in loader:
        inputs, labels, *_ = Batch.of(trainer.strategy.batch_to_device(raw))
        if not isinstance(inputs, Tensor) or inputs.ndim != 4 or inputs.shape[1] not in {1, 3}:
            return None
        taught = module.teacher_log_probs(inputs)
        answers = [inputs, labels, module(inputs).float(), *([] if taught is None else [taught])]
        parts.append(tuple(answer[labels >= 0].cpu() for answer in answers))
        count += len(labels)
        if count >= PICTURE_EXAMPLES or count * inputs[0].numel() >= PICTURE_NUMBERS:
            break
    if not any(len(part[1]) for part in parts):
        return None
    inputs, labels, logits, *taught_logs = (torch.cat(each) for each in zip(*parts, strict=True))
    return _Examined(inputs, labels, logits, taught_logs[0] if taught_logs else None)


@torch.no_grad()
def _figures(module: ClassifierModule, examined: _Examined) -> Iterator[tuple[str, Any]]:
    from kd_lightning.reports import plots  # matplotlib takes half a second to import

    inputs, labels, logits, at_one = examined
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    classes = logits.shape[1]
    if classes <= TABLE_CLASSES:
        counts = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
        yield "confusion", plots.confusion(counts.tolist())
    wrong = (predicted != labels).nonzero().squeeze(1)
    worst = wrong[confidence[wrong].argsort(descending=True)][:MISTAKES]
    if len(worst):
        titles = [f"{labels[n]} as {predicted[n]}\n{100 * confidence[n]:.1f} %" for n in worst.tolist()]
        heading = f"most confident of {len(wrong)} mistakes: label as prediction, confidence"
        yield "mistakes", plots.mistakes(_pictures(inputs[worst]), titles, heading)
    if not isinstance(module, DistillModule) or module.live_teachers is None or at_one is None:
        return
    temperature = module.temperature
    # The example whose soft targets say most beside the label: the teachers' least sure right answer.
    sure, taught = at_one.max(dim=1)
    row = int(torch.where(taught == labels, sure, 2.0).argmin())
    image = inputs[row : row + 1]
    softened = module.live_teachers.answer(image.to(module.device), temperature).log_probs
    answers = {
        "label": torch.nn.functional.one_hot(labels[row], classes).float().tolist(),
        "teachers, T = 1": at_one[row].exp().tolist(),
        f"teachers, T = {temperature:g}": softened[0].exp().tolist(),
        f"student, T = {temperature:g}": (logits[row] / temperature).softmax(dim=0).tolist(),
    }
    yield "soft targets", plots.softened_targets(_pictures(image)[0], int(labels[row]), answers)


def _pixels(figure: Any) -> Any:
    """A figure as (3, height, width) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # (height, width, 4)
    return torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)


def _pictures(inputs: Tensor) -> list[Any]:
    """Images of one or three channels as (height, width) lists in [0, 1]."""
    gray = inputs.float().mean(dim=1)
    low, high = gray.min(), gray.max()
    pictures: list[Any] = ((gray - low) / (high - low).clamp(min=1e-6)).tolist()
    return pictures
