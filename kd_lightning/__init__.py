"""Knowledge distillation with PyTorch Lightning: data -> teacher -> distill -> report."""

from importlib import import_module

__version__ = "0.1.0"

# The room or file of each public name, imported at its first use: torch and Lightning take seconds to import, and
# `report` does not need them. Type checkers read __init__.pyi.
_HOMES = {
    "CIFARDataModule": "data",
    "DIST": "methods",
    "DKD": "methods",
    "KL": "methods",
    "MLP": "nets",
    "NKD": "methods",
    "VGG": "nets",
    "AdaptedNet": "nets",
    "Affine": "data",
    "AttentionTransfer": "methods",
    "Augment": "data",
    "Batch": "data",
    "ClassifierModule": "modules",
    "CropMirror": "data",
    "DistillModule": "modules",
    "Distiller": "modules",
    "Elastic": "data",
    "FeatureLoss": "methods",
    "FrozenEnsemble": "teachers",
    "HasSequences": "data",
    "Hints": "methods",
    "History": "training.history",
    "JensenShannon": "methods",
    "ImageFolderDataModule": "data",
    "InMemoryDataModule": "data",
    "Jitter": "data",
    "Linear": "modules",
    "LogitMatching": "methods",
    "LogitsFile": "teachers",
    "MNISTDataModule": "data",
    "MatchedScale": "methods",
    "Mixtures": "data",
    "Pick": "nets",
    "Normalize": "nets",
    "PretrainedNet": "teachers",
    "Relational": "methods",
    "ResNet": "nets",
    "ReverseKL": "methods",
    "RisingMomentum": "modules",
    "SeededViews": "data",
    "Sequences": "data",
    "SimilarityPreserving": "methods",
    "SmallConvNet": "nets",
    "SoftLoss": "methods",
    "SoftTargets": "methods",
    "SpokenDigitsDataModule": "data",
    "Standardised": "methods",
    "StoreOptions": "teachers",
    "Teacher": "teachers",
    "TeacherModule": "modules",
    "TensorLoader": "data",
    "TransferData": "data",
    "WarmupCosine": "modules",
    "hard_loss": "methods",
    "keep_run": "training.run_folder",
    "load_exported": "export",
    "load_net": "teachers",
    "load_teachers": "teachers",
    "main": "cli",
    "soft_cross_entropy": "methods",
    "soft_loss": "methods",
    "soft_target_log_probs": "methods",
    "soft_targets": "methods",
}

__all__ = list(_HOMES)  # the keys are names


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kd_lightning' has no attribute {name!r}")
    return getattr(import_module(f"kd_lightning.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return [*globals(), *_HOMES]
