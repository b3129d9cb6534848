"""Before the first step: teachers of which the runs at hand tell that they have nothing to teach."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_lightning import main
from kd_lightning.runs.checkpoints import read_checkpoint
from kd_lightning.training.beforehand import no_better, plain_errors, unfinished

CONFIGS = Path(__file__).parents[2] / "configs" / "quickstart"
SMALL = ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false", "--data.batch_size", "400"]


def _fit(name: str, run: str, *flags: str) -> int:
    return main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), "--run_dir", run, *SMALL, *flags])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that is worse than the plain student in the folder of the run that it teaches."""
    folder = tmp_path_factory.mktemp("runs")
    teacher = ["--model.net.hidden", "[16]", "--trainer.max_epochs", "1", "--model.scheduler", "null"]
    assert _fit("teacher", str(folder / "teacher"), *teacher) == 0
    plain = ["--model.student.hidden", "[16]", "--trainer.max_epochs", "3", "--model.scheduler", "null"]
    assert _fit("student", str(folder / "plain"), *plain) == 0
    return folder


def test_it_is_said_before_the_first_step(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        distill = ["--model.teachers", str(runs / "teacher"), "--model.student.hidden", "[16]", "--dry_run", "true"]
        assert _fit("distill", str(runs / "distilled"), *distill) == 0
    said = [record.getMessage() for record in caplog.records]
    (line,) = (line for line in said if line.startswith("the teacher has nothing to teach: it makes "))
    assert "errors on 400 validation images, the plain student plain makes " in line
    assert said.index(line) < next(n for n, text in enumerate(said) if text.startswith("dry run: one step of 400"))
    assert not any("was stopped" in text for text in said)


def _change(run: Path, **values: Any) -> None:
    checkpoint = run / "checkpoints" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["kd_lightning"] |= values
    torch.save(content, checkpoint)


def test_a_plain_student_of_the_same_net_and_data_that_was_finished(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "plain", tmp_path / "plain")
    record = read_checkpoint(tmp_path / "plain" / "checkpoints" / "last.ckpt")["kd_lightning"]
    config, data, mine = record["config"], record["data"], tmp_path / "mine"
    accuracy = record["validation"]["val/accuracy"]
    assert plain_errors(mine, config, data, 400) == {"plain": round(400 * (1 - accuracy))}
    assert plain_errors(mine, {"model": {"init_args": {"student": None}}}, data, 400) == {}
    assert plain_errors(mine, config, data | {"split_seed": 1}, 400) == {}
    limited = config | {"trainer": config["trainer"] | {"limit_val_batches": 1}}  # other examples
    assert plain_errors(mine, limited, data, 400) == {}
    assert plain_errors(mine, config, {}, 400) == plain_errors(mine, config, data, None) == {}
    assert plain_errors(tmp_path / "plain", config, data, 400) == {}  # the run itself
    _change(tmp_path / "plain", planned_steps=90)  # stopped: what it can do is not known
    assert plain_errors(mine, config, data, 400) == {}
    (tmp_path / "plain" / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    assert plain_errors(mine, config, data, 400) == {}


def test_a_teacher_that_was_stopped(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "teacher", tmp_path / "teacher")
    record = {"source": str(tmp_path / "teacher" / "checkpoints" / "best.ckpt")}
    assert unfinished(record) == ""
    _change(tmp_path / "teacher", planned_steps=90)
    line = unfinished(record)
    assert "was stopped after 9 of 90 steps; train it to the end first: fit with" in line
    assert line.endswith("--run_dir teacher --ckpt_path last")  # from the current folder
    _change(tmp_path / "teacher", config={"trainer": {"max_time": "00:01:00:00"}})  # which stops itself
    assert unfinished(record) == unfinished({"source": "MLP"}) == unfinished({"source": "logits.npy"}) == ""


def test_several_plain_students_count_by_their_mean() -> None:
    record = {"errors": 30, "examples": 400, "split": "validation"}
    assert no_better([record], {"plain-0": 40, "plain-1": 38}, "frames") == ""  # 9 errors fewer, the root of 69 is 8.3
    line = no_better([record], {"plain-0": 39, "plain-1": 37}, "frames")  # 8 fewer, the root of 68 is 8.2
    assert line.startswith("the teacher may have nothing to teach: it makes 30 errors on 400 validation frames, ")
    assert "2 plain students make 38 on average, which may be chance; train the teacher for longer" in line
    line = no_better([record], {"plain-0": 28, "plain-1": 32}, "frames")
    assert line.startswith("the teacher has nothing to teach: it makes 30 errors on 400 validation frames, 2 plain ")
    assert "students make 30 on average; train the teacher for longer" in line
    assert no_better([record, record], {"plain-0": 28}, "frames") == ""  # together they may be better
    assert no_better([record | {"split": "training"}], {"plain-0": 28}, "frames") == ""
    assert no_better([record], {}, "frames") == ""


def test_one_error_is_no_plural() -> None:
    record = {"errors": 1, "examples": 400, "split": "validation"}
    line = no_better([record], {"plain-0": 1}, "frames")
    assert line.startswith("the teacher has nothing to teach: it makes 1 error on 400 validation frames, ")
