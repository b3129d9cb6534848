"""What is trained: small nets."""

from kd_lightning.nets.adapted import AdaptedNet, Pick
from kd_lightning.nets.digits import MLP, SmallConvNet
from kd_lightning.nets.normalize import Normalize

__all__ = [
    "MLP",
    "AdaptedNet",
    "Normalize",
    "Pick",
    "SmallConvNet",
]
