"""A study from a study file, or made of a single configuration."""

from pathlib import Path
from typing import Any

from kd_lightning.reports.study_reader import MEASURES, StudyReader, listed
from kd_lightning.reports.study_row import Study, StudyRow, read_mapping

__all__ = ["Study", "StudyRow", "read_study"]

DEFAULT_SEEDS = 5  # of a plain configuration
LABEL_SMOOTHING = 0.1  # Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7


def read_study(path: Path, *, verdict: bool = False) -> Study:
    """Read a study file, or make a study of a configuration: its plain student, then the configuration itself.

    Args:
        path: A study file, which has `rows`, or a configuration, which has `model`.
        verdict: Make the study of a verdict, from the configuration of a distilled student. Its rows are plain,
            smoothed (the plain student with label smoothing) and distilled.

    Raises:
        FileNotFoundError: If the file, or one that it names, is missing.
        ValueError: If the file says something that is not understood.
    """
    content = read_mapping(path)
    if verdict:
        return _verdict_study(path, content)
    if "rows" in content:
        return StudyReader(path, content, within=()).study()
    if "model" in content:
        return _plain_study(path, content)
    raise ValueError(f"{path}: expected a study with rows or a configuration with model, got {listed(content)}")


def _plain_study(path: Path, content: dict[str, Any]) -> Study:
    own = StudyRow(f"{path.stem}-study", path.stem, path.stem, MEASURES[0], (path,), {}, DEFAULT_SEEDS)
    if not _is_distillation(content):
        return Study(own.study, (own,))
    plain = _options_of_plain(content)
    name = f"{path.stem}-plain"
    return Study(own.study, (own._replace(name=name, what=f"{path.stem}, plain student", options=plain), own))


def _verdict_study(path: Path, content: dict[str, Any]) -> Study:
    if not _is_distillation(content):
        raise ValueError(f"{path}: --verdict expected the configuration of a DistillModule, got {listed(content)}")
    name = f"{path.absolute().parent.name}-{path.stem}-verdict"  # there is a distill.yaml for every data set
    own = StudyRow(name, "distilled", "distilled student", MEASURES[0], (path,), {}, DEFAULT_SEEDS)
    plain = _options_of_plain(content)
    smoothed = plain | {"model.label_smoothing": LABEL_SMOOTHING}
    return Study(
        own.study,
        (
            own._replace(name="plain", what="plain student", options=plain),
            own._replace(name="smoothed", what=f"plain student, label smoothing {LABEL_SMOOTHING}", options=smoothed),
            own,
        ),
    )


def _is_distillation(content: dict[str, Any]) -> bool:
    model = content.get("model")
    return isinstance(model, dict) and str(model.get("class_path", "")).endswith("DistillModule")


def _options_of_plain(content: dict[str, Any]) -> dict[str, Any]:
    """What makes a plain student of a distilled one."""
    plain: dict[str, Any] = {"model.soft_weight": 0.0, "model.teachers": None}
    if "feature_losses" in content["model"].get("init_args", {}):
        plain["model.feature_losses"] = None
    return plain
