"""What a teacher and a student share: steps, evaluation, optimizer, logging."""

import math
import os
from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from kd_lightning.checkpoints import RECORD_KEY
from kd_lightning.ensemble import describe_net
from kd_lightning.loader import derived_seed
from kd_lightning.metrics import Mean, TestMetrics
from kd_lightning.optimization import SchedulerCallable, default_optimizer, limit_norms, quicken
from kd_lightning.precision import check_precision


class ClassifierModule(LightningModule, ABC):
    """A net with its loss, optimizer and metrics.

    Subclasses say in `losses` what is minimised. Batches are `Batch` or any `(inputs, labels, ...)`.

    Args:
        net: Maps inputs to logits (batch, classes).
        optimizer: Called with the parameters; fused Adam with a step size of 1e-3 by default.
        scheduler: Called with the optimizer and the run's number of steps; stepped after each step.
        max_norm: Largest L2 norm of a unit's incoming weights, > 0; None for no limit.
        compile: Compile the net with torch.compile; pays on GPUs and for large nets.

    Attributes:
        lr: Step size in place of the optimizer's own, > 0; None keeps the optimizer's. Lightning's `Tuner.lr_find`
            sets it, and the next fit uses it.

    Raises:
        ValueError: If max_norm is out of range, or the net has nothing to train.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        max_norm: float | None = None,
        compile: bool = False,  # noqa: A002  # torch's own word
    ) -> None:
        super().__init__()
        # The command line hands over plain class_path and init_args to keep; from Python the arguments are
        # objects, which a checkpoint that loads safely can't hold. Teachers are never kept.
        from_cli = _given_hyperparameters.get() is not None
        objects = [] if from_cli else ["net", "student", "optimizer", "scheduler", "store"]
        self.save_hyperparameters(ignore=["teachers", *objects])
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be > 0, got {max_norm}")
        if next(net.parameters(), None) is None:
            raise ValueError(f"the net must have parameters to train, got {type(net).__name__} without any")
        self.net = net
        self.optimizer_of = optimizer or default_optimizer
        self.scheduler_of = scheduler
        self.lr: float | None = None
        self.max_norm = max_norm
        if compile:
            net.compile()  # in place: the names in a checkpoint stay as they are
        self.val_accuracy = Mean()
        self.test_metrics = TestMetrics()
        self._window = _Window()
        self._at_logged_step: dict[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Any, logits: Tensor) -> dict[str, Tensor]:  # Any: also a user's own tuple
        """Named scalar losses of a batch, in nats per example; `loss` is minimised.

        Args:
            batch: A `Batch` or any `(inputs, labels, ...)`, on the device.
            logits: (batch, classes) float, what the net answered to the inputs.
        """

    def __setattr__(self, name: str, value: Any) -> None:  # Any: torch's own signature
        """Set an attribute.

        Lightning notes the running hook's name 44 times a step, and torch looks at each for parameters: 0.1 ms.
        """
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of a batch, (batch, classes), before softmax.

        Args:
            inputs: (batch, 1, 28, 28) float in [0, 1], or what the net takes.

        Raises:
            ValueError: If the net takes other shapes.
        """
        # Under bf16-true and the like the net's weights have another type than the images.
        cast = inputs.to(self.dtype) if inputs.is_floating_point() else inputs
        try:
            logits: Tensor = self.net(cast)
        except RuntimeError as error:
            if "shapes cannot be multiplied" in str(error) or "expected input" in str(error):
                name, reason = type(self.net).__name__, str(error).splitlines()[0]
                raise ValueError(f"{name} failed on inputs of shape {tuple(inputs.shape)}: {reason}") from error
            raise
        return logits

    def setup(self, stage: str) -> None:
        """Look at the precision before anything is read.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ValueError: If the precision can't train.
        """
        trainer = self._trainer
        if trainer is not None:  # without one, as in a notebook, the precision is the user's own affair
            check_precision(trainer.precision, trainer.strategy.root_device, trains=stage == "fit")

    def on_fit_start(self) -> None:
        """Build the optimizer again where a LearningRateFinder has just set `lr`: a schedule must start from it."""
        groups = self.trainer.optimizers[0].param_groups
        if self.lr is not None and any(group.get("initial_lr", group["lr"]) != self.lr for group in groups):
            self.trainer.strategy.setup_optimizers(self.trainer)

    def on_train_start(self) -> None:
        """Log short epochs, too, and give a resumed run its place in the data.

        Lightning does so when it makes the training loader, but `estimated_stepping_batches`, which the scheduler
        needs, has it made before the checkpoint is read, and the place is forgotten:
        https://github.com/Lightning-AI/pytorch-lightning/issues/20550
        """
        steps = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's connector
        if 1 <= steps < interval:
            self.trainer.log_every_n_steps = int(steps)  # type: ignore[attr-defined]  # short epochs are logged once each
        loop = self.trainer.fit_loop
        if loop._combined_loader_states_to_load:
            loop._load_combined_loader_states()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # Any: also a user's own tuple
        """Loss of a batch; its parts are logged when the logger is due."""
        self._seed_step()
        inputs, labels = batch[0], batch[1]
        logits = self(inputs)
        losses = self.losses(batch, logits)
        accuracy = (logits.detach().argmax(dim=-1) == labels).float().mean()
        interval = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's connector
        if interval:
            self._window.add({**losses, "accuracy": accuracy})
            if (self.global_step + 1) % interval == 0:
                self._at_logged_step = self.logged_step_scalars(losses, logits)
        return losses["loss"]

    def logged_step_scalars(self, losses: dict[str, Tensor], logits: Tensor) -> dict[str, Tensor]:
        """Further scalars of a step that is logged, by name; none here.

        Args:
            losses: What `losses` gave.
            logits: (batch, classes) float, with their graph, which must be kept.
        """
        return {}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # Any: Lightning's signature
        """Log, where it is time."""
        self.log_window()

    def log_window(self) -> None:
        """Write the means since the last logged step to the loggers, if this step is to be logged and is not yet.

        At once and not by `self.log`, which costs more than half of an empty step, and would write after this step's
        checkpoint: a kill in between would lose the point.

        Raises:
            ValueError: If the loss is no longer a finite number.
        """
        trainer = self.trainer
        interval = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning's connector
        step = self.global_step
        if not interval or step % interval or step == self._window.logged_at:
            return
        means = self._window.take(step) | self._at_logged_step
        if trainer.world_size > 1 and means:
            reduced: Any = trainer.strategy.reduce(torch.stack(list(means.values())).float(), reduce_op="mean")
            means = dict(zip(means, reduced.unbind(), strict=True))
        values = {f"train/{name}": float(value) for name, value in means.items()}
        if not math.isfinite(values.get("train/loss", 0.0)):
            raise ValueError(diverged(step))
        values["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        for logger in self.loggers:
            logger.log_metrics(values | {"epoch": trainer.current_epoch}, step=step - 1)  # steps are counted from 0
            logger.save()
        self.log_dict(values, logger=False, batch_size=1)  # for the progress bar

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # Any: as in training_step
        """Add a batch to the validation's losses and accuracy."""
        inputs, labels = batch[0], batch[1]
        logits = self(inputs)
        losses = {f"val/{name}": value for name, value in self.losses(batch, logits).items()}
        self.log_dict(losses, batch_size=len(labels), sync_dist=True)
        self.val_accuracy.update((logits.argmax(dim=-1) == labels).float())
        self.log("val/accuracy", self.val_accuracy, batch_size=len(labels), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        """Begin the test's tables anew; Lightning does so with what is logged alone."""
        self.test_metrics.tables.reset()

    def test_step(self, batch: Any, batch_idx: int) -> None:  # Any: as in training_step
        """Add a batch to the test metrics."""
        inputs, labels = batch[0], batch[1]
        self.test_metrics.add(self(inputs), labels, self.teacher_log_probs(inputs))
        self.log_dict(
            {f"test/{name}": cast(Metric, metric) for name, metric in self.test_metrics.scalars.items()},
            batch_size=len(labels),
        )

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:  # Any: as in training_step
        """Predicted class and its probability, with the index and the label, each (batch,)."""
        confidence, prediction = self(batch[0]).float().softmax(dim=-1).max(dim=-1)
        answer = {"prediction": prediction, "confidence": confidence, "label": batch[1]}
        if len(batch) > 2:  # a user's own batches have no indices
            answer["index"] = batch[2]
        return answer

    def teacher_log_probs(self, inputs: Tensor) -> Tensor | None:
        """Log-probabilities of the averaged teachers at T = 1, (batch, classes); None without teachers."""
        return None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer of the net's parameters, and the schedule over the whole run."""
        optimizer = self.optimizer_of(self.net.parameters())
        if self.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = self.lr
        quicken(optimizer)
        if self.scheduler_of is None:
            return optimizer
        estimated = self.trainer.estimated_stepping_batches
        if math.isinf(estimated):
            raise ValueError(
                "a schedule needs to know the run's length, and the training data has none; "
                "set --trainer.max_steps, or --trainer.limit_train_batches with max_epochs"
            )
        steps = int(estimated)
        scheduler = self.scheduler_of(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # Any: Lightning's own signature
        """Step, then keep the weights within max_norm.

        Here and not in a hook after the step, where a checkpoint could be written in between.
        """
        super().optimizer_step(*args, **kwargs)
        if self.max_norm is not None:
            limit_norms(self.net, self.max_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how the net is built, so that it can teach, and the losses since the last logged step."""
        described = self.hparams.get(self._net_argument) or describe_net(self.net)
        datamodule = getattr(self.trainer, "datamodule", None)
        record = checkpoint.setdefault(RECORD_KEY, {})
        record["module"] = type(self).__qualname__
        record["net"] = described
        record["data"] = datamodule.state_dict() if datamodule is not None else {}
        record["window"] = self._window_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the losses since the last logged step."""
        window = checkpoint.get(RECORD_KEY, {}).get("window")
        if window is not None:
            ranks = window["values"]
            rank = self.global_rank if self._trainer is not None else 0
            self._window.load(window["names"], ranks[rank] if rank < len(ranks) else [], window["logged_at"])

    def _window_state(self) -> dict[str, Any]:
        """The losses since the last logged step, of each rank."""
        window, trainer = self._window, self.trainer
        values = window.stacked() if window.values else torch.empty(0)
        values_of_ranks: list[Any] = [values.tolist()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            values_of_ranks = [None] * trainer.world_size
            torch.distributed.all_gather_object(values_of_ranks, values.tolist())
        return {"names": window.names, "values": values_of_ranks, "logged_at": window.logged_at}

    @property
    def _net_argument(self) -> str:
        """The constructor argument that holds the net."""
        return "net"

    def _seed_step(self) -> None:
        """Seed dropout by (seed, batch, rank), so that a resumed run draws what an unbroken one does.

        Lightning keeps no generator state in its checkpoints; this costs a microsecond.
        """
        base = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        seed = derived_seed(base, self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)


def diverged(step: int) -> str:
    """What to say when loss or weights are no longer numbers."""
    return (
        f"the loss is no longer a finite number at step {step}; the last checkpoint before is kept: "
        "lower the learning rate, or set --trainer.gradient_clip_val"
    )


class _Window:
    """Named scalars of each batch since the last logged step; adding costs no arithmetic."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.values: list[Tensor] = []  # of each batch in turn, in the names' order
        self.logged_at = 0  # global step of the last logged means

    def add(self, values: dict[str, Tensor]) -> None:
        self.names = list(values)
        self.values += [value.detach() for value in values.values()]

    def take(self, step: int) -> dict[str, Tensor]:
        if not self.values:
            return {}
        table = self.stacked().view(-1, len(self.names))  # (batches, names)
        self.values, self.logged_at = [], step
        return dict(zip(self.names, table.mean(dim=0).unbind(), strict=True))

    def stacked(self) -> Tensor:
        # Values from a checkpoint are on the CPU, the newer ones where the module is.
        return torch.stack([value.to(self.values[-1].device) for value in self.values]).float()

    def load(self, names: list[str], values: list[float], logged_at: int) -> None:
        self.names, self.logged_at = names, logged_at
        self.values = [torch.tensor(value) for value in values]
