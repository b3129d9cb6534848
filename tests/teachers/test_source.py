"""Soft targets from stored logits are those of the live teachers, held in memory or not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kd_lightning import MLP, Batch, Jitter, MNISTDataModule, SoftLoss, SoftTargets, StoreOptions
from kd_lightning.teachers import source as source_file
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from kd_lightning.teachers.source import LiveTeachers, Softener, StoredTeachers, TeacherSource, choose_source

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> MNISTDataModule:
    data = MNISTDataModule(dataset="mnist5k", val_size=100, train_fraction=0.05, augment=Jitter(1))
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def live() -> LiveTeachers:
    teachers = [LoadedTeacher(MLP(hidden=[8]), f"net {number}", {}) for number in range(2)]
    return LiveTeachers(FrozenEnsemble(teachers), Softener(weights=[1.0, 3.0]))


def _chosen(live: LiveTeachers, data: object, folder: Path, mode: str = "stored", **changes: object) -> object:
    options = StoreOptions(folder=str(folder), dtype="float32")
    fixed = {"resumed": None, "epochs": 20.0, "classes": 10, "features": False, "fill": True, "device": CPU}
    return choose_source(live, mode, data=data, options=options, **(fixed | changes))  # type: ignore[arg-type]


def _batch(data: MNISTDataModule) -> Batch:
    rows, views = data.train_rows[:40], torch.arange(40) % data.view_count
    return Batch(data.inputs(rows, views), torch.zeros(40), rows, views)


def _log_probs(source: TeacherSource, batch: Batch, temperature: float) -> Tensor:
    targets = source(batch, temperature)
    assert targets is not None
    assert targets.temperature == temperature
    return targets.log_probs


@pytest.mark.parametrize("held", [False, True])
def test_stored_targets_are_the_live_ones(
    held: bool, live: LiveTeachers, data: MNISTDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = _chosen(live, data, tmp_path)
    assert isinstance(stored, StoredTeachers)
    if held:
        stored.average_all(4.0)
        monkeypatch.setattr(stored.store, "entries", None)  # no longer needed
    batch = _batch(data)
    expected = _log_probs(live, batch, 4.0)
    torch.testing.assert_close(_log_probs(stored, batch, 4.0), expected, atol=1e-4, rtol=1e-4)


def test_another_temperature_than_the_held_one_is_computed(
    live: LiveTeachers, data: MNISTDataModule, tmp_path: Path
) -> None:
    stored = _chosen(live, data, tmp_path)
    assert isinstance(stored, StoredTeachers)
    stored.average_all(4.0)
    batch = _batch(data)
    torch.testing.assert_close(_log_probs(stored, batch, 2.0), _log_probs(live, batch, 2.0), atol=1e-4, rtol=1e-4)


def test_what_is_too_large_is_not_held(
    live: LiveTeachers, data: MNISTDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_file, "_AVERAGED_LIMIT", 100)
    stored = _chosen(live, data, tmp_path)
    assert isinstance(stored, StoredTeachers)
    stored.average_all(4.0)
    monkeypatch.setattr(stored, "softener", None)
    with pytest.raises(TypeError):  # it would be asked for
        stored(_batch(data), 4.0)


def test_a_soft_loss_prepares_the_teachers_logits(live: LiveTeachers, data: MNISTDataModule) -> None:
    class Halved(SoftLoss):
        def prepare(self, teacher_logits: Tensor) -> Tensor:
            return teacher_logits / 2

        def forward(self, student_logits: Tensor, targets: SoftTargets, labels: Tensor) -> Tensor:
            return student_logits.sum()

    prepared = LiveTeachers(live.ensemble, Softener(weights=[1.0, 3.0], prepare=Halved().prepare))
    batch = _batch(data)
    torch.testing.assert_close(_log_probs(prepared, batch, 2.0), _log_probs(live, batch, 4.0))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"mode": "live"}, "soft targets: live (as asked)"),
        ({"mode": "auto", "epochs": 2.0}, "soft targets: live (storing 9 views of each"),
        ({"mode": "auto", "resumed": False}, "soft targets: live (as the run began)"),
        ({"mode": "auto", "features": True}, "soft targets: live (feature losses need the teachers' activations)"),
        ({"mode": "stored", "fill": False}, "soft targets: stored (as asked)"),
    ],
)
def test_the_choice_is_said(
    changes: dict[str, object],
    line: str,
    live: LiveTeachers,
    data: MNISTDataModule,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        assert _chosen(live, data, tmp_path, **changes) is live  # type: ignore[arg-type]
    assert line in caplog.text
    assert not any(tmp_path.iterdir())
