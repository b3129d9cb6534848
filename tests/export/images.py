"""The test images of the run that is exported."""

import torch

from kd_lightning.data.mnist import MNISTDataModule


def mnist5k_images() -> torch.Tensor:
    data = MNISTDataModule(dataset="mnist5k")
    data.setup("test")
    return data.all_images("test").images
