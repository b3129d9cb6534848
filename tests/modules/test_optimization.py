"""The weight limit, the schedule, fused kernels, the checks of arguments, and the mixture of the losses."""

import math
import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jsonargparse
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LRScheduler, OneCycleLR

from kd_lightning.cli.command_line import main
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.optimization import WarmupCosine, enable_fused_kernels, limit_norms, make_scheduler
from kd_lightning.modules.teacher import TeacherModule
from kd_lightning.nets.digits import MLP, SmallConvNet


@pytest.mark.parametrize("net", [MLP(hidden=[32]), SmallConvNet(channels=[8], hidden=16)])
def test_limit_norms_scales_down_what_is_above_and_nothing_else(net: nn.Module) -> None:
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    before = [layer.weight.detach().clone().flatten(1) for layer in layers]
    limit = float(before[0].norm(dim=1).median())
    limit_norms(net, limit)
    for layer, old in zip(layers, before, strict=True):
        new = layer.weight.detach().flatten(1)
        above = old.norm(dim=1) > limit
        torch.testing.assert_close(new[above].norm(dim=1), torch.full((int(above.sum()),), limit))
        torch.testing.assert_close(new[~above], old[~above])
        torch.testing.assert_close(new / new.norm(dim=1, keepdim=True), old / old.norm(dim=1, keepdim=True))


def test_warmup_cosine_worked_by_hand() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosine(optimizer, total_steps=10, warmup_fraction=0.2)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([2 / 3, 4 / 3, 2.0])
    assert rates[6] == pytest.approx(1 + math.cos(math.pi * 4 / 8))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)
    with pytest.raises(ValueError, match=r"warmup_fraction must be in \[0, 1\), got 1"):
        WarmupCosine(optimizer, total_steps=10, warmup_fraction=1)


def half(step: int) -> float:
    """A user's own schedule."""
    return 0.5**step


