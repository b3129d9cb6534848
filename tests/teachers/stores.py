"""Nets, data and stores that the tests of this folder share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kd_lightning.data.augment import Augment
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.nets.digits import MLP
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from kd_lightning.teachers.filling import open_store
from kd_lightning.teachers.store import SoftTargetStore
from kd_lightning.teachers.store_plan import StoreOptions, store_specs

CPU = torch.device("cpu")


def teacher_net(seed: int, hidden: int = 16) -> MLP:
    """A net whose logits are as wide as a trained net's."""
    torch.manual_seed(seed)
    net = MLP(hidden=[hidden])
    with torch.no_grad():
        net[-1].weight.mul_(8)  # type: ignore[operator]
    return net


def ensemble_of(*seeds: int) -> FrozenEnsemble:
    """Teachers, two where none is named."""
    return FrozenEnsemble([LoadedTeacher(teacher_net(seed), f"net {seed}", {}) for seed in seeds or (0, 1)])


def few_digits(augment: Augment | None = None, **options: Any) -> MNISTDataModule:
    """380 training and 200 validation images."""
    fixed: dict[str, Any] = {"dataset": "mnist5k", "val_size": 200, "train_fraction": 0.1, "augment": augment}
    data = MNISTDataModule(**fixed | options)
    data.setup("fit")
    return data


def opened(
    ensemble: FrozenEnsemble, data: MNISTDataModule, options: StoreOptions, said: list[str] | None = None
) -> SoftTargetStore:
    """The store of these teachers, filled where it has to be."""
    specs = store_specs(ensemble, data, options=options)
    assert specs is not None
    log_line: Callable[[str], None] = (said if said is not None else []).append
    return open_store(specs, ensemble, data, options=options, device=CPU, log_line=log_line)


def folders(root: Path) -> dict[str, int]:
    """The folders of a store, and when each was finished."""
    return {record.parent.name: record.stat().st_mtime_ns for record in root.glob("*/store.json")}
