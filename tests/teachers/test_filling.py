"""Each teacher's logits are computed once; they are never stale or damaged, and survive kills and company."""

import errno
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_lightning.data.augment import Jitter
from kd_lightning.data.mnist import MNISTDataModule
from kd_lightning.runs.locks import claimed
from kd_lightning.teachers.ensemble import FrozenEnsemble, LoadedTeacher
from kd_lightning.teachers.store import SoftTargetStore
from kd_lightning.teachers.store_plan import StoreOptions
from kd_lightning.teachers.teacher_folder import TeacherFolder
from tests.teachers.stores import ensemble_of, few_digits, folders, opened, teacher_net

BLOCKS = 12  # of 50 entries, of 580


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_lightning.teachers.teacher_folder.BLOCK", 50)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many examples each teacher answered in blocks, which hold 50, the last one 30."""
    counted: Counter[str] = Counter()
    answer = FrozenEnsemble.answer

    def counting(ensemble: FrozenEnsemble, number: int, inputs: Tensor) -> Tensor:
        if len(inputs) in {50, 30}:
            counted[ensemble.teachers[number].source] += len(inputs)
        return answer(ensemble, number, inputs)

    monkeypatch.setattr(FrozenEnsemble, "answer", counting)
    return counted


def _plain(store: SoftTargetStore, data: MNISTDataModule) -> Tensor:
    rows = data.train_rows
    logits = store.logits(rows, torch.zeros_like(rows))
    assert logits is not None
    return logits


def _live(ensemble: FrozenEnsemble, data: MNISTDataModule) -> Tensor:
    answers: Tensor = ensemble(data.inputs(data.train_rows, torch.zeros_like(data.train_rows)))
    return answers


def _is_right(store: SoftTargetStore, ensemble: FrozenEnsemble, data: MNISTDataModule) -> bool:
    return torch.allclose(_plain(store, data), _live(ensemble, data), atol=1e-2, rtol=1e-2)


def test_adding_a_teacher_computes_only_that_one(tmp_path: Path, passes: Counter[str]) -> None:
    options, data, said = StoreOptions(folder=str(tmp_path)), few_digits(), list[str]()
    opened(ensemble_of(*range(10)), data, options, said)
    assert passes == {f"net {seed}": 580 for seed in range(10)}
    assert len(said) == 10
    assert said[0].startswith("computing soft targets: teacher net 0 on 580 images, 0.0 MB in ")
    passes.clear()
    before = folders(tmp_path)
    eleven = ensemble_of(*range(10), 10)
    store = opened(eleven, data, options)
    assert passes == {"net 10": 580}
    after = folders(tmp_path)
    assert {folder: after[folder] for folder in before} == before
    assert len(after) == 11
    assert _is_right(store, eleven, data)


def test_ensembles_in_any_order_share_their_teachers(tmp_path: Path, passes: Counter[str]) -> None:
    options, data = StoreOptions(folder=str(tmp_path)), few_digits()
    opened(ensemble_of(0, 1), data, options)
    passes.clear()
    mixed = ensemble_of(1, 0, 1)
    assert _is_right(opened(mixed, data, options), mixed, data)
    assert not passes
    assert len(folders(tmp_path)) == 2


def test_large_inputs_come_in_several_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_lightning.teachers.filling._PASS_BYTES", 7 * 28 * 28 * 4)
    sizes: Counter[int] = Counter()
    answer = FrozenEnsemble.answer

    def counting(ensemble: FrozenEnsemble, number: int, inputs: Tensor) -> Tensor:
        sizes[len(inputs)] += 1
        return answer(ensemble, number, inputs)

    monkeypatch.setattr(FrozenEnsemble, "answer", counting)
    data, ensemble = few_digits(), ensemble_of(0)
    store = opened(ensemble, data, StoreOptions(folder=str(tmp_path)))
    assert max(sizes) == 7
    assert _is_right(store, ensemble, data)


class StoppedError(Exception):
    """Ends a fill in its fourth block."""


def _fill_partly(ensemble: FrozenEnsemble, data: MNISTDataModule, options: StoreOptions) -> Path:
    write = TeacherFolder.write

    def stopping(folder: TeacherFolder, block: int, logits: Tensor) -> None:
        if block == 3:
            raise StoppedError
        write(folder, block, logits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TeacherFolder, "write", stopping)
        with pytest.raises(StoppedError):
            opened(ensemble, data, options)
    (folder,) = Path(options.folder).iterdir()
    assert len(list(folder.glob("blocks/*.block"))) == 3
    return folder


