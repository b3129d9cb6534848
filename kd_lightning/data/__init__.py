"""What trains: batches, data modules and numbered views."""

from kd_lightning.data.augment import Affine, Augment, Elastic, Jitter
from kd_lightning.data.batches import Batch, TensorLoader
from kd_lightning.data.memory import InMemoryDataModule
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.data.seeded import SeededViews
from kd_lightning.data.sequences import HasSequences, Sequences
from kd_lightning.data.speech import SpokenDigitsDataModule
from kd_lightning.data.transfer_data import TransferData

__all__ = [
    "Affine",
    "Augment",
    "Batch",
    "Elastic",
    "HasSequences",
    "InMemoryDataModule",
    "Jitter",
    "MNISTDataModule",
    "SeededViews",
    "Sequences",
    "SpokenDigitsDataModule",
    "TensorLoader",
    "TransferData",
]
