"""A study: the rows of a table, each made of configurations and of what differs from them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kd_lightning.runs.config_files import repeated_keys
from kd_lightning.runs.files import flat

# Options that the study gives to each of its runs, so that a row can't set them.
GIVEN = ("config", "run_dir", "seed_everything", "ckpt_path", "overwrite", "dry_run", "prepare")
# The options that may ask for bfloat16, and their values for float32.
_FLOAT32 = {"trainer.precision": "32-true", "model.teacher_precision": "float32"}


class StudyRow(NamedTuple):
    """A line of a table: one configuration, several seeds.

    Attributes:
        study: Name of its study, the folder of its runs.
        name: Name of the row; a run's folder is this name and the seed.
        what: Its description for people.
        measure: What is counted: errors on the `test` set, or on the `validation` split.
        configs: Configuration files; a later one replaces values of an earlier one.
        options: Values by dotted option, which replace those of the files.
        seeds: Number of runs; their seeds count from 0.
        teachers: The rows that teach it, each with the number of its runs that teach; None for the run of the
            same seed.
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
        """The values that a run of this row depends on, those of its teachers too.

        Values by dotted option. It makes no difference whether a value stands in a file or in `set`.
        """
        values: dict[str, Any] = {}
        for config in self.configs:
            values |= _by_option(read_mapping(config))
        values |= _by_option(self.options)
        for key in GIVEN:
            values.pop(key, None)
        settings = {
            "options": values,
            "teachers": {row.name: {"seeds": seeds, **row.settings()} for row, seeds in self.teachers},
        }
        read_back: dict[str, Any] = json.loads(json.dumps(settings, default=str))  # as a finished run keeps them
        return read_back

    def in_float32(self) -> "StudyRow":
        """The row with float32 where it asks for bfloat16; of STUDY-float32 if it or its teachers change."""
        values = self.settings()["options"]
        instead = {key: value for key, value in _FLOAT32.items() if str(values.get(key)).startswith(("bf16", "bfloat"))}
        teachers = tuple((row.in_float32(), seeds) for row, seeds in self.teachers)
        if not instead and teachers == self.teachers:
            return self
        return self._replace(
            study=_name_in_float32(self.study),
            what=f"{self.what}, in float32" if "trainer.precision" in instead else self.what,
            options=self.options | instead,
            teachers=teachers,
        )


class Study(NamedTuple):
    """A table: its name and its rows."""

    name: str
    rows: tuple[StudyRow, ...]

    def in_float32(self) -> "Study":
        """The study with float32 where it asks for bfloat16, named STUDY-float32 if a row changes."""
        rows = tuple(row.in_float32() for row in self.rows)
        return self if rows == self.rows else Study(_name_in_float32(self.name), rows)


def _name_in_float32(study: str) -> str:
    return f"{study}-float32"


def _as_flag(value: object) -> str:
    """A value as it stands on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _by_option(content: dict[str, Any]) -> dict[str, Any]:
    """Values by the options that a command line would set them with."""
    return {key.replace(".init_args", "").removesuffix(".class_path"): value for key, value in flat(content)}


def read_mapping(path: Path) -> dict[str, Any]:
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
