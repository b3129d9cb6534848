"""SeededViews: a user's own data module, with samples that can be made again."""

import os
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from kd_lightning.data.replay import SeededLoader
from kd_lightning.data.replayed_parts import Part, ReplayedParts
from kd_lightning.data.replayed_rows import ReplayedRows

_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class SeededViews(ReplayedRows):
    """Any data module with map-style data sets, whose training is resumed exactly and whose teachers can be stored.

    Before a sample is made, the random generators of torch, numpy and `random` are seeded from (view_seed, row, view).
    So any transform that draws from them gives the same sample for the same row and view, in worker processes too. Each
    example comes in one of `views` views, another one each epoch by chance. All of them are augmented, view 0 too.

    The data module's loaders set batch size, workers, collate function and memory; batch sizes are those of all devices
    together. The order is drawn from (seed, epoch).

    Args:
        data: The data module. Its loaders are torch's, without samplers of their own; the training loader shuffles. Its
            `setup` and loaders run seeded too, so that a `random_split` in them is the same in each run.
        views: How many views each training example has, >= 1. Stored teachers compute all of them, so fewer views than
            epochs pay.
        view_seed: Seed of the views; runs that share it share stored soft targets.
        seed: Seed of the order, and of which view comes when; by default that of seed_everything.

    Raises:
        ValueError: If views is out of range, or the data module changes batches on their way to the device.

    Example:
        >>> data = SeededViews(MyPictures("pictures", batch_size=128), views=10)
        >>> Trainer(max_epochs=50).fit(DistillModule(student, teachers="runs/teacher"), datamodule=data)
    """

    def __init__(self, data: LightningDataModule, views: int = 10, view_seed: int = 0, seed: int | None = None) -> None:
        if views < 1:
            raise ValueError(f"views must be >= 1, got {views}")
        for hook in _TRANSFER_HOOKS:
            if is_overridden(hook, data, LightningDataModule):
                raise ValueError(
                    f"SeededViews replays what a data set gives, but {type(data).__name__} changes batches afterwards, "
                    f"in {hook}; move that into the data set's transform"
                )
        super().__init__(ReplayedParts(data, view_seed, views))
        self.data = data
        self.views, self.view_seed, self.seed = views, view_seed, seed
        self.prepare_data_per_node = data.prepare_data_per_node
        self._place: dict[str, Any] | None = None  # where a resumed run's training loader goes on

    def prepare_data(self) -> None:
        """Have the data module prepare its data."""
        self._attach()
        self.data.prepare_data()

    def setup(self, stage: str) -> None:
        """Set the data module up; for a fit, check that a sample is the same when it is made again.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ValueError: If its loaders can't be used, or a sample differs.
        """
        self._attach()
        self._place = self._fingerprint = self._files_hash = None  # of an earlier fit
        self.parts.setup(stage)

    def teardown(self, stage: str) -> None:
        """End worker processes and call the data module's teardown."""
        self.parts.close()
        self.data.teardown(stage)

    def on_exception(self, exception: BaseException) -> None:
        """End worker processes and call the data module's hook."""
        self.parts.close()
        self.data.on_exception(exception)

    def train_dataloader(self) -> SeededLoader:
        """Shuffled batches of the training examples; the first loader of a resumed run starts at the run's last place.

        Raises:
            ValueError: If the run began with another number of examples, or the trainer changes the data.
        """
        for option in ("overfit_batches", "reload_dataloaders_every_n_epochs"):
            if getattr(self.trainer, option, 0):
                raise ValueError(f"{option} is not supported by SeededViews; leave it out")
        loader = self._loader("train")
        if self._place is not None:
            before, now = self._place["examples"], len(self.train_rows)
            if before != now:
                raise ValueError(
                    f"the run began with {before:,} training {self.unit}, got {now:,}; "
                    "resume it with the data that it began with, or start a new run"
                )
            loader.load_state_dict(self._place["loader"])
            self._place = None
        return loader

    def val_dataloader(self) -> SeededLoader | list[SeededLoader]:
        """Batches of the validation examples in order; none where there are none."""
        return [] if self.parts.get("val") is None else self._loader("val")

    def test_dataloader(self) -> SeededLoader:
        """Batches of the test examples in order."""
        return self._loader("test")

    def predict_dataloader(self) -> SeededLoader:
        """Batches of the examples to predict, in order."""
        return self._loader("predict")

    def state_dict(self) -> dict[str, Any]:
        """The training loader's place in the data, and the data module's own state."""
        state: dict[str, Any] = {"data": self.data.state_dict()}
        loader = None if self.trainer is None else self.trainer.train_dataloader
        if isinstance(loader, SeededLoader):
            state["train"] = {"examples": len(self.train_rows), "loader": loader.state_dict()}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training loader continue from a `state_dict`."""
        self.data.load_state_dict(state_dict["data"])
        self._place = state_dict.get("train")

    def _attach(self) -> None:
        """Give the data module the trainer."""
        self.data.trainer = self.trainer

    def _loader(self, part: Part) -> SeededLoader:
        trainer = self.trainer
        return self.parts.loader(
            part,
            seed=int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
