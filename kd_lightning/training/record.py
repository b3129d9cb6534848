"""What `test` and `predict` write into a run's folder: metrics.json and predictions.csv."""

import csv
import json
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from kd_lightning import __version__
from kd_lightning.metrics.classification import error_interval
from kd_lightning.metrics.costs import measure_costs
from kd_lightning.modules.classifier import ClassifierModule
from kd_lightning.nets.description import parameter_count
from kd_lightning.runs.checkpoints import RECORD_KEY, read_checkpoint
from kd_lightning.runs.files import DETAILS_FILE, write_json

_COUNTS = {"errors", "examples", "teacher_errors"}


class TestDetails(Callback):
    """Writes details.json: the test's tables, and what net and teachers cost to use.

    In the process that tests, since a forked process hands nothing back but the logged numbers.

    Args:
        run: The run's folder.
    """

    __test__ = False  # not a test case, whatever its name

    def __init__(self, run: Path) -> None:
        self.run = run
        self._inputs: Tensor | None = None

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep a batch of inputs."""
        if batch_idx == 0:
            self._inputs = batch[0]

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the ranks, measure and write."""
        module = cast(ClassifierModule, pl_module)
        tables = module.test_metrics.tables.compute()
        if trainer.is_global_zero and self._inputs is not None:
            costs = {"net": measure_costs(module, self._inputs)._asdict()}
            teachers = getattr(module, "teachers", None)
            if teachers is not None:
                costs["teachers"] = measure_costs(teachers, self._inputs)._asdict()
            write_json(self.run / DETAILS_FILE, {"tables": tables, "costs": costs})


def metrics_record(
    module: ClassifierModule, measured: dict[str, Any], checkpoint_path: Path, run: Path
) -> dict[str, Any]:
    """Content of metrics.json: the test figures, and what they were measured on and with.

    Args:
        module: The tested module.
        measured: What the trainer logged, by key; those below test/ are taken.
        checkpoint_path: The tested file.
        run: The run's folder, where the test has left its details.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    origin = checkpoint.get(RECORD_KEY, {})
    metrics: dict[str, Any] = {
        key.removeprefix("test/"): float(value) for key, value in measured.items() if key.startswith("test/")
    }
    for count in _COUNTS & metrics.keys():
        metrics[count] = int(metrics[count])
    details_file = run / DETAILS_FILE
    details = json.loads(details_file.read_text()) if details_file.is_file() else {}
    record: dict[str, Any] = {
        "test": dict(sorted(metrics.items())),
        "error_rate_interval": error_interval(metrics["errors"], metrics["examples"]),
        "costs": details.get("costs"),
        "checkpoint": checkpoint_path.name,
        "epochs": origin.get("epochs"),
        "validation": origin.get("validation"),
        "steps": checkpoint["global_step"],
        "seed": (origin.get("config") or {}).get("seed_everything"),
        "parameters": parameter_count(module.net),
        "train_seconds": origin.get("train_seconds"),
    }
    teachers = getattr(module, "teachers", None)
    if teachers is not None:
        record |= {"teacher_parameters": parameter_count(teachers), "teachers": len(teachers)}
    return record | {
        "device": str(module.device),
        "threads": torch.get_num_threads(),
        "versions": {
            "kd_lightning": __version__,
            "lightning": lightning.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "tested_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def prediction_rows(batches: Sequence[Any], names: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Rows of predictions.csv.

    Args:
        batches: What `predict_step` returned, in order.
        names: File of each example where image files were predicted.
    """
    counted = 0
    for batch in batches:
        for position, prediction in enumerate(batch["prediction"].tolist()):
            known = int(batch["index"][position])
            index = known if known >= 0 else counted
            label = int(batch["label"][position])
            row: dict[str, Any] = {"index": index}
            if names is not None:
                row["file"] = names[index]
            yield row | {
                "label": label if label >= 0 else "",
                "prediction": prediction,
                "confidence": f"{float(batch['confidence'][position]):.6f}",
            }
            counted += 1


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows of one shape as CSV with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["index"])
        writer.writeheader()
        writer.writerows(rows)
