"""Rows of predictions.csv where examples are steps of sequences: one for each sequence."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kd_lightning.data.sequences import Sequences
from kd_lightning.metrics.sequences import recognise


def sequence_rows(batches: Sequence[Any], sequences: Sequences) -> Iterator[dict[str, Any]]:
    """Rows of predictions.csv, a sequence each.

    Args:
        batches: What `predict_step` returned, in order.
        sequences: What is predicted.

    Raises:
        ValueError: If not all of their rows were predicted.
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
