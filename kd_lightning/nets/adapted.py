"""A net with its own inputs, made from a batch's, and with its own classes."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from kd_lightning.nets.logits import Inputs


class Pick(nn.Module):
    """Takes one of a batch's tensors, where its inputs are a tuple or a dict of several.

    Args:
        key: Name of the tensor in a dict, or its place in a tuple, from 0.
    """

    def __init__(self, key: str | int) -> None:
        super().__init__()
        self.key = key
        self._picked = False

    def expect_picked(self) -> None:
        """Take the one tensor from now on: an exported net gets no others."""
        self._picked = True

    def forward(self, inputs: Inputs) -> Tensor:
        """The tensor, (batch, ...).

        Raises:
            ValueError: If there is none of that name.
        """
        if isinstance(inputs, Tensor):
            if self._picked:
                return inputs
            raise ValueError(f"Pick({self.key!r}) needs inputs that are a tuple or dict of tensors, got a single one")
        names = list(inputs) if isinstance(inputs, Mapping) else list(range(len(inputs)))
        if self.key not in names:
            raise ValueError(f"Pick({self.key!r}) finds no such tensor among a batch's inputs; there are {names}")
        picked: Tensor = inputs[self.key]  # type: ignore[index]  # one of the names
        return picked

    def extra_repr(self) -> str:
        """What it takes."""
        return repr(self.key)


class AdaptedNet(nn.Module):
    """A net with its own inputs, made from a batch's, and its classes mapped into others.

    Args:
        net: Maps its inputs to logits (batch, its classes).
        inputs: A module, or several one after the other, that make the net's inputs from a batch's:
            `kd_lightning.Pick`, or transforms that take whole batches, such as Resize, RGB and Normalize of
            torchvision.transforms.v2.
        classes: For each class that comes out, which of the net's classes it is: its index, or a list of indices where
            several of them are one. Their probabilities at T = 1 are added: the logit is the log-sum-exp of theirs.

    Raises:
        ValueError: If an entry of `classes` holds no class, a negative one, or one twice.

    Example:
        >>> net = AdaptedNet(resnet18(), inputs=[v2.Resize(224), v2.Normalize(mean, std)], classes=[[281, 282], 340])
    """

    members: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        inputs: nn.Module | list[nn.Module] | None = None,
        classes: list[int | list[int]] | None = None,
    ) -> None:
        super().__init__()
        before = [] if inputs is None else [inputs] if isinstance(inputs, nn.Module) else inputs
        self.inputs = nn.Sequential(*before)
        self.net = net
        members = None if classes is None else _members(classes)
        self.register_buffer("members", members)  # (classes, width) int64
        self._largest = -1 if members is None else int(members.max())

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits, (batch, classes) float.

        Args:
            inputs: As a batch holds them.

        Raises:
            ValueError: If the modules before the net don't take the inputs, or the net has fewer classes.
        """
        try:
            own = self.inputs(inputs)
        except TypeError as error:  # of torchvision's transforms
            raise ValueError(f"the inputs of {type(self.net).__name__} can't be made: {error}") from error
        logits: Tensor = self.net(own)
        return logits if self.members is None else self._merged(logits, self.members)

    def _merged(self, logits: Tensor, members: Tensor) -> Tensor:
        if self._largest >= logits.shape[1]:
            raise ValueError(
                f"classes name class {self._largest}, but {type(self.net).__name__} has {logits.shape[1]} classes, "
                "counted from 0"
            )
        padded = nn.functional.pad(logits, (0, 1), value=-torch.inf)  # what fills short lists adds nothing
        return padded[:, members].logsumexp(dim=-1)  # (batch, classes, width) -> (batch, classes)

    @property
    def tapped_net(self) -> nn.Module:
        """The net whose modules are meant by their paths."""
        return self.net

    def extra_repr(self) -> str:
        """Settings of the modules before the net. They have no weights, so only this tells two of them apart."""
        return "\n".join(f"inputs.{name}: {settings}" for name, settings in _settings(self.inputs))


def _members(classes: Sequence[int | Sequence[int]]) -> Tensor:
    """Classes of the net for each class that comes out, short lists filled with -1."""
    lists = [[entry] if isinstance(entry, int) else list(entry) for entry in classes]
    for number, entry in enumerate(lists):
        if not entry or min(entry) < 0 or len(set(entry)) < len(entry):
            raise ValueError(
                f"classes must say for each class the index of the net's class, or a list of different ones, all >= 0; "
                f"got {entry} for class {number}"
            )
    if not lists:
        raise ValueError("classes must hold an entry for each class that comes out, got none")
    width = max(map(len, lists))
    return torch.tensor([entry + [-1] * (width - len(entry)) for entry in lists])


def _settings(modules: nn.Sequential) -> Iterator[tuple[str, dict[str, object]]]:
    """Each module's plain attributes."""
    for name, module in modules.named_modules():
        plain = {key: value for key, value in vars(module).items() if key[0] != "_" and _is_plain(value)}
        plain.pop("training")
        if plain:
            yield name, plain


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Enum | torch.dtype)
