"""A fit takes a folder only if no other run is lost by it."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from kd_lightning.cli.run_start import claim_folder, resumed_checkpoint

RUN = Path("runs/x")


@pytest.fixture
def older_run() -> Path:
    RUN.mkdir(parents=True)
    config = RUN / "config.yaml"
    config.write_text("model: {}", encoding="utf-8")
    return config


def _claim(*, resumes: str | None = None, overwrite: bool = False, teachers: object = None) -> list[Path]:
    with ExitStack() as exit_stack:
        return claim_folder(RUN, exit_stack, resumes=resumes, overwrite=overwrite, teachers=teachers)


def test_an_empty_folder_is_taken() -> None:
    assert _claim() == []


def test_an_older_run_is_resumed_or_replaced_but_never_mixed_with_a_new_one(older_run: Path) -> None:
    assert _claim(overwrite=True) == [older_run]
    for own in ("last", "best", "runs/x/checkpoints/last.ckpt"):
        assert _claim(resumes=own) == []
    for other in (None, "runs/xy/checkpoints/last.ckpt"):
        with pytest.raises(FileExistsError, match="runs/x already holds a run; resume it with --ckpt_path last"):
            _claim(resumes=other)
    assert older_run.is_file()


def test_last_finds_nothing_in_an_empty_folder() -> None:
    assert resumed_checkpoint(RUN, "last", "kd_lightning.TeacherModule", {}) is None
