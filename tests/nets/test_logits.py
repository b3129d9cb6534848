"""What a net may give, and what is said of anything else."""

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.nets.digits import MLP
from kd_lightning.nets.logits import logits_of
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher

INPUTS = torch.rand(6, 1, 28, 28)


class Gives(nn.Module):
    """A net that gives one and the same thing."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output = output

    def forward(self, inputs: Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    ("output", "got"),
    [
        ((torch.ones(6, 3), torch.ones(6)), r"a tuple of 2; take its logits in a net of your own around this one"),
        ({"logits": torch.ones(6, 3)}, "a dict"),
        (None, "None; does its forward end with `return`?"),
        (torch.ones(18), "torch.float32 of shape (18,)"),
        (torch.ones(1, 6, 3), "torch.float32 of shape (1, 6, 3)"),
        (torch.ones(3, 6), "torch.float32 of shape (3, 6)"),
        (torch.ones(6, 3, dtype=torch.int64), "torch.int64 of shape (6, 3)"),
    ],
)
def test_what_is_no_logits_is_refused(output: object, got: str) -> None:
    with pytest.raises(ValueError, match="must return logits") as raised:
        logits_of(Gives(output), INPUTS, "Gives")
    assert str(raised.value) == (
        "Gives must return logits, a floating-point tensor (batch, classes) with a row for each of the 6 inputs, "
        f"got {got}"
    )


def test_a_full_memory_stays_what_it_is() -> None:
    def full(inputs: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")  # Lightning's batch size finder looks for it

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        logits_of(full, INPUTS, "net")


def test_a_teacher_that_takes_other_images_is_named() -> None:
    teachers = [LoadedTeacher(MLP(hidden=[4], inputs=1024), f"runs/{name}", {}) for name in ("first", "second")]
    with pytest.raises(ValueError, match=r"teacher runs/first failed on inputs of shape \(6, 1, 28, 28\): "):
        FrozenEnsemble(teachers)(INPUTS)


def test_a_teacher_that_gives_no_logits_is_named() -> None:
    with pytest.raises(ValueError, match=r"teacher runs/first must return logits, .* got a dict"):
        FrozenEnsemble([LoadedTeacher(Gives({}), "runs/first", {})])(INPUTS)
