"""Lightning's moving average of the weights: what a run keeps, tests and exports is the average."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from kd_lightning import MNISTDataModule, load_teachers
from kd_lightning.cli.command_line import main

CONFIGS = Path(__file__).parents[2] / "configs"
DECAY = 0.9


class Averages(Callback):
    """Averages by hand; keeps the average of each epoch's end."""

    average: dict[str, torch.Tensor]
    by_epoch: list[dict[str, torch.Tensor]]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Averages.average, Averages.by_epoch = {}, []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for name, tensor in pl_module.named_parameters():
            now = tensor.detach().clone()
            Averages.average[name] = DECAY * Averages.average.get(name, now) + (1 - DECAY) * now
        if batch_idx + 1 == trainer.num_training_batches:
            Averages.by_epoch.append(dict(Averages.average))


@pytest.mark.slow
def test_last_best_and_the_tests_are_of_the_averaged_weights() -> None:
    averaged = ["--config", str(CONFIGS / "quickstart" / "student.yaml"), "--run_dir", "run"]
    averaged += ["--config", str(CONFIGS / "mnist" / "averaged.yaml")]
    by_hand = ["--trainer.callbacks+", "tests.training.test_averaged_weights.Averages"]
    small = ["--model.student.hidden", "[16]", "--data.val_size", "400", "--trainer.enable_progress_bar", "false"]
    decay = ["--trainer.callbacks.init_args.decay", str(DECAY)]
    # 29 steps an epoch
    assert main(["fit", *averaged, *decay, *by_hand, *small, "--trainer.max_epochs", "2"]) == 0
    kept = {name: torch.load(f"run/checkpoints/{name}.ckpt", weights_only=True) for name in ("last", "best")}
    for checkpoint in kept.values():
        average = Averages.by_epoch[checkpoint["global_step"] // 29 - 1]
        for name, tensor in average.items():
            torch.testing.assert_close(checkpoint["state_dict"][name], tensor)
    steps = kept["last"]["kd_lightning"]["step_weights"]  # with which a longer run goes on
    assert not any(torch.equal(tensor, Averages.average[name]) for name, tensor in steps.items())
    assert main(["test", "--ckpt_path", "run/checkpoints/last.ckpt"]) == 0
    data = MNISTDataModule("mnist5k", val_size=400)
    data.setup("test")
    images, labels = data.all_images("test")
    (loaded,) = load_teachers("run/checkpoints/last.ckpt")
    with torch.no_grad():
        wrong = int((loaded.net.eval()(images.float() / 255).argmax(dim=1) != labels).sum())
    assert json.loads(Path("run/metrics.json").read_text())["test"]["errors"] == wrong
    net = {name.removeprefix("net."): tensor for name, tensor in Averages.average.items()}
    for name, tensor in loaded.net.named_parameters():
        torch.testing.assert_close(tensor, net[name])
