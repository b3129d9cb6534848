"""Start commands in processes of their own, and compare what two runs left.

For the tests in tests/test_faults.py and for the trials of scripts.reliability.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.runs.checkpoints import BEST, CHECKPOINT_DIR, LAST
from kd_lightning.runs.files import EVENT_FILES

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "configs" / "quickstart"
# One thread, since sums depend on their number in the last bits; this checkout's code, whatever is installed.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

_CHANGING = ("costs", "tested_at")  # of a test's records

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # a resumed run's older steps are dropped: not worth a line

Output = int | IO[Any] | None  # what subprocess takes for stdout and stderr


def start(*arguments: str, stdout: Output = subprocess.PIPE, stderr: Output = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start `python -m kd_lightning` in a session of its own, so that all its processes can be found again."""
    command = [sys.executable, "-m", "kd_lightning", *arguments]
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, env=ENVIRONMENT, start_new_session=True)  # noqa: S603  # our own


def session_processes(leader: int) -> list[int]:
    """Numbers of the processes of a session that still run, its leader first.

    Args:
        leader: The process that began the session.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            # The name, in brackets, may hold anything; after it come state, parent, group and session.
            state, _, _, session = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(entry.name))
    return sorted(found, key=lambda process: (process != leader, process))


def checkpoint(run: Path, name: str = LAST) -> dict[str, Any]:
    """Content of a checkpoint of a run."""
    content: dict[str, Any] = torch.load(run / CHECKPOINT_DIR / name, weights_only=True)
    return content


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of a run's curves, by tag."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(p.step, p.value) for p in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def differences(run: Path, other: Path, *, validation: bool = True) -> list[str]:
    """What differs between two runs, bit for bit: weights, optimizer state, step, curves and best.ckpt; [] for nothing.

    Args:
        run: Folder of the run in question.
        other: Folder of the run as it should be.
        validation: Whether curves of validation and best.ckpt count, which depend on where a run was stopped.
    """
    parts = ["state_dict", "optimizer_states", "lr_schedulers", "global_step"]
    found = _different_values(LAST, run, other, parts)
    if validation:
        found += _different_values(BEST, run, other, ["state_dict", "global_step"])
    drawn, expected = curves(run), curves(other)
    tags = [tag for tag in expected if validation or tag.startswith("train/")]
    return found + [f"curve {tag}" for tag in tags if drawn.get(tag) != expected[tag]]


def contents(folder: Path) -> dict[str, object]:
    """The content of a folder's files by path, without times of day and timings; no hidden files.

    Event files are left out: `curves` reads them.
    """
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return {str(file.relative_to(folder)): _content(file) for file in files if not file.match(EVENT_FILES)}


def _content(file: Path) -> object:
    content = file.read_bytes()
    try:
        match file.suffix:
            case ".json":
                read = json.loads(content)
                return {**read, **dict.fromkeys(_CHANGING)} if isinstance(read, dict) else read
            case ".html":
                return re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC", b"", content)
            case ".safetensors":  # whose header is in any order
                size = int.from_bytes(content[:8], "little")
                return json.loads(content[8 : 8 + size]), content[8 + size :]
    except ValueError:
        return "damaged"
    return content


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a small file system there for a while, if root runs this; yields whether it is mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and _works(mount)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S603, S607  # found as mount was


def _works(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603  # our own


def fill_up(folder: Path) -> Path:
    """Fill a disk to its last byte with one file, and name it."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


def _different_values(name: str, run: Path, other: Path, parts: list[str]) -> list[str]:
    """Which parts of a checkpoint differ, where the other run has this checkpoint."""
    if not (other / CHECKPOINT_DIR / name).exists():
        return []
    if not (run / CHECKPOINT_DIR / name).exists():
        return [f"no {name}"]
    ours, theirs = checkpoint(run, name), checkpoint(other, name)
    return [f"{name}: {part}" for part in parts if not _equal(ours[part], theirs[part])]


def _equal(ours: Any, theirs: Any) -> bool:  # Any: whatever a checkpoint holds
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, torch.as_tensor(theirs))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_equal(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    return bool(ours == theirs)
