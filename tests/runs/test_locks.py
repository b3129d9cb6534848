"""A lock is free again as soon as its block of code ends, whoever has a copy of the open file."""

import fcntl
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.runs.locks import claimed, in_turn, locked


@pytest.mark.parametrize("lock", [locked, claimed])
def test_a_copy_of_the_open_file_does_not_keep_the_lock(
    lock: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker process has one that was forked while the lock was held."""
    flock, copies = fcntl.flock, list[int]()

    def copying(file: Any, operation: int) -> None:
        copies.append(os.dup(file.fileno()))
        flock(file, operation)

    path = tmp_path / "folder" / "a.lock"
    with monkeypatch.context() as patch:
        patch.setattr("kd_lightning.runs.locks.fcntl.flock", copying)
        with lock(path) as taken:
            assert taken
    assert copies
    with claimed(path) as free:
        assert free
        with claimed(path) as again:
            assert not again
    for copy in copies:
        os.close(copy)


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, empty."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.usefixtures("temporary")
def test_processes_take_turns_with_a_folder_that_nobody_writes_to(tmp_path: Path) -> None:
    data, order = tmp_path / os.fsdecode(b"r\xe9sum\xe9"), list[str]()

    def wait_for_my_turn() -> None:
        with in_turn(tmp_path / "other" / ".." / data.name):
            order.append("second")

    with in_turn(data), in_turn(tmp_path / "another"):
        second = threading.Thread(target=wait_for_my_turn)
        second.start()
        second.join(timeout=0.2)
        order.append("first")
    second.join()
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link", "everybody's"])
def test_what_others_can_write_to_is_no_place_for_a_lock(kind: str, temporary: Path, tmp_path: Path) -> None:
    place = temporary / f"kd_lightning-{os.getuid()}"
    if kind == "file":
        place.touch()
    elif kind == "link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir()
        place.chmod(0o777)
    with in_turn(tmp_path), in_turn(tmp_path):  # neither waits
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("temporary")
def test_an_error_within_a_turn_is_raised(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk"), in_turn(tmp_path):
        raise OSError("the disk")
    with in_turn(tmp_path):
        pass
