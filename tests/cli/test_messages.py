"""What the user reads, in every locale."""

import io
import logging
import os
import sys
from typing import TextIO

import pytest

from kd_lightning.cli.command_line import main
from kd_lightning.cli.messages import WordWrap, accept_any_text


def test_what_a_terminal_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sent, encoding="ascii", write_through=True))
    accept_any_text()
    undecoded = b"r\xe9".decode("utf-8", "surrogateescape")
    print(f"1 ± 2 – {undecoded} → é…", end="")
    assert sent.getvalue() == b"1 +- 2 - r\xe9 -> \\xe9..."


def test_a_stream_of_another_kind_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    accept_any_text()
    print("±", end="")
    assert notebook.getvalue() == "±"


def test_an_argument_that_is_no_text_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--ckpt_path", b"r\xe9".decode("utf-8", "surrogateescape")]) == 1
    assert "error: 'r\\udce9' is not text in this locale's encoding, " in capsys.readouterr().err


def test_log_lines_are_broken_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    handler: logging.StreamHandler[TextIO] = logging.StreamHandler(stream)
    handler.setFormatter(WordWrap(handler))
    record = logging.makeLogRecord({"msg": "the teacher has nothing to teach"})
    handler.emit(record)
    assert stream.getvalue() == "the teacher has nothing to teach\n"
    monkeypatch.setattr(stream, "fileno", lambda: 1)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((20, 24)))
    handler.emit(record)
    assert stream.getvalue().splitlines()[1:] == ["the teacher has", "nothing to teach"]
