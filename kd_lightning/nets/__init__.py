"""What is trained: small nets."""

from kd_lightning.nets.adapted import AdaptedNet, Pick
from kd_lightning.nets.digits import MLP, SmallConvNet
from kd_lightning.nets.normalize import Normalize
from kd_lightning.nets.residual import ResNet
from kd_lightning.nets.vgg import VGG

__all__ = [
    "MLP",
    "VGG",
    "AdaptedNet",
    "Normalize",
    "Pick",
    "ResNet",
    "SmallConvNet",
]
