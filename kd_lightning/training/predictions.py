"""predictions.csv: one row for each example, or for each sequence where examples are steps of sequences."""

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kd_lightning.data.sequences import Sequences, sequences_of
from kd_lightning.data.transfer_data import transfer_data
from kd_lightning.metrics.sequences import recognise
from kd_lightning.runs.files import write_atomically


def write_predictions(batches: Sequence[Any], data: object, path: Path) -> int:
    """Write predictions.csv.

    Args:
        batches: What `predict_step` returned, in order.
        data: The data module.
        path: The file.

    Returns:
        The number of rows.
    """
    sequences = sequences_of(data, "predict")
    if sequences is None:
        served = transfer_data(data)
        rows = list(prediction_rows(batches, None if served is None else served.predict_names))
    else:
        rows = list(sequence_rows(batches, sequences))
    write_atomically(path, partial(_write_csv, rows))
    return len(rows)


def prediction_rows(batches: Sequence[Any], names: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Rows of predictions.csv, one for each example.

    Args:
        batches: What `predict_step` returned, in order.
        names: File of each example where image files were predicted.
    """
    counted = 0
    for batch in batches:
        for position, prediction in enumerate(batch["prediction"].tolist()):
            given = int(batch["index"][position])
            index = given if given >= 0 else counted
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


def sequence_rows(batches: Sequence[Any], sequences: Sequences) -> Iterator[dict[str, Any]]:
    """Rows of predictions.csv, one for each sequence.

    Args:
        batches: What `predict_step` returned, in order.
        sequences: Which rows of the data make up each sequence.

    Raises:
        ValueError: If not all rows of the sequences were predicted.
    """
    total, parts = int(sequences.starts[-1]), [batch["log_probs"].cpu() for batch in batches]
    rows = torch.cat([batch["index"].cpu() for batch in batches]) if batches else torch.empty(0, dtype=torch.int64)
    if len(rows) != total:
        raise ValueError(
            f"{sequences.unit} are recognised as a whole: expected all {total:,} rows, got {len(rows):,}; "
            "leave out --trainer.limit_predict_batches"
        )
    log_probs = torch.cat(parts)[rows.argsort()]
    found = recognise(log_probs, sequences)
    for number, label in enumerate(sequences.labels.tolist()):
        yield {
            "index": number,
            **({} if sequences.names is None else {"file": sequences.names[number]}),
            "label": label if label >= 0 else "",
            "prediction": int(found.kinds[number]),
            "confidence": f"{float(found.confidence[number]):.6f}",
        }


def _write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows of one shape as CSV with a header."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["index"])
        writer.writeheader()
        writer.writerows(rows)
