"""Measure what the frame costs: against a hand-written loop, and against the loop as most people write it.

    python -m scripts.benchmark --quick true          # a minute, fewer cases
    python -m scripts.benchmark                       # everything, about 25 minutes on two cores; docs/benchmark.*
    python -m scripts.benchmark --only '["On a GPU"]'  # needs a GPU; the other parts are meant for the CPU
    python -m scripts.benchmark --only '[Training]'   # one part again, the others as they are in docs/benchmark.json

All cases of a table run in turns in one process, several times over; medians are reported. Let nothing else run.
The images are the 5,000 of mnist5k repeated to 60,000: time does not depend on what they show.
"""

import contextlib
import io
import json
import logging
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jsonargparse
import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kd_lightning.cli.command_line import main
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.data.mnist_files import read_digits
from kd_lightning.nets.digits import MLP
from kd_lightning.runs import files
from kd_lightning.teachers.ensemble import FrozenEnsemble
from kd_lightning.teachers.filling import open_store
from kd_lightning.teachers.loading import load_teachers
from kd_lightning.teachers.store_plan import StoreOptions, store_specs
from kd_lightning.training.last_checkpoint import LastCheckpoint

EXAMPLES = 60_000
T, SOFT_WEIGHT = 20.0, 0.9
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # what `fit` chooses by itself
TRAINING, DATA_PATH, START_UP = "Training", "Data path, images per second", "Start-up, seconds of a process"
ON_GPU = "On a GPU"
IMPORTS = "import lightning.pytorch.cli, torchvision, torchmetrics"


