"""A plain Trainer with keep_run leaves a folder that `report`, `test`, `export` and other students read."""

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

from kd_lightning import (
    MLP,
    DistillModule,
    History,
    InMemoryDataModule,
    Teacher,
    TeacherModule,
    WarmupCosine,
    keep_run,
    main,
)
from kd_lightning.nets.description import fingerprint
from kd_lightning.reports.curves import read_curves
from kd_lightning.reports.run_folders import read_run
from kd_lightning.runs.checkpoints import RECORD_KEY, read_checkpoint
from kd_lightning.runs.files import read_json, read_yaml
from tests.training.test_resuming import Forgets

pytestmark = pytest.mark.filterwarnings("ignore:The following callbacks returned in")  # of a fit and a test


class Blobs(InMemoryDataModule):
    """Two clouds of points."""

    num_classes = 2

    def __init__(self, distance: float = 3.0, **options: Any) -> None:
        super().__init__(**options)
        self.distance = distance

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def make(count: int, seed: int) -> tuple[Tensor, Tensor]:
            random = torch.Generator().manual_seed(seed)
            labels = torch.arange(count) % 2
            return torch.randn(count, 4, generator=random) + self.distance * labels[:, None], labels

        return make(120, 0), make(40, 1)


class Bare(nn.Module):
    """Keeps nothing of its arguments."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layers(inputs)
        return logits


def _net() -> MLP:
    return MLP(hidden=[6], inputs=4, classes=2)


def _teacher() -> TeacherModule:
    return TeacherModule(net=_net(), optimizer=partial(torch.optim.Adam, lr=0.05), scheduler=WarmupCosine)


def _trainer(run: str, *, epochs: int = 2, overwrite: bool = False, **given: Any) -> L.Trainer:
    options = keep_run(run, overwrite=overwrite, **given)
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(max_epochs=epochs, accelerator="cpu", log_every_n_steps=1, **quiet, **options)


@pytest.fixture
def data() -> Blobs:
    L.seed_everything(0)
    return Blobs(distance=2.5, batch_size=20, val_size=20)


@pytest.fixture
def teacher(data: Blobs) -> TeacherModule:
    module = _teacher()
    trainer = _trainer("runs/teacher", epochs=4)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    return module


def test_fit_and_test_leave_a_whole_run(teacher: TeacherModule, data: Blobs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    history = History()
    student = DistillModule(student=_net(), teachers="runs/teacher", temperature=3.0)
    stopping = EarlyStopping("val/loss", patience=50)
    trainer = _trainer("runs/student", epochs=4, callbacks=[stopping], loggers=[history])
    trainer.fit(student, data)
    (tested,) = trainer.test(student, data, verbose=False)
    folder = Path("runs/student")
    run = read_run(folder)
    assert run.problem is None
    assert run.seed == 0
    assert run.metrics["test"]["errors"] == tested["test/errors"]
    assert (run.metrics["steps_done"], run.metrics["steps_planned"]) == (20, 20)
    assert run.config["model"]["init_args"]["temperature"] == 3.0
    assert run.config["data"]["init_args"]["distance"] == 2.5
    assert run.config["trainer"]["callbacks"][0]["init_args"]["monitor"] == "val/loss"
    assert read_checkpoint(folder / "checkpoints" / "best.ckpt")[RECORD_KEY]["config"]["run_dir"] == "runs/student"
    trained = read_yaml(Path("runs/teacher/config.yaml"))["model"]["init_args"]
    assert trained["scheduler"]["class_path"].endswith(".WarmupCosine")
    assert trained["optimizer"]["init_args"] == {"lr": 0.05}
    curves = read_curves(folder).scalars
    assert curves["train/soft_loss"][0] == history.curves["train/soft_loss"][0] == list(range(20))
    # The one thing outside the run's folder is said: where the teacher's logits are.
    assert "computing soft targets: teacher runs/teacher/checkpoints/best.ckpt" in caplog.text
    assert " in runs/soft_targets/" in caplog.text
    assert {path.name for path in Path().iterdir()} == {"runs"}


@pytest.mark.slow
def test_the_command_line_reads_such_a_run(teacher: TeacherModule, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_json(Path("runs/teacher/metrics.json"))["test"]
    assert main(["report", "runs"]) == 0
    assert f" of {before['examples']} test examples" in capsys.readouterr().out
    assert read_run(Path("runs/teacher")).metrics["test"] == before
    assert main(["test", "--ckpt_path", "runs/teacher", "--trainer.enable_progress_bar", "false"]) == 0
    assert read_json(Path("runs/teacher/metrics.json"))["test"]["examples"] == before["examples"]
    assert main(["export", "runs/teacher", "--format", "safetensors"]) == 0
    assert Path("runs/teacher/student.safetensors").is_file()


def test_a_folder_that_is_taken_is_refused_resumed_or_begun_again(teacher: TeacherModule, data: Blobs) -> None:
    with pytest.raises(FileExistsError, match=r"runs/teacher already holds a run; start over with keep_run"):
        _trainer("runs/teacher").fit(TeacherModule(net=_net()), data)
    longer = _trainer("runs/teacher", epochs=5)
    longer.fit(_teacher(), data, ckpt_path="runs/teacher/checkpoints/last.ckpt", weights_only=True)
    assert longer.global_step == 25
    steps, _ = read_curves(Path("runs/teacher")).scalars["train/loss"]
    assert steps == list(range(25))
    other = Blobs(distance=9.0, batch_size=20, val_size=20)
    with pytest.raises(ValueError, match=r"\(data.init_args.distance: the run has 2\.5, asked for 9\.0\)"):
        _trainer("runs/teacher", epochs=6).fit(
            _teacher(), other, ckpt_path="runs/teacher/checkpoints/last.ckpt", weights_only=True
        )
    assert not Path("runs/teacher/metrics.json").exists()  # of older weights
    _trainer("runs/teacher", epochs=1, overwrite=True).fit(TeacherModule(net=_net()), data)
    steps, _ = read_curves(Path("runs/teacher")).scalars["train/loss"]
    assert steps == list(range(5))


@pytest.mark.parametrize("named", [str, Path, Teacher])
def test_a_run_that_teaches_is_not_overwritten_by_its_student(
    named: Callable[[str], Any], teacher: TeacherModule, data: Blobs
) -> None:
    before = Path("runs/teacher/checkpoints/best.ckpt").read_bytes()
    student = DistillModule(student=_net(), teachers=named("runs/teacher"), soft_targets="live")
    with pytest.raises(FileExistsError, match=r"best\.ckpt lies in the run that is to be overwritten"):
        _trainer("runs/teacher", overwrite=True).fit(student, data)
    assert Path("runs/teacher/checkpoints/best.ckpt").read_bytes() == before


class FitsAgain(L.Callback):
    """Begins another fit in the folder of the one that runs."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            _trainer("runs/one", overwrite=True).fit(_teacher(), Blobs())


