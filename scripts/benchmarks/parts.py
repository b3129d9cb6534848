"""What else the frame costs: reading data, filling the store, starting, keeping a run safe, memory."""

import contextlib
import io
import json
import operator
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from torch.utils.data import DataLoader

from kd_lightning.cli.command_line import main
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.runs import files
from kd_lightning.teachers.filling import open_store
from kd_lightning.teachers.store_plan import StoreOptions, store_specs
from kd_lightning.training.last_checkpoint import LastCheckpoint
from scripts.benchmarks.loops import Bench, Digits

IMPORTS = "import lightning.pytorch.cli, torchvision, torchmetrics"
_CONFIGS = Path(__file__).parents[2] / "configs"


def time_subnormal_numbers(bench: Bench) -> dict[str, float]:
    """Seconds of a hand-written loop's fourth epoch on one thread, with subnormal numbers kept and taken for 0."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processor's setting is each thread's own
    seconds = {}
    for flushed, name in ((False, "kept"), (True, "taken for 0, as by the command line")):
        torch.set_flush_denormal(flushed)
        seconds[name] = bench.hand_written(800, 128, epochs=4)
    torch.set_num_threads(threads)
    return {f"2x800, {name}, s per epoch": value for name, value in seconds.items()} | {
        "ratio": operator.truediv(*seconds.values())
    }


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
        config = str(_CONFIGS / "quickstart" / "student.yaml")
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
