"""Schedules of the temperature and of the soft loss's weight over a run."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from lightning.pytorch import LightningModule, Trainer

from kd_lightning.modules.lightning_internals import LeanCallback
from kd_lightning.modules.optimization import steps_of_run
from kd_lightning.modules.teacher_setup import belongs_to
from kd_lightning.modules.train_log import is_logged

if TYPE_CHECKING:
    from kd_lightning.modules.distiller import Distiller


@dataclass(frozen=True)
class Linear:
    """A number that changes linearly over a run, from the first optimizer step to the last one.

    Args:
        start: The first step's value.
        end: The last step's value.

    Example:
        >>> module = DistillModule(student=MLP(hidden=[300]), teachers=teacher, temperature=Linear(start=20, end=4))
    """

    start: float
    end: float

    @classmethod
    def of(cls, value: "float | Linear | Mapping[str, float]") -> Self:
        """A schedule as it is, or as a checkpoint keeps it; of a number one that stays there."""
        match value:
            case Linear():
                return cls(value.start, value.end)
            case Mapping():
                return cls(**value)
            case _:
                return cls(value, value)

    def __iter__(self) -> Iterator[float]:
        """Both ends; what lies between them is never out of their range."""
        yield from (self.start, self.end)

    def at(self, step: int, steps: int) -> float:
        """The value in a step, `end` after the run's last one.

        Args:
            step: Optimizer steps done before it.
            steps: Optimizer steps of the whole run.
        """
        return self.start + (self.end - self.start) * min(1.0, step / max(1, steps - 1))


class ScheduleSteps(LeanCallback):
    """Sets the temperature or the weight of a `Distiller` before each step, and logs it as often as the losses.

    A value depends on the global step and the run's length only, so a resumed run goes on as if nothing had happened.

    Args:
        distiller: Its `schedules` are followed.
    """

    def __init__(self, distiller: "Distiller") -> None:
        self.distiller = distiller
        self._steps = 0  # of the whole run
        self._logged_at = 0  # global step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave a trainer that ran the distiller's module before and now runs another one."""
        if not belongs_to(self.distiller, pl_module):
            trainer.callbacks = [each for each in trainer.callbacks if each is not self]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the run's length.

        Raises:
            ValueError: If nothing limits it.
        """
        self._steps, self._logged_at = steps_of_run(trainer), trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the step's values."""
        for name, schedule in self.distiller.schedules.items():
            setattr(self.distiller, name, schedule.at(trainer.global_step, self._steps))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the step's values."""
        step = trainer.global_step
        if step == self._logged_at or not is_logged(trainer, step):
            return
        self._logged_at = step
        values = {name: getattr(self.distiller, name) for name in self.distiller.schedules}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step - 1)  # steps are counted from 0


def as_plain(hyperparameters: MutableMapping[str, Any]) -> None:
    """Replace schedules by mappings, which a checkpoint that loads safely can hold.

    Args:
        hyperparameters: Changed in place.
    """
    schedules = {name: asdict(value) for name, value in hyperparameters.items() if isinstance(value, Linear)}
    hyperparameters.update(schedules)
