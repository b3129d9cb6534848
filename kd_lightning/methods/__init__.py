"""What is minimised: the hard loss, the soft loss, and other methods at two seams."""

from kd_lightning.methods.base import FeatureLoss, SoftLoss, SoftTargets
from kd_lightning.methods.divergences import ReverseKL
from kd_lightning.methods.hinton import (
    KL,
    hard_loss,
    soft_cross_entropy,
    soft_loss,
    soft_target_log_probs,
    soft_targets,
)
from kd_lightning.methods.hints import Hints

__all__ = [
    "KL",
    "FeatureLoss",
    "Hints",
    "ReverseKL",
    "SoftLoss",
    "SoftTargets",
    "hard_loss",
    "soft_cross_entropy",
    "soft_loss",
    "soft_target_log_probs",
    "soft_targets",
]
