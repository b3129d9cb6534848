"""What `test` and `predict` write into a run's folder: metrics.json and predictions.csv."""

import csv
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning
import torch

import kd_lightning
from kd_lightning.checkpoints import RECORD_KEY, read_checkpoint
from kd_lightning.classifier import ClassifierModule
from kd_lightning.nets import parameter_count

_COUNTS = {"errors", "examples", "teacher_errors"}


def metrics_record(module: ClassifierModule, measured: dict[str, Any], checkpoint_path: Path) -> dict[str, Any]:
    """Content of metrics.json: the test figures, and what they were measured on and with.

    Args:
        module: The tested module.
        measured: What the trainer logged, by key; those below test/ are taken.
        checkpoint_path: The tested file.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    origin = checkpoint.get(RECORD_KEY, {})
    metrics: dict[str, float] = {
        key.removeprefix("test/"): float(value) for key, value in measured.items() if key.startswith("test/")
    }
    for count in _COUNTS & metrics.keys():
        metrics[count] = int(metrics[count])
    record: dict[str, Any] = {
        "test": dict(sorted(metrics.items())),
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
        "versions": {
            "kd_lightning": kd_lightning.__version__,
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
            index = int(batch["index"][position]) if "index" in batch else counted
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
