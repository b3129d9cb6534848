"""What a resumed run goes on with, and what Lightning's own callbacks leave of it."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_lightning.cli.command_line import DistillCLI, main

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


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 0.01, "swa_epoch_start": 2}),
        pytest.param("EMAWeightAveraging", {"decay": 0.9}, marks=pytest.mark.slow),
        pytest.param("WeightAveraging", {}, marks=pytest.mark.slow),
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