def _parsed(scheduler: str) -> TeacherModule:
    """A module as the command line builds it."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TeacherModule, "model")
    net = "--model.net={class_path: kd_lightning.MLP, init_args: {hidden: [4]}}"
    module: TeacherModule = parser.instantiate_classes(parser.parse_args([net, f"--model.scheduler={scheduler}"])).model
    return module


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ("{class_path: ExponentialLR, init_args: {gamma: 0.5}}", [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32]),
        ("{class_path: StepLR, init_args: {step_size: 2}}", [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("{class_path: MultiStepLR, init_args: {milestones: [2, 3], gamma: 0.5}}", [1, 1, 1 / 2, 1 / 4, 1 / 4, 1 / 4]),
        (
            "{class_path: LambdaLR, init_args: {lr_lambda: tests.modules.test_optimization.half}}",
            [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32],
        ),
        ("CosineAnnealingLR", [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]),
        ("{class_path: CosineAnnealingLR, init_args: {T_max: 2}}", [1, 0.5, 0, 0.5, 1, 0.5]),
        (
            "{class_path: OneCycleLR, init_args: {max_lr: 2, div_factor: 4, final_div_factor: 5, pct_start: 0.5, "
            "anneal_strategy: linear}}",
            [0.5, 1.25, 2, 2 - 1.9 / 3, 2 - 3.8 / 3, 0.1],
        ),
        (
            "{class_path: LinearLR, init_args: {start_factor: 1, end_factor: 0.5, total_iters: 2}}",
            [1, 0.75, 0.5, 0.5, 0.5, 0.5],
        ),
        ("{class_path: PolynomialLR, init_args: {total_iters: 4}}", [1, 0.75, 0.5, 0.25, 0, 0]),
        ("kd_lightning.WarmupCosine", [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]),
        (
            "{class_path: kd_lightning.WarmupCosine, init_args: {warmup_fraction: 0.5}}",
            [1 / 4, 1 / 2, 3 / 4, 1, 0.75, 0.25],
        ),
    ],
)
def test_schedulers_do_as_their_names_say(scheduler: str, rates: list[float]) -> None:
    scheduler_of = _parsed(scheduler).scheduler_of
    assert scheduler_of is not None
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    made = make_scheduler(scheduler_of, optimizer, lambda: 6)
    seen = []
    for _ in rates:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    assert seen == pytest.approx(rates, abs=1e-9)


class Rates(Callback):
    """Keeps the learning rate of each epoch of the newest run."""

    seen: ClassVar[list[float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.clear()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def _fit(run: Path, *flags: str) -> int:
    """Three epochs of two steps."""
    config = Path(__file__).parents[2] / "configs" / "quickstart" / "student.yaml"
    command = ["fit", "--config", str(config), "--run_dir", str(run), "--model.student.hidden", "[4]"]
    command += ["--trainer.max_epochs", "3", "--trainer.limit_train_batches", "2", "--trainer.logger", "false"]
    return main([*command, "--trainer.enable_progress_bar", "false", *flags])


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ("{class_path: StepLR, init_args: {step_size: 3}}", [1e-3, 1e-3, 1e-4]),  # steps, not epochs
        (
            "{class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, init_args: {patience: 0, threshold: 0.99}}",
            [1e-3, 1e-3, 1e-4],  # the first validation is always the best yet
        ),
        (
            "{class_path: lightning.pytorch.cli.ReduceLROnPlateau, "
            "init_args: {monitor: val/accuracy, mode: max, factor: 0.5, patience: 0, threshold: 9}}",
            [1e-3, 1e-3, 5e-4],
        ),
    ],
)
def test_schedulers_in_a_run(scheduler: str, rates: list[float], tmp_path: Path) -> None:
    keep = ["--trainer.callbacks+", "tests.modules.test_optimization.Rates"]
    assert _fit(tmp_path / "run", "--model.scheduler", scheduler, *keep) == 0
    assert Rates.seen == pytest.approx(rates)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--model.scheduler", "StepLR"],
            r"model\.scheduler: (the following arguments are required: step_size|Option 'step_size' is required but)",
        ),
        (
            ["--model.scheduler", "ExponentialLR", "--model.scheduler.gama", "0.9"],
            "model.scheduler: torch.optim.lr_scheduler.ExponentialLR has no option gama; did you mean gamma?",
        ),
        (
            ["--model.scheduler", "torch.optim.Adam"],
            r"model\.scheduler: Expected 'torch\.optim\.Adam' to be a (subclass of|class that instantiates into)",
        ),
        (
            ["--model.scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau", "--trainer.limit_val_batches", "0"],
            "ReduceLROnPlateau watches val/loss, and this run does not validate; set --data.val_size, or take",
        ),
        (
            ["--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val/acc"],
            "ReduceLROnPlateau watches val/acc, which is not logged; expected one of .'lr', 'train/accuracy',",
        ),
        (["--optimizer", "Adam"], "[Uu]nrecognized arguments: --optimizer Adam; here it is --model.optimizer"),
        (
            ["--lr_scheduler.gamma", "1"],
            "[Uu]nrecognized arguments: --lr_scheduler.gamma 1; here it is --model.scheduler.gamma",
        ),
        (["--max_epochs", "1"], "[Uu]nrecognized arguments: --max_epochs 1; here it is --trainer.max_epochs"),
        (["--trainer.epochs=1"], "[Uu]nrecognized arguments: --trainer.epochs=1; did you mean --trainer.max_epochs[?]"),
        (["--modle.net", "MLP"], "[Uu]nrecognized arguments: --modle.net MLP; did you mean --model.net[?]"),
        (
            ["--config", "optimizer.yaml"],
            "Subcommand 'fit' does not accept option 'optimizer'; here it is optimizer, in model: init_args",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("optimizer.yaml").write_text("optimizer: Adam\n")
    assert _fit(tmp_path / "run", *flags) == 1
    # jsonargparse words some of these in another way from one release to the next
    assert re.search(f"error: {message}", capsys.readouterr().err)


def _made(scheduler_of: Any) -> LRScheduler:
    return make_scheduler(scheduler_of, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), lambda: 8)


def test_schedulers_from_python() -> None:
    made = _made(CosineAnnealingLR)
    assert isinstance(made, CosineAnnealingLR)
    assert made.T_max == 8
    assert isinstance(_made(partial(LambdaLR, lr_lambda=half)), LambdaLR)
    assert isinstance(_made(lambda optimizer: LambdaLR(optimizer, half)), LambdaLR)
    one_cycle = _made(partial(OneCycleLR, max_lr=1.0))
    assert isinstance(one_cycle, OneCycleLR)
    assert one_cycle.total_steps == 8
    other = _made(partial(OneCycleLR, max_lr=1.0, epochs=2, steps_per_epoch=3))
    assert isinstance(other, OneCycleLR)
    assert other.total_steps == 6
    own = _made(lambda optimizer, total_steps: WarmupCosine(optimizer, total_steps, 0.5))
    assert own.get_last_lr() == [pytest.approx(1 / 5)]
    with pytest.raises(ValueError, match=r"scheduler .*<lambda> also needs steps; give it with functools.partial"):
        _made(lambda optimizer, steps: LambdaLR(optimizer, half))
    with pytest.raises(ValueError, match=r"scheduler ExponentialLR also needs gamma"):
        _made(ExponentialLR)
    with pytest.raises(ValueError, match=r"must give a torch.optim.lr_scheduler.LRScheduler, got NoneType"):
        _made(lambda optimizer: None)


def test_the_run_length_is_asked_for_only_where_it_is_taken() -> None:
    def endless() -> int:
        raise ValueError("the data has no end")

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    assert isinstance(make_scheduler(partial(ExponentialLR, gamma=0.9), optimizer, endless), ExponentialLR)
    with pytest.raises(ValueError, match="the data has no end"):
        make_scheduler(WarmupCosine, optimizer, endless)


class StopAtEpoch(Callback):
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("stopped on purpose")


def test_a_resumed_run_knows_what_its_plateau_has_seen(tmp_path: Path) -> None:
    plateau = "{class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, init_args: {patience: 0, threshold: 0.99}}"
    flags = ["--model.scheduler", plateau, "--save_every", "0"]
    stop = ["--trainer.callbacks+", "tests.modules.test_optimization.StopAtEpoch"]
    assert _fit(tmp_path / "run", *flags, *stop) == 1
    keep = ["--trainer.callbacks+", "tests.modules.test_optimization.Rates"]
    assert _fit(tmp_path / "run", *flags, "--ckpt_path", "last", *keep) == 0
    assert Rates.seen == [pytest.approx(1e-4)]  # as the second epoch's validation, just before the stop, asked for


class StopAtLastBatch(Callback):
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.is_last_batch:
            raise RuntimeError("stopped on purpose")


@pytest.mark.slow
def test_a_run_resumed_after_its_epochs_last_validation_knows_what_it_measured(tmp_path: Path) -> None:
    plateau = "{class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, init_args: {patience: 0, threshold: 0.99}}"
    flags = ["--model.scheduler", plateau, "--save_every", "0"]
    flags += ["--trainer.limit_train_batches", "5", "--trainer.val_check_interval", "2"]
    keep = ["--trainer.callbacks+", "tests.modules.test_optimization.Rates"]
    assert _fit(tmp_path / "unbroken", *flags, *keep) == 0
    unbroken = Rates.seen[-2:]
    assert unbroken == [pytest.approx(1e-3), pytest.approx(1e-4)]
    assert (
        _fit(tmp_path / "run", *flags, "--trainer.callbacks+", "tests.modules.test_optimization.StopAtLastBatch") == 1
    )
    assert _fit(tmp_path / "run", *flags, "--ckpt_path", "last", *keep) == 0
    assert Rates.seen[-2:] == unbroken


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_fused_kernels_are_used_where_the_user_chose_nothing(kind: Any) -> None:
    def updated(*, quick: bool, **options: Any) -> tuple[torch.Tensor, bool]:
        parameter = nn.Parameter(torch.ones(4))
        optimizer = kind([parameter], lr=0.1, **options)
        if quick:
            enable_fused_kernels(optimizer)
        for _ in range(3):
            parameter.grad = parameter.detach() * torch.arange(4)
            optimizer.step()
        return parameter.detach(), bool(optimizer.param_groups[0]["fused"])

    plain, quick = updated(quick=False), updated(quick=True)
    assert (plain[1], quick[1]) == (False, True)
    torch.testing.assert_close(plain[0], quick[0])
    assert updated(quick=True, foreach=True)[1] is False


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="max_norm must be > 0, got 0"):
        TeacherModule(net=MLP(hidden=[4]), max_norm=0)
    with pytest.raises(ValueError, match=r"soft_weight must be in \[0, 1\], got -0.1"):
        DistillModule(student=MLP(hidden=[4]), soft_weight=-0.1)
    with pytest.raises(ValueError, match=r"dropout_hidden must be in \[0, 1\), got 1.0"):
        MLP(hidden=[4], dropout_hidden=1.0)
    with pytest.raises(ValueError, match=r"layer sizes must be > 0, got \[0\]"):
        MLP(hidden=[0])
