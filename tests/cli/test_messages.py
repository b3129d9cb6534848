"""What the user reads, in every locale."""

import io
import sys

import pytest

from kd_lightning.cli.command_line import main
from kd_lightning.cli.messages import accept_any_text


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
