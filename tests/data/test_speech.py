"""Spoken digits as examples: states, context, whole recordings on one side of each cut, folds."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_lightning.data.mixtures import Mixtures
from kd_lightning.data.speech import SpokenDigitsDataModule
from kd_lightning.data.speech_files import read_frames
from kd_lightning.data.transfer_data import TransferData, transfer_data
from kd_lightning.data.utterances import Frames, Utterances
from tests.data.spoken import tones, write_corpus, write_wav


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _data(corpus: Path, stage: str = "fit", **options: Any) -> SpokenDigitsDataModule:
    data = SpokenDigitsDataModule(str(corpus), **options)
    data.setup(stage)
    return data


def _train(data: SpokenDigitsDataModule) -> Utterances:
    return data._utterances["train"]


def _inputs(data: SpokenDigitsDataModule, rows: torch.Tensor, view: int) -> torch.Tensor:
    inputs = data.inputs(rows, torch.full_like(rows, view))
    assert isinstance(inputs, torch.Tensor)
    return inputs


def _whole(utterances: Utterances, rows: torch.Tensor) -> list[int]:
    """Numbers of the utterances that the rows are; fails where one is there in part."""
    inside = torch.zeros(len(utterances.places), dtype=torch.bool)
    inside[rows] = True
    parts = inside.split(utterances.starts.diff().tolist())  # type: ignore[no-untyped-call]
    assert all(part.all() or not part.any() for part in parts)
    return [number for number, part in enumerate(parts) if part.any()]


def test_states_are_equal_parts_of_an_utterance() -> None:
    starts = torch.tensor([0, 6, 10])
    utterances = Utterances([Path("a"), Path("b")], starts, torch.arange(10), torch.tensor([2, 0]))
    assert utterances.labels(3).tolist() == [6, 6, 7, 7, 8, 8, 0, 0, 1, 2]
    assert utterances.labels(1).tolist() == [2] * 6 + [0] * 4
    assert utterances.rows_of(torch.tensor([1])).tolist() == [6, 7, 8, 9]


def test_frames_around_a_frame_are_its_recordings_own(tmp_path: Path) -> None:
    files = [write_wav(tmp_path / f"{digit}.wav", tones(digit)) for digit in (1, 2)]
    frames = Frames(before=2, after=1)
    utterances = frames.add(files, torch.tensor([1, 2]), states=3)
    read = [torch.from_numpy(read_frames(file)) for file in files]
    around = frames.around(utterances.places)
    assert around.shape == (sum(map(len, read)), 40, 4)
    first, second = around.split([len(each) for each in read])  # type: ignore[no-untyped-call]
    assert torch.equal(first[5].T, read[0][3:7])
    assert torch.equal(first[0].T, read[0][[0, 0, 0, 1]])
    assert torch.equal(first[-1].T, read[0][[-3, -2, -1, -1]])
    assert torch.equal(second[0].T, read[1][[0, 0, 0, 1]])
    more = frames.add(files[:1], torch.tensor([1]), states=3)
    assert torch.equal(frames.around(more.places), first)
    assert torch.equal(frames.around(utterances.places), around)


def test_examples_and_inputs(corpus: Path) -> None:
    data = _data(corpus)
    assert isinstance(transfer_data(data), TransferData)
    assert (data.unit, data.num_classes, len(data.class_names or ())) == ("frames", 30, 30)
    assert len(_train(data).digits) == 60  # numbers 5 and 6; number 0 tests
    assert set(data.examples("train").labels.tolist()) == set(range(30))
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch.inputs.shape == (256, 40, 26)
    assert batch.inputs.dtype == torch.float32
    again = data.inputs(batch.indices, batch.views)
    assert isinstance(again, torch.Tensor)
    assert torch.equal(batch.inputs, again)
    assert torch.equal(batch.labels, data.examples("train").labels[batch.indices])


def test_mixtures_are_of_frames_that_train(corpus: Path) -> None:
    plain, mixed = _data(corpus, val_size=10), _data(corpus, val_size=10, augment=Mixtures(views=3))
    rows = mixed.train_rows[:50]
    assert mixed.view_count == 3
    assert torch.equal(_inputs(mixed, rows, 0), _inputs(plain, rows, 0))
    second = torch.full_like(rows, 2)
    assert isinstance(mixed.augment, Mixtures)
    partners = mixed.augment.partners(rows, second, mixed.train_rows)
    assert torch.isin(partners, mixed.train_rows).all()
    own, others, both = _inputs(plain, rows, 2), _inputs(plain, partners, 2), _inputs(mixed, rows, 2)
    share = ((both - own).flatten(1).norm(dim=1) / (others - own).flatten(1).norm(dim=1)).median()
    torch.testing.assert_close(both, own + share * (others - own), atol=1e-3, rtol=1e-3)
    assert mixed.fingerprint() != plain.fingerprint()


def test_frames_are_kept_once(corpus: Path) -> None:
    data = _data(corpus)
    frames = len(data.examples("train").labels) + len(data.examples("test").labels)
    assert data.examples("train").inputs.ndim == 1
    assert len(data._frames._frames) == frames + 90 * 25  # the ends of 90 recordings repeated


@pytest.mark.parametrize("options", [{"val_size": 20}, {"val_speaker": "bob"}, {"val_size": 10, "train_fraction": 0.5}])
def test_validation_and_fractions_are_of_whole_recordings(options: dict[str, Any], corpus: Path) -> None:
    data = _data(corpus, **options)
    validating, training = _whole(_train(data), data.val_rows), _whole(_train(data), data.train_rows)
    assert not set(validating) & set(training)
    share = options.get("train_fraction", 1.0)
    assert len(validating) == 20 if share == 1 else 10
    assert len(training) == share * (60 - len(validating))
    digits = _train(data).digits[validating].bincount(minlength=10)
    assert digits.min() == digits.max()
    if "val_speaker" in options:
        assert {_train(data).speakers[number] for number in validating} == {"bob"}


def test_labels_are_taken_from_whole_recordings(corpus: Path) -> None:
    data = _data(corpus, val_size=10, label_fraction=0.4)
    labels, known = data.train_labels, data.examples("train").labels
    labelled = (labels >= 0).nonzero().flatten()
    assert len(_whole(_train(data), labelled)) == 20
    assert bool(torch.isin(labelled, data.train_rows).all())
    assert torch.equal(labels[labelled], known[labelled])
    assert torch.equal(_data(corpus, val_size=10).train_labels, known)


def test_official_test_recordings_and_speakers_folds(corpus: Path) -> None:
    official = _data(corpus).sequences("test")
    assert {Path(name).stem.rpartition("_")[2] for name in official.names or ()} == {"0"}
    fold = _data(corpus, fold="eve")
    assert {Path(name).stem.split("_")[1] for name in fold.sequences("test").names or ()} == {"eve"}
    assert set(_train(fold).speakers) == {"ann", "bob"}
    assert len(fold.sequences("test").labels) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": "zoe"}, "fold must be official or a speaker, one of ann, bob, eve, got zoe"),
        ({"val_size": 60}, "val_size must leave something to train on, got 60 of 60 recordings"),
        ({"val_speaker": "zoe"}, "val_speaker must be one of several that train, ann, bob, eve, got zoe"),
        ({"fold": "eve", "val_speaker": "eve"}, "val_speaker must be one of several that train, ann, bob, got eve"),
        ({"val_size": 5, "val_speaker": "bob"}, "val_size and val_speaker exclude each other"),
        ({"states": 0}, "states must be >= 1, got 0"),
        ({"before": -1}, "before must be >= 0, got -1"),
        ({"train_fraction": 0.001}, "the transfer set is empty"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, corpus: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _ = _data(corpus, **options).val_rows


def test_a_fold_needs_recordings_on_both_sides(tmp_path: Path) -> None:
    write_corpus(tmp_path, numbers=(7,), speakers=("ann",))
    with pytest.raises(ValueError, match=r"fold official must leave recordings to train and to test, got 10 and 0"):
        _data(tmp_path)


def test_a_damaged_recording_is_named(corpus: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(corpus, tmp_path / "copy")
    (folder / "3_ann_6.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"3_ann_6.wav is not a whole wav file"):
        _data(folder)


def test_what_another_run_trained_on_is_known(corpus: Path) -> None:
    data = _data(corpus, val_size=20)
    assert data.val_rows_seen(data.provenance()) == 0
    assert data.val_rows_seen(_data(corpus).provenance()) == len(data.val_rows)
    by_speaker = _data(corpus, val_speaker="bob")
    seen = data.val_rows_seen(by_speaker.provenance())
    assert seen == int(torch.isin(data.val_rows, by_speaker.train_rows).sum())
    assert 0 < seen < len(data.val_rows)
    assert data.val_rows_seen(_data(corpus, fold="eve").provenance()) is None  # other rows, which share recordings
    assert data.provenance()["validation_examples"] == len(data.val_rows)


def test_the_fingerprint_is_of_sound_and_context(corpus: Path, tmp_path: Path) -> None:
    first = _data(corpus).fingerprint()
    assert _data(corpus, val_size=20, train_fraction=0.5).fingerprint() == first
    assert _data(corpus, before=19).fingerprint() != first
    folder = shutil.copytree(corpus, tmp_path / "copy")
    write_wav(folder / "3_ann_6.wav", tones(3, seconds=0.2 + 0.01 * (36 % 7), seed=77))
    changed = _data(folder)
    assert torch.equal(changed.examples("train").inputs, _data(corpus).examples("train").inputs)
    assert changed.fingerprint() != first
    assert changed.dataset_identity() != _data(corpus).dataset_identity()


def test_recordings_to_predict_need_no_corpus(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tones(1))
    write_wav(tmp_path / "b.wav", tones(2), rate=8000, width=3)
    data = SpokenDigitsDataModule(str(tmp_path / "nowhere"), recordings=str(tmp_path))
    data.setup("predict")
    sequences = data.sequences("predict")
    assert [Path(name).name for name in sequences.names or ()] == ["a.wav", "b.wav"]
    assert sequences.labels.tolist() == [-1, -1]
    batch = data.on_after_batch_transfer(next(iter(data.predict_dataloader())), 0)
    assert batch.inputs.shape == (int(sequences.starts[-1]), 40, 26)