def test_a_fill_goes_on_after_the_blocks_that_are_done(tmp_path: Path, passes: Counter[str]) -> None:
    options, data, ensemble, said = StoreOptions(folder=str(tmp_path)), few_digits(), ensemble_of(0), list[str]()
    folder = _fill_partly(ensemble, data, options)
    passes.clear()
    store = opened(ensemble, data, options, said)
    assert passes == {"net 0": 580 - 150}
    assert said[0].endswith(f"; 3 of {BLOCKS} blocks are there")
    assert _is_right(store, ensemble, data)
    assert {path.name for path in folder.iterdir()} == {"logits.npy", "store.json", ".lock"}


@pytest.mark.parametrize("damage", ["flip", "cut", "short", "empty", "checksum"])
def test_a_damaged_block_is_computed_again(damage: str, tmp_path: Path, passes: Counter[str]) -> None:
    options, data, ensemble, said = StoreOptions(folder=str(tmp_path)), few_digits(), ensemble_of(0), list[str]()
    folder = _fill_partly(ensemble, data, options)
    _damage(folder / "blocks" / "000001.block", damage)
    passes.clear()
    store = opened(ensemble, data, options, said)
    assert passes == {"net 0": 580 - 100}
    assert said[0] == f"block 1 in {folder / 'blocks'} is damaged; it is computed again"
    assert _is_right(store, ensemble, data)


def _damage(file: Path, way: str) -> None:
    content = bytearray(file.read_bytes())
    match way:
        case "flip":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "short":
            file.write_bytes(content[:10])
        case "empty":
            file.write_bytes(b"")
        case "checksum":
            file.write_bytes(content[:-1] + b"\xff")
        case "gone":
            file.unlink()


@pytest.mark.parametrize(
    ("file", "damage", "again"),
    [
        ("logits.npy", "flip", 50),  # the block that it lies in
        ("logits.npy", "cut", 330),
        ("logits.npy", "gone", 580),
        ("store.json", "cut", 580),
    ],
)
def test_damage_is_noticed_and_mended(file: str, damage: str, again: int, tmp_path: Path, passes: Counter[str]) -> None:
    options, data, ensemble, said = StoreOptions(folder=str(tmp_path)), few_digits(), ensemble_of(0), list[str]()
    expected = _plain(opened(ensemble, data, options), data).clone()
    (folder,) = tmp_path.iterdir()
    _damage(folder / file, damage)
    passes.clear()
    mended = opened(ensemble, data, options, said)
    assert said[0] == f"stored logits in {folder} are damaged; computing again what is wrong"
    assert passes == {"net 0": again}
    assert torch.equal(_plain(mended, data), expected)


def test_a_folder_of_another_teacher_is_not_served(tmp_path: Path) -> None:
    """As where someone copied or renamed folders by hand."""
    options, data, said = StoreOptions(folder=str(tmp_path)), few_digits(), list[str]()
    opened(ensemble_of(0), data, options)
    (first,) = tmp_path.iterdir()
    opened(ensemble_of(1), data, options)
    (second,) = set(tmp_path.iterdir()) - {first}
    for name in ("logits.npy", "store.json"):
        (second / name).write_bytes((first / name).read_bytes())
    assert _is_right(opened(ensemble_of(1), data, options, said), ensemble_of(1), data)
    assert "are damaged" in said[0]


def test_a_changed_picture_is_another_folder(tmp_path: Path, passes: Counter[str]) -> None:
    options, data, ensemble = StoreOptions(folder=str(tmp_path)), few_digits(), ensemble_of(0)
    opened(ensemble, data, options)
    passes.clear()
    changed = few_digits()
    changed.examples("train").inputs[int(changed.train_rows[3])] ^= 255
    store = opened(ensemble, changed, options)
    assert passes == {"net 0": 580}
    assert len(folders(tmp_path)) == 2
    assert _is_right(store, ensemble, changed)


def test_a_changed_teacher_is_another_folder(tmp_path: Path, passes: Counter[str]) -> None:
    options, data = StoreOptions(folder=str(tmp_path)), few_digits()
    net = teacher_net(0)
    opened(FrozenEnsemble([LoadedTeacher(net, "net", {})]), data, options)
    passes.clear()
    with torch.no_grad():
        net[-1].bias.add_(torch.arange(10.0))  # type: ignore[operator]
    changed = FrozenEnsemble([LoadedTeacher(net, "net", {})])
    assert _is_right(opened(changed, data, options), changed, data)
    assert passes == {"net": 580}


