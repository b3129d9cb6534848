"""SpokenDigitsDataModule: frames of spoken digits, each with the frames around it."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kd_lightning.data.batches import TensorLoader
from kd_lightning.data.memory import InMemoryDataModule
from kd_lightning.data.mixtures import Mixtures
from kd_lightning.data.sequences import Sequences
from kd_lightning.data.speech_files import Recording, find_recordings, find_sounds
from kd_lightning.data.split import Split
from kd_lightning.data.utterances import Frames, Utterances

DIGITS = 10
OFFICIAL = "official"
_OFFICIAL_TEST = range(5)  # numbers of the test recordings, by the README of the Free Spoken Digit Dataset


@dataclass(frozen=True)
class SpeechSplit(Split):
    """A split of whole recordings: `val_size` and the fractions count recordings.

    Args:
        val_speaker: Speaker whose recordings validate, in place of val_size; None for none.
    """

    val_speaker: str | None = None


class SpokenDigitsDataModule(InMemoryDataModule):
    """Spoken digits: an example is a frame of 10 ms with the frames around it, its class a state of its digit.

    Inputs are the logarithms of 40 mel bands in 26 frames, of which the example's own is the 21st (Hinton et al. 2015,
    section 4), (batch, 40, 26). Each recording is cut into equal parts, the states of its digit: with 3 states there
    are 30 classes. Frames of one recording are never split: validation and fractions are of whole recordings.

    The recordings are those of the Free Spoken Digit Dataset, or others named `{digit}_{speaker}_{number}.wav`.

    Args:
        data_dir: Folder of the recordings, or one that holds them in `recordings`.
        fold: What tests. `official`: the recordings 0 to 4 of each digit by each speaker; else the name of a speaker,
            of whom no recording trains.
        states: Equal parts of a recording, >= 1.
        before: Frames before the example's own, >= 0.
        after: Frames after it, >= 0.
        batch_size: Training frames per step, over all devices, >= 1.
        eval_batch_size: Frames per evaluation step, over all devices, >= 1.
        val_size: Training recordings held out for validation, stratified by digit; 0 for none.
        val_speaker: A speaker whose training recordings all validate, in place of val_size.
        split_seed: Seed of the validation split, of `train_fraction` and of `label_fraction`.
        train_fraction: Share of the training recordings that are used, stratified by digit, in (0, 1].
        label_fraction: Share of those that keep their labels, stratified by digit, in (0, 1].
        seed: Seed of the order; by default that of seed_everything.
        recordings: A wav file, a folder of such, or a list of both, to predict instead of the test recordings.
        augment: Mixtures of two frames with what is around them, about which the teachers are asked too; None for none.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> data = SpokenDigitsDataModule("free-spoken-digit-dataset", fold="jackson", val_size=300)
    """

    unit = "frames"
    test_data_arguments = ("fold", "states")  # see training.record.NamesTestData

    def __init__(
        self,
        data_dir: str = "data/fsdd",
        fold: str = OFFICIAL,
        states: int = 3,
        before: int = 20,
        after: int = 5,
        batch_size: int = 256,
        eval_batch_size: int = 2000,
        val_size: int = 0,
        val_speaker: str | None = None,
        split_seed: int = 0,
        train_fraction: float = 1.0,
        label_fraction: float = 1.0,
        seed: int | None = None,
        recordings: str | list[str] | None = None,
        augment: Mixtures | None = None,
    ) -> None:
        for name, value, least in (("states", states, 1), ("before", before, 0), ("after", after, 0)):
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if val_size and val_speaker is not None:
            raise ValueError(f"val_size and val_speaker exclude each other, got {val_size} and {val_speaker}; give one")
        self.num_classes = DIGITS * states
        self.class_names = [f"{digit}.{part}" for digit in range(DIGITS) for part in range(1, states + 1)]
        self.val_speaker = val_speaker
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            split_seed=split_seed,
            train_fraction=train_fraction,
            label_fraction=label_fraction,
            augment=augment,
            seed=seed,
        )
        self.data_dir = data_dir
        self.fold = fold
        self.states = states
        self.before, self.after = before, after
        self.recordings = [recordings] if isinstance(recordings, str) else recordings
        self._frames = Frames(before, after)
        self._utterances: dict[str, Utterances] = {}  # train, test and predict
        self._train_hash = ""

    def setup(self, stage: str) -> None:
        """Read the recordings to predict; else all recordings, once, and cut the split.

        Args:
            stage: fit, validate, test or predict.

        Raises:
            FileNotFoundError: If a file or folder is missing.
            ValueError: If a file is damaged, or nothing is left to train on.
        """
        if stage == "predict" and self.recordings is not None:
            files = find_sounds(self.recordings)
            self._utterances["predict"] = self._frames.add(files, torch.full((len(files),), -1), states=self.states)
        else:
            super().setup(stage)

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Where each frame stands, and its state, of the training and of the test recordings.

        Raises:
            FileNotFoundError: If there are no recordings.
            ValueError: If a file is damaged, or there is no such fold.
        """
        train, test = _cut(find_recordings(Path(self.data_dir)), self.fold)
        train_part = self._add("train", train)
        self._train_hash = self._frames.hash()
        return train_part, self._add("test", test)

    def to_inputs(self, raw: Tensor, views: Tensor | None) -> Tensor:
        """The frames around each example, (batch, 40, before + 1 + after).

        Args:
            raw: (batch,) int64, places of the examples' own frames.
            views: Not used: each frame stays as it is.
        """
        return self._frames.around(raw)

    def sequences(self, stage: Literal["test", "predict"]) -> Sequences:
        """The utterances that are tested or predicted: each a digit, which goes through its states in order.

        Args:
            stage: Which of them.
        """
        part = self._utterances["predict" if stage == "predict" and self.recordings is not None else "test"]
        paths = torch.arange(self.num_classes).view(DIGITS, self.states)
        return Sequences("utterances", "digit", part.starts, part.digits, paths, [str(file) for file in part.files])

    @property
    def split(self) -> SpeechSplit:
        """How the training recordings are cut."""
        return SpeechSplit(**asdict(super().split), val_speaker=self.val_speaker)

    def val_rows_of(self, split: Split) -> Tensor:
        """All frames of the recordings that validate, (rows,) int64, ascending.

        Raises:
            ValueError: If nothing would be left to train on, or there is no such speaker.
        """
        train = self._utterances["train"]
        return train.rows_of(_validating(train, split))

    def train_rows_of(self, split: Split) -> Tensor:
        """All frames of the recordings that train, (rows,) int64, ascending."""
        train = self._utterances["train"]
        return train.rows_of(_training(train, split))

    @property
    def train_labels(self) -> Tensor:
        """State of each frame as training sees it, (rows,) int64, -1 in recordings without a label."""
        train, split = self._utterances["train"], self.split
        labelled = split.train_labels(train.digits, _training(train, split)) >= 0
        return self.examples("train").labels.where(labelled.repeat_interleave(train.starts.diff()), -1)

    def predict_dataloader(self) -> TensorLoader:
        """Batches of the frames of the given recordings, or of the test recordings."""
        if self.recordings is None:
            return self.test_dataloader()
        places = self._utterances["predict"].places
        return self.loader((places, torch.full_like(places, -1)), torch.arange(len(places)), self.eval_batch_size)

    def dataset_name(self) -> str:
        """Which recordings test."""
        return f"spoken digits ({self.fold} test)" if self.fold == OFFICIAL else f"spoken digits (test: {self.fold})"

    def dataset_identity(self) -> str:
        """A text with a hash of the training frames; their examples are only where these stand."""
        return f"{type(self).__qualname__} {self._train_hash}"

    def fingerprint(self) -> str:
        """Hash of the training frames, and of which of them make an input."""
        return hashlib.sha256(f"{self._train_hash} {super().fingerprint()}".encode()).hexdigest()

    def _add(self, part: str, recordings: Sequence[Recording]) -> tuple[Tensor, Tensor]:
        digits, speakers = torch.tensor([each.digit for each in recordings]), [each.speaker for each in recordings]
        added = self._frames.add([each.file for each in recordings], digits, speakers, states=self.states)
        self._utterances[part] = added
        return added.places, added.labels(self.states)


