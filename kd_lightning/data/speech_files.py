"""Recordings of spoken digits: which files there are, their sound, and its log-mel frames."""

import re
import warnings
from collections.abc import Sequence
from functools import cache
from math import gcd
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kd_lightning.data.found_files import found_files

RATE = 8000  # Hz, that of the Free Spoken Digit Dataset
WINDOW, HOP = RATE * 25 // 1000, RATE // 100  # samples: 25 ms and 10 ms, Hinton et al. 2015, section 4
COEFFICIENTS = 40  # likewise
ARCHIVE = "https://github.com/Jakobovski/free-spoken-digit-dataset"

_LOWEST_RATE = 4000  # Hz; below, a recording lacks half of the bands
_FFT = 512  # samples, the window padded: its bins must be closer than the lowest bands, 34 Hz apart
_LOWEST, _HIGHEST = 20.0, RATE / 2  # Hz, edges of the bands
_LEVEL = 0.1  # root of the mean square that each recording is scaled to
_FLOOR = 1e-6  # added to a band's energy; of a frame of the level above it is about 1e-2 to 1e3
_NAME = re.compile(r"(\d)_(.+)_(\d+)\.wav")


class Recording(NamedTuple):
    """A file `{digit}_{speaker}_{number}.wav`.

    Attributes:
        file: Where it is.
        digit: The spoken digit, 0 to 9.
        speaker: Name of the speaker.
        number: Which of the speaker's recordings of this digit it is, from 0.
    """

    file: Path
    digit: int
    speaker: str
    number: int


def find_recordings(folder: Path) -> list[Recording]:
    """The recordings in a folder, or in `recordings` inside it, by speaker, digit and number.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If a file's name is another.
    """
    inside = folder / "recordings"
    folder = inside if inside.is_dir() else folder
    files = sorted(folder.glob("*.wav")) if folder.is_dir() else []
    if not files:
        raise FileNotFoundError(
            f"no recordings (.wav) in {folder}; unpack a release of {ARCHIVE} and name its folder with --data.data_dir"
        )
    found = []
    for file in files:
        parts = _NAME.fullmatch(file.name)
        if parts is None:
            raise ValueError(f"{file}: expected a name such as 7_jackson_32.wav, digit_speaker_number")
        found.append(Recording(file, int(parts[1]), parts[2], int(parts[3])))
    return sorted(found, key=lambda each: (each.speaker, each.digit, each.number))


def find_sounds(paths: Sequence[str]) -> list[Path]:
    """The wav files among the paths and in the folders among them; errors as of `found_files`."""
    return found_files(paths, "wav", {".wav"})


def read_frames(file: Path, at_least: int = 1) -> np.ndarray:
    """The log-mel frames of a wav file, (frames, 40) float32.

    Channels are averaged, other sample rates are resampled to 8 kHz, and the recording is scaled to a fixed loudness.

    Args:
        file: Of 8, 16, 24 or 32 bits, or float.
        at_least: Frames that there must be.

    Raises:
        ValueError: If the file is damaged, silent or too short.
    """
    sound = _read_sound(file)
    shortest = WINDOW + (at_least - 1) * HOP
    if len(sound) < shortest:
        raise ValueError(
            f"{file} is too short: expected at least {shortest / RATE * 1000:g} ms, got {len(sound) / RATE * 1000:g} ms"
        )
    loudness = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    if not loudness > 0:
        raise ValueError(f"{file} is silent: all its samples are equal; record it again or remove it")
    return log_mel(sound * np.float32(_LEVEL / loudness))


def log_mel(sound: np.ndarray) -> np.ndarray:
    """Logarithms of the energy in each mel band, (frames, 40) float32.

    Args:
        sound: (samples,) float32 at 8 kHz, at least 200; what is left behind the last whole window is not used.
    """
    windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP]  # (frames, 200)
    energy = np.abs(np.fft.rfft(windows * np.hamming(WINDOW), _FFT)) ** 2
    logarithms: np.ndarray = np.log(energy @ _mel_bands() + _FLOOR).astype(np.float32)
    return logarithms


@cache
def _mel_bands() -> np.ndarray:
    """Weights of each bin of the spectrum in each band, (257, 40): triangles of equal width on the mel scale.

    The scale is that of O'Shaughnessy 1987, "Speech Communication: Human and Machine", as in the HTK book, section 5.4.
    """
    edges = np.linspace(_mel(_LOWEST), _mel(_HIGHEST), COEFFICIENTS + 2)
    places = _mel(np.linspace(0, RATE / 2, _FFT // 2 + 1))[:, None]  # (257, 1)
    rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    bands: np.ndarray = np.maximum(0, np.minimum(rising, falling))
    return bands


def _mel(hertz: np.ndarray | float) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def _read_sound(file: Path) -> np.ndarray:
    """The samples of a wav file without their mean, (samples,) float32 at 8 kHz."""
    from scipy.io import wavfile  # with scipy.signal half a second, which only speech needs to pay
    from scipy.signal import resample_poly

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)  # the end of the file comes too early
            warnings.filterwarnings("ignore", "Chunk .* not understood", wavfile.WavFileWarning)  # a title, a comment
            rate, samples = wavfile.read(file)
    except Exception as error:  # scipy raises half a dozen kinds for a damaged file
        raise ValueError(f"{file} is not a whole wav file: {str(error) or type(error).__name__}") from error
    if rate < _LOWEST_RATE:
        raise ValueError(f"{file}: expected a sample rate of at least {_LOWEST_RATE:,} Hz, got {rate:,}")
    sound = _as_float(samples)
    if sound.ndim > 1:
        sound = sound.mean(axis=1)  # (samples, channels) -> (samples,)
    if not len(sound):
        raise ValueError(f"{file} is empty: it holds no sample")
    if not np.isfinite(sound).all():
        raise ValueError(f"{file} holds samples that are not finite numbers")
    sound = sound - sound.mean()
    if rate != RATE:
        shared = gcd(rate, RATE)
        sound = resample_poly(sound, RATE // shared, rate // shared)
    mono: np.ndarray = sound.astype(np.float32)
    return mono


def _as_float(samples: np.ndarray) -> np.ndarray:
    """Samples of any type as float64 in [-1, 1]; scipy gives 24 bits as the upper ones of 32."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float64) - 128) / 128
    return samples.astype(np.float64) / float(2 ** (8 * samples.itemsize - 1))
