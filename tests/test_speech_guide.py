"""The example in docs/speech.md: any data with sequences is tested and predicted by them."""

from typing import Any

import torch
from lightning.pytorch import Trainer

from kd_lightning import MLP, TeacherModule
from tests.guides import DOCS, blocks

GUIDE = DOCS / "speech.md"


def test_the_guides_words_are_counted() -> None:
    (example,) = blocks(GUIDE, "python")
    labels = torch.tensor([row * 3 // length + start for start, length in ((3, 40), (0, 35)) for row in range(length)])
    inputs = torch.eye(6)[labels]
    names: dict[str, Any] = {"__name__": "guide"}
    names |= {"train_inputs": inputs, "train_labels": labels, "test_inputs": inputs, "test_labels": labels}
    exec(example, names)  # noqa: S102  # the guide's own lines
    data = names["Words"]()
    net = MLP(hidden=[], inputs=6, classes=6, mean=0.0, std=1.0)
    output = net[-1]
    assert isinstance(output, torch.nn.Linear)
    torch.nn.init.eye_(output.weight)
    torch.nn.init.zeros_(output.bias)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False)
    (measured,) = trainer.test(TeacherModule(net), datamodule=data, verbose=False)
    assert (measured["test/words"], measured["test/word_errors"], measured["test/errors"]) == (2, 0, 0)
