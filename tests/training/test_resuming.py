"""What a resumed run goes on with, and what Lightning's own callbacks leave of it."""

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from kd_lightning.cli.command_line import main
from kd_lightning.cli.distill_cli import DistillCLI
from kd_lightning.training import run_record

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart"
SMALL = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
SMALL += ["--data.batch_size", "400"]  # nine steps an epoch
RESUME = ["--ckpt_path", "last"]


def _fit(run: Path | str, *flags: str) -> int:
    student = ["--config", str(QUICKSTART / "student.yaml"), "--model.student.hidden", "[16]"]
    return main(["fit", *student, "--run_dir", str(run), *SMALL, *flags])


def test_a_module_built_by_the_command_line_can_be_copied_and_pickled() -> None:
    """Schedulers and optimizers given by class_path refer to the command line, which holds locks and signals."""
    for config in ("student", "teacher"):
        optimizer = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0.1"]
        flags = ["--config", str(QUICKSTART / f"{config}.yaml"), *SMALL, *optimizer, "--trainer.fast_dev_run", "true"]
        module = DistillCLI(["fit", *flags]).model
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301  # made here
            for name, tensor in module.state_dict().items():
                assert torch.equal(other.state_dict()[name], tensor), name
            built = other.optimizer_of(other.parameters())
            assert (type(built), built.defaults["lr"]) == (torch.optim.SGD, 0.1)
            assert type(other.scheduler_of(built, 10)).__name__ == "WarmupCosine"


def _last(run: Path | str) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)
    return loaded


def _same(run: str, other: str) -> None:
    """The runs ended with the same weights and optimizer states."""
    ours, theirs = _last(run), _last(other)
    assert ours["global_step"] == theirs["global_step"]
    for name, tensor in ours["state_dict"].items():
        assert torch.equal(tensor, theirs["state_dict"][name]), name
    for number, state in ours["optimizer_states"][0]["state"].items():
        for name, value in state.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(theirs["optimizer_states"][0]["state"][number][name])
            )


@pytest.mark.slow
def test_a_run_that_moves_names_both_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    for steps, hardware in enumerate(("A", "B", "B"), 1):
        monkeypatch.setattr(run_record, "hardware_of", lambda device, name=hardware: name)
        assert _fit(run, "--trainer.max_steps", str(steps), *RESUME) == 0
    assert _last(run)["kd_lightning"]["hardware"] == "A, then B"


class Stop(Callback):
    """Ends a run at a step, as a time limit may."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.step


def _callbacks(arguments: dict[str, dict[str, Any]]) -> list[str]:
    """Flags that add callbacks, of Lightning's or from here."""
    listed = [
        {"class_path": f"{__name__ if name in globals() else 'lightning.pytorch.callbacks'}.{name}", "init_args": each}
        for name, each in arguments.items()
    ]
    return ["--trainer.callbacks", json.dumps(listed)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 0.01, "swa_epoch_start": 2}),
        ("EMAWeightAveraging", {"decay": 0.9}),
        ("WeightAveraging", {}),
    ],
)
def test_averaged_weights_are_kept_whatever_the_save_clock_says(name: str, arguments: dict[str, Any]) -> None:
    averaging, four = _callbacks({name: arguments}), ["--trainer.max_epochs", "4"]
    for every in ("0", "60"):
        assert _fit(every, *averaging, *four, "--save_every", every) == 0
    _same("0", "60")
    final = _last("0")
    for key, weights in final["kd_lightning"]["step_weights"].items():
        assert not torch.equal(final["state_dict"][key], weights), key
    # The steps go on with their own weights, whether a run was stopped after an epoch or within the last one.
    for step in (18, 31):
        assert _fit("broken", *_callbacks({name: arguments, "Stop": {"step": step}}), *four, *RESUME) == 0
    stopped = _last("broken")
    assert stopped["global_step"] == 31
    steps = stopped.get("current_model_state") or stopped["kd_lightning"]["step_weights"]
    assert not any(torch.equal(tensor, stopped["state_dict"][key]) for key, tensor in steps.items() if "weight" in key)
    assert _fit("broken", *averaging, *four, *RESUME) == 0
    _same("broken", "0")


