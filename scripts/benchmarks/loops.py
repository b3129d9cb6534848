"""The loops that are compared: the command line's fit, the shortest one by hand, and the one that most people write."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kd_lightning.cli.command_line import main
from kd_lightning.cli.study_console import quiet
from kd_lightning.data.mnist_files import read_digits
from kd_lightning.nets.digits import MLP
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.loading import load_teachers

EXAMPLES = 60_000
T, SOFT_WEIGHT = 20.0, 0.9
_EPOCH_LINE = "seconds of this epoch: "
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # what `fit` chooses by itself


class EpochTimer(Callback):
    """Keeps the wall time of each training epoch, in seconds, and prints it for who called this process."""

    seconds: list[float] = []  # noqa: RUF012  # shared on purpose: the command line builds the object

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the time."""
        EpochTimer.seconds.append(now() - self._started)
        print(f"{_EPOCH_LINE}{EpochTimer.seconds[-1]}")


class Digits(Dataset[tuple[Tensor, int]]):
    """What most people write: an image and a transform per example."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An example, as torchvision's MNIST gives it."""
        return self.transform(Image.fromarray(self.images[index, 0].numpy())), int(self.labels[index])


class Bench:
    """The data, teachers and folders of a benchmark.

    Args:
        root: Empty folder.
        teachers: How many teachers are trained.
    """

    def __init__(self, root: Path, teachers: int) -> None:
        self.root = root
        _write_idx(root / "data")
        train, _ = read_digits("MNIST", root / "data")
        self.images, self.labels = train.images, train.labels
        for seed in range(teachers):
            net = ["--model", "kd_lightning.TeacherModule", "--model.net", "kd_lightning.MLP"]
            length = ["--trainer.max_steps", "60", "--seed_everything", str(seed)]
            self._main([*net, "--model.net.hidden", "[1200,1200]", *length], root / "teachers" / str(seed))

    def ensemble(self, count: int) -> FrozenEnsemble:
        """The first so many teachers."""
        return FrozenEnsemble(load_teachers([str(self.root / "teachers" / str(seed)) for seed in range(count)]))

    def fit(self, width: int, batch: int, teachers: int, *flags: str, examples: int = EXAMPLES) -> float:
        """Seconds of an epoch of the command line's `fit`, the second of two."""
        EpochTimer.seconds.clear()
        self._main(self._fit_arguments(width, batch, teachers, *flags, examples=examples), self.root / "run")
        return EpochTimer.seconds[-1]

    def fit_alone(self, width: int, batch: int, teachers: int, *flags: str) -> float:
        """The same from a process of its own, in which no other loop has left its memory."""
        arguments = self._run_flags(self._fit_arguments(width, batch, teachers, *flags))
        command = [sys.executable, "-m", "kd_lightning", "fit", *arguments]
        command += ["--run_dir", str(self.root / "run"), "--overwrite", "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own
        if done.returncode:
            sys.exit(done.stderr)
        return float(done.stdout.rsplit(_EPOCH_LINE, 1)[-1].split()[0])

    def _fit_arguments(self, width: int, batch: int, teachers: int, *flags: str, examples: int = EXAMPLES) -> list[str]:
        names = [str(self.root / "teachers" / str(seed)) for seed in range(teachers)]
        arguments = ["--model", "kd_lightning.DistillModule", "--model.student", "kd_lightning.MLP"]
        arguments += ["--model.student.hidden", f"[{width},{width}]", "--data.batch_size", str(batch)]
        arguments += ["--model.soft_weight", str(SOFT_WEIGHT if teachers else 0.0), *flags]
        arguments += ["--model.teachers", json.dumps(names) if teachers else "null"]
        return [*arguments, "--data.train_fraction", str(examples / EXAMPLES), "--trainer.max_epochs", "2"]

    def hand_written(self, width: int, batch: int, *, epochs: int = 1) -> float:
        """Seconds of the last of some epochs of the shortest loop over the same net, batches and optimizer."""
        net, optimizer = _student(width)
        images, labels = self.images.to(DEVICE), self.labels.to(DEVICE)
        # Lightning sets this, and each optimizer step is then slower by 0.1 ms; a hand-written loop runs without it.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)

        def epoch(steps: int) -> float:
            started = now()
            order = torch.randperm(len(labels), device=DEVICE)
            for rows in order.split(batch)[:steps]:  # type: ignore[no-untyped-call]
                loss = F.cross_entropy(net(images[rows].float().div_(255)), labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            return now() - started

        epoch(20)
        return [epoch(len(self.labels)) for _ in range(epochs)][-1]

    def usual(self, width: int, batch: int, ensemble: FrozenEnsemble, steps: int) -> float:
        """Seconds of an epoch of the loop as most people write it, from some of its steps.

        DataLoader with torchvision's transforms per example, each teacher's forward at each step, Adam as it comes,
        the loss read at each step.
        """
        net = MLP(hidden=[width, width], mean=0.0, std=1.0).to(DEVICE)
        ensemble.to(DEVICE)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        loader = DataLoader(Digits(self.images, self.labels), batch_size=batch, shuffle=True)
        started, total = 0.0, 0.0
        for step, (pictures, answers) in enumerate(loader):
            images, labels = pictures.to(DEVICE), answers.to(DEVICE)
            with torch.no_grad():
                targets = torch.stack([F.softmax(teacher(images) / T, dim=1) for teacher in ensemble.nets]).mean(dim=0)
            logits = net(images)
            soft = F.kl_div(F.log_softmax(logits / T, dim=1), targets, reduction="batchmean") * T**2
            loss = SOFT_WEIGHT * soft + (1 - SOFT_WEIGHT) * F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
            if step == 4:
                started = now()
            if step == 4 + steps:
                break
        return (now() - started) / steps * len(loader)

    def _main(self, arguments: list[str], run: Path) -> None:
        quiet_fit(self._run_flags(arguments), run)

    def _run_flags(self, arguments: list[str]) -> list[str]:
        flags = [*arguments, "--data.data_dir", str(self.root / "data"), "--data.val_size", "0"]
        flags += ["--model.scheduler", "kd_lightning.WarmupCosine"]
        flags += ["--trainer.callbacks+", "scripts.benchmarks.loops.EpochTimer"]
        if any("DistillModule" in argument for argument in arguments):
            flags += ["--model.store.folder", str(self.root / "store")]
        return flags


def quiet_fit(arguments: list[str], run: Path) -> None:
    """Call the command line's `fit`; what it says is shown only where it fails.

    Args:
        arguments: All but the run's folder.
        run: That folder, which is written again.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # as in a process of its own
    output = io.StringIO()
    with quiet(), contextlib.redirect_stderr(output):
        code = main(["fit", *arguments, "--run_dir", str(run), "--overwrite", "true"])
    if code:
        sys.exit(output.getvalue())


def _student(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    net = MLP(hidden=[width, width]).to(DEVICE)
    return net, torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)


def now() -> float:
    """Seconds, after the GPU has finished its work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _write_idx(folder: Path) -> None:
    """Write mnist5k's images over and over, in the files and sizes of MNIST."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    train, test = read_digits("mnist5k", folder)
    for name, digits, count in (("train", train, EXAMPLES), ("t10k", test, 10_000)):
        rows = torch.arange(count) % len(digits.labels)
        sizes = b"".join(size.to_bytes(4, "big") for size in (count, 28, 28))
        images = digits.images[rows].numpy().tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + sizes + images)
        labels = digits.labels[rows].numpy().astype(np.uint8).tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + sizes[:4] + labels)
