"""docs/studies.md: its study is understood, and its table has every key."""

import re
from pathlib import Path

from kd_lightning.cli.study import planned
from kd_lightning.reports.study_file import read_study
from kd_lightning.reports.study_reader import ROW_KEYS, STUDY_KEYS
from tests.guides import DOCS, blocks

GUIDE = DOCS / "studies.md"


def test_its_study_is_understood(tmp_path: Path) -> None:
    (block,) = blocks(GUIDE, "yaml")
    (tmp_path / "temperatures.yaml").write_text(block, encoding="utf-8")
    (tmp_path / "configs").symlink_to(DOCS.parent / "configs")
    study = read_study(tmp_path / "temperatures.yaml")
    assert study.name == "temperatures"
    assert [(row.name, len(row.teacher_folders(Path("runs")))) for row in study.rows] == [
        ("teacher", 0),
        ("plain", 0),
        ("warm", 3),
        ("hot", 3),
    ]
    assert len(planned(study, ["warm", "hot"])) == 9
    assert len(planned(study)) == 12


def test_its_table_has_every_key_of_a_study_and_of_a_row() -> None:
    lines = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {key for key, of in lines if "study" in of} == set(STUDY_KEYS)
    assert {key for key, of in lines if "row" in of} == set(ROW_KEYS)
