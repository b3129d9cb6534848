"""Study files: the rows of a table, each made of configurations and of what differs from them; read strictly."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kd_lightning.runs.config_files import repeated_keys
from kd_lightning.runs.files import flat

MEASURES = ("test", "validation")
STUDY_KEYS = ("name", "measure", "teachers_from", "configs", "set", "seeds", "teachers", "rows")
ROW_KEYS = ("name", "what", "configs", "set", "seeds", "teachers", "paper")
# What the study gives to each of its runs.
GIVEN = ("config", "run_dir", "seed_everything", "ckpt_path", "overwrite", "dry_run", "prepare")
EACH = "each"  # in place of a teacher's number of seeds: seed 0 teaches seed 0, seed 1 teaches seed 1
DEFAULT_SEEDS = 5  # of a plain configuration
LABEL_SMOOTHING = 0.1  # Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7


class StudyRow(NamedTuple):
    """A line of a table: one configuration, several seeds.

    Attributes:
        study: Name of its study, the folder of its runs.
        name: Name of its runs; the seed follows it.
        what: What it is, for people.
        measure: What is counted: errors on the `test` set, or on the `validation` split.
        configs: Configuration files; later ones go over earlier ones.
        options: What goes over the files: values by dotted option.
        seeds: How many runs, with the seeds from 0.
        teachers: The rows that teach it, each with the number of its seeds that do; with None the same seed does.
        paper: The errors that a paper gives; None where it gives none.
    """

    study: str
    name: str
    what: str
    measure: str
    configs: tuple[Path, ...]
    options: dict[str, Any]
    seeds: int
    teachers: tuple[tuple["StudyRow", int | None], ...] = ()
    paper: float | None = None

    def folder(self, root: Path, seed: int) -> Path:
        """Folder of the run with a seed."""
        return root / self.study / f"{self.name}-{seed}"

    def teacher_folders(self, root: Path, seed: int = 0) -> list[Path]:
        """Folders of the runs that teach this row's run with a seed."""
        return [
            teacher.folder(root, number)
            for teacher, seeds in self.teachers
            for number in ([seed] if seeds is None else range(seeds))
        ]

    def flags(self) -> list[str]:
        """Arguments of `fit`: configurations and options."""
        files = [text for config in self.configs for text in ("--config", str(config))]
        return files + [text for key, value in self.options.items() for text in (f"--{key}", _as_flag(value))]

    def settings(self) -> dict[str, Any]:
        """What makes a run of this row what it is, its teachers too.

        Values by dotted option, whether they stand in a file or in `set`, so that files can be arranged differently.
        """
        values: dict[str, Any] = {}
        for config in self.configs:
            values |= _by_option(_read_yaml(config))
        values |= _by_option(self.options)
        for key in GIVEN:
            values.pop(key, None)
        settings = {
            "options": values,
            "teachers": {row.name: {"seeds": seeds, **row.settings()} for row, seeds in self.teachers},
        }
        read_back: dict[str, Any] = json.loads(json.dumps(settings, default=str))  # as a finished run keeps them
        return read_back


class Study(NamedTuple):
    """A table: its name and its rows."""

    name: str
    rows: tuple[StudyRow, ...]


def read_study(path: Path, *, verdict: bool = False) -> Study:
    """Read a study file, or make a study of a configuration: it, and before it its plain student.

    Args:
        path: A study file, which has `rows`, or a configuration, which has `model`.
        verdict: Make the study of a verdict, of the configuration of a distilled student: also with the plain student
            with label smoothing. Its rows are plain, smoothed and distilled.

    Raises:
        FileNotFoundError: If the file, or one that it names, is missing.
        ValueError: If the file says something that is not understood.
    """
    content = _read_yaml(path)
    if verdict:
        return _verdict_study(path, content)
    if "rows" in content:
        return _StudyReader(path, content, within=()).study()
    if "model" in content:
        return _plain_study(path, content)
    raise ValueError(f"{path}: expected a study with rows or a configuration with model, got {_list(content)}")


def _plain_study(path: Path, content: dict[str, Any]) -> Study:
    own = StudyRow(f"{path.stem}-study", path.stem, path.stem, MEASURES[0], (path,), {}, DEFAULT_SEEDS)
    if not _is_distillation(content):
        return Study(own.study, (own,))
    plain = _options_of_plain(content)
    name = f"{path.stem}-plain"
    return Study(own.study, (own._replace(name=name, what=f"{path.stem}, plain student", options=plain), own))


def _verdict_study(path: Path, content: dict[str, Any]) -> Study:
    if not _is_distillation(content):
        raise ValueError(f"{path}: --verdict expected the configuration of a DistillModule, got {_list(content)}")
    own = StudyRow(f"{path.stem}-verdict", "distilled", "distilled student", MEASURES[0], (path,), {}, DEFAULT_SEEDS)
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


class _StudyReader:
    """Checks a study file's content and builds its rows.

    Args:
        path: The file.
        content: What stands in it.
        within: The files that take teachers from this one, outermost first.
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
        return _StudyReader(path, _read_yaml(path), self.within).study()

    def _row(self, name: str, taught: tuple[str, ...]) -> StudyRow:
        """A row of this file by its name, after the rows that teach it.

        Args:
            name: Its name.
            taught: The rows that it teaches, directly or through others.
        """
        if name in taught:
            circle = " <- ".join((*taught[taught.index(name) :], name))
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
                (self._teacher(teacher, where, (*taught, name)), None if seeds == EACH else seeds)
                for teacher, seeds in teachers.items()
            ),
            paper=draft.get("paper"),
        )
        self.rows[name] = row
        return row

    def _teacher(self, name: str, where: str, taught: tuple[str, ...]) -> StudyRow:
        if name in self.drafts:
            return self._row(name, taught)
        if name in self.others:
            return self.others[name]
        known = [*self.drafts, *self.others]
        raise ValueError(f"{self.path}: {where} has the teacher {name}, which is no row{_near(name, known)}")

    def _config(self, name: str, where: str) -> Path:
        path = self.path.parent / name
        if not path.is_file():
            raise FileNotFoundError(f"{self.path}: {where} has the configuration {name}, but there is no file {path}")
        return path

    def _checked(self, content: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
        """The mapping, after a look at each of its keys and values."""
        if not isinstance(content, dict):
            raise ValueError(f"{self.path}: {where} must be a mapping with {_list(keys)}, got {content!r}")
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
    """What a key's value must be, empty where it is that."""
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


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {_list(known)}"


def _list(names: Sequence[str] | dict[str, Any]) -> str:
    return ", ".join(map(str, names)) or "nothing"


def _as_flag(value: object) -> str:
    """A value as it stands on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _by_option(content: dict[str, Any]) -> dict[str, Any]:
    """Values by the options that a command line would set them with."""
    return {key.replace(".init_args", "").removesuffix(".class_path"): value for key, value in flat(content)}


def _read_yaml(path: Path) -> dict[str, Any]:
    """A file's mapping.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no study or configuration {path}")
    try:
        text = path.read_text(encoding="utf-8")
        root, content = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for key, _, line in repeated_keys(root):
        raise ValueError(f"{path}: {key.rpartition('.')[2]} stands twice in a mapping, line {line}; keep one")
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(content).__name__}")
    return content
