"""On a real Slurm: a run that is told that its time is up saves, is queued again, and ends as an unbroken one does.

Needs `sudo bash scripts/slurm/local-cluster.sh`; without Slurm these tests are skipped.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(shutil.which("sbatch") is None, reason="no Slurm here; see scripts/slurm/local-cluster.sh"),
]
CONFIG = str(ROOT / "configs" / "quickstart" / "student.yaml")
# Without it a fast machine is through with the 1,740 steps before it is told to stop.
SLOW = """
import time
from lightning.pytorch import Callback

class Slow(Callback):
    def on_train_batch_end(self, *args):
        time.sleep({seconds})
"""
BUSY = ["--trainer.enable_progress_bar", "false", "--save_every", "2"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jobs run in tmp_path, with this interpreter and the scripts of the checkout."""
    for name in ("scripts", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def _out(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _submit(*arguments: str) -> str:
    return _out("sbatch", "--parsable", *arguments).split(";")[0]


def _job(number: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in _out("scontrol", "show", "job", number).split() if "=" in part)


def _wait(number: str, state: str, seconds: float = 240) -> dict[str, str]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = _job(number)
        if job["JobState"] == state:
            return job
        assert job["JobState"] not in {"FAILED", "CANCELLED", "TIMEOUT"} or state == job["JobState"], _logs()
        time.sleep(0.5)
    raise AssertionError(f"job {number} is {_job(number)['JobState']}, not {state}:\n{_logs()}")


def _logs() -> str:
    return "\n".join(f"{file}:\n{file.read_text()}" for file in sorted(Path().glob("*.out")))


def _wait_for(file: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < deadline, _logs()
        time.sleep(0.2)


def _result(run: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return json.loads((run / "metrics.json").read_text())["test"], last["state_dict"]


@pytest.mark.parametrize("way", ["signal", "time limit"])
def test_a_requeued_run_ends_as_an_unbroken_one(slurm: Path, way: str) -> None:
    flags = ["--model.student.hidden", "[64,64]", "--trainer.max_epochs", "60", *BUSY]
    unbroken = _submit("scripts/slurm/train.sbatch", CONFIG, "runs/unbroken", *flags)
    _wait(unbroken, "COMPLETED")
    # One minute is the shortest limit, and Slurm may signal up to a minute earlier than it was told to.
    limit = ["--time=1", "--signal=USR1@30"] if way == "time limit" else []
    Path("slow.py").write_text(SLOW.format(seconds=0.02 if way == "signal" else 0.045))
    broken = _submit(
        *limit, "scripts/slurm/train.sbatch", CONFIG, "runs/broken", *flags, "--trainer.callbacks+=slow.Slow"
    )
    if way == "signal":
        _wait_for(Path("runs/broken/checkpoints/last.ckpt"))
        _out("scancel", "--signal=USR1", broken)
    job = _wait(broken, "COMPLETED", 400)
    assert int(job["Restarts"]) >= 1, _logs()
    log = Path(f"kd-train-{broken}.out").read_text()
    assert "stopped by SIGUSR1: step " in log
    assert "resuming runs/broken/checkpoints/last.ckpt after step" in log
    (metrics, weights), (same_metrics, same_weights) = map(_result, (Path("runs/unbroken"), Path("runs/broken")))
    assert metrics == same_metrics
    assert all(torch.equal(tensor, same_weights[name]) for name, tensor in weights.items())


def test_an_array_of_teachers_and_the_dependent_students(slurm: Path) -> None:
    shutil.copy(ROOT / "configs" / "quickstart" / "teacher.yaml", "teacher.yaml")
    shutil.copy(ROOT / "configs" / "quickstart" / "distill.yaml", "distill.yaml")
    for name in ("teacher", "distill"):
        text = Path(f"{name}.yaml").read_text()
        Path(f"{name}.yaml").write_text(text.split("\ntrainer:")[0] + "\ntrainer: {max_epochs: 2}\n")
    command = ["bash", "scripts/slurm/pipeline.sh", "teacher.yaml", "distill.yaml", "runs/chain", "2", "2"]
    _wait(_out(*command).split(";")[0], "COMPLETED")
    runs = {folder.name for folder in Path("runs/chain").iterdir() if (folder / "metrics.json").exists()}
    assert runs == {"teacher-0", "teacher-1", "student-0", "student-1"}
    assert len(json.loads(Path("runs/chain/student-1/teachers.json").read_text())) == 2
    assert "ensemble of 2 teachers" in Path("runs/chain/report.html").read_text()


def test_cancelling_does_not_queue_again(slurm: Path) -> None:
    job = _submit("scripts/slurm/train.sbatch", CONFIG, "runs/cut", "--trainer.max_epochs", "100000", *BUSY)
    _wait_for(Path("runs/cut/checkpoints/last.ckpt"))
    _out("scancel", job)
    assert _wait(job, "CANCELLED")["Restarts"] == "0"


def test_two_tasks_share_a_run(slurm: Path) -> None:
    flags = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", *BUSY]
    two = ["--ntasks-per-node=2", "scripts/slurm/train.sbatch", CONFIG, "runs/two", *flags]
    _wait(_submit(*two), "COMPLETED")
    metrics = json.loads(Path("runs/two/metrics.json").read_text())
    assert metrics["test"]["examples"] == 1000
    assert Path("runs/two/checkpoints/last.ckpt").stat().st_size > 0


def test_the_tasks_of_an_array_share_a_study(slurm: Path) -> None:
    quick = "set: {trainer.max_epochs: 1, data.dataset: mnist5k}\nseeds: 2\nrows:\n"
    rows = "- {name: narrow, set: {model.student.hidden: [8]}}\n- {name: wide, set: {model.student.hidden: [16]}}\n"
    Path("widths.yaml").write_text(f"configs: [{CONFIG}]\n{quick}{rows}")
    _wait(_submit("--array=0-1", "scripts/slurm/study.sbatch", "widths.yaml", "--threads", "1"), "COMPLETED")
    lines = json.loads(Path("runs/widths/widths.json").read_text())
    assert [(line["row"], line["n"]) for line in lines] == [("narrow", 2), ("wide", 2)]


def test_one_task_of_an_array_is_queued_again_alone(slurm: Path) -> None:
    Path("slow.py").write_text(SLOW.format(seconds=0.02))
    flags = ["--model.student.hidden", "[8]", "--trainer.max_epochs", "20", *BUSY, "--trainer.callbacks+=slow.Slow"]
    array = _submit("--array=0-1", "scripts/slurm/teachers.sbatch", CONFIG, "runs/seed", *flags)
    for number in (0, 1):
        _wait_for(Path(f"runs/seed-{number}/checkpoints/last.ckpt"))
    _out("scancel", "--signal=USR1", f"{array}_1")  # the last one: its own number is the array's
    restarts = [_wait(f"{array}_{number}", "COMPLETED")["Restarts"] for number in (0, 1)]
    assert restarts == ["0", "1"]
