"""Imports point one way, and the public names are there."""

import ast
from pathlib import Path

import kd_lightning

PACKAGE = Path(kd_lightning.__file__).parent
# Each may import what stands above it, nothing below.
ORDER = [
    "augment", "loader", "nets", "costs", "losses", "metrics", "datasets", "images", "files", "stopping",
    "checkpoints", "runs", "tables", "data", "ensemble", "store_plan", "soft_targets", "optimization",
    "precision", "classifier", "teacher", "teacher_check", "distill", "results", "progress", "callbacks", "plots",
    "dashboard", "comparison", "report", "export", "messages", "help_texts", "cli", "completion", "__main__",
]  # fmt: skip


def test_imports_point_one_way() -> None:
    modules = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set(ORDER)
    for name in modules:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kd_lightning."):
                imported = node.module.split(".")[1]
                assert ORDER.index(imported) < ORDER.index(name), f"{name} imports {imported}"


def test_public_names_are_there() -> None:
    for name in kd_lightning.__all__:
        assert getattr(kd_lightning, name) is not None
