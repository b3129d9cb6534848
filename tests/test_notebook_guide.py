"""docs/notebook.md, cell by cell, with smaller nets and fewer epochs."""

import re
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.runs.files import read_json

GUIDE = Path(__file__).parents[1] / "docs" / "notebook.md"
SHORTER = {"[1200, 1200], dropout_hidden=0.2": "[64]", "[300, 300]": "[16]", "max_epochs=10": "max_epochs=2"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The following callbacks returned in")  # of a fit and a test with one trainer
def test_the_guides_cells_run_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    cells = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    for cell in cells:
        for long, short in SHORTER.items():
            cell = cell.replace(long, short)
        exec(cell, namespace)  # noqa: S102  # the guide's own lines, in this test's folder
    runs = Path("runs/notebook")
    names = ("teacher", "plain", "distilled")
    errors = {name: read_json(runs / name / "metrics.json")["test"]["errors"] for name in names}
    assert errors["teacher"] < 300  # of 1,000
    page = (runs / "report.html").read_text(encoding="utf-8")
    assert all(f"{count:,}" in page for count in errors.values())
    assert "soft and hard loss" in page
    assert (runs / "distilled" / "student.onnx").is_file()
    assert namespace["history"]._repr_png_().startswith(b"\x89PNG")
    assert Path("losses.png").read_bytes().startswith(b"\x89PNG")
    assert "soft loss: " in capsys.readouterr().out
    # Nothing but what the guide names is written into the current folder.
    assert {path.name for path in Path().iterdir()} == {"runs", "losses.png"}
    assert {path.name for path in Path("runs").iterdir()} == {"notebook", "soft_targets"}