class EpochTimer(Callback):
    """Keeps the wall time of each training epoch, in seconds."""

    seconds: list[float] = []  # noqa: RUF012  # shared on purpose: the command line builds the object

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = _now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the time."""
        EpochTimer.seconds.append(_now() - self._started)


class Case(NamedTuple):
    """One thing to time.

    Attributes:
        name: What it is called in the table.
        width: Units of each of the student's two hidden layers.
        batch: Examples per step.
        teachers: How many teach, 0 for the plain student.
        examples: Examples of an epoch.
        run: Does one epoch and returns its wall time, seconds.
    """

    name: str
    width: int
    batch: int
    teachers: int
    examples: int
    run: Callable[[], float]


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
        names = [str(self.root / "teachers" / str(seed)) for seed in range(teachers)]
        arguments = ["--model", "kd_lightning.DistillModule", "--model.student", "kd_lightning.MLP"]
        arguments += ["--model.student.hidden", f"[{width},{width}]", "--data.batch_size", str(batch)]
        arguments += ["--model.soft_weight", str(SOFT_WEIGHT if teachers else 0.0), *flags]
        arguments += ["--model.teachers", json.dumps(names) if teachers else "null"]
        arguments += ["--data.train_fraction", str(examples / EXAMPLES), "--trainer.max_epochs", "2"]
        EpochTimer.seconds.clear()
        self._main(arguments, self.root / "run")
        return EpochTimer.seconds[-1]

    def hand_written(self, width: int, batch: int) -> float:
        """Seconds of an epoch of the shortest loop over the same net, batches and optimizer."""
        net, optimizer = _student(width)
        images, labels = self.images.to(DEVICE), self.labels.to(DEVICE)
        # Lightning sets this, and each optimizer step is then slower by 0.1 ms; a hand-written loop runs without it.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)

        def epoch(steps: int) -> float:
            started = _now()
            order = torch.randperm(len(labels), device=DEVICE)
            for rows in order.split(batch)[:steps]:  # type: ignore[no-untyped-call]
                loss = F.cross_entropy(net(images[rows].float().div_(255)), labels[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            return _now() - started

        epoch(20)
        return epoch(len(self.labels))

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
                started = _now()
            if step == 4 + steps:
                break
        return (_now() - started) / steps * len(loader)

    def _main(self, arguments: list[str], run: Path) -> None:
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # as in a process of its own
        flags = ["fit", *arguments, "--run_dir", str(run), "--overwrite", "true"]
        flags += ["--data.data_dir", str(self.root / "data"), "--data.val_size", "0"]
        flags += ["--model.scheduler", "kd_lightning.WarmupCosine"]
        flags += ["--trainer.callbacks+", "scripts.benchmark.EpochTimer"]
        if any("DistillModule" in argument for argument in arguments):
            flags += ["--model.store.folder", str(self.root / "store")]
        output = io.StringIO()
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = main(flags)
        if code:
            sys.exit(output.getvalue())


def time_in_turns(cases: list[Case], repeats: int) -> list[dict[str, Any]]:
    """Run all cases in turns and give their medians.

    Each turn has its own order, because the case before has an effect: a hot processor, fragmented memory.
    """
    seconds: list[list[float]] = [[] for _ in cases]
    for repeat in range(repeats):
        order = list(zip(cases, seconds, strict=True))
        random.Random(repeat).shuffle(order)  # noqa: S311  # not for secrets
        for case, kept in order:
            kept.append(case.run())
            print(f"{repeat + 1}/{repeats} {case.name}, {case.width}/{case.batch}: {kept[-1]:.2f} s", flush=True)
    return [
        {
            **{name: value for name, value in case._asdict().items() if name != "run"},
            "turns": repeats,
            "seconds_per_epoch": statistics.median(kept),
            "fastest": min(kept),
            "examples_per_second": case.examples / statistics.median(kept),
            "all_seconds": kept,
        }
        for case, kept in zip(cases, seconds, strict=True)
    ]


def step_cases(bench: Bench, width: int, batch: int, *, usual_steps: int) -> list[Case]:
    """The main table: floor, plain, distilled from one and ten teachers, and the usual loop."""
    count = len(list((bench.root / "teachers").iterdir()))
    live, stored = ["--model.soft_targets", "live"], ["--model.soft_targets", "stored"]
    fast = [*stored, "--trainer.precision", "bf16-mixed"]

    def case(name: str, teachers: int, run: Callable[[], float], size: int = batch) -> Case:
        return Case(name, width, size, teachers, EXAMPLES, run)

    cases = [
        case("hand-written loop, plain", 0, partial(bench.hand_written, width, batch)),
        case("fit, plain", 0, partial(bench.fit, width, batch, 0)),
    ]
    for teachers in (1, count):
        usual = partial(bench.usual, width, batch, bench.ensemble(teachers), usual_steps)
        cases += [
            case("fit, distilled, stored", teachers, partial(bench.fit, width, batch, teachers, *stored)),
            case("fit, distilled, live", teachers, partial(bench.fit, width, batch, teachers, *live)),
            case("usual loop", teachers, usual),
        ]
    cases.append(case("fit, distilled, stored, bf16-mixed", 1, partial(bench.fit, width, 512, 1, *fast), 512))
    return cases


def frame_cases(bench: Bench, widths: list[int], batches: list[int]) -> list[Case]:
    """Plain and distilled fit, and the floor, over widths and batches."""
    count = len(list((bench.root / "teachers").iterdir()))
    stored = ["--model.soft_targets", "stored"]
    return [
        Case(name, width, batch, teachers, EXAMPLES, run)
        for width in widths
        for batch in batches
        for name, teachers, run in (
            ("hand-written loop, plain", 0, partial(bench.hand_written, width, batch)),
            ("fit, plain", 0, partial(bench.fit, width, batch, 0)),
            ("fit, distilled, stored", count, partial(bench.fit, width, batch, count, *stored)),
        )
    ]


def gpu_cases(bench: Bench, *, usual_steps: int) -> list[Case]:
    """Floor, plain and distilled fit with all images on the GPU, and the usual loop."""
    count = len(list((bench.root / "teachers").iterdir()))
    resident = ["--data.device_resident", "true"]
    cases = []
    for width, batch in ((800, 128), (800, 1024)):
        fit = partial(bench.fit, width, batch)
        usual = partial(bench.usual, width, batch, bench.ensemble(count), usual_steps)
        runs = [
            ("hand-written loop, plain", 0, partial(bench.hand_written, width, batch)),
            ("fit, plain", 0, partial(fit, 0, *resident)),
            ("fit, plain, images copied to the GPU", 0, partial(fit, 0)),
            ("fit, distilled, stored", count, partial(fit, count, *resident, "--model.soft_targets", "stored")),
            ("fit, distilled, live", count, partial(fit, count, *resident, "--model.soft_targets", "live")),
            ("usual loop", count, usual),
        ]
        cases += [Case(name, width, batch, teachers, EXAMPLES, run) for name, teachers, run in runs]
    return cases


def growth_cases(bench: Bench) -> list[Case]:
    """How an epoch's time grows with the teachers and the examples."""
    count = len(list((bench.root / "teachers").iterdir()))
    cases = []
    for mode in ("stored", "live"):
        flags = ["--model.soft_targets", mode]
        cases += [
            Case(f"fit, distilled, {mode}", 800, 128, n, EXAMPLES, partial(bench.fit, 800, 128, n, *flags))
            for n in sorted({1, 2, 5, count} & set(range(count + 1)))
        ]
    cases += [
        Case(
            "fit, distilled, stored",
            800,
            128,
            count,
            n,
            partial(bench.fit, 800, 128, count, "--model.soft_targets", "stored", examples=n),
        )
        for n in (10_000, 30_000, 60_000)
    ]
    return cases


