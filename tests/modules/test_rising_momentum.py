"""The schedule of Hinton et al. 2012: momentum, its damping and the step size."""

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from kd_lightning import MLP, InMemoryDataModule, RisingMomentum, TeacherModule


def test_schedule_worked_by_hand() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=10.0)
    schedule = RisingMomentum(optimizer, total_steps=20, rise_fraction=0.5, last_lr=0.01)
    (group,) = optimizer.param_groups
    seen = []
    for _ in range(21):
        assert group["dampening"] == group["momentum"]
        seen.append((group["momentum"], group["lr"]))
        optimizer.step()
        schedule.step()
    assert seen[0] == (0.5, 10.0)
    assert seen[5] == pytest.approx((0.745, 10 * 0.01**0.25))
    assert seen[10] == pytest.approx((0.99, 1.0))
    assert seen[20] == pytest.approx((0.99, 0.1))


def test_the_defaults_are_those_of_three_thousand_epochs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=10.0)
    schedule = RisingMomentum(optimizer, total_steps=3000)  # a step an epoch
    (group,) = optimizer.param_groups
    for epoch in range(501):
        assert group["lr"] == pytest.approx(10 * 0.998**epoch)
        assert group["momentum"] == pytest.approx(0.5 + 0.49 * epoch / 500)
        optimizer.step()
        schedule.step()
    assert group["momentum"] == pytest.approx(0.99)


def test_steps_are_those_of_the_papers_equation() -> None:
    weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.2)
    schedule = RisingMomentum(optimizer, total_steps=50, last_lr=1.0)  # torch's momentum does not rescale old steps
    expected, change = 3.0, -0.2 * 3.0  # torch's first step is not damped
    for step in range(50):
        momentum = min(0.99, 0.5 + 0.49 * step / (50 / 6))
        if step:
            change = momentum * change - (1 - momentum) * 0.2 * expected
        expected += change
        optimizer.zero_grad()
        (weight.square() / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        assert weight.item() == pytest.approx(expected)


class Points(InMemoryDataModule):
    """64 points of two classes."""

    num_classes = 2

    def read(self) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        points = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        labels = (points[:, 0] > 0).long()
        return (points, labels), (points, labels)


class SaveAtStep(Callback):
    """Writes half.ckpt within an epoch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 9:
            trainer.save_checkpoint("half.ckpt")


def _fit(checkpoint: str | None = None) -> Trainer:
    torch.manual_seed(0)
    module = TeacherModule(
        net=MLP(hidden=[8], dropout_hidden=0.5, inputs=4, classes=2),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        scheduler=partial(RisingMomentum, rise_fraction=1.0),
        max_norm=1.0,
    )
    trainer = Trainer(
        max_epochs=6,
        callbacks=SaveAtStep(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, Points(batch_size=16, val_size=4, seed=0), ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_a_resumed_run_goes_on_with_its_momentum() -> None:
    whole = _fit()
    (group,) = torch.load("half.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert group["momentum"] == pytest.approx(0.5 + 0.49 * 9 / 24)
    resumed = _fit("half.ckpt")
    assert whole.global_step == resumed.global_step == 24
    others = resumed.lightning_module.state_dict()
    for name, tensor in whole.lightning_module.state_dict().items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0 and 0.99"),
        ({"last_momentum": -0.1}, r"momentum must be in \[0, 1\), got 0.5 and -0.1"),
        ({"rise_fraction": 0.0}, r"rise_fraction and last_lr must be in \(0, 1\], got 0.0 and"),
        ({"last_lr": 1.5}, r"rise_fraction and last_lr must be in \(0, 1\], got .* and 1.5"),
    ],
)
def test_ranges_are_checked(options: dict[str, float], message: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match=message):
        RisingMomentum(optimizer, total_steps=10, **options)


def test_an_optimizer_without_such_a_momentum_is_refused() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    nesterov = torch.optim.SGD(weights, lr=1.0, momentum=0.9, nesterov=True)
    for optimizer, name in ((torch.optim.Adam(weights), "Adam"), (nesterov, "SGD")):
        with pytest.raises(ValueError, match=f"RisingMomentum needs an optimizer with momentum .* got {name}"):
            RisingMomentum(optimizer, total_steps=10)
