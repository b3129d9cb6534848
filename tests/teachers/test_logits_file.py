"""Logits made elsewhere teach as the net does that made them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kd_lightning.data.augment import Jitter
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.nets.description import fingerprint
from kd_lightning.teachers.loading import load_teachers
from kd_lightning.teachers.logits_file import LogitsFile
from tests.teachers.stores import few_digits, teacher_net

NET = teacher_net(0)


@torch.no_grad()
def answers(data: MNISTDataModule, rows: Tensor) -> Tensor:
    """The net's logits in all views, (views, rows, classes); (rows, classes) where there is one."""
    views = [NET(data.inputs(rows, torch.full_like(rows, view))) for view in range(data.view_count)]
    return torch.stack(views) if len(views) > 1 else views[0]


def _bound(path: Path, data: MNISTDataModule) -> LogitsFile:
    file = LogitsFile(path)
    file.bind(data)
    return file


@pytest.mark.parametrize("augment", [None, Jitter(1)], ids=["plain", "jitter"])
@pytest.mark.parametrize("rows", ["training", "all"])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_rows_find_their_logits(augment: Any, rows: str, suffix: str, tmp_path: Path) -> None:
    data, path = few_digits(augment), tmp_path / f"logits{suffix}"
    of = data.train_rows if rows == "training" else torch.arange(data.row_count)
    if suffix == ".npy":
        np.save(path, answers(data, of).numpy())
    else:
        save_file({"any name": answers(data, of)}, path)
    file = _bound(path, data)
    for row, view in ((data.train_rows[[3, 0, 300]], data.view_count - 1), (data.train_rows[:2], 0)):
        views = torch.full_like(row, view)
        expected = NET(data.inputs(row, views))
        found = file.store.logits(row, views)
        assert found is not None
        torch.testing.assert_close(found[0], expected)
    val = data.val_rows[:5]
    found = file.store.logits(val, torch.zeros_like(val))
    assert file.has_val == (found is not None) == (rows == "all")
    if found is not None:
        torch.testing.assert_close(found[0], NET(data.inputs(val, torch.zeros_like(val))))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("rows", ["training", "all"])
def test_validation_rows_may_lie_beside_it(suffix: str, rows: str, tmp_path: Path) -> None:
    data, path = few_digits(), tmp_path / f"logits{suffix}"
    of = data.train_rows if rows == "training" else torch.arange(data.row_count)
    val = torch.randn(200, 10)
    if suffix == ".npy":
        np.save(path, answers(data, of).numpy())
        np.save(tmp_path / "logits.val.npy", val.numpy())
    else:
        save_file({"train": answers(data, of), "val": val}, path)
    file = _bound(path, data)
    found = file.store.logits(data.val_rows, torch.zeros_like(data.val_rows))
    assert file.has_val
    assert found is not None
    assert torch.equal(found[0], val)


def test_the_fingerprint_is_the_content(tmp_path: Path) -> None:
    for name, seed, val in (("a", 0, None), ("b", 0, None), ("c", 1, None), ("d", 0, 1), ("e", 0, 2)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(seed).normal(size=(380, 10)))
        if val is not None:
            np.save(tmp_path / f"{name}.val.npy", np.random.default_rng(val).normal(size=(200, 10)))
    teachers = load_teachers(str(tmp_path / "*.npy"))
    assert [Path(teacher.source).name for teacher in teachers] == ["a.npy", "b.npy", "c.npy", "d.npy", "e.npy"]
    first, *others = (teacher.record()["fingerprint"] for teacher in teachers)
    assert [each == first for each in others] == [True, False, False, False]
    assert len(set(others)) == 4
    assert fingerprint(LogitsFile(tmp_path / "a.npy")) == first


def _logits(shape: tuple[int, ...] = (380, 10), **change: Any) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).normal(size=shape).astype(change.get("dtype", "float32"))
    if "row" in change:
        values[change["row"]] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            _logits((379, 10)),
            r"must be \(rows, classes\) with 380 rows, those that train, or 4,000, all of .*\(379, 10\)",
        ),
        (_logits((2, 380, 10)), r"must be \(rows, classes\) with 380 rows.* got \(2, 380, 10\)"),
        (_logits((380,)), r"4,000, all of the training file, got \(380,\)"),
        (_logits(row=7), r"must be finite numbers, got \[nan, .*\] in row 7"),
        (_logits(dtype="int32"), "must be float16, float32 or float64, got int32"),
        (_logits(dtype=">f4"), "must be float16, float32 or float64, got >f4"),
        (np.full((380, 10), 0.1, dtype="float32"), "holds probabilities, expected logits; their logarithm is as good"),
    ],
)
def test_what_does_not_fit_is_refused(values: np.ndarray[Any, Any], message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", values)
    with pytest.raises(ValueError, match=message):
        _bound(tmp_path / "logits.npy", few_digits())


def test_views_must_be_all_there(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", _logits())
    with pytest.raises(ValueError, match=r"must be \(9, rows, classes\) with 380 rows"):
        _bound(tmp_path / "logits.npy", few_digits(Jitter(1)))


def test_validation_rows_of_other_sizes_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", _logits())
    np.save(tmp_path / "logits.val.npy", _logits((199, 10)))
    with pytest.raises(ValueError, match=r"validation rows next to .*logits.npy must be \(200, 10\), got \(199, 10\)"):
        _bound(tmp_path / "logits.npy", few_digits())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npy"
    np.save(whole, _logits())
    for name, content in (
        ("cut.npy", whole.read_bytes()[:5000]),
        ("empty.npy", b""),
        ("junk.safetensors", b"junk" * 9),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"logits file {re.escape(str(tmp_path / name))} is damaged"):
            LogitsFile(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="is damaged or holds more than numbers"):
        LogitsFile(tmp_path / "objects.npy")
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="must hold one tensor, or train and val, got a, b"):
        LogitsFile(tmp_path / "two.safetensors")
    with pytest.raises(FileNotFoundError, match="no logits file"):
        LogitsFile(tmp_path / "none.npy")


def test_data_without_rows_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", _logits())
    with pytest.raises(ValueError, match="object does not give its examples by row and view; use a TransferData"):
        LogitsFile(tmp_path / "logits.npy").bind(object())


def test_nobody_can_ask_it(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", _logits())
    with pytest.raises(ValueError, match="can't answer other inputs"):
        LogitsFile(tmp_path / "logits.npy")(torch.zeros(1, 1, 28, 28))
