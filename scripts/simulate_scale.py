"""Simulate stored soft targets at ImageNet's size, and measure what keeping the top k logits costs in the loss.

    python -m scripts.simulate_scale   # some minutes on two cores; writes docs/scale.json, fills in docs/scale.md

Logits are random: standard normal times 2, one class higher by 10: about two thirds of the probability.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import torch
from torch import Tensor

from kd_lightning.methods.hinton import soft_loss
from kd_lightning.teachers.npy import TableWriter
from kd_lightning.teachers.store import SoftTargetStore, top_logits
from kd_lightning.teachers.store_plan import class_type


def random_logits(examples: int, classes: int, generator: torch.Generator) -> Tensor:
    """Random logits with one likely class, (examples, classes)."""
    logits = torch.randn(examples, classes, generator=generator) * 2
    likely = torch.randint(classes, (examples, 1), generator=generator)
    return logits.scatter_add_(1, likely, torch.full((examples, 1), 10.0))


def simulate(examples: int, classes: int, top_k: int, batch: int) -> dict[str, Any]:
    """Write a store of random top-k logits and read batches from it."""
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        tables = [
            TableWriter(folder / "logits.npy", (examples, 1, top_k + 1), np.dtype(np.float16)),
            TableWriter(folder / "classes.npy", (examples, 1, top_k), class_type(classes)),
        ]
        for start in range(0, examples, 10_000):
            logits = random_logits(min(10_000, examples - start), classes, generator)
            for table, column in zip(tables, top_logits(logits.unsqueeze(1), top_k, 4.0), strict=True):
                table.append(column)
        for table in tables:
            table.checksum()
        size = sum(file.stat().st_size for file in folder.iterdir())
        before = _memory()
        store = SoftTargetStore(folder, torch.arange(examples), torch.arange(0), classes, 1)
        seconds = []
        for rows in torch.randperm(examples, generator=generator)[: 200 * batch].view(-1, batch):
            started = time.perf_counter()
            store.logits(rows, torch.zeros_like(rows))
            seconds.append(time.perf_counter() - started)
        after = _memory()
    return {
        "examples": examples,
        "classes": classes,
        "top_k": top_k,
        "size on disk, MB": size / 1e6,
        "all logits in float16 would take, MB": examples * classes * 2 / 1e6,
        "reading a batch, ms": statistics.median(seconds) * 1e3,
        "batch": batch,
        "anonymous memory, MB more": after["RssAnon"] - before["RssAnon"],
        "mapped file pages, MB more": after["RssFile"] - before["RssFile"],
    }


def loss_errors(classes: int, examples: int = 2000) -> list[dict[str, float]]:
    """How far the soft loss with the top k logits is from the loss with all of them."""
    generator = torch.Generator().manual_seed(1)
    teacher = random_logits(examples, classes, generator)
    student = teacher * 0.7 + torch.randn(teacher.shape, generator=generator)
    rows = []
    for temperature in (1.0, 4.0, 20.0):
        exact = float(soft_loss(student_logits=student, teacher_logits=teacher, temperature=temperature))
        for top_k in (5, 20, 100):
            kept, places = top_logits(teacher, top_k, temperature)
            dense = kept[:, -1:].expand(-1, classes).clone().scatter_(1, places, kept[:, :-1])
            short = float(soft_loss(student_logits=student, teacher_logits=dense, temperature=temperature))
            rows.append({"temperature": temperature, "top_k": top_k, "loss, all": exact, "loss, top k": short})
    return rows


def _memory() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: int(rest.split()[0]) / 1000 for name, rest in (x.split(":", 1) for x in lines) if name.startswith("Rss")
    }


def run(
    examples: int = 1_280_000, classes: int = 1000, top_k: int = 20, batch: int = 512, output: str = "docs"
) -> None:
    """Simulate, print, write scale.json and put the tables into scale.md.

    Args:
        examples: Entries of the store.
        classes: Classes of the teacher.
        top_k: Logits kept of each.
        batch: Examples of a batch.
        output: Folder of scale.json and scale.md.
    """
    results: dict[str, Any] = {
        "store": simulate(examples, classes, top_k, batch),
        "loss": loss_errors(classes),
    }
    Path(output).mkdir(parents=True, exist_ok=True)
    (Path(output) / "scale.json").write_text(json.dumps(results, indent=2) + "\n")
    store = ["| what | figure |", "| --- | ---: |"]
    store += [f"| {name} | {value:,.2f} |" for name, value in results["store"].items()]
    loss = ["| T | k | loss, all logits | loss, top k |", "| ---: | ---: | ---: | ---: |"]
    loss += ["| " + " | ".join(f"{value:.4g}" for value in row.values()) + " |" for row in results["loss"]]
    for name, table in {"store": store, "loss": loss}.items():
        print("\n".join(table))
        fill_in(Path(output) / "scale.md", name, table)


def fill_in(page: Path, name: str, table: list[str]) -> None:
    """Put a table behind its mark in a page, in the place of an older one."""
    if not page.is_file():
        return
    before, mark, after = page.read_text().partition(f"<!-- {name} -->\n")
    if mark:
        rest = after.lstrip("\n").splitlines(keepends=True)
        while rest and rest[0].startswith("|"):
            rest.pop(0)
        page.write_text(f"{before}{mark}\n" + "\n".join(table) + "\n\n" + "".join(rest).lstrip("\n"))


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
