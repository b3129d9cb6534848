"""SeededViews: a user's own data module, with samples that can be made again."""

import os
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from kd_lightning.data.order import derived_seed
from kd_lightning.data.replay import Replay, SeededLoader, check_replay, own_generators
from kd_lightning.data.replayed_rows import Part, ReplayedRows
from kd_lightning.data.user_datasets import user_loader

_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_PARTS: tuple[Part, ...] = ("train", "val", "test", "predict")


class SeededViews(ReplayedRows):
    """Any data module with map-style data sets, whose training is resumed exactly and whose teachers can be stored.

    Before a sample is made, the random generators of torch, numpy and `random` are seeded from (view_seed, row, view).
    So any transform that draws from them gives the same sample for the same row and view, in worker processes too. Each
    example comes in one of `views` views, another one each epoch by chance. All of them are augmented, view 0 too.

    The data module's loaders say batch size, workers, collate function and memory; batch sizes are those of all devices
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

    test_data_arguments = ("data",)  # see training.record.NamesTestData

    def __init__(self, data: LightningDataModule, views: int = 10, view_seed: int = 0, seed: int | None = None) -> None:
        super().__init__()
        if views < 1:
            raise ValueError(f"views must be >= 1, got {views}")
        for hook in _TRANSFER_HOOKS:
            if is_overridden(hook, data, LightningDataModule):
                raise ValueError(
                    f"SeededViews replays what a data set gives, but {type(data).__name__} changes batches afterwards, "
                    f"in {hook}; move that into the data set's transform"
                )
        self.data = data
        self.view_count = views
        self.view_seed = view_seed
        self.seed = seed
        self.prepare_data_per_node = data.prepare_data_per_node
        self._fits = False
        self._place: dict[str, Any] | None = None  # where a resumed run's training loader goes on

    def prepare_data(self) -> None:
        """Have the data module prepare its data."""
        self._attached().prepare_data()

    def setup(self, stage: str) -> None:
        """Set the data module up; for a fit, check that its samples come out alike when they are made again.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ValueError: If its loaders can't be used, or a sample differs.
        """
        with own_generators(derived_seed(self.view_seed)):
            self._attached().setup(stage)
        self.forget()
        self._place = None  # of an earlier fit
        self._fits = stage == "fit"
        if self._fits:
            check_replay(self.training(), self.view_count, "training")
            val = self.replay("val")
            if val is not None:
                check_replay(val, 1, "validation")

    def teardown(self, stage: str) -> None:
        """Have the data module clean up."""
        self.forget()
        self._attached().teardown(stage)

    def on_exception(self, exception: BaseException) -> None:
        """Tell the data module."""
        self._attached().on_exception(exception)

    def make_replay(self, part: Part) -> Replay | None:
        """Have the samples of a part made as the data module's loader says; None where there are none.

        Raises:
            ValueError: If the loader can't be used.
        """
        name = f"{part}_dataloader"
        data = self._attached()
        if part == "val" and not is_overridden(name, data, LightningDataModule):
            return None
        with own_generators(derived_seed(self.view_seed)):
            given = getattr(data, name)()
        if part == "val" and (given is None or given == []):
            return None
        source = user_loader(given, f"{type(data).__name__}.{name}", training=part == "train")
        first_row = len(self.training()) if part == "val" and self._fits else 0
        return Replay(source, (self.view_seed, _PARTS.index(part)), first_row, keep_workers=True)

    def train_dataloader(self) -> SeededLoader:
        """Shuffled batches of the training examples; a resumed run's first loader goes on where the run had been.

        Raises:
            ValueError: If the run began with another number of examples, or the trainer changes the data.
        """
        for option in ("overfit_batches", "reload_dataloaders_every_n_epochs"):
            if getattr(self.trainer, option, 0):
                raise ValueError(f"{option} is not supported by SeededViews; leave it out")
        loader = self._loader("train")
        if self._place is not None:
            if self._place["examples"] != len(self.training()):
                raise ValueError(
                    f"the run began with {self._place['examples']} training {self.unit}, got {len(self.training())}; "
                    "resume it with the data that it began with, or start a new run"
                )
            loader.load_state_dict(self._place["loader"])
            self._place = None
        return loader

    def val_dataloader(self) -> SeededLoader | list[SeededLoader]:
        """Batches of the validation examples in order; none where there are none."""
        return [] if self.replay("val") is None else self._loader("val")

    def test_dataloader(self) -> SeededLoader:
        """Batches of the test examples in order."""
        return self._loader("test")

    def predict_dataloader(self) -> SeededLoader:
        """Batches of the examples to predict, in order."""
        return self._loader("predict")

    def _loader(self, part: Part) -> SeededLoader:
        replay, trainer, trains = self.replay(part), self.trainer, part == "train"
        if replay is None:
            raise ValueError(f"{type(self.data).__name__} has no {part} examples")
        return SeededLoader(
            replay,
            batch_size=replay.source.batch_size,
            shuffle=trains,
            drop_last=replay.source.drop_last,
            seed=int(os.environ.get("PL_GLOBAL_SEED", "0")) if self.seed is None else self.seed,
            view_count=self.view_count if trains else 1,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    def state_dict(self) -> dict[str, Any]:
        """The training loader's place in the data, and the data module's own state."""
        state: dict[str, Any] = {"data": self.data.state_dict()}
        loader = None if self.trainer is None else self.trainer.train_dataloader
        if isinstance(loader, SeededLoader):
            state["train"] = {"examples": len(self.training()), "loader": loader.state_dict()}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the next training loader go on from a `state_dict`."""
        self.data.load_state_dict(state_dict["data"])
        self._place = state_dict.get("train")

    def _attached(self) -> LightningDataModule:
        """The data module, which knows the trainer."""
        self.data.trainer = self.trainer
        return self.data