def _cut(recordings: Sequence[Recording], fold: str) -> tuple[list[Recording], list[Recording]]:
    """Training and test recordings of a fold.

    Raises:
        ValueError: If there is no such fold, or one of the two would be empty.
    """
    speakers = sorted({each.speaker for each in recordings})
    if fold != OFFICIAL and fold not in speakers:
        raise ValueError(f"fold must be {OFFICIAL} or a speaker, one of {', '.join(speakers)}, got {fold}")
    tests = [each.number in _OFFICIAL_TEST if fold == OFFICIAL else each.speaker == fold for each in recordings]
    train = [each for each, is_test in zip(recordings, tests, strict=True) if not is_test]
    test = [each for each, is_test in zip(recordings, tests, strict=True) if is_test]
    if not train or not test:
        raise ValueError(
            f"fold {fold} must leave recordings to train and to test, got {len(train)} and {len(test)}; "
            f"there are {len(recordings)} recordings of {len(speakers)} speakers"
        )
    return train, test


def _validating(train: Utterances, split: Split) -> Tensor:
    """Numbers of the training recordings that validate, (recordings,) int64, ascending.

    Raises:
        ValueError: If nothing would be left to train on, or there is no such speaker.
    """
    speaker = split.val_speaker if isinstance(split, SpeechSplit) else None
    if speaker is not None:
        speakers = sorted(set(train.speakers))
        if speaker not in speakers or len(speakers) == 1:
            raise ValueError(f"val_speaker must be one of several that train, {', '.join(speakers)}, got {speaker}")
        return torch.tensor([number for number, other in enumerate(train.speakers) if other == speaker])
    if split.val_size >= len(train.digits):
        raise ValueError(
            f"val_size must leave something to train on, got {split.val_size} of {len(train.digits)} recordings"
        )
    return split.val_rows(train.digits)


def _training(train: Utterances, split: Split) -> Tensor:
    """Numbers of the training recordings that train, (recordings,) int64, ascending."""
    return split.train_rows(train.digits, _validating(train, split))
