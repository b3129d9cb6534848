"""Text is written whole and in UTF-8, and a damaged file is named."""

import os
from pathlib import Path

import pytest

from kd_lightning.runs.files import from_here, read_json, read_yaml, shown, write_json, write_text


def test_text_is_utf8_and_a_name_keeps_its_bytes(tmp_path: Path) -> None:
    undecoded = b"r\xe9sum\xe9".decode("utf-8", "surrogateescape")
    write_text(tmp_path / "a", f"± {undecoded}")
    assert (tmp_path / "a").read_bytes() == "± ".encode() + b"r\xe9sum\xe9"
    assert shown(Path(os.fsdecode(b"a/r\xe9s"))) == "a/r\ufffds"
    assert shown(Path("a/é")) == "a/é"
    write_json(tmp_path / "b", {"name": "é"})
    assert read_json(tmp_path / "b") == {"name": "é"}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def full(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_text(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_bytes() == b"old"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_bytes(b"{")
    with pytest.raises(ValueError, match=r"metrics\.json is damaged: Expecting property name"):
        read_json(file)
    file.write_bytes(b"- 1")
    with pytest.raises(ValueError, match=r"metrics\.json is damaged: expected a mapping, got list"):
        read_yaml(file)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nowhere")


def test_a_path_below_the_current_folder_is_shown_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "runs" / "a") == from_here(Path("runs/a")) == Path("runs/a")
    assert from_here(tmp_path) == Path()
    assert from_here(tmp_path.parent) == tmp_path.parent