def time_data_path(bench: Bench, repeats: int) -> dict[str, float]:
    """Images per second, as floats ready for the net: this package's loader and torchvision with a DataLoader."""
    data = MNISTDataModule(data_dir=str(bench.root / "data"), val_size=0)
    data.setup("fit")
    usual = DataLoader(Digits(bench.images, bench.labels), batch_size=128, shuffle=True)
    ours, theirs = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        count = sum(len(data.on_after_batch_transfer(batch, 0).inputs) for batch in data.train_dataloader())
        ours.append(count / (time.perf_counter() - started))
        started, count = time.perf_counter(), 0
        for images, _ in usual:
            count += len(images)
            if count >= 10_000:
                break
        theirs.append(count / (time.perf_counter() - started))
    fast, slow = statistics.median(ours), statistics.median(theirs)
    return {"kd_lightning": fast, "torchvision + DataLoader": slow, "ratio": fast / slow}


def time_fill(bench: Bench, teachers: int, repeats: int) -> dict[str, float]:
    """Seconds to fill the store, and of the bare forward passes over the same images."""
    data = MNISTDataModule(data_dir=str(bench.root / "data"), val_size=0)
    data.setup("fit")
    ensemble = bench.ensemble(teachers)
    options = StoreOptions(folder=str(bench.root / "fill"))
    fill, bare = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        with torch.no_grad():
            for part in bench.images.split(1000):  # type: ignore[no-untyped-call]
                images = part.float().div_(255)
                for net in ensemble.nets:
                    net(images)
        bare.append(time.perf_counter() - started)
        started = time.perf_counter()
        specs = store_specs(ensemble, data, options=options)
        if specs is None:
            raise TypeError("the benchmark's data can't be stored")
        open_store(specs, ensemble, data, options=options, device=torch.device("cpu"), log_line=lambda _: None)
        fill.append(time.perf_counter() - started)
        shutil.rmtree(options.folder)
    fast, slow = statistics.median(bare), statistics.median(fill)
    return {"teachers": teachers, "bare forward, s": fast, "filling the store, s": slow, "ratio": slow / fast}


def time_startup(repeats: int) -> dict[str, float]:
    """Seconds of a whole process, in turns."""
    commands = {
        "bare imports": ["-c", IMPORTS],
        "--help": ["-m", "kd_lightning", "--help"],
        "fit --help": ["-m", "kd_lightning", "fit", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats + 1):
        for name, arguments in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(kept[1:]) for name, kept in seconds.items()}  # the first fills the disk cache
    return medians | {"ratio": medians["fit --help"] / medians["bare imports"]}


def time_crash_safety(bench: Bench) -> dict[str, float]:
    """Seconds that a run of the quickstart's student takes, and those of it spent on not losing anything.

    That is all of `last.ckpt`, and bringing `best.ckpt` and the small files to disk, which plain writing would not.
    """
    spent, depth = 0.0, 0

    def timed(function: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*args: object, **kwargs: object) -> object:
            nonlocal spent, depth
            depth += 1
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1
                if depth == 0:  # what is called by another of them is counted there
                    spent += time.perf_counter() - started

        return wrapper

    hooks = ("on_train_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end")
    with contextlib.ExitStack() as patches:
        for owner, name in [(files, "flush"), *((LastCheckpoint, hook) for hook in hooks)]:
            patches.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        started = time.perf_counter()
        config = str(Path(__file__).parent.parent / "configs" / "quickstart" / "student.yaml")
        arguments = ["fit", "--config", config, "--run_dir", str(bench.root / "safe")]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if main(arguments):
                sys.exit("the quickstart's student failed")
        total = time.perf_counter() - started
    return {"run, s": total, "crash safety, s": spent, "share, %": 100 * spent / total}


