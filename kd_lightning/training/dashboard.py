"""What TensorBoard shows of a run in addition to its curves: charts, hyperparameters, configuration and pictures."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any, cast

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from torch.utils.tensorboard.writer import SummaryWriter

from kd_lightning.data.transfer_data import class_names_of, data_of
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.runs.files import PICTURE_TAGS
from kd_lightning.teachers.ensemble import HasTeachers
from kd_lightning.training.hyperparameters import hparams_summaries, hyperparameters
from kd_lightning.training.validation_pictures import examine, figures, pixels

# One chart per entry in TensorBoard's custom scalars. A chart has one curve of a run: TensorBoard gives all curves of a
# run one colour, and fifteen runs must be told apart.
CHARTS = {
    "distillation": {
        "soft loss, training": ["Multiline", [r"^train/soft_loss$"]],
        "hard loss, training": ["Multiline", [r"^train/hard_loss$"]],
        "soft loss, validation": ["Multiline", [r"^val/soft_loss$"]],
        "hard loss, validation": ["Multiline", [r"^val/hard_loss$"]],
        "accuracy, validation": ["Multiline", [r"^val/accuracy$"]],
        "accuracy of the teachers, validation": ["Multiline", [r"^teachers/.*accuracy$"]],
        "share of the soft loss in the gradient at the logits": ["Multiline", [r"^train/soft_gradient_share$"]],
    },
    "training": {
        "loss, training": ["Multiline", [r"^train/loss$"]],
        "loss, validation": ["Multiline", [r"^val/loss$"]],
        "accuracy, training": ["Multiline", [r"^train/accuracy$"]],
        "learning rate": ["Multiline", [r"^lr$"]],
    },
}
LINE = 100  # characters of a command's line, beyond which a list in it is broken


class Dashboard(LeanCallback):
    """Fills TensorBoard's tabs: custom scalars, hparams, text, and pictures of the net's mistakes.

    Other loggers only get the curves.

    Args:
        config: The resolved configuration.
        command: The command line as it was typed, word by word; empty where there is none.
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
        """Write what does not change during the run: charts, hyperparameters, configuration and command."""
        for writer in _writers(trainer):
            writer.add_custom_scalars(CHARTS)
            for summary in hparams_summaries(hyperparameters(self.config, trainer, pl_module)):
                writer.file_writer.add_summary(summary)  # add_custom_scalars has made it
            text = yaml.safe_dump(self.config, sort_keys=False)
            writer.add_text("config", _code(text), trainer.global_step)
            if self.command:
                writer.add_text("command", _code(command_text(self.command)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the teachers' validation accuracy as a line, and pictures where it is time.

        Rank 0 draws them from its share of the images.
        """
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        writers = list(_writers(trainer))
        step = trainer.global_step - 1  # counted from 0, as the curves: a resumed run drops what lies beyond its start
        records = pl_module.teacher_records if isinstance(pl_module, HasTeachers) else []
        for number, record in enumerate(records):
            if record.get("split") == "validation":
                for writer in writers:
                    accuracy = 1 - record["errors"] / record["examples"]
                    writer.add_scalar(f"teachers/{number}_accuracy", accuracy, step)
        if not writers or not self._is_due(trainer):
            return
        module = cast(ClassifierModule, pl_module)
        try:
            examined = examine(trainer, module)
            names = class_names_of(data_of(trainer))
            for name, figure in figures(module, examined, names) if examined is not None else ():
                for writer in writers:
                    writer.add_image(f"{PICTURE_TAGS}{name}", pixels(figure), step)
        except Exception as error:  # a failed picture must not end the run
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


def command_text(words: Sequence[str]) -> str:
    """A command line for people: an option a line, and still to be pasted into a shell."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        broken = len(word) > LINE and word[0] in "[{"  # in a list or a mapping a line's end means nothing
        lines[-1].append(shlex.quote(word).replace(", ", ",\n        ") if broken else shlex.quote(word))
    return " \\\n    ".join(" ".join(line) for line in lines)


def _code(text: str) -> str:
    """Text as a code block of TensorBoard's Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())
