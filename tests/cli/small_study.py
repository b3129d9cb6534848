"""A study of digits whose runs take a second."""

from pathlib import Path
from typing import Any

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart"


def small_study(**more: Any) -> dict[str, Any]:
    """A study whose runs take a second: teachers, plain and distilled students of a few units, 29 steps each."""
    small = {"data.batch_size": 128, "data.val_size": 400, "trainer.max_epochs": 1}
    rows: list[dict[str, Any]] = [
        {"name": "teacher", "configs": [f"{QUICKSTART}/teacher.yaml"], "set": {"model.net.hidden": [32]}},
        {"name": "plain", "configs": [f"{QUICKSTART}/student.yaml"], "set": {"model.student.hidden": [8]}},
        {
            "name": "distilled",
            "configs": [f"{QUICKSTART}/distill.yaml"],
            "set": {"model.student.hidden": [8], **more},
            "teachers": {"teacher": 1},
        },
    ]
    return {"name": "small", "set": small, "rows": rows}
