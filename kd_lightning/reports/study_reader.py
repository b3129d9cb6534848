"""Study files are read strictly: each key and value is checked, and a row knows the rows that teach it."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_lightning.reports.study_row import GIVEN, Study, StudyRow, read_mapping

MEASURES = ("test", "validation")
STUDY_KEYS = ("name", "measure", "teachers_from", "configs", "set", "seeds", "teachers", "rows")
ROW_KEYS = ("name", "what", "configs", "set", "seeds", "teachers", "paper")
EACH = "each"  # instead of a teacher's number of runs: seed 0 teaches seed 0, seed 1 teaches seed 1


class StudyReader:
    """Checks the content of a study file and builds its rows.

    Args:
        path: The file.
        content: What stands in it.
        within: The study files that take teachers from this one, the first one first.
    """

    def __init__(self, path: Path, content: dict[str, Any], within: Sequence[Path]) -> None:
        self.path = path
        self.within = (*within, path.resolve())
        self.values = self._checked(content, "the study", STUDY_KEYS)
        rows = self.values["rows"]
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"{path}: rows must be a list of rows, got {rows!r}")
        self.drafts: dict[str, dict[str, Any]] = {}
        for number, row in enumerate(rows, 1):
            checked = self._checked(row, f"row {number}", ROW_KEYS)
            name = checked.get("name")
            if name is None:
                raise ValueError(f"{path}: row {number} has no name; add one, it names the runs' folders")
            if name in self.drafts:
                raise ValueError(f"{path}: two rows are named {name}; give each its own name")
            self.drafts[name] = checked
        others = [self._other(path.parent / name) for name in self.values.get("teachers_from", ())]
        self.others = {row.name: row for study in others for row in study.rows}
        self.rows: dict[str, StudyRow] = {}

    def study(self) -> Study:
        """The study with its rows, in the file's order."""
        rows = tuple(self._row(name, ()) for name in self.drafts)
        return Study(self.values.get("name", self.path.stem), rows)

    def _other(self, path: Path) -> Study:
        if path.resolve() in self.within:
            raise ValueError(f"{self.path}: teachers_from leads back to {path}; remove one of the two references")
        return StudyReader(path, read_mapping(path), self.within).study()

    def _row(self, name: str, students: tuple[str, ...]) -> StudyRow:
        """Build a row of this file, and before it the rows that teach it.

        Args:
            name: Its name.
            students: The rows that it teaches, directly or through others.
        """
        if name in students:
            circle = " <- ".join((*students[students.index(name) :], name))
            raise ValueError(f"{self.path}: rows teach each other in a circle, {circle}; remove one of these teachers")
        if name in self.rows:
            return self.rows[name]
        draft = self.drafts[name]
        where = f"row {name}"
        configs = (*self.values.get("configs", ()), *draft.get("configs", ()))
        if not configs:
            raise ValueError(f"{self.path}: {where} has no configs; name at least one configuration file")
        options = self.values.get("set", {}) | draft.get("set", {})
        teachers = draft.get("teachers", self.values.get("teachers", {}))
        if teachers and "model.teachers" in options:
            raise ValueError(f"{self.path}: {where} has teachers and sets model.teachers; give one of them")
        row = StudyRow(
            study=self.values.get("name", self.path.stem),
            name=name,
            what=draft.get("what", name),
            measure=self.values.get("measure", MEASURES[0]),
            configs=tuple(self._config(config, where) for config in configs),
            options=options,
            seeds=draft.get("seeds", self.values.get("seeds", 1)),
            teachers=tuple(
                (self._teacher(teacher, where, (*students, name)), None if seeds == EACH else seeds)
                for teacher, seeds in teachers.items()
            ),
            paper=draft.get("paper"),
        )
        self.rows[name] = row
        return row

    def _teacher(self, name: str, where: str, students: tuple[str, ...]) -> StudyRow:
        if name in self.drafts:
            return self._row(name, students)
        if name in self.others:
            return self.others[name]
        rows = [*self.drafts, *self.others]
        raise ValueError(f"{self.path}: {where} has the teacher {name}, which is no row{_near(name, rows)}")

    def _config(self, name: str, where: str) -> Path:
        path = self.path.parent / name
        if not path.is_file():
            raise FileNotFoundError(f"{self.path}: {where} has the configuration {name}, but there is no file {path}")
        return path

    def _checked(self, content: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
        """The content as a mapping whose keys and values are right."""
        if not isinstance(content, dict):
            raise ValueError(f"{self.path}: {where} must be a mapping with {listed(keys)}, got {content!r}")
        if isinstance(content.get("name"), str):
            where = f"{where} ({content['name']})"
        for key, value in content.items():
            if key not in keys:
                raise ValueError(f"{self.path}: {where} has the unknown key {key}{_near(str(key), keys)}")
            expected = _wrong(key, value)
            if expected:
                raise ValueError(f"{self.path}: {key} of {where} must be {expected}, got {value!r}")
        return content


def _wrong(key: str, value: object) -> str:
    """What the value of a key must be; empty if it is right."""
    match key:
        case "name" if not (isinstance(value, str) and value and value == Path(value).name):
            return "the name of a folder"
        case "what" if not isinstance(value, str):
            return "text"
        case "measure" if value not in MEASURES:
            return " or ".join(MEASURES)
        case "configs" | "teachers_from" if not (isinstance(value, list) and all(isinstance(x, str) for x in value)):
            return "a list of files"
        case "seeds" if not _is_count(value):
            return "a number of seeds, >= 1"
        case "teachers" if not (isinstance(value, dict) and all(x == EACH or _is_count(x) for x in value.values())):
            return f"a mapping of rows to numbers of seeds, >= 1, or {EACH}"
        case "set" if not (isinstance(value, dict) and all(isinstance(x, str) for x in value)):
            return "a mapping of dotted options to values"
        case "set" if isinstance(value, dict) and (given := [name for name in value if name in GIVEN]):
            return f"without {given[0]}, which the study gives to each run"
        case "paper" if isinstance(value, bool) or not isinstance(value, int | float):
            return "a number of errors"
    return ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _near(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {listed(names)}"


def listed(names: Sequence[str] | dict[str, Any]) -> str:
    """Names for an error's text, with commas between them."""
    return ", ".join(map(str, names)) or "nothing"
