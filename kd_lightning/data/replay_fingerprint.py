"""Hashes that show whether a user's data set gives the same samples as in an earlier run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kd_lightning.data.inputs import Inputs, tensors_of
from kd_lightning.data.replay import Replay
from kd_lightning.data.user_datasets import files_of, transforms_text

# Files are read where together they are at most this large, which takes some seconds; else their sizes and times count.
READ_LIMIT = 2_000_000_000
_PROBES = 256  # samples, of any rows and views, that stand for the transforms
_ROWS_AT_ONCE = 1000


def replay_fingerprint(replay: Replay, view_count: int) -> str:
    """Hash of all inputs of a data set and of what its views do to them.

    Inputs are hashed by their files if the data set lists them, else by each sample in view 0. Views are hashed by some
    samples and by the settings of the transforms.

    Args:
        replay: Makes the samples.
        view_count: How many views each row has.
    """
    digest = hashlib.sha256(repr((len(replay), replay.seeds)).encode())
    dataset = replay.source.dataset
    digest.update(transforms_text(dataset).encode())
    files = files_of(dataset)
    if files is not None:
        digest.update(files_fingerprint(files).encode())
    else:
        for rows in torch.split(torch.arange(len(replay)), _ROWS_AT_ONCE):
            _add(digest, replay.inputs(rows, torch.zeros_like(rows)))
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(replay), (_PROBES,), generator=generator)
    views = torch.randint(view_count, (_PROBES,), generator=generator)
    _add(digest, replay.inputs(rows, views))
    return digest.hexdigest()


def files_fingerprint(files: Sequence[Path]) -> str:
    """Hash of what files hold, in order; of names, sizes and times instead where that is much.

    Args:
        files: Files that are there.
    """
    stats = [file.stat() for file in files]
    digest = hashlib.sha256()
    if sum(stat.st_size for stat in stats) > READ_LIMIT:
        for file, stat in zip(files, stats, strict=True):
            digest.update(f"{file.parent.name}/{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    else:
        for file in files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _add(digest: Any, inputs: Inputs) -> None:  # Any: hashlib names no type for it
    for tensor in tensors_of(inputs):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy())
