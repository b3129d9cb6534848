"""The training's curves: which steps are logged, and that a mean covers all batches since the last one."""

from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loggers import Logger

from kd_lightning import MLP, MNISTDataModule, TeacherModule
from kd_lightning.modules.train_log import TrainLog

QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Kept(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: dict[int, dict[str, float]] = {}

    name = "kept"
    version = 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "train/loss" in metrics:
            self.steps[step or 0] = dict(metrics)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Losses(lightning.Callback):
    """Keeps each batch's loss."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)


@pytest.fixture(scope="module")
def data() -> MNISTDataModule:
    return MNISTDataModule(dataset="mnist5k", val_size=400, batch_size=450)  # 8 batches


def _fit(
    data: MNISTDataModule, schedule: dict[int, int] | None = None, **flags: Any
) -> tuple[Kept, list[float], lightning.Trainer]:
    kept, losses = Kept(), Losses()
    callbacks = [losses, GradientAccumulationScheduler(schedule)] if schedule else [losses]
    trainer = lightning.Trainer(max_epochs=2, logger=kept, callbacks=callbacks, **flags, **QUIET)  # type: ignore[arg-type]
    trainer.fit(TeacherModule(net=MLP(hidden=[4])), data)
    return kept, losses.seen, trainer


def test_a_logged_value_is_the_mean_since_the_last_one(data: MNISTDataModule) -> None:
    kept, losses, _ = _fit(data, log_every_n_steps=3)
    assert list(kept.steps) == [2, 5, 8, 11, 14]
    for step, values in kept.steps.items():
        assert values["train/loss"] == pytest.approx(sum(losses[step - 2 : step + 1]) / 3, rel=1e-5)
        assert {"train/accuracy", "lr", "epoch"} <= values.keys()


def test_accumulated_batches_are_one_step_and_all_count(data: MNISTDataModule) -> None:
    kept, losses, _ = _fit(data, log_every_n_steps=2, accumulate_grad_batches=2)
    assert list(kept.steps) == [1, 3, 5, 7]
    assert kept.steps[1]["train/loss"] == pytest.approx(sum(losses[:4]) / 4, rel=1e-5)


def test_the_last_step_of_an_epoch_counts_though_it_has_fewer_batches(data: MNISTDataModule) -> None:
    kept, losses, _ = _fit(data, log_every_n_steps=50, accumulate_grad_batches=3)
    assert list(kept.steps) == [2, 5]
    assert kept.steps[2]["train/loss"] == pytest.approx(sum(losses[:8]) / 8, rel=1e-5)


@pytest.mark.filterwarnings("ignore:When using .Trainer.accumulate_grad_batches:UserWarning")
def test_batches_count_alike_where_the_accumulation_changes(data: MNISTDataModule) -> None:
    kept, losses, _ = _fit(data, log_every_n_steps=3, schedule={0: 1, 1: 2})
    assert list(kept.steps) == [2, 5, 8, 11]
    assert kept.steps[8]["train/loss"] == pytest.approx(sum(losses[6:10]) / 4, rel=1e-5)


@pytest.mark.filterwarnings("ignore:When using .Trainer.accumulate_grad_batches:UserWarning")
def test_a_short_epoch_is_logged_at_its_end_where_the_accumulation_changes(data: MNISTDataModule) -> None:
    kept, losses, _ = _fit(data, log_every_n_steps=50, schedule={0: 1, 1: 3})
    assert list(kept.steps) == [7, 10]
    assert kept.steps[10]["train/loss"] == pytest.approx(sum(losses[8:]) / 8, rel=1e-5)


def test_short_epochs_are_logged_once_and_the_users_interval_stays(data: MNISTDataModule) -> None:
    kept, _, trainer = _fit(data, log_every_n_steps=50)
    assert list(kept.steps) == [7, 15]
    assert trainer.log_every_n_steps == 50  # type: ignore[attr-defined]


def test_nothing_is_kept_where_nothing_is_logged(data: MNISTDataModule) -> None:
    kept, losses, trainer = _fit(data, log_every_n_steps=0)
    assert kept.steps == {}
    assert len(losses) == 16
    (log,) = (callback for callback in trainer.callbacks if isinstance(callback, TrainLog))  # type: ignore[attr-defined]
    assert log.state_dict() == {"values": [{}], "logged_at": 0}


def test_a_loss_that_is_no_number_ends_the_run(data: MNISTDataModule) -> None:
    module = TeacherModule(net=MLP(hidden=[4]), optimizer=lambda params: torch.optim.SGD(params, lr=1e30))
    trainer = lightning.Trainer(max_epochs=1, logger=Kept(), log_every_n_steps=4, **QUIET)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no longer a finite number at step 4; .* lower the learning rate"):
        trainer.fit(module, data)
