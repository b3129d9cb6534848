"""Curves from whichever logger: event files, also of others, and the metrics.csv of CSVLogger."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard.writer import SummaryWriter

from kd_lightning.reports.curves import accuracy_of, charts_of, read_curves
from kd_lightning.reports.page import run_report
from tests.reports.made_runs import make_run


def _log(logger: CSVLogger, steps: range, shift: float = 0.0) -> None:
    for step in steps:
        logger.log_metrics({"train/soft_loss": step + shift, "train/hard_loss": 1.0, "epoch": 0}, step=step)
    logger.log_metrics({"val/soft_loss": 0.5, "val/accuracy": 0.9}, step=steps[-1])
    logger.save()


def test_csv_of_lightning(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", 5)
    _log(CSVLogger(run), range(10))
    _log(CSVLogger(run), range(5, 12), shift=100.0)  # resumed: version_1 does steps 5 to 9 again
    scalars = read_curves(run).scalars
    assert scalars["train/soft_loss"] == ([*range(12)], [0, 1, 2, 3, 4, *range(105, 112)])
    assert scalars["val/soft_loss"] == ([9, 11], [0.5, 0.5])
    (chart,) = charts_of(scalars)
    assert (chart.title, chart.log) == ("soft and hard loss", True)
    assert list(chart.curves) == ["train/soft_loss", "train/hard_loss", "val/soft_loss"]
    assert accuracy_of(scalars) == ([9, 11], [0.9, 0.9])
    run_report([str(run)])
    assert (run / "report-pictures" / "run-loss.png").is_file()
    assert (run / "report-pictures" / "accuracy.png").is_file()


@pytest.mark.parametrize("text", ["", "step\n", "step,a\n1,nonsense\nx,2\n", "a,b\n1,2,3\n", "\x00,\x00"])
def test_odd_csv_is_no_error(text: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", 5)
    (run / "metrics.csv").write_text(text, encoding="utf-8")
    assert all(len(steps) == len(values) for steps, values in read_curves(run).scalars.values())


def test_event_files_of_others(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", 5)
    with SummaryWriter(run / "lightning_logs" / "version_0") as writer:
        for step in range(4):
            for tag in ("train_loss", "val_loss", "val_acc", "train_acc", "grad_norm", "epoch", "hp_metric"):
                writer.add_scalar(tag, step + 1, step)
    scalars = read_curves(run).scalars
    losses, norm = charts_of(scalars)
    assert (losses.title, list(losses.curves)) == ("loss", ["train_loss", "val_loss"])
    assert norm.title == "grad_norm"
    assert accuracy_of(scalars) == scalars["val_acc"]
    del scalars["val_acc"]
    assert accuracy_of(scalars) is None  # that of the training is not called validation


def test_scalars_as_tensorflow_writes_them(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", 5)
    writer = EventFileWriter(str(run))
    for step in range(3):
        summary = Summary.FromString(scalar_pb("epoch_loss", 2.0 * step).SerializeToString())
        writer.add_event(Event(step=step, summary=summary))
    writer.close()
    assert read_curves(run).scalars == {"epoch_loss": ([0, 1, 2], [0.0, 2.0, 4.0])}


def test_files_of_a_run_inside_another_are_its_own(tmp_path: Path) -> None:
    outer = make_run(tmp_path, "outer", 5)
    inner = make_run(outer, "inner", 6)
    _log(CSVLogger(inner), range(3))
    assert read_curves(outer).scalars == {}
    assert read_curves(inner).scalars
