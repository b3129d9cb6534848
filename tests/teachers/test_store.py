"""Stored soft targets equal live ones, are never stale or damaged, and survive kills and company."""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import nn

from kd_lightning.data.augment import Affine, Augment, Jitter
from kd_lightning.data.batches import Batch
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.methods.hinton import soft_loss, soft_targets
from kd_lightning.modules.distill import DistillModule
from kd_lightning.nets.digits import MLP
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from kd_lightning.teachers.store import SoftTargetStore, open_store
from kd_lightning.teachers.store_plan import Mode, StoreOptions, StoreSpec, decide, store_spec

CPU = torch.device("cpu")


def _net(seed: int, hidden: int = 16) -> MLP:
    torch.manual_seed(seed)
    net = MLP(hidden=[hidden])
    with torch.no_grad():
        net[-1].weight.mul_(8)  # type: ignore[operator]  # logits as wide as a trained net's
    return net


def _ensemble(*seeds: int) -> FrozenEnsemble:
    return FrozenEnsemble([LoadedTeacher(_net(seed), f"net {seed}", {}) for seed in seeds or (0, 1)])


def _data(augment: Augment | None = None, **options: Any) -> MNISTDataModule:
    data = MNISTDataModule(dataset="mnist5k", val_size=200, train_fraction=0.1, augment=augment, **options)
    data.setup("fit")
    return data


def _open(
    ensemble: FrozenEnsemble, data: MNISTDataModule, options: StoreOptions, said: list[str] | None = None
) -> SoftTargetStore:
    spec = store_spec(ensemble, data, options=options)
    assert spec is not None
    say: Callable[[str], None] = (said if said is not None else []).append
    return open_store(spec, ensemble, data, options=options, device=CPU, say=say)


def test_a_batch_that_does_not_say_its_rows_gets_no_other_rows_targets(tmp_path: Path) -> None:
    data = _data()
    store = _open(_ensemble(), data, StoreOptions(folder=str(tmp_path)))
    batch = Batch.of((torch.rand(2, 1, 28, 28), torch.tensor([1, 2])))
    with pytest.raises(IndexError, match=r"need batches that say their rows, kd_lightning.Batch; set soft_targets to"):
        store.logits(batch.indices, batch.views)


