"""Log lines on a terminal."""

import io
import logging
import os
from typing import TextIO

import pytest

from kd_lightning.cli.log_lines import WordWrap


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