class Scaled(nn.Module):
    """A net whose code can change under the same weights."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.inner = teacher_net(0)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.inner(inputs)
        return logits * self.factor


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "begun"])
def test_code_that_changed_under_the_same_weights_is_noticed(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter[str]
) -> None:
    options, data, said = StoreOptions(folder=str(tmp_path)), few_digits(), list[str]()
    ensemble = FrozenEnsemble([LoadedTeacher(Scaled(), "scaled", {}), LoadedTeacher(teacher_net(1), "other", {})])
    if whole:
        opened(ensemble, data, options)
    else:
        _fill_partly(ensemble, data, options)
        opened(FrozenEnsemble(ensemble.teachers[1:]), data, options)
    monkeypatch.setattr(Scaled, "factor", 2.0)
    passes.clear()
    store = opened(ensemble, data, options, said)
    assert passes == {"scaled": 580}
    assert [line for line in said if "from what the teacher answers" in line] == said[: 1 if whole else 3]
    assert _is_right(store, ensemble, data)


def test_blocks_of_other_code_are_looked_for_under_the_folders_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one process would delete what another one has computed again."""
    options, data, ensemble, taken = StoreOptions(folder=str(tmp_path)), few_digits(), ensemble_of(0), list[bool]()
    folder = _fill_partly(ensemble, data, options)

    def watched(stored: Tensor, live: Tensor) -> Tensor:
        with claimed(folder / ".lock") as free:
            taken.append(not free)
        return torch.zeros(len(stored), dtype=torch.bool)

    monkeypatch.setattr("kd_lightning.teachers.filling._differ", watched)
    assert _is_right(opened(ensemble, data, options), ensemble, data)
    assert taken == [True]


def test_logits_beyond_float16_are_refused(tmp_path: Path) -> None:
    net = teacher_net(0)
    with torch.no_grad():
        net[-1].bias.fill_(1e5)  # type: ignore[operator]
    ensemble = FrozenEnsemble([LoadedTeacher(net, "loud", {})])
    with pytest.raises(ValueError, match=r"reach 1\d{5}, which float16 can't hold"):
        opened(ensemble, few_digits(), StoreOptions(folder=str(tmp_path)))
    assert not folders(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"can't write soft targets into .*file.*; set --model.store.folder elsewhere"):
        opened(ensemble_of(), few_digits(), StoreOptions(folder=str(tmp_path / "file" / "store")))


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("a whole store is only read")


def test_a_whole_store_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, ensemble, data = StoreOptions(folder=str(tmp_path)), ensemble_of(), few_digits()
    opened(ensemble, data, options)
    monkeypatch.setattr("kd_lightning.teachers.filling.locked", _fail)
    monkeypatch.setattr(Path, "mkdir", _fail)
    assert _is_right(opened(ensemble, data, options), ensemble, data)


@pytest.mark.faults
def test_a_whole_store_on_a_read_only_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    options, ensemble, data, said = StoreOptions(folder=str(disk)), ensemble_of(), few_digits(), list[str]()
    opened(ensemble, data, options)
    mounts = [["mount", "--bind", str(disk), str(disk)], ["mount", "-o", "remount,ro,bind", str(disk)]]
    if any(subprocess.run(mount, check=False).returncode for mount in mounts):
        pytest.skip("a file system can only be mounted by root")
    try:
        assert _is_right(opened(ensemble, data, options, said), ensemble, data)
        assert not said
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # noqa: S607  # found as mount was


def test_a_store_on_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("kd_lightning.runs.locks.fcntl.flock", flock)
    options, ensemble, data, said = StoreOptions(folder=str(tmp_path)), ensemble_of(0), few_digits(), list[str]()
    store = opened(ensemble, data, options, said)
    (folder,) = tmp_path.iterdir()
    assert said[0] == f"no locks in {folder}, so another process may compute the same soft targets"
    assert _is_right(store, ensemble, data)


def test_another_process_may_finish_first_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other clears the blocks away while this one writes one."""
    options, ensemble, data = StoreOptions(folder=str(tmp_path)), ensemble_of(0), few_digits()
    monkeypatch.setattr("kd_lightning.runs.locks.fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK)))
    write, others = TeacherFolder.write, [True]

    def overtaken(folder: TeacherFolder, block: int, logits: Tensor) -> None:
        if block == 5 and others.pop():
            others.append(False)
            opened(ensemble, data, options)
        write(folder, block, logits)

    monkeypatch.setattr(TeacherFolder, "write", overtaken)
    assert _is_right(opened(ensemble, data, options), ensemble, data)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "blocks").exists()


def test_a_full_disk_keeps_the_blocks_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter[str]
) -> None:
    """A limit on the size of files stands for the disk: a block fits, the table doesn't."""
    options, data, ensemble = StoreOptions(folder=str(tmp_path)), few_digits(), ensemble_of(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"can't write soft targets into .*: File too large; set --model"):
            opened(ensemble, data, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.glob("blocks/*.block"))) == BLOCKS
    assert not list(folder.rglob(".*part"))
    assert not folders(tmp_path)
    passes.clear()
    assert _is_right(opened(ensemble, data, options), ensemble, data)
    assert not passes