@pytest.mark.parametrize("augment", [None, Jitter(2), Affine(views=3)], ids=["plain", "jitter", "affine"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_stored_logits_are_the_live_ones(augment: Augment | None, dtype: Any, tmp_path: Path) -> None:
    data, ensemble = _data(augment), _ensemble()
    store = _open(ensemble, data, StoreOptions(folder=str(tmp_path), dtype=dtype))
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    for batch in data.train_dataloader():
        live = ensemble(data.inputs(batch.indices, batch.views))
        stored = store.logits(batch.indices, batch.views)
        torch.testing.assert_close(stored, live, atol=tolerance, rtol=tolerance)
        losses = [
            soft_loss(student_logits=live[0] * 0.5, targets=soft_targets(teacher_logits=logits, temperature=4.0))
            for logits in (stored, live)
        ]
        torch.testing.assert_close(*losses, atol=tolerance, rtol=tolerance)
    assert data.val_size == 200
    rows = data.val_rows
    plain = ensemble(data.inputs(rows, torch.zeros_like(rows)))
    torch.testing.assert_close(store.logits(rows, torch.zeros_like(rows)), plain, atol=tolerance, rtol=tolerance)


class Keep(lightning.pytorch.Callback):
    """Keeps each training loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


@pytest.mark.parametrize("augment", [None, Jitter(1)], ids=["plain", "jitter"])
def test_training_is_the_same_stored_and_live(
    augment: Augment | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kd_lightning.teachers.check.no_better_than_chance", lambda *_: False
    )  # random nets teach as well
    kept: list[list[float]] = []
    modes: tuple[Mode, ...] = ("stored", "live")
    for mode in modes:
        lightning.seed_everything(0)
        keep = Keep()
        module = DistillModule(
            student=MLP(hidden=[16]),
            teachers=[_net(0), _net(1)],
            temperature=4.0,
            soft_targets=mode,
            store=StoreOptions(folder=str(tmp_path), dtype="float32"),
        )
        trainer = lightning.Trainer(
            max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[keep]
        )
        trainer.fit(module, MNISTDataModule(dataset="mnist5k", val_size=200, train_fraction=0.1, augment=augment))
        kept.append(keep.losses)
    assert len(list(tmp_path.glob("*/store.json"))) == 1
    torch.testing.assert_close(torch.tensor(kept[0]), torch.tensor(kept[1]), atol=1e-5, rtol=1e-5)


def test_a_store_is_made_once_and_found_again(tmp_path: Path) -> None:
    said: list[str] = []
    options = StoreOptions(folder=str(tmp_path))
    first = _open(_ensemble(), _data(), options, said)
    again = _open(_ensemble(), _data(), options, said)
    assert first.folder == again.folder
    assert len(said) == 1
    assert "2 teachers on 580 images" in said[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda: (_ensemble(0, 2), _data()),
        lambda: (_ensemble(1, 0), _data()),
        lambda: (_ensemble(), _data(Jitter(1))),
        lambda: (_ensemble(), _data(split_seed=1)),
        lambda: (_ensemble(), _data(drop_classes=[3])),
    ],
    ids=["other teacher", "other order", "other views", "other split", "other transfer set"],
)
def test_another_question_is_another_store(
    change: Callable[[], tuple[FrozenEnsemble, MNISTDataModule]], tmp_path: Path
) -> None:
    options = StoreOptions(folder=str(tmp_path))
    first = _open(_ensemble(), _data(), options)
    assert _open(*change(), options).folder != first.folder


@pytest.mark.parametrize("damage", ["flip", "cut", "record", "gone"])
def test_damage_is_noticed_and_mended(damage: str, tmp_path: Path) -> None:
    options, data, ensemble = StoreOptions(folder=str(tmp_path)), _data(), _ensemble()
    store = _open(ensemble, data, options)
    rows = data.train_rows
    expected = store.logits(rows, torch.zeros_like(rows)).clone()
    file = store.folder / ("store.json" if damage == "record" else "logits.npy")
    content = bytearray(file.read_bytes())
    del store
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2])
    said: list[str] = []
    mended = _open(ensemble, data, options, said)
    assert any("damaged" in line for line in said)
    assert torch.equal(mended.logits(rows, torch.zeros_like(rows)), expected)


class Scaled(nn.Module):
    """A net whose code can change under the same weights."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.inner = _net(0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(inputs)
        return logits * self.factor


def test_code_that_changed_under_the_same_weights_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, data, said = StoreOptions(folder=str(tmp_path)), _data(), list[str]()
    ensemble = FrozenEnsemble([LoadedTeacher(Scaled(), "scaled", {})])
    _open(ensemble, data, options)
    monkeypatch.setattr(Scaled, "factor", 2.0)
    store = _open(ensemble, data, options, said)
    assert any("differ from what the teachers answer" in line for line in said)
    rows = data.train_rows[:50]
    live = ensemble(data.inputs(rows, torch.zeros_like(rows)))
    torch.testing.assert_close(store.logits(rows, torch.zeros_like(rows)), live, atol=1e-2, rtol=1e-2)


def _spec(**changes: Any) -> StoreSpec:
    fields: dict[str, Any] = {
        "teachers": ("a",), "precision": "float32", "data": "d", "rows": "r", "views": 25, "entries": 1_500_000,
        "dtype": "float16",     }  # fmt: skip
    return StoreSpec(**(fields | changes))


def test_auto_weighs_views_against_epochs(tmp_path: Path) -> None:
    def choose(mode: Any, epochs: float, spec: StoreSpec | None = None, limit: float = 10.0) -> tuple[bool, str]:
        options = StoreOptions(folder=str(tmp_path), limit_gb=limit)
        return decide(mode, object(), epochs=epochs, spec=spec, classes=10, options=options)

    assert choose("auto", 80, _spec()) == (True, "25 views of each example instead of 80 passes")
    assert choose("auto", 20, _spec()) == (False, "25 views of each example would be no fewer passes than 20 epochs")
    assert choose("auto", 2, _spec(views=1))[0]
    assert not choose("auto", 1, _spec(views=1))[0]
    assert choose("stored", 1, _spec())[0]
    assert not choose("live", 80, _spec())[0]
    assert choose("auto", 80, _spec(), limit=0.01) == (False, "30.0 MB are more than store.limit_gb, 0.01")
    assert "does not give its examples by row and view" in choose("auto", 80)[1]
    with pytest.raises(ValueError, match=r"can't be stored: 30.0 MB are more than store.limit_gb"):
        choose("stored", 80, _spec(), limit=0.01)
    with pytest.raises(ValueError, match="object does not give its examples by row and view"):
        choose("stored", 80)
    with pytest.raises(ValueError, match="must be auto, stored or live, got 'never'"):
        choose("never", 80, _spec())
    (tmp_path / _spec().key).mkdir()
    assert choose("auto", 2, _spec()) == (True, "made by an earlier run")


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="limit_gb must be > 0, got 0"):
        StoreOptions(limit_gb=0)
    with pytest.raises(ValueError, match="top_k must be null, got 3"):
        StoreOptions(top_k=3)


def test_logits_beyond_float16_are_refused(tmp_path: Path) -> None:
    net = _net(0)
    with torch.no_grad():
        net[-1].bias.fill_(1e5)  # type: ignore[operator]
    ensemble = FrozenEnsemble([LoadedTeacher(net, "loud", {})])
    with pytest.raises(ValueError, match=r"reach 1\d{5}, which float16 can't hold"):
        _open(ensemble, _data(), StoreOptions(folder=str(tmp_path)))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"can't write soft targets into .*file.*; set --model.store.folder elsewhere"):
        _open(_ensemble(), _data(), StoreOptions(folder=str(tmp_path / "file" / "store")))


