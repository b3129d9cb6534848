"""Wav files of every kind become the same frames; what is no recording is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from kd_lightning.data.speech_files import (
    COEFFICIENTS,
    HOP,
    RATE,
    WINDOW,
    find_recordings,
    find_sounds,
    log_mel,
    read_frames,
)
from tests.data.spoken import tones, write_corpus, write_wav


def test_window_and_hop_are_the_papers() -> None:
    assert (WINDOW / RATE, HOP / RATE) == (0.025, 0.010)
    assert log_mel(np.ones(WINDOW, dtype=np.float32)).shape == (1, COEFFICIENTS)
    assert log_mel(np.ones(WINDOW + HOP - 1, dtype=np.float32)).shape == (1, COEFFICIENTS)
    assert log_mel(np.ones(WINDOW + HOP, dtype=np.float32)).shape == (2, COEFFICIENTS)


@pytest.mark.parametrize("hertz", [200, 440, 1000, 2500, 3500])
def test_a_tone_is_in_its_band(hertz: int) -> None:
    sound = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
    loudest = log_mel(sound).mean(axis=0).argmax()
    top = 2595 * np.log10(1 + 4000 / 700)  # centres of the bands, by hand
    bottom = 2595 * np.log10(1 + 20 / 700)
    centres = 700 * (10 ** (np.linspace(bottom, top, COEFFICIENTS + 2)[1:-1] / 2595) - 1)
    assert loudest == np.abs(centres - hertz).argmin()


def test_loudness_and_offset_change_nothing(tmp_path: Path) -> None:
    sound = tones(3)
    loud = read_frames(write_wav(tmp_path / "loud.wav", sound))
    quiet = read_frames(write_wav(tmp_path / "quiet.wav", 0.2 * sound + 0.1))
    assert np.abs(loud - quiet).mean() < 0.05


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_width_and_stereo_sound_the_same(width: int, channels: int, tmp_path: Path) -> None:
    sound = tones(5)
    expected = read_frames(write_wav(tmp_path / "plain.wav", sound))
    several = np.stack([sound] * channels, axis=1) if channels > 1 else sound
    frames = read_frames(write_wav(tmp_path / "other.wav", several, width=width))
    clear = expected > 0  # in the bands of the tone; elsewhere 8 bits add noise
    assert np.abs(frames - expected)[clear].max() < (0.3 if width == 1 else 0.01)


def test_channels_are_averaged(tmp_path: Path) -> None:
    sound = tones(5)
    both = np.stack([1.5 * sound, 0.5 * sound], axis=1)
    expected = read_frames(write_wav(tmp_path / "plain.wav", sound))
    assert np.abs(read_frames(write_wav(tmp_path / "both.wav", both, width=4)) - expected).max() < 0.1


def test_floats_are_read(tmp_path: Path) -> None:
    sound = tones(2).astype(np.float32)
    wavfile.write(tmp_path / "float.wav", RATE, sound)
    expected = read_frames(write_wav(tmp_path / "plain.wav", sound, width=4))
    assert np.abs(read_frames(tmp_path / "float.wav") - expected).max() < 0.01


@pytest.mark.parametrize("rate", [16000, 44100, 11025])
def test_other_sample_rates_are_resampled(rate: int, tmp_path: Path) -> None:
    hertz = 1000
    frames = []
    for each in (RATE, rate):
        sound = 0.5 * np.sin(2 * np.pi * hertz * np.arange(each) / each)
        frames.append(read_frames(write_wav(tmp_path / f"{each}.wav", sound, rate=each)))
    assert frames[0].shape == frames[1].shape == (98, COEFFICIENTS)
    loudest = frames[0].mean(axis=0).argmax()
    assert frames[1].mean(axis=0).argmax() == loudest
    assert np.abs(frames[0] - frames[1])[5:-5, loudest].max() < 0.05


def _damaged(kind: str, path: Path) -> Path:
    write_wav(path, tones(1))
    content = path.read_bytes()
    match kind:
        case "no bytes":
            path.write_bytes(b"")
        case "text":
            path.write_bytes(b"not a recording at all, only text" * 9)
        case "cut in the header":
            path.write_bytes(content[:30])
        case "cut in the samples":
            path.write_bytes(content[:1001])
        case "no samples":
            write_wav(path, np.zeros(0))
        case "silent":
            write_wav(path, np.zeros(4000))
        case "one level":
            write_wav(path, np.full(4000, 0.25))
        case "short":
            write_wav(path, tones(1, seconds=0.02))
        case "shorter than its states":
            write_wav(path, tones(1, seconds=0.04))
        case "slow":
            write_wav(path, tones(1), rate=2000)
        case "no numbers":
            wavfile.write(path, RATE, np.full(4000, np.nan, dtype=np.float32))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no bytes", "is not a whole wav file"),
        ("text", "is not a whole wav file"),
        ("cut in the header", "is not a whole wav file"),
        ("cut in the samples", "is not a whole wav file"),
        ("no samples", "is empty: it holds no sample"),
        ("silent", "is silent: all its samples are equal"),
        ("one level", "is silent: all its samples are equal"),
        ("short", "is too short: expected at least 45 ms, got 20 ms"),
        ("shorter than its states", "is too short: expected at least 45 ms, got 40 ms"),
        ("slow", "expected a sample rate of at least 4,000 Hz, got 2,000"),
        ("no numbers", "holds samples that are not finite numbers"),
    ],
)
def test_damaged_files_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    path = _damaged(kind, tmp_path / "1_ann_0.wav")
    with pytest.raises(ValueError, match=message) as caught:
        read_frames(path, at_least=3)
    assert "1_ann_0.wav" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_corpus_is_found(tmp_path: Path) -> None:
    write_corpus(tmp_path / "recordings", numbers=(0, 11), speakers=("ann", "jean_luc"))
    found = find_recordings(tmp_path)
    assert found == find_recordings(tmp_path / "recordings")
    assert len(found) == 40
    assert found[0][1:] == (0, "ann", 0)
    assert found[-1][1:] == (9, "jean_luc", 11)


def test_no_corpus_or_other_names(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"no recordings .* unpack a release of https.* --data.data_dir"):
            find_recordings(folder)
    write_wav(tmp_path / "hello.wav", tones(1))
    with pytest.raises(ValueError, match=r"hello.wav: expected a name such as 7_jackson_32.wav"):
        find_recordings(tmp_path)


def test_sounds_to_predict(tmp_path: Path) -> None:
    first, second = write_wav(tmp_path / "b.wav", tones(1)), write_wav(tmp_path / "a.WAV", tones(1))
    assert find_sounds([str(first), str(tmp_path)]) == [first, second, first]
    with pytest.raises(FileNotFoundError, match="no wav file or folder"):
        find_sounds([str(tmp_path / "nowhere.wav")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no wav \(\.wav\) in"):
        find_sounds([str(tmp_path / "empty")])