def _fill_beside(folder: str, started: Any, log: str) -> None:
    """Fill a store, noting each block."""
    torch.set_num_threads(1)
    write = TeacherFolder.write

    def noting(teacher: TeacherFolder, block: int, logits: Tensor) -> None:
        write(teacher, block, logits)
        with Path(log).open("a") as file:
            file.write(f"{teacher.source} {block} {os.getpid()}\n")

    pytest.MonkeyPatch().setattr(TeacherFolder, "write", noting)  # in a process of its own
    data, ensemble = few_digits(Jitter(1)), ensemble_of()
    started.wait()
    store = opened(ensemble, data, StoreOptions(folder=folder))
    assert _is_right(store, ensemble, data)


def test_two_processes_compute_each_block_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started, log = context.Barrier(2), tmp_path / "log"
    arguments = (str(tmp_path / "store"), started, str(log))
    workers = [context.Process(target=_fill_beside, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    lines = [line.rsplit(" ", 1) for line in log.read_text().splitlines()]
    blocks = -(-(9 * 380 + 200) // 50)
    assert Counter(block for block, _ in lines) == {f"net {n} {block}": 1 for n in (0, 1) for block in range(blocks)}
    assert len({process for _, process in lines}) == 2  # both had their share
    assert len(folders(tmp_path / "store")) == 2


def test_a_block_that_another_process_has_is_waited_for(tmp_path: Path, passes: Counter[str]) -> None:
    """It ends without having written it: then this one computes it."""
    options, data, ensemble = StoreOptions(folder=str(tmp_path)), few_digits(), ensemble_of(0)
    folder = _fill_partly(ensemble, data, options)
    context = multiprocessing.get_context("fork")
    taken = context.Event()

    def hold() -> None:
        with claimed(folder / "blocks" / "000007.lock"):
            taken.set()
            time.sleep(1)

    other = context.Process(target=hold)
    other.start()
    taken.wait(timeout=30)
    passes.clear()
    started = time.monotonic()
    assert _is_right(opened(ensemble, data, options), ensemble, data)
    assert time.monotonic() - started > 0.5
    assert passes == {"net 0": 580 - 150}
    other.join()


FILL = """
import sys
from kd_lightning.teachers import teacher_folder
from tests.teachers.stores import few_digits, ensemble_of, opened
from kd_lightning import Jitter, StoreOptions
teacher_folder.BLOCK = 200
print("ready", flush=True)
opened(ensemble_of(*range(8)), few_digits(Jitter(2)), StoreOptions(folder=sys.argv[1]))
"""


@pytest.mark.faults
def test_kills_while_writing_lose_no_block_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kd_lightning.teachers.teacher_folder.BLOCK", 200)
    chance = random.Random(0)  # noqa: S311  # moments of kills, no secrets
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    killed, done = 0, 0
    for _ in range(10):
        command = [sys.executable, "-c", FILL, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as worker:
            assert worker.stdout is not None
            assert "ready" in worker.stdout.readline()
            time.sleep(chance.uniform(0.1, 0.6))
            worker.send_signal(signal.SIGKILL)
        killed += worker.returncode == -signal.SIGKILL
        whole = folders(tmp_path)
        begun = sum(len(list(tmp_path.glob(f"{path.name}/blocks/*.block"))) for path in tmp_path.iterdir())
        assert len(whole) * 49 + begun >= done  # 25 views of 380, and 200: 49 blocks of a teacher
        done = len(whole) * 49 + sum(
            len(list(path.glob("blocks/*.block"))) for path in tmp_path.iterdir() if path.name not in whole
        )
    assert killed >= 5
    assert done > 0
    data, ensemble = few_digits(Jitter(2)), ensemble_of(*range(8))
    store = opened(ensemble, data, StoreOptions(folder=str(tmp_path)))
    batch = next(iter(data.train_dataloader()))
    live = ensemble(data.inputs(batch.indices, batch.views))
    stored = store.logits(batch.indices, batch.views)
    assert stored is not None
    torch.testing.assert_close(stored, live, atol=1e-2, rtol=1e-2)
    assert len(folders(tmp_path)) == 8
    assert not list(tmp_path.rglob("blocks"))