def _fail(*_: object) -> None:
    raise AssertionError("a whole store is only read")


def test_a_whole_store_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, ensemble, data = StoreOptions(folder=str(tmp_path)), _ensemble(), _data()
    first = _open(ensemble, data, options)
    monkeypatch.setattr("kd_lightning.teachers.store.locked", _fail)
    monkeypatch.setattr(Path, "mkdir", _fail)
    assert _open(ensemble, data, options).folder == first.folder


@pytest.mark.faults
def test_a_whole_store_on_a_read_only_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    options, ensemble, data, said = StoreOptions(folder=str(disk)), _ensemble(), _data(), list[str]()
    first = _open(ensemble, data, options)
    mounts = [["mount", "--bind", str(disk), str(disk)], ["mount", "-o", "remount,ro,bind", str(disk)]]
    if any(subprocess.run(mount, check=False).returncode for mount in mounts):
        pytest.skip("a file system can be mounted by root alone")
    try:
        assert _open(ensemble, data, options, said).folder == first.folder
        assert not said
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607  # found as mount was


def test_a_store_on_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("kd_lightning.runs.locks.fcntl.flock", flock)
    options, ensemble, data, said = StoreOptions(folder=str(tmp_path)), _ensemble(), _data(), list[str]()
    parts = {age: _abandoned_part(tmp_path, age) for age in ("old", "new")}
    day_before = time.time() - 25 * 3600
    for path in (parts["old"] / "logits.npy", parts["old"]):
        os.utime(path, (day_before, day_before))
    first = _open(ensemble, data, options, said)
    assert f"no locks in {tmp_path}, so another process may compute the same soft targets" in said
    assert [age for age, part in parts.items() if part.exists()] == ["new"]  # it may still be written
    assert _open(ensemble, data, options).folder == first.folder


