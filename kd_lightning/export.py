"""The student for use without this package: safetensors, torch.export's pt2, ONNX; re-read and compared."""

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import jsonargparse
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from kd_lightning.data.batches import Batch
from kd_lightning.data.inputs import Inputs, tensors_of
from kd_lightning.nets.adapted import Pick
from kd_lightning.nets.description import build_net, build_object, fingerprint
from kd_lightning.runs.checkpoints import RECORD_KEY, read_checkpoint, run_folder
from kd_lightning.runs.files import CONFIG_FILE, METRICS_FILE, read_json, read_yaml, write_atomically
from kd_lightning.runs.resume import named_checkpoint
from kd_lightning.teachers.loading import load_net

PROG = "python -m kd_lightning export"
Format = Literal["safetensors", "pt2", "onnx", "onnx-int8"]
SUFFIXES = {"safetensors": ".safetensors", "pt2": ".pt2", "onnx": ".onnx", "onnx-int8": ".int8.onnx"}
METADATA = "metadata.json"
Answer = Callable[[Tensor], Tensor]


class ExportedNet(nn.Module):
    """A net from pixels to answers, with nothing left to do outside.

    Args:
        net: Maps float inputs, images in [0, 1], to logits (batch, classes); it normalises them itself.
        inputs: `float32`, or `uint8` for pixels from 0 to 255 as they come from a file.
        outputs: `logits`, or `probabilities` at T = 1.
    """

    def __init__(self, net: nn.Module, inputs: str, outputs: str) -> None:
        super().__init__()
        for pick in _picks(net):
            pick.expect_picked()
        self.net = net
        self.inputs = inputs
        self.outputs = outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Answers of a batch, (batch, classes) float."""
        logits: Tensor = self.net(inputs.float() / 255 if self.inputs == "uint8" else inputs)
        return logits.softmax(dim=-1) if self.outputs == "probabilities" else logits


class Comparison(NamedTuple):
    """A re-read file beside the net it was made from.

    Attributes:
        examples: How many test examples were compared.
        difference: Largest absolute difference of two answers.
        other_classes: Examples that the file puts into another class.
        errors: Of the net.
        exported_errors: Of the file.
    """

    examples: int
    difference: float
    other_classes: int
    errors: int
    exported_errors: int


def run_export(arguments: Sequence[str]) -> None:
    """Export the net of a run, re-read the file, and compare both on the test images.

    Args:
        arguments: A run's folder or checkpoint, and options.

    Raises:
        FileNotFoundError: If there is no such run.
        FileExistsError: If the output exists and --overwrite is not given.
        ValueError: If the file answers otherwise than the net.
    """
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
        "--tolerance", type=float, default=1e-4, help="Largest difference of two answers; not for int8."
    )
    parser.add_argument("--data_dir", default=None, help="Where the test images are; by default as in the run.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace a file that is there.")
    options = parser.parse_args(list(arguments))
    checkpoint = named_checkpoint(Path(), options.run, "best.ckpt")
    trained = load_net(checkpoint)
    run = run_folder(checkpoint) or checkpoint.parent
    output = Path(options.output) if options.output else run / f"student{SUFFIXES[options.format]}"
    if output.exists() and not options.overwrite:
        raise FileExistsError(f"{output} exists; choose another --output, or replace it with --overwrite true")
    net = ExportedNet(trained, options.inputs, options.outputs).eval()
    raw = options.inputs == "uint8"
    batches = [
        (_own_tensor(net, inputs), labels) for inputs, labels in evaluation_batches(run, options.data_dir, raw=raw)
    ]
    example = batches[0][0][[0, -1]]  # two examples: of a single one the batch could not be told to vary
    metadata = describe(checkpoint, run, net, example)

    def write_and_compare(part: Path) -> Comparison:
        write_exported(net, example, part, options.format, metadata)
        found = compare(net, read_exported(part, options.format), batches)
        print(
            f"on {found.examples:,} test examples: largest difference {found.difference:.2g}, {found.other_classes} in "
            f"another class; errors {found.errors} of the net, {found.exported_errors} of the file"
        )
        if not found.difference <= (options.tolerance if options.format != "onnx-int8" else math.inf):
            raise ValueError(
                "the file answers otherwise than the net and is not kept: expected a difference of at most "
                f"{options.tolerance:g}, got {found.difference:.2g}; try another --format or a larger --tolerance"
            )
        return found

    write_atomically(output, write_and_compare)
    print(f"written: {output} ({output.stat().st_size / 1e6:.2f} MB)")


def describe(checkpoint: Path, run: Path, net: ExportedNet, example: Tensor) -> dict[str, str]:
    """What the file says of itself, each value as text."""
    content = read_checkpoint(checkpoint)
    record = content.get(RECORD_KEY, {})
    metrics = run / METRICS_FILE
    measured = read_json(metrics) if metrics.is_file() else {}
    same = (measured.get("checkpoint"), measured.get("steps")) == (checkpoint.name, content["global_step"])
    test = measured.get("test", {}) if same else {}  # figures of another checkpoint are not this net's
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


def write_exported(net: ExportedNet, example: Tensor, path: Path, kind: Format, metadata: dict[str, str]) -> None:
    """Write the net in a format.

    Args:
        net: In eval mode.
        example: (2, ...) inputs; the written net takes any batch.
        path: The file.
        kind: Its format.
        metadata: Put into the file.
    """
    match kind:
        case "safetensors":
            from safetensors.torch import save  # comes with the extra kd_lightning[export]

            # Copies, since safetensors refuses tensors that share their memory, as tied weights do.
            tensors = {
                name: tensor.detach().clone(memory_format=torch.contiguous_format)
                for name, tensor in net.net.state_dict().items()
            }
            path.write_bytes(save(tensors, metadata))  # its own save_file hides the file from others
        case "pt2":
            dynamic = ({0: torch.export.Dim("batch")},)
            with _traced():
                program = torch.export.export(net, (example,), dynamic_shapes=dynamic)
            with path.open("wb") as file, warnings.catch_warnings():  # torch insists on a name that ends in .pt2
                warnings.filterwarnings("ignore", "No complete tensor found")  # of weights with the channels last
                torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
        case "onnx" | "onnx-int8":
            _write_onnx(net, example, path, metadata, quantised=kind == "onnx-int8")


def read_exported(path: Path, kind: Format) -> Answer:
    """Read a file back as a function from inputs to answers."""
    match kind:
        case "safetensors":
            return load_exported(path)
        case "pt2":
            with path.open("rb") as file:
                module = torch.export.load(file).module()
            return lambda inputs: torch.as_tensor(module(inputs))
        case "onnx" | "onnx-int8":
            import onnxruntime  # comes with the extra kd_lightning[export]

            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            return lambda inputs: torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])


def load_exported(path: str | Path) -> nn.Module:
    """Build a net from a .safetensors file that `export` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not say how the net is built.
    """
    from safetensors import safe_open  # comes with the extra kd_lightning[export]

    if not Path(path).is_file():
        raise FileNotFoundError(f"no exported file {path}")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    description = json.loads(metadata.get("net", "null"))
    if description is None:
        raise ValueError(f"{path} does not say how its net is built; load its tensors into the net by hand")
    net = build_net(description)
    net.load_state_dict(weights)
    return ExportedNet(net, metadata["input_type"], metadata["output_type"]).eval()


@torch.no_grad()
def compare(net: nn.Module, exported: Answer, batches: Sequence[tuple[Tensor, Tensor]]) -> Comparison:
    """Compare a net with its file on inputs and labels."""
    difference, other, errors, exported_errors, examples = 0.0, 0, 0, 0, 0
    for inputs, labels in batches:
        ours, theirs = net(inputs), exported(inputs)
        # Where one of them is no number they differ without bound; a comparison with NaN would say nothing.
        difference = max(difference, float((ours - theirs).abs().nan_to_num(nan=math.inf).max()))
        our_class, their_class = ours.argmax(dim=1), theirs.argmax(dim=1)
        other += int((our_class != their_class).sum())
        labelled = labels >= 0
        errors += int((our_class != labels)[labelled].sum())
        exported_errors += int((their_class != labels)[labelled].sum())
        examples += len(labels)
    return Comparison(examples, difference, other, errors, exported_errors)


def _picks(net: nn.Module) -> list[Pick]:
    return [layer for layer in net.modules() if isinstance(layer, Pick)]


def _own_tensor(net: nn.Module, inputs: Inputs) -> Tensor:
    """The one tensor of a batch's inputs that a net takes.

    Raises:
        ValueError: If it takes several.
    """
    if isinstance(inputs, Tensor):
        return inputs
    keys = {pick.key for pick in _picks(net)}
    if len(keys) != 1:
        raise ValueError(
            f"only a net that takes one tensor can be exported; of the data's {len(inputs)} this one picks "
            f"{sorted(keys, key=str) or 'none'}: train it as kd_lightning.AdaptedNet with one kd_lightning.Pick"
        )
    return Pick(keys.pop()).forward(inputs)


def evaluation_batches(run: Path, data_dir: str | None, *, raw: bool) -> Iterator[tuple[Inputs, Tensor]]:
    """Test inputs and labels of the data that a run's configuration names.

    Args:
        run: The run's folder.
        data_dir: Used in place of the configuration's, where given.
        raw: Whether inputs stay uint8 as they come off the loader.

    Raises:
        FileNotFoundError: If the run has no configuration.
        ValueError: If the configuration names no data, or raw inputs are asked for and the data has none.
    """
    config = run / CONFIG_FILE
    if not config.is_file():
        raise FileNotFoundError(
            f"no {config}, which says what to compare the exported net on; name a run's own checkpoint"
        )
    description = read_yaml(config).get("data")
    if not isinstance(description, dict) or "class_path" not in description:
        raise ValueError(f"{config} names no data to compare the exported net on: expected data with a class_path")
    if data_dir is not None:
        description.setdefault("init_args", {})["data_dir"] = data_dir
    data: LightningDataModule = build_object(description, LightningDataModule)
    data.trainer = Trainer(accelerator="cpu", devices=1, logger=False, barebones=True)  # what a user's hooks may ask
    data.trainer.testing = True
    data.prepare_data()
    data.setup("test")
    for batch in data.test_dataloader():
        if not raw:
            batch = data.on_after_batch_transfer(batch, 0)
        inputs, labels, *_ = Batch.of(batch)
        types = {tensor.dtype for tensor in tensors_of(inputs)}
        if raw and types != {torch.uint8}:
            got = ", ".join(map(str, types))
            raise ValueError(f"--inputs uint8 needs data of that type, got {got}; use --inputs float32")
        yield inputs, labels


@contextmanager
def _traced() -> Iterator[None]:
    """Say which line of a net can't be followed: one whose way through depends on the data.

    Raises:
        ValueError: If there is one.
    """
    try:
        yield
    except Exception as error:  # torch.onnx wraps what torch.export raises
        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)  # type: ignore[arg-type]  # raised here as an Exception
        texts = [str(cause) for cause in causes if "data-dependent" in str(cause)]
        if not texts:
            raise
        places = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.+)', texts[-1])
        where = f" at {places[-1][0]}:{places[-1][1]}, `{places[-1][3].strip()}`" if places else ""
        raise ValueError(
            f"the net's way through depends on the data{where}, which {SUFFIXES['onnx']} and {SUFFIXES['pt2']} files "
            "can't hold; use --format safetensors, or torch.where in the net"
        ) from error


def _write_onnx(net: ExportedNet, example: Tensor, path: Path, metadata: dict[str, str], *, quantised: bool) -> None:
    import onnx  # comes with the extra kd_lightning[export]

    dynamic = ({0: torch.export.Dim("batch")},)
    with _traced():
        program = torch.onnx.export(
            net,
            (example,),
            input_names=["inputs"],
            output_names=[net.outputs],
            dynamic_shapes=dynamic,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx gave no program")
    plain = path.with_name(f"{path.name}.plain") if quantised else path
    program.save(plain, external_data=False)
    if quantised:
        from onnxruntime.quantization import quantize_dynamic

        try:
            quantize_dynamic(plain, path)
        finally:
            plain.unlink()
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
