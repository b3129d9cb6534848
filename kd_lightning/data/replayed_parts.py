"""ReplayedParts: the data sets of a user's data module, whose samples can be made again."""

from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from kd_lightning.data.order import derived_seed
from kd_lightning.data.replay import Replay, SeededLoader, check_replay, own_generators
from kd_lightning.data.user_datasets import user_loader

Part = Literal["train", "val", "test", "predict"]
_PARTS: tuple[Part, ...] = ("train", "val", "test", "predict")


class ReplayedParts:
    """What makes the samples of a data module's training, validation, test and prediction.

    Each part is asked for when it is first needed: a data module need not have all of them.

    Args:
        data: The user's data module.
        view_seed: Seed of the samples.
        view_count: Views of a training example.
    """

    def __init__(self, data: LightningDataModule, view_seed: int, view_count: int) -> None:
        self.data = data
        self.view_seed = view_seed
        self.view_count = view_count
        self._replays: dict[Part, Replay | None] = {}
        self._loaders: list[SeededLoader] = []
        self._fits = False

    def setup(self, stage: str) -> None:
        """Set the data module up; for a fit, check that a sample is the same when it is made again.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            ValueError: If its loaders can't be used, or a sample differs.
        """
        self.close()
        self._fits = stage == "fit"
        with own_generators(derived_seed(self.view_seed)):
            self.data.setup(stage)
        if self._fits:
            check_replay(self.training(), self.view_count, "training")
            val = self.get("val")
            if val is not None:
                check_replay(val, 1, "validation")

    def get(self, part: Part) -> Replay | None:
        """What makes the samples of a part, with the settings of the data module's loader; None without validation.

        Raises:
            ValueError: If the loader can't be used.
        """
        if part not in self._replays:
            self._replays[part] = self._made(part)
        return self._replays[part]

    def training(self) -> Replay:
        """What makes the training samples; errors as in `get`."""
        return self.existing("train")

    def existing(self, part: Part) -> Replay:
        """As `get`, where there must be something.

        Raises:
            ValueError: If there is nothing, or the loader can't be used.
        """
        replay = self.get(part)
        if replay is None:
            raise ValueError(f"{type(self.data).__name__}.{part}_dataloader gives no loader")
        return replay

    def used(self) -> list[Replay]:
        """The parts that were used since `setup`."""
        return [replay for replay in self._replays.values() if replay is not None]

    def loader(self, part: Part, **order: Any) -> SeededLoader:  # Any: see SeededLoader
        """Batches of a part, of the size that the data module's loader has.

        Args:
            part: Which.
            order: Further arguments of `OrderedLoader`.
        """
        replay, trains = self.existing(part), part == "train"
        loader = SeededLoader(
            replay,
            batch_size=replay.source.batch_size,
            shuffle=trains,
            drop_last=replay.source.drop_last,
            view_count=self.view_count if trains else 1,
            **order,
        )
        self._loaders.append(loader)
        return loader

    def close(self) -> None:
        """Forget the data sets; end worker processes."""
        for loader in self._loaders:
            loader.close()
        for replay in self.used():
            replay.close()
        self._replays, self._loaders = {}, []

    def _made(self, part: Part) -> Replay | None:
        name = f"{part}_dataloader"
        if part == "val" and not is_overridden(name, self.data, LightningDataModule):
            return None
        with own_generators(derived_seed(self.view_seed)):
            given = getattr(self.data, name)()
        if part == "val" and (given is None or given == []):
            return None
        source = user_loader(given, f"{type(self.data).__name__}.{name}", training=part == "train")
        # Outside a fit there may be no training data; a file of logits, which needs it, has asked for it before.
        numbered = part == "val" and (self._fits or "train" in self._replays)
        first_row = len(self.training()) if numbered else 0
        return Replay(source, (self.view_seed, _PARTS.index(part)), first_row, keep_workers=True)
