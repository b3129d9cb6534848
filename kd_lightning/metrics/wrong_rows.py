"""Which test examples a net gets wrong, so that two nets can be compared on the same ones."""

from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from kd_lightning.metrics.uncast import UncastMetric


class WrongRows(UncastMetric):
    """Rows of the wrong answers, over all ranks."""

    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, rows: Tensor, wrong: Tensor) -> None:
        """Add a batch.

        Args:
            rows: (batch,) int64, -1 where unknown.
            wrong: (batch,) bool.
        """
        self.rows.append(rows[wrong])

    def compute(self) -> list[int] | None:
        """The rows, ascending; None where some are unknown."""
        found: list[int] = dim_zero_cat(self.rows).sort().values.tolist()  # several ranks leave one tensor
        return None if found and found[0] < 0 else found
