"""Studies made of a text."""

from pathlib import Path

from kd_lightning.reports.study_file import read_study
from kd_lightning.reports.study_row import Study


def study_of(text: str, name: str = "study.yaml") -> Study:
    """The study of a file with this text, next to two configurations."""
    for config in ("base.yaml", "fast.yaml"):
        Path(config).write_text("trainer: {max_epochs: 2}\nrun_dir: runs/x\n")
    Path(name).write_text(text)
    return read_study(Path(name))
