"""LoaderPlace: a resumed run continues at its place in the data."""

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader

from kd_lightning.modules.lightning_internals import LeanCallback


@runtime_checkable
class Stateful(Protocol):
    """A loader that can save and restore its place in the data, as TensorLoader can."""

    def state_dict(self) -> dict[str, Any]:
        """The place."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go there."""


class LoaderPlace(LeanCallback):
    """Gives the training loaders of a resumed run their places.

    Lightning keeps them in checkpoints and restores them when it makes the loaders. But a schedule asks for
    `estimated_stepping_batches`, which makes the loaders before the checkpoint is read, and the places are lost:
    https://github.com/Lightning-AI/pytorch-lightning/issues/20550. InMemoryDataModule keeps its own; this is for a
    user's own stateful loaders, and for checkpoints of version 0.1.0.
    """

    def __init__(self) -> None:
        self._places: list[dict[str, Any]] = []

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the places from a checkpoint."""
        fit_loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("state_dict", {})
        self._places = fit_loop.get("combined_loader", [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand them to the loaders.

        Raises:
            ValueError: If there are not as many loaders as places.
        """
        if not self._places:
            return
        loaders = [
            loader for loader in CombinedLoader(trainer.train_dataloader).flattened if isinstance(loader, Stateful)
        ]
        if len(loaders) != len(self._places):
            raise ValueError(
                f"the run had {len(self._places)} training loaders that know their place, got {len(loaders)}; "
                "resume it with the data that it began with"
            )
        for loader, place in zip(loaders, self._places, strict=True):
            loader.load_state_dict(place)
        self._places = []
