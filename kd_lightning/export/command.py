"""The subcommand `export`: the student as a file, which is read back and compared."""

import json
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import jsonargparse
import torch
from torch import Tensor

from kd_lightning.export.comparison import compare, evaluation_batches
from kd_lightning.export.formats import SUFFIXES, Format, read_exported, write_exported
from kd_lightning.export.net import ExportedNet, own_tensor
from kd_lightning.nets.description import fingerprint
from kd_lightning.runs.checkpoints import RECORD_KEY, read_checkpoint, run_folder
from kd_lightning.runs.files import METRICS_FILE, from_here, read_json, write_atomically
from kd_lightning.runs.resume import named_checkpoint
from kd_lightning.runs.texts import counted, say
from kd_lightning.teachers.loading import load_net

PROG = "python -m kd_lightning export"


def run_export(arguments: Sequence[str]) -> None:
    """Export the net of a run, read the file back, and compare both on the test examples.

    Args:
        arguments: A run's folder or checkpoint, and options.

    Raises:
        FileNotFoundError: If there is no such run.
        FileExistsError: If the output exists and --overwrite is not given.
        ValueError: If the file's outputs differ from the net's, or there is no test batch.
    """
    options = export_parser().parse_args(list(arguments))
    checkpoint = named_checkpoint(Path(), options.run, "best.ckpt")
    trained = load_net(checkpoint)
    run = from_here(run_folder(checkpoint) or checkpoint.parent)
    output = Path(options.output) if options.output else run / f"student{SUFFIXES[options.format]}"
    if output.exists() and not options.overwrite:
        raise FileExistsError(f"{output} exists; choose another --output, or replace it with --overwrite true")
    net = ExportedNet(trained, options.inputs, options.outputs).eval()
    batches = (
        (own_tensor(net, inputs), labels)
        for inputs, labels in evaluation_batches(run, options.data_dir, raw=options.inputs == "uint8")
    )
    first = next(batches, None)
    if first is None:
        raise ValueError(f"the data of {run} has no test batch to compare the file on; check its test_dataloader")
    example = first[0][[0, -1]]  # torch.export takes the batch size of a single example as fixed
    metadata = describe(checkpoint, run, net, example)
    tolerance = math.inf if options.format == "onnx-int8" else options.tolerance

    def write_and_compare(part: Path) -> None:
        write_exported(net, example, part, options.format, metadata)
        found = compare(net, read_exported(part, options.format), chain([first], batches))
        said = (
            f"on {counted(found.examples, 'test example')} the file names another class "
            f"{counted(found.other_classes, 'time')}; errors: "
            f"{found.errors:,} of the net, {found.exported_errors:,} of the file; largest difference of a logit: "
            f"{found.difference:.2g}"
        )
        say(said)
        _refuse_difference(found.difference, tolerance)

    write_atomically(output, write_and_compare)
    say(f"written: {output} ({output.stat().st_size / 1e6:.2f} MB)")


def export_parser() -> jsonargparse.ArgumentParser:
    """The options of `export`."""
    parser = jsonargparse.ArgumentParser(prog=PROG, description="Export only the student.", exit_on_error=False)
    parser.add_argument("run", help="A run's folder (its best checkpoint, or its last), or a checkpoint.")
    parser.add_argument("--format", type=Format, default="onnx", help="Kind of file; onnx-int8 has 8-bit weights.")
    parser.add_argument(
        "--output", default=None, help="The file; by default student and its suffix in the run's folder."
    )
    parser.add_argument(
        "--inputs", type=Literal["float32", "uint8"], default="float32", help="Images in [0, 1], or pixels 0 to 255."
    )
    parser.add_argument("--outputs", type=Literal["logits", "probabilities"], default="logits", help="What comes out.")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="Largest difference of two outputs; not for int8."
    )
    parser.add_argument("--data_dir", default=None, help="Where the test images are; by default as in the run.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace a file that is there.")
    return parser


def _refuse_difference(difference: float, tolerance: float) -> None:
    """Refuse a file whose outputs differ from the net's by more than the tolerance.

    Raises:
        ValueError: If they do.
    """
    if not difference <= tolerance:
        raise ValueError(
            "the file's outputs differ from the net's, so it is not kept: expected a difference of at most "
            f"{tolerance:g}, got {difference:.2g}; try another --format or a larger --tolerance"
        )


def describe(checkpoint: Path, run: Path, net: ExportedNet, example: Tensor) -> dict[str, str]:
    """The metadata of the file: how its net is built, its inputs, outputs and test results, each as text."""
    content = read_checkpoint(checkpoint)
    record = content.get(RECORD_KEY, {})
    metrics = run / METRICS_FILE
    measured = read_json(metrics) if metrics.is_file() else {}
    same = (measured.get("checkpoint"), measured.get("steps")) == (checkpoint.name, content["global_step"])
    test = measured.get("test", {}) if same else {}  # results of another checkpoint are not this net's
    with torch.no_grad():
        classes = net(example[:1]).shape[-1]
    return {
        "kd_lightning": "exported student",
        "net": json.dumps(record.get("net")),
        "inputs": f"{net.inputs} {['batch', *example.shape[1:]]}",
        "outputs": f"{net.outputs} ['batch', {classes}]",
        "input_type": net.inputs,
        "output_type": net.outputs,
        "labels": json.dumps([str(label) for label in range(classes)]),
        "metrics": json.dumps(test),
        "fingerprint": fingerprint(net.net),
    }
