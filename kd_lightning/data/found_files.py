"""The files of a kind that a user names one by one, or by their folders."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path


def found_files(paths: Sequence[str], kind: str, suffixes: Collection[str]) -> list[Path]:
    """The files of a kind among the paths and inside the folders among them, in the order given, folders sorted.

    Args:
        paths: Files, taken as they are, and folders.
        kind: What the files are, for errors.
        suffixes: Of such files, in lower case with the dot.

    Raises:
        FileNotFoundError: If a path does not exist or nothing is found.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += files_below(path, suffixes)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"no {kind} file or folder {path}")
    if not files:
        raise FileNotFoundError(f"no {kind} ({', '.join(sorted(suffixes))}) in {', '.join(map(str, paths))}")
    return files


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files with one of these suffixes in a folder and its folders, sorted; hidden ones are left out."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = "".join(name.rpartition(".")[1:]).lower()
            if suffix in suffixes and not name.startswith("."):
                found.append(f"{parent}{os.sep}{name}")
    found.sort(key=lambda path: path.split(os.sep))  # noqa: PTH206  # as paths are sorted, but faster
    return [Path(path) for path in found]
