"""The teachers' logits on the transfer set: computed once, kept on disk, memory-mapped while the student trains.

The teachers are frozen, so their logits are constants. They are kept before any softmax: temperature, weights and
averaging stay free. Each teacher has a table of its own, which every ensemble with that teacher shares. A table holds
an entry per view of each training example, then one per validation example.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kd_lightning.data.inputs import Inputs
from kd_lightning.data.transfer_data import TransferData


class Entries:
    """The entries of a store, in order: each view of the training rows, then the validation rows.

    Args:
        data: The data module, set up.

    Attributes:
        last_row: The largest row.
    """

    def __init__(self, data: TransferData) -> None:
        self.data, self.views = data, data.view_count
        self.train_rows, self.val_rows = data.train_rows, data.val_rows
        self._rows = torch.cat([self.train_rows, self.val_rows])
        self.last_row = int(self._rows.max())
        self._first_of = torch.full((self.last_row + 2,), -1)  # and a last place for rows that are unknown
        self._first_of[self.train_rows] = torch.arange(len(self.train_rows))
        self._first_of[self.val_rows] = self.training + torch.arange(len(self.val_rows))

    def __len__(self) -> int:
        """How many there are."""
        return self.training + len(self.val_rows)

    @property
    def training(self) -> int:
        """How many of them are training rows' views."""
        return self.views * len(self.train_rows)

    def of(self, rows: Tensor, views: Tensor) -> Tensor:
        """The entry numbers of some rows in some views, (batch,) int64 on the CPU.

        Args:
            rows: (batch,) int64.
            views: (batch,) int64, 0 for validation rows.

        Raises:
            IndexError: If a row is neither a training nor a validation row.
        """
        rows = rows.cpu()
        first = self._first_of[rows]  # -1, an unknown row, finds the last place
        if int(first.min()) < 0:
            if int(rows.min()) < 0:
                raise IndexError(
                    "stored soft targets need batches that say their rows, kd_lightning.Batch; set soft_targets to live"
                )
            raise IndexError("a batch holds rows that the stored soft targets were not made for")
        return first.add_(views.cpu(), alpha=len(self.train_rows))

    def inputs(self, entries: Tensor, device: torch.device) -> Inputs:
        """What the nets get of these entries, (entries, ...), made on this device where the data can do that."""
        examples, validates = len(self.train_rows), entries >= self.training
        rows = self._rows[torch.where(validates, entries - self.training + examples, entries % examples)]
        views = entries.div(examples, rounding_mode="floor")
        views[validates] = 0  # validation examples come as they are
        return self.data.inputs(rows.to(device), views.to(device))


class Table(NamedTuple):
    """One teacher's logits.

    Attributes:
        values: (rows, classes) of any floating type, maybe memory-mapped.
        places: (entries,) int64, the row of each entry; None where an entry is its row.
    """

    values: Tensor
    places: Tensor | None = None

    @property
    def entry_count(self) -> int:
        """How many entries it has logits of."""
        return len(self.values if self.places is None else self.places)


class SoftTargetStore:
    """Stored logits of some teachers, read by row and view.

    Args:
        tables: Of each teacher.
        all_entries: What they have logits of; a table may lack the validation rows.

    Attributes:
        entry_count: Entries that all tables have.
        classes: Logits of a teacher.
    """

    def __init__(self, tables: Sequence[Table], all_entries: Entries) -> None:
        self.tables, self.all_entries = tuple(tables), all_entries
        self.entry_count = min(table.entry_count for table in self.tables)
        self.classes = self.tables[0].values.shape[1]

    def logits(self, rows: Tensor, views: Tensor) -> Tensor | None:
        """The teachers' logits on these rows in these views, (teachers, batch, classes) float32, before softmax.

        None for validation rows that a table lacks.

        Args:
            rows: (batch,) int64.
            views: (batch,) int64, 0 for validation rows.

        Raises:
            IndexError: If a row is not in the store.
        """
        entries = self.entries_of(rows, views)
        return None if entries is None else self.entries(entries).to(rows.device, non_blocking=True)

    def entries_of(self, rows: Tensor, views: Tensor) -> Tensor | None:
        """Numbers of a batch's entries, (batch,) int64; None, arguments and errors as in `logits`."""
        entries = self.all_entries.of(rows, views)
        return entries if int(entries[0]) < self.entry_count else None  # a batch trains or validates, as a whole

    def entries(self, entries: Tensor) -> Tensor:
        """The teachers' logits of these entries, (teachers, batch, classes) float32."""
        found = [
            values.index_select(0, entries if places is None else places[entries]) for values, places in self.tables
        ]
        return torch.stack(found).float()
