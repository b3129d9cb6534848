"""Pictures in a folder per class: which files there are, and which class each belongs to."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kd_lightning.data.found_files import files_below
from kd_lightning.data.pictures import SUFFIXES

_NAMED = 5  # folders that an error names


class ClassFolders(NamedTuple):
    """The pictures of all classes.

    Attributes:
        root: Folder of the classes' folders.
        files: Picture files, sorted by class and path.
        labels: Class number of each.
    """

    root: Path
    files: list[Path]
    labels: list[int]


def class_folders(root: Path, option: str) -> list[str]:
    """Names of the classes' folders, sorted; hidden ones are left out.

    Args:
        root: Folder of the classes' folders.
        option: The option that names it, for people.

    Raises:
        FileNotFoundError: If it is missing or holds no folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; expected one with a folder of pictures per class: set {option}")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise FileNotFoundError(f"no folder in {root}; expected one per class, with its pictures")
    return names


def find_pictures(root: Path, folders: Sequence[str], class_names: Sequence[str]) -> ClassFolders:
    """Find the picture files of each class.

    Args:
        root: Folder of the classes' folders.
        folders: Their names.
        class_names: Names of all classes, by number.

    Raises:
        FileNotFoundError: If a folder holds no picture.
        ValueError: If a folder's name is no class's.
    """
    others = sorted(set(folders) - set(class_names))
    if others:
        raise ValueError(
            f"the folders in {root} must have names of the training classes, {_some(class_names)}, got {_some(others)}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for name in folders:
        found = files_below(root / name, SUFFIXES)
        if not found:
            raise FileNotFoundError(
                f"no picture ({', '.join(sorted(SUFFIXES))}) in {root / name}; remove it, or fill it"
            )
        files += found
        labels += [class_names.index(name)] * len(found)
    return ClassFolders(root, files, labels)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
