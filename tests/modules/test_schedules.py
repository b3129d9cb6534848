"""Temperature and soft_weight change over a run, to the same bits whether it is resumed, live or stored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from kd_lightning import MLP, DistillModule, Linear, MNISTDataModule, StoreOptions, TeacherModule
from kd_lightning.modules.schedules import ScheduleSteps
from kd_lightning.reports.curves import read_curves
from tests.modules.test_distiller import Taught, pairs, teacher

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "limit_val_batches": 0,
}
FALLING, RISING = Linear(start=20, end=4), Linear(start=0.2, end=1)


class Watch(Callback):
    """Notes what each step trains with, and may save a checkpoint after the third."""

    def __init__(self, save: Path | None = None) -> None:
        self.save = save
        self.seen: list[tuple[float, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        distiller: Any = pl_module.distiller
        self.seen.append((distiller.temperature, distiller.soft_weight))
        if self.save is not None and trainer.global_step == 3:
            trainer.save_checkpoint(self.save)


def data() -> MNISTDataModule:
    return MNISTDataModule(dataset="mnist5k", val_size=0, train_fraction=0.02, batch_size=16)  # five steps an epoch


def student(**options: Any) -> DistillModule:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "temperature": FALLING,
        "soft_weight": RISING,
        "teachers": teacher(),
        "teachers_must_beat_chance": False,
    }
    return DistillModule(student=MLP(hidden=[8]), **given | options)


def fit(module: LightningModule, *callbacks: Callback, resume: Path | None = None, **flags: Any) -> Trainer:
    options: dict[str, Any] = {"max_epochs": 2, "callbacks": list(callbacks)}
    trainer = Trainer(**options | QUIET | flags)
    trainer.fit(module, data(), ckpt_path=resume, weights_only=True)
    return trainer


def test_a_line_from_the_first_step_to_the_last() -> None:
    assert [FALLING.at(step, 5) for step in range(6)] == [20, 16, 12, 8, 4, 4]
    assert [Linear(0.5, 1).at(step, 1) for step in (0, 1)] == [0.5, 1]
    assert Linear.of({"start": 20, "end": 4}) == Linear.of(FALLING) == FALLING
    assert list(Linear.of(3.0)) == [3.0, 3.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": Linear(20, 0)}, r"temperature must be from 0.001 to 1000, got 0"),
        ({"temperature": Linear(2000, 1)}, r"temperature must be from 0.001 to 1000, got 2000"),
        ({"soft_weight": Linear(-0.1, 1)}, r"soft_weight must be in \[0, 1\], got -0.1"),
        ({"soft_weight": Linear(0, 1.5)}, r"soft_weight must be in \[0, 1\], got 1.5"),
    ],
)
def test_an_end_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        student(**options)


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_each_step_has_its_value_and_logs_it(batches_per_step: int, tmp_path: Path) -> None:
    watch, module = Watch(), student()
    logger = CSVLogger(tmp_path, name=None, version="")
    trainer = fit(module, watch, logger=logger, log_every_n_steps=1, accumulate_grad_batches=batches_per_step)
    last = trainer.global_step - 1
    steps = [batch if batches_per_step == 1 else batch // 5 * 3 + batch % 5 // 2 for batch in range(len(watch.seen))]
    assert steps[-1] == last
    for step, (temperature, soft_weight) in zip(steps, watch.seen, strict=True):
        assert temperature == pytest.approx(20 - 16 * step / last)
        assert soft_weight == pytest.approx(0.2 + 0.8 * step / last)
    curves = read_curves(tmp_path).scalars
    assert curves["temperature"][0] == curves["train/loss"][0] == list(range(last + 1))
    assert curves["temperature"][1][0] == 20
    assert curves["soft_weight"][1][-1] == 1
    assert (module.temperature, module.soft_weight) == (4, 1)


def test_only_what_has_a_schedule_is_logged(tmp_path: Path) -> None:
    both: dict[str, Any] = {"one": FALLING, "none": Linear(4, 4)}
    for name, temperature in both.items():
        module = student(soft_weight=0.9, temperature=temperature)
        followed = any(isinstance(each, ScheduleSteps) for each in module.distiller.callbacks(module.net))
        assert followed == (name == "one")
        logger = CSVLogger(tmp_path, name=None, version=name)
        fit(module, logger=logger, log_every_n_steps=1, max_steps=2)
        curves = read_curves(tmp_path / name).scalars
        assert ("temperature" in curves) == (name == "one")
        assert "soft_weight" not in curves


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, rest = Watch(save=tmp_path / "third.ckpt"), Watch()
    at_once, resumed = student(), student()
    fit(at_once, whole)
    fit(resumed, rest, resume=tmp_path / "third.ckpt")
    assert rest.seen == whole.seen[3:]
    for name, tensor in at_once.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_stored_targets_follow_the_temperature(tmp_path: Path) -> None:
    weights = []
    for where in ("live", "stored"):
        module = student(soft_targets=where, store=StoreOptions(folder=str(tmp_path), dtype="float32"))
        fit(module)
        weights.append(module.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name])
    still = student(temperature=4, soft_targets="live")
    fit(still)
    assert not all(torch.allclose(tensor, still.state_dict()[name]) for name, tensor in weights[0].items())


def test_a_weight_that_ends_at_0_needs_the_teachers_to_the_end() -> None:
    module = student(soft_weight=Linear(0.9, 0))
    assert not module.learns_from_labels_only
    fit(module, max_epochs=1)
    with pytest.raises(ValueError, match="no teachers are given"):
        fit(student(soft_weight=Linear(0.9, 0), teachers=None))


def test_a_checkpoint_keeps_the_schedule(tmp_path: Path) -> None:
    fit(student(), max_steps=1).save_checkpoint(tmp_path / "last.ckpt")
    loaded = DistillModule.load_from_checkpoint(tmp_path / "last.ckpt", student=MLP(hidden=[8]))
    assert loaded.distiller.schedules == {"temperature": FALLING, "soft_weight": RISING}


def test_a_module_of_ones_own_has_schedules(tmp_path: Path) -> None:
    taught, watch = Taught(teachers=teacher(), temperature=FALLING, teachers_must_beat_chance=False), Watch()
    logger = CSVLogger(tmp_path, name=None, version="")
    options: dict[str, Any] = {"logger": logger, "log_every_n_steps": 1, "max_epochs": 1, "callbacks": [watch]}
    trainer = Trainer(**QUIET | options)
    for _ in range(2):
        trainer.fit(taught, pairs())
        trainer.fit_loop.epoch_progress.reset()
    assert [temperature for temperature, _ in watch.seen[:8]] == pytest.approx(
        [20 - 16 * step / 7 for step in range(8)]
    )
    assert sum(isinstance(each, ScheduleSteps) for each in trainer.callbacks) == 1  # type: ignore[attr-defined]
    assert read_curves(tmp_path).scalars["temperature"][1][0] == 20


def test_a_trainer_that_runs_another_module_leaves_the_schedule_alone() -> None:
    trainer = fit(student(), max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    other = TeacherModule(net=MLP(hidden=[8]))
    trainer.fit(other, data())
    assert not any(isinstance(each, ScheduleSteps) for each in trainer.callbacks)  # type: ignore[attr-defined]
