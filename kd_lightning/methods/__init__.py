"""What is minimised: the hard loss, the soft loss, and other methods at two seams."""

from kd_lightning.methods.attention import AttentionTransfer
from kd_lightning.methods.base import FeatureLoss, SoftLoss, SoftTargets
from kd_lightning.methods.dist import DIST
from kd_lightning.methods.divergences import JensenShannon, ReverseKL
from kd_lightning.methods.dkd import DKD
from kd_lightning.methods.hinton import (
    KL,
    hard_loss,
    soft_cross_entropy,
    soft_loss,
    soft_target_log_probs,
    soft_targets,
)
from kd_lightning.methods.hints import Hints
from kd_lightning.methods.logit_matching import LogitMatching
from kd_lightning.methods.matched_scale import MatchedScale
from kd_lightning.methods.nkd import NKD
from kd_lightning.methods.relational import Relational
from kd_lightning.methods.similarity import SimilarityPreserving
from kd_lightning.methods.standardised import Standardised

__all__ = [
    "DIST",
    "DKD",
    "KL",
    "NKD",
    "AttentionTransfer",
    "FeatureLoss",
    "Hints",
    "JensenShannon",
    "LogitMatching",
    "MatchedScale",
    "Relational",
    "ReverseKL",
    "SimilarityPreserving",
    "SoftLoss",
    "SoftTargets",
    "Standardised",
    "hard_loss",
    "soft_cross_entropy",
    "soft_loss",
    "soft_target_log_probs",
    "soft_targets",
]
