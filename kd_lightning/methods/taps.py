"""Taps: the outputs of modules inside a net, by their paths."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kd_lightning.methods.base import FeatureLoss


@runtime_checkable
class HasTappedNet(Protocol):
    """A net around another one, as AdaptedNet is."""

    @property
    def tapped_net(self) -> nn.Module:
        """The one whose modules are meant by paths."""


class Taps:
    """Keeps the outputs of some modules of a net in its latest pass.

    Args:
        net: The net whose modules are watched until `remove` is called; of an adapted net the one inside.
        paths: Paths of modules, as in `net.named_modules()`.

    Raises:
        ValueError: If there is no module at a path; the error lists paths with close names.

    Example:
        >>> taps = Taps(net, ["3"])
        >>> logits = net(images)
        >>> activation = taps.outputs["3"]
    """

    def __init__(self, net: nn.Module, paths: Iterable[str]) -> None:
        self.outputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        while isinstance(net, HasTappedNet):
            net = net.tapped_net
        modules = dict(net.named_modules())
        for path in dict.fromkeys(paths):
            if path not in modules:
                raise ValueError(f"no module {path!r} in {type(net).__name__}{_near(path, modules)}")
            self._handles.append(modules[path].register_forward_hook(self._keep(path)))

    def _keep(self, path: str) -> Any:  # Any: torch's own type of a hook
        def keep(module: nn.Module, _inputs: Any, output: Any) -> None:  # Any: whatever a module takes or gives
            if not isinstance(output, Tensor):
                raise ValueError(
                    f"module {path!r}, a {type(module).__name__}, must give a tensor to be compared, "
                    f"got {type(output).__name__}; name a module inside it"
                )
            self.outputs[path] = output

        return keep

    def remove(self) -> None:
        """Stop watching, and forget the outputs."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.outputs.clear()


class FeatureTerms(nn.ModuleDict):
    """A student's feature losses, by their names in logs; a second one of the same class is named with _2 at the end.

    Args:
        losses: The terms; their `student` and `teacher` name the modules that are compared.
    """

    def __init__(self, losses: Sequence[FeatureLoss]) -> None:
        super().__init__()
        for loss in losses:
            number = 1 + sum(type(other) is type(loss) for other in self.values())
            self[loss.name if number == 1 else f"{loss.name}_{number}"] = loss
        self.losses = dict(zip(self.keys(), losses, strict=True))
        self._taps: tuple[Taps, Taps] | None = None  # on the student and on the teacher
        self._built = False
        self.register_load_state_dict_pre_hook(_leave_out_unmade_layers)  # type: ignore[no-untyped-call]

    def attach(self, student: nn.Module, teacher: nn.Module) -> None:
        """Watch both nets until `detach`.

        Raises:
            ValueError: If there is no module at a path.
        """
        self.detach()
        self._taps = (
            Taps(student, [loss.student for loss in self.losses.values()]),
            Taps(teacher, [loss.teacher for loss in self.losses.values()]),
        )

    def detach(self) -> None:
        """Leave the nets as they were."""
        for taps in self._taps or ():
            taps.remove()
        self._taps = None

    @torch.no_grad()
    def build(self, student: nn.Module, teacher: nn.Module, inputs: object) -> None:
        """Watch both nets, and have each term make its layers from the activations of one example, the first time.

        Args:
            student: Run once; in eval mode.
            teacher: Likewise.
            inputs: Of one example, (1, ...), as both nets take them.

        Raises:
            ValueError: If there is no module at a path, or a term can't compare what it gets.
        """
        self.attach(student, teacher)
        if self._built or self._taps is None:
            return
        student(inputs)
        teacher(inputs)
        for loss in self.losses.values():
            loss.build(self._taps[0].outputs[loss.student], self._taps[1].outputs[loss.teacher])
        self._built = True

    def forward(self) -> tuple[Tensor | float, dict[str, Tensor]]:
        """The weighted sum of all terms for the latest passes of both nets, and each term without its weight.

        Raises:
            RuntimeError: If no nets are watched.
        """
        if self._taps is None:
            raise RuntimeError("the feature losses watch no nets; call build first")
        student, teacher = self._taps[0].outputs, self._taps[1].outputs
        terms = {name: loss(student[loss.student], teacher[loss.teacher]) for name, loss in self.losses.items()}
        return sum(self.losses[name].weight * term for name, term in terms.items()), terms


def _leave_out_unmade_layers(terms: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Leave out a checkpoint's layers that are not made here: only training needs them."""
    own = {f"{prefix}{name}" for name in terms.state_dict()}
    for name in [name for name in weights if name.startswith(prefix) and name not in own]:
        del weights[name]


def _near(path: str, modules: dict[str, nn.Module]) -> str:
    """What the user may have meant: modules with close names, or else all of a small net."""
    named = {name: type(module).__name__ for name, module in modules.items() if name}
    close = difflib.get_close_matches(path, named, n=5) or list(named)[:20]
    return f"; there are {', '.join(f'{name!r} ({named[name]})' for name in close)}" if close else ""
