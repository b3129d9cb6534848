"""What is minimised: soft and hard loss."""

from kd_lightning.methods.hinton import hard_loss, soft_cross_entropy, soft_loss, soft_target_log_probs

__all__ = [
    "hard_loss",
    "soft_cross_entropy",
    "soft_loss",
    "soft_target_log_probs",
]