class Forgets(Callback):
    """Makes the net bad before each validation from an epoch on."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch >= self.epoch:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.zero_()


@pytest.mark.parametrize(
    "how", [*(pytest.param(how, marks=pytest.mark.slow) for how in ("moved", "copied")), "younger", "damaged"]
)
def test_the_best_checkpoint_of_a_run_is_replaced_only_by_a_better_one(how: str) -> None:
    two, three = ["--trainer.max_epochs", "2"], ["--trainer.max_epochs", "3", *RESUME]
    assert _fit("run", *(["--trainer.max_steps", "4"] if how == "younger" else []), *two) == 0
    if how == "moved":
        Path("run").rename("other")
    elif how == "copied":
        shutil.copytree("run", "other")
    elif how == "younger":  # the run was killed after its best checkpoint and goes on from an older one
        shutil.copytree("run", "other")
        assert _fit("run", *two, *RESUME, "--trainer.max_steps", "-1") == 0
        shutil.copy("run/checkpoints/best.ckpt", "other/checkpoints/best.ckpt")
    else:
        Path("run/checkpoints/best.ckpt").write_bytes(b"damaged")
        Path("run").rename("other")
    before = Path("other/checkpoints/best.ckpt").read_bytes()
    assert _fit("other", *three, *_callbacks({"Forgets": {"epoch": 0}}), "--trainer.max_steps", "-1") == 0
    assert (Path("other/checkpoints/best.ckpt").read_bytes() == before) == (how != "damaged")
    (state,) = (each for key, each in _last("other")["callbacks"].items() if key.startswith("ModelCheckpoint"))
    assert list(state["best_k_models"]) == [str(Path("other/checkpoints/best.ckpt").absolute())]


@pytest.mark.slow
def test_a_run_may_be_resumed_twice_before_its_first_validation() -> None:
    for steps in ("1", "2", "3"):
        assert _fit("run", "--trainer.max_epochs", "2", "--trainer.max_steps", steps, *RESUME) == 0


@pytest.mark.slow
def test_a_time_limit_is_one_of_each_job(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = ["--trainer.max_epochs", "2", "--trainer.max_time", "00:00:00:08"]

    check = Timer._check_time_remaining

    def a_second_later(timer: Any, trainer: Trainer) -> None:
        timer.seconds = getattr(timer, "seconds", -1) + 1
        check(timer, trainer)

    monkeypatch.setattr(Timer, "_check_time_remaining", a_second_later)
    monkeypatch.setattr(
        Timer, "time_elapsed", lambda timer, stage="train": float(timer._offset + getattr(timer, "seconds", 0))
    )
    steps, said = [], []
    for _ in range(4):
        caplog.clear()
        assert _fit("run", *limit, *RESUME) == 0
        steps.append(_last("run")["global_step"])
        said.append(caplog.text)
    assert steps == [8, 16, 18, 18]
    assert "ended after step 16 of 18: the time was up that max_time gives to each job" in said[1]
    assert "ended after" not in said[2]
    assert "nothing was left to train: max_epochs or max_steps had been reached" in said[3]
    assert _fit("whole", "--trainer.max_epochs", "2") == 0
    _same("run", "whole")


@pytest.mark.slow
def test_a_run_that_early_stopping_ended_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    stopping = {"monitor": "val/accuracy", "mode": "max", "patience": 1, "min_delta": 0.9}
    fit = ["run", "--trainer.max_epochs", "6"]
    assert _fit(*fit, *_callbacks({"EarlyStopping": stopping})) == 0
    assert (
        "ended after step 18 of 54: EarlyStopping ended the run (Monitored metric val/accuracy did not" in caplog.text
    )
    assert main(["test", "--ckpt_path", "run", "--trainer.enable_progress_bar", "false"]) == 0
    before = {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()}
    caplog.clear()
    assert _fit(*fit, *_callbacks({"EarlyStopping": stopping}), *RESUME) == 0
    assert "nothing was left to train: EarlyStopping ended the run" in caplog.text
    assert {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()} == before
    # With more patience it goes on, as far as an unbroken run with that patience does.
    more = _callbacks({"EarlyStopping": stopping | {"patience": 3}})
    assert _fit(*fit, *more, *RESUME) == 0
    assert _last("run")["global_step"] == 36
    assert not Path("run/metrics.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:When using `Trainer.accumulate_grad_batches != 1.` and overriding:UserWarning")
def test_a_schedule_of_accumulated_batches_is_resumed_within_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    schedule = {"GradientAccumulationScheduler": {"scheduling": {0: 4, 2: 2}}}
    three = ["--trainer.max_epochs", "3"]
    assert _fit("whole", *three, *_callbacks(schedule)) == 0
    assert "9 batches an epoch, steps of several batches, 11 in all" in caplog.text  # 3 + 3 + 5
    assert _last("whole")["global_step"] == 11
    assert _last("whole")["optimizer_states"][0]["param_groups"][0]["lr"] == 0.0  # the schedule spans those steps
    for step in (1, 8):
        assert _fit("broken", *three, *_callbacks({**schedule, "Stop": {"step": step}}), *RESUME) == 0
        assert _last("broken")["global_step"] == step
    assert _fit("broken", *three, *_callbacks(schedule), *RESUME) == 0
    _same("broken", "whole")


def test_another_length_on_resume_says_what_the_learning_rate_does(caplog: pytest.LogCaptureFixture) -> None:
    accumulated = ["--trainer.accumulate_grad_batches", "4"]
    assert _fit("run", "--trainer.max_epochs", "1", *accumulated) == 0
    assert "3 steps of 4 batches an epoch, 3 in all" in caplog.text
    assert _fit("run", "--trainer.max_epochs", "2", *accumulated, *RESUME) == 0
    said = (
        "the run is 6 steps long now, 3 before: WarmupCosine spans the new length, so the learning rate goes from 0 to"
    )
    assert f"{said} 0.0005" in caplog.text
    caplog.clear()
    assert _fit("run", "--trainer.max_epochs", "2", *accumulated, *RESUME) == 0
    assert "long now" not in caplog.text


@pytest.mark.slow
def test_a_learning_rate_that_was_found_is_kept_on_resume(caplog: pytest.LogCaptureFixture) -> None:
    finder = {"LearningRateFinder": {"min_lr": 1e-4, "max_lr": 0.1, "num_training_steps": 20}}
    two = ["--trainer.max_epochs", "2"]
    assert _fit("whole", *two, *_callbacks(finder)) == 0
    assert _fit("broken", *two, *_callbacks({**finder, "Stop": {"step": 13}})) == 0
    assert _fit("broken", *two, *_callbacks(finder), *RESUME) == 0
    assert "LearningRateFinder is left out: a resumed run keeps its learning rate" in caplog.text
    _same("broken", "whole")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "stopped"
    assert _fit(run, "--trainer.max_steps", "3") == 0
    return run


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("global_step",), "x", "global_step is a str ('x'), expected int"),
        (("callbacks",), [1], "callbacks is a list ([1]), expected dict"),
        (("hyper_parameters",), 3, "hyper_parameters is a int (3), expected dict"),
        (("kd_lightning",), None, "kd_lightning is a NoneType (None), expected dict"),
        (("kd_lightning", "train_seconds"), "long", "train_seconds is a str ('long'), expected int or float"),
        (("state_dict", "net.0.mean"), "x", "state_dict.net.0.mean is a str ('x'), expected a tensor"),
        (("pytorch-lightning_version",), ..., "can't be restored (KeyError: 'pytorch-lightning_version')"),
        (("loops", "fit_loop"), None, "can't be restored (AttributeError: "),
        (("loops", "fit_loop", "epoch_progress", "current", "processed"), [1], "current.processed is [1], expected 0"),
        (("loops", "fit_loop", "epoch_loop.state_dict"), 3, "loops.fit_loop.epoch_loop.state_dict is 3, expected {"),
        (("optimizer_states", 0, "state"), None, "optimizer_states.0.state is None, expected {"),
        (("optimizer_states", 0, "state", 0, "exp_avg"), [1], "optimizer_states.0.state.0.exp_avg is [1], expected"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), "x", "param_groups.0.lr is 'x', expected"),
        (("optimizer_states", 0, "param_groups", 0, "params"), ..., "can't be restored (KeyError: 'params')"),
        (("lr_schedulers", 0, "_step_count"), "x", "lr_schedulers.0._step_count is 'x', expected 1"),
        (("callbacks", "TrainLog", "values"), 3, "callbacks.TrainLog.values is 3, expected ["),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_checkpoint_of_another_form_is_one_line(
    place: tuple[Any, ...], value: Any, message: str, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = _last(stopped)
    *way, last = place
    entry: Any = checkpoint
    for key in way:
        entry = entry[key]
    if value is ...:
        del entry[last]
    else:
        entry[last] = value
    torch.save(checkpoint, "crafted.ckpt")
    assert _fit("run", "--ckpt_path", "crafted.ckpt", "--trainer.max_steps", "5") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "damaged" in line
    assert message in line