def _abandoned_part(stores: Path, name: str) -> Path:
    key = hashlib.sha256(name.encode()).hexdigest()[:20]
    part = stores / f".{key}.elsewhere-1.part"
    part.mkdir()
    (part / "logits.npy").write_bytes(b"begun")
    return part


def test_parts_of_killed_fills_are_removed(tmp_path: Path) -> None:
    abandoned, written = _abandoned_part(tmp_path, "abandoned"), _abandoned_part(tmp_path, "written")
    with (tmp_path / f".{written.name.split('.')[1]}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _open(_ensemble(), _data(), StoreOptions(folder=str(tmp_path)))
    assert not abandoned.exists()
    assert written.exists()


def test_a_full_disk_keeps_nothing_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands for the disk."""
    # So small that something is in the file's buffer when a write fails: closing the file then fails, too.
    monkeypatch.setattr("kd_lightning.teachers.store._FILL_BATCH", 50)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"can't write soft targets into .*: File too large; set --model"):
            _open(_ensemble(), _data(), StoreOptions(folder=str(tmp_path)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_rows_outside_the_store_are_refused(tmp_path: Path) -> None:
    data = _data()
    store = _open(_ensemble(), data, StoreOptions(folder=str(tmp_path)))
    outside = torch.tensor(
        [row for row in range(500) if row not in {*data.train_rows.tolist(), *data.val_rows.tolist()}]
    )
    with pytest.raises(IndexError, match="rows that the stored soft targets were not made for"):
        store.logits(outside[:3], torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_teachers_precision_is_their_own(precision: Any) -> None:
    ensemble = FrozenEnsemble([LoadedTeacher(_net(0), "net", {})], precision)
    images = torch.rand(5, 1, 28, 28)
    plain = ensemble(images)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ensemble(images)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)
    rounded = not torch.allclose(plain[0], ensemble.nets[0](images), atol=1e-6)
    assert rounded == (precision == "bfloat16")


def _fill_from_elsewhere(folder: str, started: Any) -> None:
    torch.set_num_threads(1)
    started.wait()
    _open(_ensemble(), _data(Jitter(1)), StoreOptions(folder=folder))


def test_two_processes_share_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started = context.Barrier(2)
    workers = [context.Process(target=_fill_from_elsewhere, args=(str(tmp_path), started)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


FILL = """
import sys
from pathlib import Path
from tests.teachers.test_store import _data, _ensemble, _open, Jitter, StoreOptions
print("ready", flush=True)
_open(_ensemble(*range(8)), _data(Jitter(2)), StoreOptions(folder=sys.argv[1]))
"""


@pytest.mark.faults
def test_kills_while_writing_leave_nothing_damaged(tmp_path: Path) -> None:
    chance = random.Random(0)  # noqa: S311  # moments of kills, no secrets
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    killed = 0
    for _ in range(10):
        command = [sys.executable, "-c", FILL, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as worker:
            assert worker.stdout is not None
            assert "ready" in worker.stdout.readline()
            time.sleep(chance.uniform(0.1, 0.6))
            worker.send_signal(signal.SIGKILL)
        killed += worker.returncode == -signal.SIGKILL
        whole = [folder for folder in tmp_path.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
        assert all((folder / "store.json").is_file() for folder in whole)
    assert killed >= 5
    data, ensemble = _data(Jitter(2)), _ensemble(*range(8))
    store = _open(ensemble, data, StoreOptions(folder=str(tmp_path)))
    batch = next(iter(data.train_dataloader()))
    live = ensemble(data.inputs(batch.indices, batch.views))
    torch.testing.assert_close(store.logits(batch.indices, batch.views), live, atol=1e-2, rtol=1e-2)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [store.folder.name]