def measure_memory(bench: Bench, teachers: int) -> dict[str, float]:
    """Peak anonymous memory of a distillation over 25 stored views, above that of the imports, in MB."""
    names = json.dumps([str(bench.root / "teachers" / str(seed)) for seed in range(teachers)])
    code = f"""
import threading, time
{IMPORTS}
from kd_lightning.cli.command_line import main
def anonymous():
    lines = open("/proc/self/status", encoding="utf-8").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000
before, peak, done = anonymous(), [0.0], threading.Event()
def watch():
    while not done.is_set():
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.02)
thread = threading.Thread(target=watch)
thread.start()
code = main(["fit", "--model", "kd_lightning.DistillModule", "--model.student", "kd_lightning.MLP",
    "--model.student.hidden", "[800,800]", "--model.teachers", {names!r}, "--model.soft_targets", "stored",
    "--model.teacher_precision", "bfloat16", "--model.store.folder", {str(bench.root / "views")!r},
    "--data.data_dir", {str(bench.root / "data")!r}, "--data.augment", "kd_lightning.Jitter",
    "--data.val_size", "0", "--trainer.max_steps", "400", "--run_dir", {str(bench.root / "memory")!r},
    "--overwrite", "true"])
done.set()
thread.join()
print("memory", code, before, peak[0])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603  # our own
    exit_code, before, peak = done.stdout.split("memory ")[-1].split()
    if exit_code != "0":
        sys.exit(done.stderr)
    return {"imports": float(before), "peak": float(peak), "above imports": float(peak) - float(before)}


def _student(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    net = MLP(hidden=[width, width]).to(DEVICE)
    return net, torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)


def _now() -> float:
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


def machine() -> dict[str, str]:
    """What a figure was measured with, and when."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    gpu = f"{torch.cuda.get_device_name()} and " if DEVICE.type == "cuda" else ""
    return {
        "processor": f"{gpu}{os.cpu_count()} cores of {model}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _markdown(parts: dict[str, Any]) -> Iterator[str]:
    yield "# What the frame costs\n"
    yield "Written by `python -m scripts.benchmark`. Medians; teachers 2x1200.\n"
    for title, part in parts.items():
        rows, day = part["result"], part["measured_at"][:10]
        yield f"## {title}\n"
        yield f"On {part['processor']}, torch {part['torch']}, Lightning {part['lightning']}, {day}.\n"
        if isinstance(rows, list):
            yield "| loop | student | batch | teachers | examples | turns | s per epoch | fastest | examples/s |"
            yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
            for row in rows:
                yield (
                    f"| {row['name']} | 2x{row['width']} | {row['batch']} | {row['teachers']} | {row['examples']:,} "
                    f"| {row['turns']} | {row['seconds_per_epoch']:.2f} | {row['fastest']:.2f} "
                    f"| {row['examples_per_second']:,.0f} |"
                )
        else:
            yield "| what | figure |\n| --- | ---: |"
            yield from (f"| {name} | {value:,.2f} |" for name, value in rows.items())
        yield ""


def run(
    quick: bool = False, output: str = "docs", teachers: int = 10, repeats: int = 5, only: list[str] | None = None
) -> None:
    """Measure, and write benchmark.json and benchmark.md.

    Args:
        quick: A minute's run: two teachers, one turn, only the main table.
        output: Folder of the two files.
        teachers: Teachers of the large ensemble.
        repeats: Turns of the main table.
        only: Names of the parts to measure, as they stand in benchmark.md; the others stay as they are there.
    """
    import scripts.benchmark as this  # the module that the command line imports, whose EpochTimer keeps the times

    if quick:
        teachers, repeats = 2, 1
    folder = Path(output)
    with tempfile.TemporaryDirectory() as root:
        bench = this.Bench(Path(root), teachers)
        parts: dict[str, Callable[[], Any]] = {
            TRAINING: lambda: time_in_turns(step_cases(bench, 800, 128, usual_steps=20 if quick else 100), repeats),
            "Widths and batches": lambda: time_in_turns(frame_cases(bench, [300, 800, 1200], [128, 512]), 3),
            "Growth": lambda: time_in_turns(growth_cases(bench), 1),
            DATA_PATH: lambda: time_data_path(bench, repeats),
            "Filling the store, 60,000 images": lambda: time_fill(bench, teachers, 3),
            "Peak anonymous memory, ten teachers, 25 views, MB": lambda: measure_memory(bench, teachers),
            "Crash safety, a run of the quickstart's student": lambda: time_crash_safety(bench),
            START_UP: lambda: time_startup(repeats),
            ON_GPU: lambda: time_in_turns(gpu_cases(bench, usual_steps=100), repeats),
        }
        if DEVICE.type != "cuda":
            del parts[ON_GPU]
        chosen = [TRAINING, DATA_PATH, START_UP] if quick else only or list(parts)
        if unknown := set(chosen) - parts.keys():
            sys.exit(f"error: no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        earlier = folder / "benchmark.json"
        kept = json.loads(earlier.read_text(encoding="utf-8"))["parts"] if only and earlier.is_file() else {}
        measured = {name: {**machine(), "result": parts[name]()} for name in chosen}
    results = {"parts": kept | measured}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / "benchmark.md").write_text("\n".join(_markdown(results["parts"])), encoding="utf-8")
    print((folder / "benchmark.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
