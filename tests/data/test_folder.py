"""Pictures in a folder per class: what is read, cached, cut, predicted and refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from kd_lightning import CropMirror, ImageFolderDataModule, SmallConvNet, TeacherModule
from kd_lightning.data.decoded import PictureCache, Pictures
from kd_lightning.data.pictures import PictureFormat

QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def _write(root: Path, classes: tuple[str, ...], count: int, seed: int, side: int = 8) -> None:
    random = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = random.integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{number}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write(tmp_path / "pets" / "train", ("cat", "dog", "emu"), 10, seed=0)
    _write(tmp_path / "pets" / "test", ("cat", "dog", "emu"), 3, seed=1)
    return tmp_path / "pets"


def _read(folder: Path, **options: Any) -> ImageFolderDataModule:
    data = ImageFolderDataModule(str(folder), **options)
    data.prepare_data()
    data.setup("fit")
    return data


def _pixels(data: ImageFolderDataModule) -> torch.Tensor:
    return data.examples("train").inputs


def test_pictures_and_classes_are_those_of_torchvision(folder: Path) -> None:
    data = _read(folder)
    for part in ("train", "test"):
        theirs = ImageFolder(str(folder / part), transforms.ToTensor())
        inputs, labels = data.examples(part)
        assert labels.tolist() == theirs.targets
        torch.testing.assert_close(data.to_inputs(inputs, None), torch.stack([picture for picture, _ in theirs]))
    assert data.class_names == ["cat", "dog", "emu"]
    assert data.num_classes == 3
    assert data.describe().endswith("pets/train, 30 training and 0 validation images")


def test_it_trains_and_tests(folder: Path) -> None:
    data = ImageFolderDataModule(str(folder), val_size=6, batch_size=8, augment=CropMirror(1, views=5), seed=0)
    module = TeacherModule(net=SmallConvNet(channels=[4], hidden=8, classes=3, side=8, in_channels=3))
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", enable_checkpointing=False, **QUIET)
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    assert int(trainer.callback_metrics["test/errors"]) <= 9
    assert module.net[0].mean.shape == (3,)  # type: ignore[index]  # what was measured


def test_the_second_run_reads_the_cache(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        first = _pixels(_read(folder))
        assert caplog.text.count("decoding 30 pictures of ") == 1
        assert caplog.text.count("decoding 9 pictures of ") == 1
        assert torch.equal(first, _pixels(_read(folder)))
        assert caplog.text.count("decoding") == 2


def _repaint(folder: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(folder / "train" / "dog" / "3.png")


def _touch(folder: Path) -> None:
    os.utime(folder / "train" / "dog" / "3.png", ns=(5, 5))


def _add(folder: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(folder / "train" / "dog" / "99.png")


def _remove(folder: Path) -> None:
    (folder / "train" / "dog" / "3.png").unlink()


def _swap_names(folder: Path) -> None:
    one, other = (folder / "train" / "dog" / f"{number}.png" for number in (3, 4))
    one.rename(folder / "x.png")
    other.rename(one)
    (folder / "x.png").rename(other)


@pytest.mark.parametrize("change", [_repaint, _touch, _add, _remove, _swap_names])
def test_changed_pictures_are_decoded_again(
    change: Callable[[Path], None], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = _read(folder)
    change(folder)
    caplog.clear()
    with caplog.at_level("INFO"):
        now = _read(folder)
    assert caplog.text.count("decoding") == 1  # the test pictures are as they were
    assert torch.equal(_pixels(now), _pixels(_read(folder, cache_dir=None)))
    assert (before.dataset_identity() == now.dataset_identity()) == (change is _touch)
    assert len(list(Path("runs/pictures").iterdir())) == 2  # nothing old is left


def test_a_first_letter_counts_where_the_folder_is_the_current_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "train")

    def cache() -> PictureCache:
        files = sorted(Path().glob("*/*.png"))
        return PictureCache(tmp_path, Pictures(Path(), files, PictureFormat(3, None, "white"), limit_gb=1.0))

    before = cache()
    Path("cat").rename("bat")
    assert before._key != cache()._key


@pytest.mark.parametrize("place", [40, -1])
def test_a_damaged_cache_is_decoded_again_and_said_so(
    place: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = _pixels(_read(folder))
    for file in Path("runs/pictures").glob("train-*"):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content[:-1] if place == 40 else content)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert torch.equal(first, _pixels(_read(folder)))
    assert "is damaged; the pictures are decoded again" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        _read(folder)
    assert caplog.text == ""


def test_a_cache_that_can_not_be_written_is_done_without(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("file").touch()
    with caplog.at_level("INFO"):
        assert len(_pixels(_read(folder, cache_dir="file/cache"))) == 30
    assert "the decoded pictures can't be kept in file/cache/train-" in caplog.text


def test_other_ways_of_reading_have_their_own_cache_and_the_same_identity(folder: Path) -> None:
    whole, small = _read(folder), _read(folder, size=[4, 6], channels=1)
    assert _pixels(small).shape == (30, 1, 4, 6)
    assert torch.equal(_pixels(whole), _pixels(_read(folder)))
    assert small.dataset_identity() == whole.dataset_identity()
    assert small.fingerprint() != whole.fingerprint()


def test_what_another_run_has_seen_is_told_by_content(folder: Path, tmp_path: Path) -> None:
    teacher = _read(folder, val_size=9, split_seed=1, size=4)
    (tmp_path / "moved").mkdir()
    student = _read(folder.rename(tmp_path / "moved" / "elsewhere"), val_size=9, split_seed=2)
    seen = int(torch.isin(student.val_rows, teacher.train_rows).sum())
    assert 0 < seen == student.val_rows_seen(teacher.provenance())


def test_what_a_run_on_one_picture_less_has_seen_is_not_known(folder: Path) -> None:
    teacher = _read(folder, val_size=9).provenance()
    added = next((folder / "train").rglob("*.*"))
    shutil.copy(added, added.with_stem("added"))
    assert _read(folder, val_size=9).val_rows_seen(teacher) is None
    assert _read(folder).val_rows_seen(teacher) == 0  # nothing validates


def test_test_pictures_can_be_cut_off(folder: Path) -> None:
    data = _read(folder, test_dir=None, test_size=6, split_seed=1)
    other = _read(folder, test_dir=None, test_size=6, split_seed=2)
    assert data.examples("test").labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(data.examples("train").labels) == 24
    assert torch.equal(data.examples("test").inputs, other.examples("test").inputs)
    both = torch.cat([data.examples(part).inputs for part in ("train", "test")])
    assert len({picture.numpy().tobytes() for picture in both}) == 30
    assert data.dataset_identity() != _read(folder).dataset_identity()
    with pytest.raises(ValueError, match="test_size must leave something to train on, got 30 of 30 images"):
        _read(folder, test_dir=None, test_size=30)
    with pytest.raises(ValueError, match="there are no test pictures: name their folder with test_dir"):
        _read(folder, test_dir=None).test_dataloader()


def test_picture_files_are_predicted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "test" / "emu" / "1.png"
    data = ImageFolderDataModule("nowhere", images=[str(file)])  # the training pictures need not be there
    data.prepare_data()
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert isinstance(batch.inputs, torch.Tensor)
    assert torch.equal(batch.inputs[0], _read(folder).examples("test").inputs[7])
    assert batch.labels.tolist() == [-1]
    assert data.predict_names == [str(file)]
    Image.new("RGB", (4, 4)).save("small.png")
    data = ImageFolderDataModule("nowhere", images=[str(file), "small.png"])
    data.setup("predict")
    with pytest.raises(ValueError, match=r"small\.png has another size than .*1\.png: set size"):
        data.predict_dataloader()


def _empty(folder: Path) -> None:
    for file in (folder / "train" / "dog").iterdir():
        file.unlink()


def _damage(folder: Path) -> None:
    for number in range(5):
        (folder / "train" / "dog" / f"{number}.png").write_bytes(b"")


def _rename(folder: Path) -> None:
    (folder / "test" / "cat").rename(folder / "test" / "cats")


def _larger(folder: Path) -> None:
    _write(folder / "train", ("emu",), 1, seed=3, side=9)


def _all_larger(folder: Path) -> None:
    _write(folder / "test", ("cat", "dog", "emu"), 3, seed=3, side=9)


def _no_folders(folder: Path) -> None:
    (folder / "train").rename(folder / "test" / "cat" / "deep")
    (folder / "train").mkdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_empty, r"no picture \(.*\) in .*train/dog; remove it, or fill it"),
        (_damage, r"5 of 30 pictures in .*train can't be used, .*dog/0\.png is not a .*; and 2 more"),
        (_rename, r"the folders in .*test must have names of the training classes, cat, dog, emu, got cats"),
        (_larger, r"emu/0\.png is 9 x 9, the first one, 0\.png, 8 x 8: set size"),
        (_all_larger, r"the test pictures are 9 x 9, the training pictures 8 x 8: set size"),
        (_no_folders, r"no folder in .*train; expected one per class"),
    ],
)
def test_what_can_not_be_read_is_named(change: Callable[[Path], None], message: str, folder: Path) -> None:
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _read(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dir": "nowhere"}, "no folder nowhere/train; .* set data_dir and train_dir"),
        ({"test_dir": "exam"}, "no folder .*pets/exam; .* set test_dir, or null and test_size"),
        ({"test_size": 5}, "give test_dir, or test_size > 0 with test_dir null, got test_dir test and test_size 5"),
        ({"limit_gb": 0}, "limit_gb must be > 0, got 0"),
        (
            {"limit_gb": 1e-6},
            r"the 30 pictures of .* take 5.76e-06 GB \(30 x 3 x 8 x 8 bytes\), expected at most limit_gb 1e-06: raise",
        ),
        ({"keep_classes": [3]}, r"keep_classes must be class numbers from 0 to 2, got \[3\]"),
        ({"channels": 4}, "channels must be 3"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        _read(**{"folder": folder, **({"folder": options.pop("data_dir")} if "data_dir" in options else {}), **options})


def test_a_limit_holds_for_cached_pictures_too(folder: Path) -> None:
    _read(folder)
    with pytest.raises(ValueError, match="expected at most limit_gb 1e-06"):
        _read(folder, limit_gb=1e-6)
