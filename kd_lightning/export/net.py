"""The net of an exported file: from the inputs as they come to logits or probabilities."""

from torch import Tensor, nn

from kd_lightning.data.inputs import Inputs
from kd_lightning.nets.adapted import Pick


class ExportedNet(nn.Module):
    """A net with the steps before and after it: it takes pixels and gives logits or probabilities.

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
        """Logits or probabilities of a batch, (batch, classes) float."""
        logits: Tensor = self.net(inputs.float() / 255 if self.inputs == "uint8" else inputs)
        return logits.softmax(dim=-1) if self.outputs == "probabilities" else logits


def own_tensor(net: nn.Module, inputs: Inputs) -> Tensor:
    """The tensor among a batch's inputs that a net takes.

    Raises:
        ValueError: If the net takes several.
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


def _picks(net: nn.Module) -> list[Pick]:
    return [layer for layer in net.modules() if isinstance(layer, Pick)]
