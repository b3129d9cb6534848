"""What a teacher and a student share: their steps, and what their checkpoints hold."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs, mapped
from kd_lightning.data.order import derived_seed
from kd_lightning.data.transfer_data import data_of, transfer_data
from kd_lightning.metrics.classification import EvaluationMetrics, Mean, accuracy
from kd_lightning.modules.evaluated import EvaluatedModule
from kd_lightning.modules.input_statistics import InputStatisticsSetup
from kd_lightning.modules.label_check import LabelCheck
from kd_lightning.modules.lightning_internals import built_by_command_line
from kd_lightning.modules.loader_place import LoaderPlace
from kd_lightning.modules.optimization import PlateauSteps, SchedulerCallable, drop_functions
from kd_lightning.modules.precision import PrecisionCheck
from kd_lightning.modules.schedules import as_plain
from kd_lightning.modules.train_log import TrainLog
from kd_lightning.nets.description import describe_net, with_numbers
from kd_lightning.nets.logits import logits_of
from kd_lightning.runs.checkpoints import RECORD_KEY
from kd_lightning.teachers.loading import net_to_give


class ClassifierModule(EvaluatedModule, ABC):
    """A net with its loss, optimizer and metrics; a subclass computes in `losses` what is minimised.

    Batches are `Batch` or any `(inputs, labels, ...)`.

    Args:
        net: Maps inputs to logits (batch, classes).
        optimizer: Called with the parameters; fused Adam with a step size of 1e-3 by default.
        scheduler: Called with the optimizer and, where it takes total_steps or T_max, the run's number of steps. It is
            stepped after each step, so its numbers count steps; ReduceLROnPlateau is stepped after each epoch's
            validation and watches val/loss (lightning.pytorch.cli.ReduceLROnPlateau takes another `monitor`).
        max_norm: Largest L2 norm of a unit's incoming weights, > 0; None for no limit.
        compile: Compile the net with torch.compile; pays on GPUs and for large nets.

    Attributes:
        lr: Step size in place of the optimizer's own, > 0; None keeps the optimizer's. Lightning's `Tuner.lr_find`
            sets it, and the next fit uses it.

    Raises:
        ValueError: If max_norm is out of range, or the net has nothing to train.
    """

    net_argument = "net"  # the constructor's argument that holds the net

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable | None = None,
        scheduler: SchedulerCallable | None = None,
        max_norm: float | None = None,
        compile: bool = False,  # noqa: A002  # torch's own word
    ) -> None:
        super().__init__(net, optimizer, scheduler, max_norm)
        # The command line hands over plain class_path and init_args to keep; from Python the arguments are objects,
        # which a checkpoint that loads safely can't hold. Teachers are never kept.
        objects = ["net", "student", "optimizer", "scheduler", "store", "soft_loss", "feature_losses"]
        self.save_hyperparameters(ignore=["teachers", *([] if built_by_command_line() else objects)])
        as_plain(self.hparams)
        if compile:
            net.compile()  # in place: the names in a checkpoint stay as they are
        self.val_accuracy = Mean()
        self.test_metrics = EvaluationMetrics()
        self.step_is_logged = False  # set by TrainLog before each step
        self.learns_from_labels_only = True

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:  # Any: Lightning's own
        """Build a module from a checkpoint, as Lightning does; a net that the checkpoint describes need not be given.

        Raises:
            ValueError: If the module was made in Python with a net of which the checkpoint holds only the weights.
        """
        if cls.net_argument not in kwargs and isinstance(checkpoint_path, str | Path):
            net = net_to_give(Path(checkpoint_path), cls.net_argument)
            if net is not None:
                kwargs[cls.net_argument] = net
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    @abstractmethod
    def losses(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        """Named scalar losses of a batch, in nats per example; `loss` is minimised.

        Args:
            batch: On the device.
            logits: (batch, classes) float, what the net answered to the inputs.
        """

    def forward(self, inputs: Inputs) -> Tensor:
        """Compute the logits of a batch, (batch, classes), before softmax.

        Args:
            inputs: (batch, 1, 28, 28) float in [0, 1], or what the net takes, maybe a tuple or dict of tensors.

        Raises:
            ValueError: If the net takes other shapes, or gives something else than logits.
        """
        return logits_of(self.net, mapped(inputs, self._typed), type(self.net).__name__)

    def _typed(self, inputs: Tensor) -> Tensor:
        # Under bf16-true and the like the net's weights have another type than the inputs.
        return inputs.to(self.dtype) if inputs.is_floating_point() else inputs

    def configure_callbacks(self) -> list[Callback]:
        """Check precision and labels; find a resumed run's place; log the training's curves; step what watches them."""
        InputStatisticsSetup.put_first(self.trainer)
        checks = [LabelCheck()] if self.learns_from_labels_only else []
        return [PrecisionCheck(), *checks, LoaderPlace(), TrainLog(), PlateauSteps()]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:  # Any: also a user's own tuple
        """Compute the losses of a batch; `loss` is minimised, the others are logged with it.

        The accuracy is that of the labelled examples, NaN where there are none.
        """
        self._seed_dropout()
        batch = Batch.of(batch)
        logits = self(batch.inputs)
        return {**self.losses(batch, logits), "accuracy": accuracy(logits.detach(), batch.labels)}

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # Any: as in training_step
        """Add a batch to the validation's losses and accuracy."""
        batch = Batch.of(batch)
        logits = self(batch.inputs)
        losses = {f"val/{name}": value for name, value in self.losses(batch, logits).items()}
        self.log_dict(losses, batch_size=len(batch.labels), sync_dist=True)
        labelled = (batch.labels >= 0).float()
        self.val_accuracy.update((logits.argmax(dim=-1) == batch.labels).float(), weight=labelled)
        self.log("val/accuracy", self.val_accuracy, batch_size=len(batch.labels), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how the net is built, so that it can teach, and which data it was trained on."""
        data = transfer_data(data_of(self.trainer))
        record = checkpoint.setdefault(RECORD_KEY, {})
        record["module"] = type(self).__qualname__
        given = self.hparams.get(self.net_argument)
        record["net"] = with_numbers(self.net, given) if given else describe_net(self.net)
        record["data"] = {} if data is None else data.provenance()
        drop_functions(checkpoint)

    def _seed_dropout(self) -> None:
        """Seed dropout by (seed, batch, rank), so that a resumed run draws what an unbroken one does.

        Lightning keeps no generator state in its checkpoints; this costs a microsecond.
        """
        base = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        seed = derived_seed(base, self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)
        else:
            torch.default_generator.manual_seed(seed)
