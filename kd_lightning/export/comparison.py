"""An exported file compared with its net, on the test examples of the run."""

import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from kd_lightning.data.batches import Batch, batch_on_device
from kd_lightning.data.inputs import Inputs, tensors_of
from kd_lightning.export.formats import Outputs
from kd_lightning.nets.description import build_object
from kd_lightning.runs.files import CONFIG_FILE, read_yaml


class Comparison(NamedTuple):
    """What a comparison of a net with its file found.

    Attributes:
        examples: How many test examples were compared.
        difference: Largest absolute difference of two outputs.
        other_classes: Examples that the file puts into another class.
        errors: Errors of the net.
        exported_errors: Errors of the file.
    """

    examples: int
    difference: float
    other_classes: int
    errors: int
    exported_errors: int


@torch.no_grad()
def compare(net: nn.Module, exported: Outputs, batches: Iterable[tuple[Tensor, Tensor]]) -> Comparison:
    """Compare the outputs of a net and of its file.

    Args:
        net: The net, in eval mode.
        exported: The file, as a function from inputs to outputs.
        batches: Inputs and labels, (batch, ...) and (batch,); -1 is no label.
    """
    difference, other, errors, exported_errors, examples = 0.0, 0, 0, 0, 0
    for inputs, labels in batches:
        ours, theirs = net(inputs), exported(inputs)
        # NaN counts as an infinite difference: max() and <= with NaN would hide it.
        difference = max(difference, float((ours - theirs).abs().nan_to_num(nan=math.inf).max()))
        our_class, their_class = ours.argmax(dim=1), theirs.argmax(dim=1)
        other += int((our_class != their_class).sum())
        labelled = labels >= 0
        errors += int((our_class != labels)[labelled].sum())
        exported_errors += int((their_class != labels)[labelled].sum())
        examples += len(labels)
    return Comparison(examples, difference, other, errors, exported_errors)


def evaluation_batches(run: Path, data_dir: str | None, *, raw: bool) -> Iterator[tuple[Inputs, Tensor]]:
    """Test inputs and labels of the data that a run's configuration names, a batch at a time.

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
    # Hooks of a user's data module may read its trainer.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPU available but not used")  # the exported file is run on the CPU
        data.trainer = Trainer(accelerator="cpu", devices=1, logger=False, barebones=True)
    data.trainer.testing = True
    data.prepare_data()
    data.setup("test")
    for batch in data.test_dataloader():
        if raw:
            inputs, labels, *_ = Batch.of(data.on_before_batch_transfer(batch, 0))
        else:
            inputs, labels, *_ = batch_on_device(batch, data, torch.device("cpu"))
        types = {tensor.dtype for tensor in tensors_of(inputs)}
        if raw and types != {torch.uint8}:
            got = ", ".join(map(str, types))
            raise ValueError(f"--inputs uint8 needs data of that type, got {got}; use --inputs float32")
        yield inputs, labels
