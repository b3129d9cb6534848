"""What a resumed run goes on with, and what Lightning's own callbacks leave of it."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from kd_lightning.cli import DistillCLI, main

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart"
SMALL = ["--trainer.enable_progress_bar", "false", "--data.batch_size", "400"]  # nine steps an epoch


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
