"""Recordings as rows of frames: where each frame stands, which rows are one utterance, and their states."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_lightning.data.speech_files import COEFFICIENTS, read_frames


class Utterances(NamedTuple):
    """Recordings whose frames are rows, counted from 0.

    Attributes:
        files: Of each utterance.
        starts: (utterances + 1,) int64: utterance n has the rows from starts[n] up to starts[n + 1].
        places: (rows,) int64, where each row's frame stands in the `Frames`.
        digits: (utterances,) int64, -1 where unknown.
        speakers: Of each utterance, empty where unknown.
    """

    files: Sequence[Path]
    starts: Tensor
    places: Tensor
    digits: Tensor
    speakers: Sequence[str] = ()

    def labels(self, states: int) -> Tensor:
        """State of each row, (rows,) int64: digit * states + part, in so many equal parts of its utterance."""
        lengths = self.starts.diff()
        row_in_utterance = torch.arange(len(self.places)) - self.starts[:-1].repeat_interleave(lengths)
        part = row_in_utterance * states // lengths.repeat_interleave(lengths)
        return self.digits.repeat_interleave(lengths) * states + part

    def rows_of(self, utterances: Tensor) -> Tensor:
        """All rows of some utterances, (rows,) int64, ascending.

        Args:
            utterances: (chosen,) int64, their numbers.
        """
        chosen = torch.zeros(len(self.digits), dtype=torch.bool).index_fill_(0, utterances, value=True)
        return chosen.repeat_interleave(self.starts.diff()).nonzero().flatten()


class Frames:
    """The log-mel frames of recordings, one after the other; the first and the last of each are repeated.

    So the frames around a frame are its neighbours in memory; only the frames at the ends are stored more than once.

    Args:
        before: How often a recording's first frame is repeated before it.
        after: How often its last one is repeated after it.
    """

    def __init__(self, before: int, after: int) -> None:
        self.before = before
        self.after = after
        self._frames = torch.empty(0, COEFFICIENTS)
        self._copies: dict[torch.device, Tensor] = {}

    def add(self, files: Sequence[Path], digits: Tensor, speakers: Sequence[str] = (), *, states: int) -> Utterances:
        """Read recordings.

        Args:
            files: The wav files, at least one.
            digits: (files,) int64, -1 where unknown.
            speakers: Of each file.
            states: Frames that each must have at least.

        Raises:
            ValueError: If one is damaged, silent or too short.
        """
        read = [read_frames(file, at_least=states) for file in files]
        lengths = torch.tensor([len(frames) for frames in read])
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(dim=0)])
        around = self.before + self.after
        shifts = len(self._frames) + self.before + torch.arange(len(files)) * around
        places = torch.arange(int(starts[-1])) + shifts.repeat_interleave(lengths)
        padded = [np.pad(frames, ((self.before, self.after), (0, 0)), mode="edge") for frames in read]
        self._frames = torch.cat([self._frames, torch.from_numpy(np.concatenate(padded))])
        self._copies = {}
        return Utterances(files, starts, places, digits, speakers)

    def around(self, places: Tensor) -> Tensor:
        """The frames around some frames, (batch, 40, before + 1 + after) float32, on the device of the places.

        Args:
            places: (batch,) int64.
        """
        device = places.device
        if device not in self._copies:
            self._copies[device] = self._frames.to(device)
        around = places.unsqueeze(1) + torch.arange(-self.before, self.after + 1, device=device)  # (batch, frames)
        rows = self._copies[device].index_select(0, around.flatten())
        return rows.view(*around.shape, COEFFICIENTS).transpose(1, 2)  # (batch, frames, 40) -> (batch, 40, frames)

    def hash(self) -> str:
        """Hash of all frames."""
        return hashlib.sha256(self._frames.numpy().tobytes()).hexdigest()
