"""Makes recordings for tests: a digit is three tones, a third of the time each, which a small net can tell apart."""

import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SPEAKERS = ("ann", "bob", "eve")


def tones(digit: int, seconds: float = 0.24, rate: int = 8000, seed: int = 0) -> np.ndarray:
    """The sound of a digit, (samples,) in [-1, 1]."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    part = np.arange(count) * 3 // count  # 0, 1, 2
    frequency = 300 + 100 * ((7 * digit + 13 * part) % 30) + random.normal(0, 5)
    sound = np.sin(2 * np.pi * np.cumsum(frequency) / rate)
    return 0.3 * sound + 0.01 * random.normal(size=count)


def write_wav(path: Path, sound: np.ndarray, rate: int = 8000, width: int = 2) -> Path:
    """Write a sound (samples,) or (samples, channels) in [-1, 1] with so many bytes a sample."""
    if width == 1:
        data = np.round(sound * 127 + 128).astype(np.uint8).tobytes()
    else:
        numbers = np.round(sound * (2 ** (8 * width - 1) - 1)).astype("<i4")
        data = numbers.reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


def write_corpus(folder: Path, numbers: Iterable[int] = (0, 5, 6), speakers: Iterable[str] = SPEAKERS) -> Path:
    """Write a small corpus; recordings below 5 test."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, speaker in enumerate(speakers):
        for digit in range(10):
            for number in numbers:
                seed = 1000 * place + 10 * digit + number
                sound = tones(digit, seconds=0.2 + 0.01 * (seed % 7), seed=seed)
                write_wav(folder / f"{digit}_{speaker}_{number}.wav", sound)
    return folder
