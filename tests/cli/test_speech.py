"""Speech through the same classes and commands as pictures: train, distil, test, report, predict, export, study."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.cli.command_line import main
from kd_lightning.cli.study import planned
from kd_lightning.modules.distill import DistillModule
from kd_lightning.modules.teacher import TeacherModule
from kd_lightning.reports.study_file import read_study
from tests.data.spoken import tones, write_corpus, write_wav

CONFIGS = Path(__file__).parents[2] / "configs" / "speech"
QUIET = ["--trainer.enable_progress_bar", "false"]
FIT_CONFIGS = sorted(path for path in CONFIGS.glob("*.yaml") if "\nrows:" not in path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), numbers=(0, 1, 5, 6, 7, 8), speakers=("ann", "bob"))


def _fit(config: str, run: Path, corpus: Path, net: str, *flags: str) -> int:
    file = str(CONFIGS / f"{config}.yaml")
    data = ["--data.data_dir", str(corpus), "--data.val_size", "10"]
    size = [f"--model.{net}.hidden", "[64, 64]", f"--model.{net}.dropout_hidden", "0", "--trainer.max_epochs", "6"]
    return main(["fit", "--config", file, "--run_dir", str(run), *data, *size, *QUIET, *flags])


@pytest.fixture(scope="module")
def runs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers and the student that they teach."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        assert _fit("teacher", folder / f"teacher-{seed}", corpus, "net", "--seed_everything", seed) == 0
    teachers = ["--model.teachers", f"{folder}/teacher-*", "--model.soft_targets", "stored"]
    assert _fit("distill", folder / "student", corpus, "student", *teachers) == 0
    for run in ("teacher-0", "student"):
        assert main(["test", "--ckpt_path", str(folder / run), *QUIET]) == 0
    return folder


def _metrics(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return content


def test_frames_and_digits_are_counted(runs: Path) -> None:
    metrics = _metrics(runs / "student")
    assert metrics["unit"] == "frames"
    assert metrics["test"]["accuracy"] > 0.6
    assert metrics["test"]["utterances"] == metrics["sequences"]["count"] == 40
    assert metrics["test"]["digit_errors"] == metrics["sequences"]["errors"] <= 4
    assert metrics["test"]["teacher_digit_errors"] <= 4
    low, high = metrics["error_rate_interval"]
    assert low <= metrics["test"]["errors"] / metrics["test"]["examples"] <= high
    low, high = metrics["sequences"]["interval"]
    assert low <= metrics["sequences"]["errors"] / 40 <= high
    assert "sequences" in _metrics(runs / "teacher-0")


def test_less_than_an_utterance_has_no_interval(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = ["--trainer.limit_test_batches", "1", "--data.eval_batch_size", "4"]
    assert main(["test", "--ckpt_path", str(runs / "teacher-0"), *QUIET, *part]) == 0
    assert "of 4 frames" in capsys.readouterr().out


def test_no_class_of_its_own_trains_speech(runs: Path) -> None:
    for run, module in (("teacher-0", TeacherModule), ("student", DistillModule)):
        assert f"class_path: kd_lightning.{module.__name__}\n" in (runs / run / "config.yaml").read_text()
    package = Path(main.__code__.co_filename).parents[1]
    for room in ("modules", "teachers", "runs", "reports", "training", "methods", "cli"):
        for file in (package / room).glob("*.py"):
            assert not re.search(r"\b(speech|utterance|spoken|mel)", file.read_text(encoding="utf-8"), re.IGNORECASE), (
                file
            )


@pytest.mark.slow
def test_the_report_shows_frames_and_confused_digits(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs / "teacher-0"), str(runs / "student"), "--output", str(runs / "report")]) == 0
    tested = _metrics(runs / "student")["test"]["examples"]
    assert f"errors of {tested:,} test frames" in " ".join(capsys.readouterr().out.split())
    page = (runs / "report" / "report.html").read_text(encoding="utf-8")
    assert re.search("student[^<]*, whole sequences", page)
    assert "images" not in page


def _predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_wav_files_are_recognised(runs: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "seven.wav", tones(7, seed=99), width=3)
    write_wav(tmp_path / "two.wav", tones(2, rate=16000, seed=98), rate=16000)
    command = ["predict", "--ckpt_path", str(runs / "student"), *QUIET]
    # the corpus need not be there
    assert main([*command, "--data.recordings", f"[{tmp_path}]", "--data.data_dir", "nowhere"]) == 0
    rows = _predictions(runs / "student")
    assert [(Path(row["file"]).name, row["label"], row["prediction"]) for row in rows] == [
        ("seven.wav", "", "7"),
        ("two.wav", "", "2"),
    ]
    assert all(0.1 <= float(row["confidence"]) <= 1 for row in rows)
    assert main(command) == 0
    rows = _predictions(runs / "student")
    wrong = sum(row["label"] != row["prediction"] for row in rows)
    assert (len(rows), wrong) == (40, _metrics(runs / "student")["test"]["digit_errors"])


@pytest.mark.parametrize(
    ("sound", "message"),
    [("cut", "is not a whole wav file"), ("silent", "is silent"), ("short", "is too short: expected at least 45 ms")],
)
def test_a_bad_recording_is_one_line(
    sound: str, message: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_wav(tmp_path / "a.wav", tones(1, seconds=0.02 if sound == "short" else 0.3) * (sound != "silent"))
    if sound == "cut":
        path.write_bytes(path.read_bytes()[:500])
    assert main(["predict", "--ckpt_path", str(runs / "student"), *QUIET, "--data.recordings", str(path)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]


def test_no_corpus_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _fit("teacher", tmp_path / "run", tmp_path / "nowhere", "net") == 1
    assert "unpack a release of https://github.com" in capsys.readouterr().err


@pytest.mark.slow
def test_the_exported_net_is_compared_on_test_frames(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(runs / "student")]) == 0
    found = re.search(r"on ([\d,]+) test examples .* errors: (\d+) of the net, (\d+) of", capsys.readouterr().out)
    assert found
    test = _metrics(runs / "student")["test"]
    assert [int(text.replace(",", "")) for text in found.groups()] == [test["examples"], test["errors"], test["errors"]]


@pytest.mark.parametrize("config", FIT_CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs_one_step_by_its_own_command(config: Path, runs: Path, corpus: Path) -> None:
    command = re.search(r"#   python -m kd_lightning (.*)", config.read_text(encoding="utf-8"))
    assert command, "a configuration's second line is how to run it"
    arguments = command[1].replace("configs/speech", str(CONFIGS)).split()
    assert str(config) in arguments
    flags = ["--data.data_dir", str(corpus), "--trainer.fast_dev_run", "true", "--data.train_fraction", "0.3"]
    if "distill.yaml" in command[1]:
        flags += ["--model.teachers", str(runs / "teacher-0")]
    assert main([*arguments, "--run_dir", "run", *QUIET, *flags]) == 0


@pytest.mark.parametrize("name", ["table", "folds", "tuning", "speaker-tuning"])
def test_the_studies_are_understood(name: str) -> None:
    study = read_study(CONFIGS / f"{name}.yaml")
    assert planned(study)
    if name == "folds":
        assert {row.options["data.fold"] for row in study.rows} == {
            *["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
        }
        folds = [(t.options["data.fold"], row.options["data.fold"]) for row in study.rows for t, _ in row.teachers]
        assert len(folds) == 6
        assert all(teacher == student for teacher, student in folds)
        for kind in ("teacher", "distilled"):  # the same settings in all folds
            first, *others = (
                {**row.options, "data.fold": ""} for row in study.rows if row.name.partition("-")[0] == kind
            )
            assert all(options == first for options in others)


@pytest.mark.slow
def test_a_study_counts_digits_and_validation_frames(corpus: Path, tmp_path: Path) -> None:
    small = "{model.net.hidden: [32], trainer.max_epochs: 2, data.val_size: 10}"
    for measure in ("test", "validation"):
        (tmp_path / f"{measure}.yaml").write_text(
            f"measure: {measure}\nset: {small}\nrows: [{{name: a, configs: [{CONFIGS / 'teacher.yaml'}], seeds: 2}}]\n"
        )
        command = ["study", f"{measure}.yaml", "--data_dir", str(corpus), "--report", "false"]
        assert main(command) == 0
    assert "| digit errors of 40 |" in (tmp_path / "runs/test/test.md").read_text(encoding="utf-8")
    (line,) = json.loads((tmp_path / "runs/validation/validation.json").read_text(encoding="utf-8"))
    assert line["runs"][0]["examples"] > 150  # frames, not the ten recordings
    assert 0 < line["runs"][0]["errors"] < line["runs"][0]["examples"]
