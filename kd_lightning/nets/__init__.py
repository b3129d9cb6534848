"""What is trained: small nets."""

from kd_lightning.nets.digits import MLP, SmallConvNet
from kd_lightning.nets.normalize import Normalize

__all__ = [
    "MLP",
    "Normalize",
    "SmallConvNet",
]
