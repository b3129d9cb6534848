"""What trains: batches, data modules and numbered views."""

from kd_lightning.data.augment import Affine, Augment, CropMirror, Elastic, Jitter
from kd_lightning.data.batches import Batch, TensorLoader
from kd_lightning.data.cifar import CIFARDataModule
from kd_lightning.data.folder import ImageFolderDataModule
from kd_lightning.data.memory import InMemoryDataModule
from kd_lightning.data.mixtures import Mixtures
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.data.seeded import SeededViews
from kd_lightning.data.sequences import HasSequences, Sequences
from kd_lightning.data.speech import SpokenDigitsDataModule
from kd_lightning.data.statistics import InputStatistics
from kd_lightning.data.transfer_data import TransferData

__all__ = [
    "Affine",
    "Augment",
    "Batch",
    "CIFARDataModule",
    "CropMirror",
    "Elastic",
    "HasSequences",
    "ImageFolderDataModule",
    "InMemoryDataModule",
    "InputStatistics",
    "Jitter",
    "MNISTDataModule",
    "Mixtures",
    "SeededViews",
    "Sequences",
    "SpokenDigitsDataModule",
    "TensorLoader",
    "TransferData",
]
