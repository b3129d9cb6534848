"""Knowledge distillation with PyTorch Lightning: data -> teacher -> distill -> report."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kd_lightning.augment import Affine, Augment, Elastic, Jitter
    from kd_lightning.classifier import ClassifierModule
    from kd_lightning.cli import main
    from kd_lightning.data import MNISTDataModule
    from kd_lightning.distill import DistillModule
    from kd_lightning.ensemble import FrozenEnsemble, PretrainedNet, load_teachers
    from kd_lightning.export import load_exported
    from kd_lightning.loader import Batch, TensorLoader
    from kd_lightning.losses import hard_loss, soft_cross_entropy, soft_loss, soft_target_log_probs
    from kd_lightning.nets import MLP, SmallConvNet
    from kd_lightning.optimization import WarmupCosine
    from kd_lightning.store_plan import StoreOptions
    from kd_lightning.teacher import TeacherModule

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "Affine",
    "Augment",
    "Batch",
    "ClassifierModule",
    "DistillModule",
    "Elastic",
    "FrozenEnsemble",
    "Jitter",
    "MNISTDataModule",
    "PretrainedNet",
    "SmallConvNet",
    "StoreOptions",
    "TeacherModule",
    "TensorLoader",
    "WarmupCosine",
    "hard_loss",
    "load_exported",
    "load_teachers",
    "main",
    "soft_cross_entropy",
    "soft_loss",
    "soft_target_log_probs",
]

_MODULES = (
    "augment",
    "loader",
    "nets",
    "losses",
    "ensemble",
    "data",
    "store_plan",
    "optimization",
    "classifier",
    "teacher",
    "distill",
    "export",
    "cli",
)


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: torch and Lightning take seconds that `report` need not pay."""
    if name in __all__:
        for module_name in _MODULES:
            module = import_module(f"kd_lightning.{module_name}")
            if getattr(getattr(module, name, None), "__module__", None) == module.__name__:
                return getattr(module, name)
    raise AttributeError(f"module 'kd_lightning' has no attribute {name!r}")
