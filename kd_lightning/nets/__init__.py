"""What is trained: small nets."""

from kd_lightning.nets.digits import MLP, Normalize, SmallConvNet

__all__ = [
    "MLP",
    "Normalize",
    "SmallConvNet",
]