def test_a_folder_takes_one_fit_at_a_time(data: Blobs) -> None:
    with pytest.raises(BlockingIOError, match=r"a fit is under way in runs/one \(process"):
        _trainer("runs/one", callbacks=[FitsAgain()]).fit(_teacher(), data)
    assert Path("runs/one/config.yaml").is_file()  # the second fit deleted nothing
    again = _trainer("runs/one", epochs=1, overwrite=True)
    again.fit(_teacher(), data)
    assert again.global_step == 5


def test_a_run_that_was_made_in_the_meantime_is_not_overwritten(data: Blobs) -> None:
    first, second, overwrites = _trainer("runs/one"), _trainer("runs/one"), _trainer("runs/one", overwrite=True)
    first.fit(_teacher(), data)
    with pytest.raises(FileExistsError, match="runs/one already holds a run"):
        second.fit(_teacher(), data)
    overwrites.fit(_teacher(), data)
    assert overwrites.global_step == 10


def test_a_limited_validation_is_in_the_configuration(data: Blobs) -> None:
    options = {**keep_run("runs/one"), "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(max_epochs=1, accelerator="cpu", log_every_n_steps=1, limit_val_batches=1, **options).fit(
        _teacher(), data
    )
    assert read_yaml(Path("runs/one/config.yaml"))["trainer"]["limit_val_batches"] == 1


def test_a_test_of_another_net_is_not_the_runs(
    teacher: TeacherModule, data: Blobs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = Path("runs/teacher/metrics.json").read_bytes()
    other = TeacherModule(net=_net())
    _trainer("runs/teacher").test(other, data, verbose=False)
    assert "no metrics are kept: the tested net is not that of runs/teacher/checkpoints/last.ckpt" in caplog.text
    assert Path("runs/teacher/metrics.json").read_bytes() == before
    easier = Blobs(distance=9.0)
    best = "runs/teacher/checkpoints/best.ckpt"
    _trainer("runs/teacher").test(other, easier, ckpt_path=best, verbose=False, weights_only=True)
    assert "and not metrics.json: tested on other data, distance 9.0 in place of the run's 2.5" in caplog.text
    assert read_json(Path("runs/teacher/metrics-other.json"))["checkpoint"] == "best.ckpt"


class Own(L.LightningModule):
    """A module of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self.log("val/accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self.log("test/loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def test_a_module_of_ones_own_keeps_no_metrics(data: Blobs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    module, trainer = Own(), _trainer("runs/own", epochs=1)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert "metrics are kept for TeacherModule and DistillModule only, got Own" in caplog.text
    assert "name its checkpoint" not in caplog.text
    assert Path("runs/own/checkpoints/last.ckpt").is_file()
    assert not Path("runs/own/metrics.json").exists()


def test_a_copied_run_keeps_the_better_best_checkpoint(teacher: TeacherModule, data: Blobs) -> None:
    shutil.copytree("runs/teacher", "runs/copied")
    best, last = Path("runs/copied/checkpoints/best.ckpt"), "runs/copied/checkpoints/last.ckpt"
    before = best.read_bytes()
    longer = _trainer("runs/copied", epochs=5, callbacks=[Forgets(epoch=0)])
    longer.fit(_teacher(), data, ckpt_path=last, weights_only=True)
    assert longer.global_step == 25
    assert best.read_bytes() == before


def test_a_net_that_keeps_nothing_still_makes_a_run(data: Blobs) -> None:
    trainer = _trainer("runs/bare", epochs=1)
    module = TeacherModule(net=Bare(3))
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert read_run(Path("runs/bare")).problem is None
    with pytest.raises(
        ValueError, match=r"holds the weights of net, not how it is built: load_from_checkpoint\(path, net"
    ):
        TeacherModule.load_from_checkpoint("runs/bare/checkpoints/last.ckpt")
    again = TeacherModule.load_from_checkpoint("runs/bare/checkpoints/last.ckpt", net=Bare(3))
    assert fingerprint(again.net) == fingerprint(module.net)
