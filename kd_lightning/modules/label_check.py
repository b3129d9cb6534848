"""LabelCheck: a run without teachers needs labels."""

from lightning.pytorch import LightningModule, Trainer

from kd_lightning.data.memory import InMemoryDataModule
from kd_lightning.data.mixtures import Mixtures
from kd_lightning.data.transfer_data import data_of
from kd_lightning.modules.lightning_internals import LeanCallback


class LabelCheck(LeanCallback):
    """Refuses a transfer set without any label, whose hard loss would be 0 from the first step to the last.

    For a module that learns from labels only. Data that is not in memory is not checked.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the training rows.

        Raises:
            ValueError: If none of them has a label, or most are served as mixtures, which have none.
        """
        data = data_of(trainer)
        if isinstance(data, InMemoryDataModule) and isinstance(data.augment, Mixtures):
            raise ValueError(
                "data.augment is Mixtures, which have no label, and there are no teachers to ask about them; "
                "give teachers and a soft_weight above 0, or another augment"
            )
        if isinstance(data, InMemoryDataModule) and not bool((data.train_labels[data.train_rows] >= 0).any()):
            raise ValueError(
                f"no training example has a label (-1 is unknown), got {len(data.train_rows)} {data.unit} and no "
                "teachers: unlabelled examples need teachers and a soft_weight above 0"
            )
