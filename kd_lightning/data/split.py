"""Which rows of the training examples validate, and which train: the transfer set."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Cuts the training examples into validation rows and the transfer set.

    Args:
        val_size: Examples held out for validation, stratified, >= 0; 0 for none.
        split_seed: Seed of the validation split, of `train_fraction` and of `label_fraction`.
        keep_classes: Train on these classes only.
        drop_classes: Leave these classes out of training.
        train_fraction: Share of the remaining examples that train, stratified, in (0, 1].
        label_fraction: Share of the labels of those that train that is kept, stratified, in (0, 1]. The same share as
            `train_fraction` would keep these very examples.
    """

    val_size: int = 0
    split_seed: int = 0
    keep_classes: list[int] | None = None
    drop_classes: list[int] | None = None
    train_fraction: float = 1.0
    label_fraction: float = 1.0

    def check(self, num_classes: int) -> None:
        """Check the ranges.

        Raises:
            ValueError: If an argument is out of range.
        """
        if self.val_size < 0:
            raise ValueError(f"val_size must be >= 0, got {self.val_size}")
        shares = {"train_fraction": self.train_fraction, "label_fraction": self.label_fraction}
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")
        for name, classes in {"keep_classes": self.keep_classes, "drop_classes": self.drop_classes}.items():
            if not all(0 <= label < num_classes for label in classes or []):
                raise ValueError(f"{name} must be class numbers from 0 to {num_classes - 1}, got {classes}")

    def val_rows(self, labels: Tensor) -> Tensor:
        """Rows that validate, (val_size,) int64, ascending; all of them have a label.

        Args:
            labels: (examples,) int64, of all training examples, -1 where unknown.
        """
        labelled = (labels >= 0).nonzero().flatten()
        return labelled[stratified_rows(labels[labelled], self.val_size, self.split_seed)]

    def train_rows(self, labels: Tensor, val_rows: Tensor) -> Tensor:
        """Rows that train, (rows,) int64, ascending.

        Args:
            labels: (examples,) int64, of all training examples.
            val_rows: (rows,) int64, those that validate.
        """
        rows = rows_outside(val_rows, len(labels))
        kept = torch.ones(len(rows), dtype=torch.bool)
        if self.keep_classes is not None:
            kept &= torch.isin(labels[rows], torch.tensor(self.keep_classes))
        if self.drop_classes is not None:
            kept &= ~torch.isin(labels[rows], torch.tensor(self.drop_classes))
        rows = rows[kept]
        count = round(self.train_fraction * len(rows))
        return rows[stratified_rows(labels[rows], count, self.split_seed)]

    def train_labels(self, labels: Tensor, train_rows: Tensor) -> Tensor:
        """Labels of all training examples, (examples,) int64, without those that training is not to see: -1.

        Args:
            labels: (examples,) int64, of all training examples, -1 where unknown.
            train_rows: (rows,) int64, those that train.
        """
        if self.label_fraction == 1:
            return labels
        labelled = train_rows[labels[train_rows] >= 0]
        count = round(self.label_fraction * len(labelled))
        kept = labelled[stratified_rows(labels[labelled], count, self.split_seed)]
        unlabelled = torch.full_like(labels, -1)
        unlabelled[kept] = labels[kept]
        return unlabelled


def stratified_rows(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draw rows so that each class keeps its share, rounded by largest remainder.

    Args:
        labels: (examples,) int64.
        count: How many rows, from 0 to all.
        seed: Seed of the draw.

    Returns:
        (count,) int64, ascending.

    Raises:
        ValueError: If there are fewer examples than asked for.
    """
    if not 0 <= count <= len(labels):
        raise ValueError(f"can't draw {count} of {len(labels)} examples")
    generator = torch.Generator().manual_seed(seed)
    classes, sizes = torch.unique(labels, return_counts=True)
    exact = sizes * (count / max(1, len(labels)))
    quota = exact.floor().long()
    rest = count - int(quota.sum())
    quota[(exact - quota).argsort(descending=True, stable=True)[:rest]] += 1
    drawn = []
    for label, wanted in zip(classes, quota, strict=True):
        members = (labels == label).nonzero().flatten()
        drawn.append(members[torch.randperm(len(members), generator=generator)[:wanted]])
    return torch.cat(drawn).sort().values if drawn else torch.empty(0, dtype=torch.int64)


def rows_outside(rows: Tensor, total: int) -> Tensor:
    """The rows of 0 .. total - 1 that are not among `rows`, ascending."""
    outside = torch.ones(total, dtype=torch.bool)
    outside[rows] = False
    return outside.nonzero().flatten()
