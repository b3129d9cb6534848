"""The page needs no other file, and shows what is broken as such."""

import csv
import io
import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from torch.utils.tensorboard.writer import SummaryWriter

from kd_lightning.cli.command_line import main
from kd_lightning.reports.curves import read_curves
from kd_lightning.reports.page import run_report
from kd_lightning.reports.run_folders import find_runs
from kd_lightning.runs import files
from tests.reports.made_runs import COSTS, make_run, student


class _Parsed(HTMLParser):
    """What a page asks for, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_stands_alone_and_escapes_what_it_shows(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = make_run(tmp_path / "runs", "good", 5, costs=COSTS, error_rate_interval=[0.002, 0.01])
    tables = {
        "confusion": [[9, 1], [2, 8]],
        "teacher_confusion": [[10, 0], [1, 9]],
        "reliability": [{"count": 20, "confidence": 0.9, "accuracy": 0.85}],
    }
    (folder / "details.json").write_text(json.dumps({"tables": tables}), encoding="utf-8")
    with SummaryWriter(folder) as writer:
        for step in range(5):
            for tag in ("train/soft_loss", "train/hard_loss", "val/soft_loss", "val/hard_loss", "val/accuracy"):
                writer.add_scalar(tag, 1 / (step + 1), step)
    named = tmp_path / "runs" / f"named {evil.replace('/', '∕')}"
    named.mkdir()
    (named / "config.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"temperature": evil}}}), encoding="utf-8"
    )
    run_report([str(tmp_path / "runs"), "--output", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    parsed = _Parsed(page)
    assert "script" not in parsed.tags
    assert all(link.startswith(("data:", "#")) for link in parsed.links), parsed.links
    assert not re.search(r"url\((?!#)", page)
    text = " ".join(parsed.text)
    for heading in (
        "Loss curves",
        "Accuracy, reliability, errors by class",
        "Confusion",
        "What the nets cost",
        "What the conf",
    ):
        assert heading in text
    assert evil in text
    assert "student against its teachers, test images" in text
    assert parsed.tags.count("svg") == 6
    pictures = {file.name for file in (tmp_path / "out" / "report-pictures").iterdir()}
    assert {"good-loss.png", "good-confusion.png", "good-teacher-confusion.png", "reliability.png"} <= pictures


def test_broken_runs_are_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = make_run(tmp_path, "good", 5)
    for name, file, content in (
        ("torn", "metrics.json", "{"),
        ("odd", "metrics.json", '{"test": {}}'),
        ("list", "metrics.json", "[1]"),
        ("yaml", "config.yaml", "a: [b"),
        ("bytes", "config.yaml", "\x00\xff"),
        ("details", "details.json", "nonsense"),
    ):
        broken = make_run(tmp_path, name, None if file == "config.yaml" else 7, temperature=hash(name) % 1000)
        (broken / file).write_bytes(content.encode("latin1"))
    (good / "events.out.tfevents.1.x").write_bytes(b"no event file")
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Not finished or damaged" in page
    for name, problem in (
        ("torn", "metrics.json is damaged"),
        ("odd", "no errors and examples"),
        ("yaml", "config.yaml is"),
    ):
        assert re.search(rf"{name}: [^<]*{problem}", page)
    said = capsys.readouterr().out
    assert f"{tmp_path / 'torn'}: metrics.json is damaged: " in said
    assert re.search(r"│ good +│", said)
    assert read_curves(good).scalars == {}


def test_a_verdict_stands_first(tmp_path: Path) -> None:
    make_run(tmp_path, "plain", 9, model=student(0.0))
    text = ["Distillation here: helps. <b>"]
    (tmp_path / "verdict.json").write_text(json.dumps({"text": text}), encoding="utf-8")
    (tmp_path / "verdict.png").write_bytes(b"a picture")
    run_report([str(tmp_path)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("Distillation here: helps. &lt;b&gt;") < page.index("<table>")
    assert page.index("data:image/png") < page.index("<table>")
    (tmp_path / "verdict.json").write_text("{", encoding="utf-8")
    run_report([str(tmp_path)])
    assert "verdict.json is damaged" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_findings_stand_in_page_text_and_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "plain", 9, model=student(0.0))
    make_run(tmp_path, "distilled", 12, model=student(0.9), teacher_errors=10)
    make_run(tmp_path, "cut", 9, model=student(0.5), steps_done=60, steps_planned=100.0)
    run_report([str(tmp_path)])
    finding = "the teacher makes more errors (10) than the plain student, plain (9): nothing to teach"
    stopped = "cut: stopped after 60 of 100 steps"
    said = capsys.readouterr().out
    for text in (said, *((tmp_path / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))):
        assert finding in text
        assert stopped in text
        assert "cut, unfinished" in text


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for parent, errors in (("a", 5), ("b", 9)):
        folder = make_run(tmp_path / parent, "distilled", errors, temperature=errors)
        tables = {"confusion": [[9, errors], [2, 8]]}
        (folder / "details.json").write_text(json.dumps({"tables": tables}), encoding="utf-8")
    run_report([str(tmp_path), "--output", str(tmp_path / "out")])
    pictures = {file.name for file in (tmp_path / "out" / "report-pictures").iterdir()}
    assert {"a-distilled-confusion.png", "b-distilled-confusion.png"} <= pictures
    assert "b/distilled, seed 0, test images" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_files_and_errors(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs", "a", 5)
    run_report([str(folder)])
    with (folder / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["name"], rows[0]["errors"]) == ("a", "5")
    assert "| a | 1 | 5 | 0.50 |" in (folder / "report.md").read_text(encoding="utf-8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no run"):
        find_runs([str(tmp_path / "empty")])
    with pytest.raises(FileNotFoundError, match="no run folder"):
        find_runs([str(tmp_path / "nowhere")])


class _Terminal(io.TextIOWrapper):
    """A terminal of some encoding that keeps what it was sent."""

    def __init__(self, encoding: str) -> None:
        self.sent = io.BytesIO()
        super().__init__(self.sent, encoding=encoding, write_through=True)


@pytest.mark.parametrize(
    ("encoding", "absent", "spread", "name"),
    [
        ("ascii", b" - |", b"11.0 +- 1.4", b"na\\xefve \\u6570"),
        ("latin-1", b" - |", b"11.0 \xb1 1.4", b"na\xefve \\u6570"),
        ("utf-8", " – │".encode(), "11.0 ± 1.4".encode(), "naïve 数".encode()),
    ],
)
def test_every_terminal_shows_the_table(
    encoding: str, absent: bytes, spread: bytes, name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, errors in enumerate([10, 12]):
        make_run(tmp_path / "réports" / str(seed), "naïve 数", errors, seed)
    make_run(tmp_path / "réports", "other", 7, temperature=2.0, train_seconds=None)
    terminal = _Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["report", str(tmp_path / "réports"), "--output", str(tmp_path / "öut")]) == 0
    for expected in (absent, spread, name):
        assert expected in terminal.sent.getvalue()
    assert "naïve 数" in (tmp_path / "öut" / "report.md").read_text(encoding="utf-8")
    assert "naïve 数" in (tmp_path / "öut" / "report.csv").read_text(encoding="utf-8")
    assert "11.0 ± 1.4" in (tmp_path / "öut" / "report.html").read_text(encoding="utf-8")


def test_a_narrow_terminal_gets_fewer_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, "plain", 9, model=student(0.0))
    make_run(tmp_path, "distilled", 12, model=student(0.9), train_seconds=7.0)
    monkeypatch.setenv("COLUMNS", "40")
    run_report([str(tmp_path)])
    table = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= 40
    assert any("plain" in line and " 9 " in line for line in table)
    assert not any("training" in line for line in table)
    assert "training" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<li>training: wall time" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_every_name_of_a_run_is_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path, os.fsdecode(b"r\xe9sum\xe9"), 5)  # Latin-1, in a locale of UTF-8
    (folder / "details.json").write_text(json.dumps({"tables": {"confusion": [[9, 1], [2, 8]]}}), encoding="utf-8")
    formula = make_run(tmp_path, "_$x^$ & $\\frac", 7, temperature=2.0)
    (formula / "details.json").write_text(json.dumps({"tables": {"confusion": [[9, 1], [2, 8]]}}), encoding="utf-8")
    long = make_run(tmp_path, "n" * 240 + "数", 6, temperature=9.0)
    (long / "details.json").write_text(json.dumps({"tables": {"confusion": [[9, 1], [2, 8]]}}), encoding="utf-8")
    run_report([str(tmp_path), "--output", str(tmp_path / "out")])
    assert "| r\ufffdsum\ufffd |" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    pictures = sorted(file.name for file in (tmp_path / "out" / "report-pictures").glob("*-*.png"))
    assert any(name.startswith("r-sum-confusion-") for name in pictures)
    assert any(name.startswith("nnnnn") and len(name) < 120 for name in pictures)


@pytest.mark.parametrize("name", ["report.md", "report.csv", "report.html", "errors-by-class.png"])
def test_a_report_that_fails_leaves_the_old_one_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, "a", 5)
    (folder / "details.json").write_text(json.dumps({"tables": {"confusion": [[9, 1], [2, 8]]}}), encoding="utf-8")
    file = folder / "report-pictures" / name if name.endswith(".png") else folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"whole")
    flush = files.flush

    def full(path: Path) -> None:
        if name in path.name:
            raise OSError("no space left on device")
        flush(path)

    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(OSError, match="no space left"):
        run_report([str(folder)])
    assert file.read_bytes() == b"whole"
    assert not list(folder.rglob("*.part"))


def test_curves_of_odd_numbers_are_drawn(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "odd", 5)
    with SummaryWriter(folder) as writer:
        for step, value in enumerate([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-40, 0.0]):
            for tag in ("train/loss", "val/accuracy"):
                writer.add_scalar(tag, value, step)
    run_report([str(folder)])
    assert (folder / "report-pictures" / "odd-loss.png").is_file()
    assert " UTC, 1 run, <code>" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_names_its_runs_and_how_to_write_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs", "a", 5)
    make_run(tmp_path / "runs", "b", 6)
    command = "python -m kd_lightning report"
    for given, title, footer in (
        (["runs"], "runs", f"{command} runs"),
        ([str(tmp_path / "runs" / "a")], "runs/a", f"{command} runs/a"),
        (["runs", "--output", "out"], "out", f"{command} runs --output out"),
    ):
        run_report(given)
        page = (tmp_path / title / "report.html").read_text(encoding="utf-8")
        assert f"<h1>Distillation report: {title}</h1>" in page
        assert f"<code>{footer}</code>" in page
        assert capsys.readouterr().out.endswith(
            f"written: {title}/report.html, report.md, report.csv, report-pictures/\n"
        )


def test_captions_name_what_each_run_was_tested_on(tmp_path: Path) -> None:
    for name, unit in (("digits", "images"), ("words", "recordings")):
        folder = make_run(tmp_path, name, 2, model=student(0.0), unit=unit, data=name)
        tables = {"confusion": [[9, 1], [1, 9]]}
        (folder / "details.json").write_text(json.dumps({"tables": tables}), encoding="utf-8")
    run_report([str(tmp_path)])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "digits, seed 0, test images<" in page
    assert "words, seed 0, test recordings<" in page
    assert "errors by class, test images and recordings, seed 0<" in page
