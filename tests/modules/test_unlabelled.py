"""Examples with the label -1: a soft loss only, and counted nowhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_lightning import MLP, Batch, DistillModule, TeacherModule, main
from tests.data.test_rows_in_memory import CLASSES, Partly
from tests.modules.test_classifier import _trainer
from tests.modules.test_train_log import Kept

FLAGS = {"batch_size": 20, "val_size": 40}


def net(width: int = 4) -> MLP:
    return MLP(hidden=[width], inputs=1, classes=CLASSES, mean=0.0, std=1.0)


def distilled(**options: Any) -> DistillModule:
    return DistillModule(student=net(), teachers=net(8), teachers_must_beat_chance=False, **options)


class NoLabels(Partly):
    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        (inputs, labels), test = super().read()
        return (inputs, torch.full_like(labels, -1)), test


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # no validation split
def test_a_transfer_set_without_labels_needs_teachers() -> None:
    module = distilled(soft_weight=0.5)
    before = [parameter.clone() for parameter in module.net.parameters()]
    _trainer().fit(module, NoLabels(batch_size=20))
    assert "errors" not in module.teacher_records[0]  # none could be counted
    assert not any(torch.equal(*pair) for pair in zip(before, module.net.parameters(), strict=True))
    plain: list[Any] = [TeacherModule(net=net()), DistillModule(student=net(), soft_weight=0.0)]
    for module in plain:
        with pytest.raises(ValueError, match=r"no training example has a label .* unlabelled examples need teachers"):
            _trainer().fit(module, NoLabels(batch_size=20))


@pytest.mark.parametrize("taught", [True, False])
def test_a_run_with_few_labels_counts_only_these(taught: bool) -> None:
    kept = Kept()
    module = distilled() if taught else TeacherModule(net=net())
    trainer = _trainer(max_steps=13, logger=kept, log_every_n_steps=1)
    trainer.fit(module, Partly(label_fraction=0.03, **FLAGS))  # 5 of 260 in 13 batches
    losses = [values["train/hard_loss" if taught else "train/loss"] for values in kept.steps.values()]
    accuracies = [values["train/accuracy"] for values in kept.steps.values() if "train/accuracy" in values]
    assert len(losses) == 13
    assert 0 < len(accuracies) <= 5  # batches with a label
    assert sum(loss > 0 for loss in losses) == len(accuracies)
    assert torch.isfinite(torch.tensor(losses + accuracies)).all()


def test_a_step_without_labels_moves_nothing() -> None:
    module = TeacherModule(net=net())
    batch = (torch.rand(3, 1), torch.tensor([-1, -1, -1]))
    losses = module.losses(Batch.of(batch), module(batch[0]))
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    assert float(losses["loss"].detach()) == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in module.parameters())


class Half(Partly):
    """The test set and the validation batches know half of their labels."""

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        train, (inputs, labels) = super().read()
        return train, (inputs, torch.where(torch.arange(8) < 2, labels, -1))

    def val_dataloader(self) -> Any:
        return self.loader(self.examples("test"), torch.arange(8), 4)


def test_evaluation_counts_the_labelled_examples() -> None:
    module = TeacherModule(net=net())
    nn.init.zeros_(list(module.net.parameters())[-2])
    with torch.no_grad():
        list(module.net.parameters())[-1].copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))  # it always says class 0
    trainer, data = _trainer(), Half(**FLAGS)
    (tested,) = trainer.test(module, data, verbose=False)
    assert (tested["test/examples"], tested["test/errors"], tested["test/accuracy"]) == (2, 1, 0.5)
    (validated,) = trainer.validate(module, data, verbose=False)  # the second batch has no label at all
    assert validated["val/accuracy"] == 0.5
    assert sum(map(sum, module.test_metrics.tables.compute()["confusion"])) == 2


@pytest.mark.slow
def test_unlabelled_digits_are_worth_having() -> None:
    """The rows of configs/mnist/unlabelled.yaml in small: 3 % of the labels, without and with all images."""
    configs = Path(__file__).parents[2] / "configs" / "mnist"
    small = ["--data.dataset", "mnist5k", "--data.val_size", "0", "--trainer.enable_progress_bar", "false"]
    student = [*small, "--model.student.hidden", "[100]"]
    rows = {
        "teacher": ["teacher.yaml", *small, "--model.net.hidden", "[200]", "--trainer.max_epochs", "8"],
        "plain": ["student.yaml", *student, "--data.train_fraction", "0.03", "--trainer.max_epochs", "150"],
        "taught": [
            "distill.yaml",
            "--config",
            str(configs / "few-labels.yaml"),
            *student,
            "--trainer.max_epochs",
            "10",
        ],
    }
    rows["taught"] += ["--model.teachers", "runs/teacher"]
    errors = {}
    for name, (config, *flags) in rows.items():
        assert main(["fit", "--config", str(configs / config), *flags, "--run_dir", f"runs/{name}"]) == 0
        assert main(["test", "--ckpt_path", f"runs/{name}", "--trainer.enable_progress_bar", "false"]) == 0
        errors[name] = json.loads(Path(f"runs/{name}/metrics.json").read_text(encoding="utf-8"))["test"]["errors"]
    assert errors["taught"] < 0.8 * errors["plain"]
