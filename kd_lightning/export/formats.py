"""The files of an exported net: safetensors, torch.export's pt2 and ONNX, written and read back."""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from kd_lightning.export.net import ExportedNet
from kd_lightning.nets.description import build_net

Format = Literal["safetensors", "pt2", "onnx", "onnx-int8"]
SUFFIXES = {"safetensors": ".safetensors", "pt2": ".pt2", "onnx": ".onnx", "onnx-int8": ".int8.onnx"}
METADATA = "metadata.json"
Outputs = Callable[[Tensor], Tensor]


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
            path.write_bytes(save(tensors, metadata))  # save_file would make it readable for its owner only
        case "pt2":
            dynamic = ({0: torch.export.Dim("batch")},)
            with _traced():
                program = torch.export.export(net, (example,), dynamic_shapes=dynamic)
            with path.open("wb") as file, warnings.catch_warnings():  # given a path, torch wants one that ends in .pt2
                warnings.filterwarnings("ignore", "No complete tensor found")  # of weights with the channels last
                torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
        case "onnx" | "onnx-int8":
            _write_onnx(net, example, path, metadata, quantised=kind == "onnx-int8")


def read_exported(path: Path, kind: Format) -> Outputs:
    """Read a file back as a function from inputs to outputs."""
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
        ValueError: If it is damaged, or does not say how the net is built.
    """
    from safetensors import SafetensorError, safe_open  # comes with the extra kd_lightning[export]

    if not Path(path).is_file():
        raise FileNotFoundError(f"no exported file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise ValueError(f"exported file {path} is damaged: {error}") from error
    description = json.loads(metadata.get("net", "null"))
    if description is None:
        raise ValueError(f"{path} does not say how its net is built; load its tensors into the net in your own code")
    net = build_net(description)
    net.load_state_dict(weights)
    return ExportedNet(net, metadata["input_type"], metadata["output_type"]).eval()


@contextmanager
def _traced() -> Iterator[None]:
    """Turn torch's error about a data-dependent branch into one line that names the line of the net.

    Raises:
        ValueError: If the net branches on its data.
    """
    try:
        yield
    except Exception as error:  # torch.onnx wraps the error of torch.export
        causes = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)  # type: ignore[arg-type]  # raised here as an Exception
        texts = [str(cause) for cause in causes if "data-dependent" in str(cause)]
        if not texts:
            raise
        places = re.findall(r'File "([^"]+)", line (\d+), in (\w+)\n\s*(.+)', texts[-1])
        where = f" at {places[-1][0]}:{places[-1][1]}, `{places[-1][3].strip()}`" if places else ""
        raise ValueError(
            f"the net branches: what it computes depends on the data{where}, which {SUFFIXES['onnx']} and "
            f"{SUFFIXES['pt2']} files can't hold; use --format safetensors, or torch.where in the net"
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
