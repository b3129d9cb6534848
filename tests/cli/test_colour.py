"""Colour pictures through the same classes and commands as speech and digits: every configuration, study and report."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from kd_lightning import ImageFolderDataModule
from kd_lightning.cli.command_line import main
from kd_lightning.cli.study import planned
from kd_lightning.nets.description import build_net, parameter_count
from kd_lightning.reports.study_file import read_study
from kd_lightning.runs.checkpoints import RECORD_KEY, read_checkpoint
from tests.data.cifar_files import write_cifar
from tests.data.spoken import write_corpus
from tests.guides import blocks

CONFIGS = Path(__file__).parents[2] / "configs"
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
UNTRAINED = ["--model.teachers_must_beat_chance", "false"]


def _fit_configs(folder: str) -> list[Path]:
    paths = sorted((CONFIGS / folder).glob("*.yaml"))
    return [path for path in paths if "\nrows:" not in path.read_text(encoding="utf-8")]


def _some_slow(config: Path) -> Any:  # Any: pytest has no public type for it
    """Three configurations stay in the default run."""
    marks = [pytest.mark.slow] if config.stem in {"distill", "smooth", "student"} else []
    return pytest.param(config, id=config.stem, marks=marks)


def _own_command(config: Path) -> list[str]:
    """The command that a configuration's second line gives."""
    command = re.search(r"#   python -m kd_lightning (.*)", config.read_text(encoding="utf-8"))
    assert command, "a configuration's second line is how to run it"
    arguments = command[1].replace("configs/", f"{CONFIGS}/").split()
    assert str(config) in arguments
    return arguments


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of 32 x 32 in a folder per class, each class a shade."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for part, count in (("train", 2), ("test", 1)):
        for label in range(10):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 20, (32, 32, 3), dtype=np.uint8) + np.uint8(20 * label)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def teacher(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher of configs/cifar10, after one step."""
    run = tmp_path_factory.mktemp("runs") / "teacher"
    flags = ["--data.data_dir", str(pictures), "--trainer.max_epochs", "1"]
    assert main(["fit", "--config", str(CONFIGS / "cifar10/teacher.yaml"), "--run_dir", str(run), *flags, *QUIET]) == 0
    return run


@pytest.mark.parametrize("config", [_some_slow(config) for config in _fit_configs("cifar10")])
def test_every_config_of_ten_classes_runs_one_step_by_its_own_command(
    config: Path, teacher: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = _own_command(config)
    data = pictures
    if config.stem == "torchvision":
        data = Path("data")
        write_cifar(data, "CIFAR10", monkeypatch, train=20, test=10)
    flags = ["--data.data_dir", str(data), "--data.batch_size", "8", "--trainer.fast_dev_run", "true"]
    if any("distill.yaml" in argument for argument in command):
        flags += ["--model.teachers", str(teacher), *UNTRAINED]
    assert main([*command, "--run_dir", "run", *QUIET, *flags]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("config", _fit_configs("cifar100"), ids=lambda path: path.stem)
def test_every_config_of_a_hundred_classes_runs_one_step(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(Path("data"), "CIFAR100", monkeypatch, train=100)
    flags = ["--data.batch_size", "4", "--trainer.max_steps", "1", *QUIET]
    must_run = re.search(r"# Must run first: (\S+)\.yaml", config.read_text(encoding="utf-8"))
    if must_run:
        assert main([*_own_command(CONFIGS.parent / f"{must_run[1]}.yaml"), *flags]) == 0
        flags += UNTRAINED
    assert main([*_own_command(config), *flags]) == 0


@pytest.mark.slow
def test_the_four_pairs_have_the_published_sizes_and_run_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(Path("data"), "CIFAR100", monkeypatch, train=100)
    sizes: dict[str, str] = {}
    for row, _ in planned(read_study(CONFIGS / "cifar100/pairs.yaml"), seeds=1):
        flags = ["--data.batch_size", "4", "--trainer.max_steps", "1", "--run_dir", f"runs/{row.name}", *QUIET]
        for name, _ in row.teachers:
            flags += ["--model.teachers", f"runs/{name.name}", *UNTRAINED]
        assert main(["fit", *row.flags(), *flags]) == 0, row.name
        checkpoint = read_checkpoint(Path("runs", row.name, "checkpoints/last.ckpt"))
        sizes[row.name] = f"{parameter_count(build_net(checkpoint[RECORD_KEY]['net'])) / 1e6:.2f}"
        if not row.teachers:
            assert f", {sizes[row.name]} M weights" in row.what
    teachers = {"resnet56": "0.86", "resnet32x4": "7.43", "wrn-40-2": "2.26", "vgg13": "9.46"}
    students = {"resnet20": "0.28", "resnet8x4": "1.23", "wrn-16-2": "0.70", "vgg8": "3.97"}
    taught = {f"{name}-distilled": size for name, size in students.items()}
    assert sizes == teachers | students | taught


@pytest.mark.parametrize(("folder", "name"), [("cifar10", "table"), ("cifar100", "pairs")])
def test_the_studies_are_understood(folder: str, name: str) -> None:
    study = read_study(CONFIGS / folder / f"{name}.yaml")
    assert planned(study)
    for row in study.rows:  # the same net for a student, however it is trained
        nets = {key: value for key, value in row.settings()["options"].items() if key.startswith("model.student")}
        plain = next((other for other in study.rows if row.name == f"{other.name}-distilled"), None)
        if plain is not None:
            others = plain.settings()["options"].items()
            assert nets == {key: value for key, value in others if key.startswith("model.student")}


def test_the_guides_fits_are_those_of_the_configurations() -> None:
    guide = (CONFIGS.parent / "docs" / "colour.md").read_text(encoding="utf-8")
    shown = re.findall(r"^python -m kd_lightning (fit .*)$", guide, flags=re.MULTILINE)
    known = [" ".join(_own_command(path)) for path in (*_fit_configs("cifar10"), *_fit_configs("cifar100"))]
    assert len(shown) >= 6
    assert {command.replace("configs/", f"{CONFIGS}/") for command in shown} <= set(known)


def test_the_guide_writes_the_published_pictures_into_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(Path("data"), "CIFAR10", monkeypatch, train=40, test=20)
    (lines,) = blocks(CONFIGS.parent / "docs" / "colour.md", "python")
    exec(lines, {})  # noqa: S102  # the guide's own lines, in this test's folder
    data = ImageFolderDataModule("data/cifar10")
    data.setup("fit")
    published = CIFAR10("data")
    assert data.class_names == published.classes
    inputs, labels = data.examples("train").inputs, data.examples("train").labels
    shown = {tuple(pixels.flatten().tolist()): int(label) for pixels, label in zip(inputs, labels, strict=True)}
    expected = {tuple(np.asarray(picture).transpose(2, 0, 1).ravel().tolist()): label for picture, label in published}
    assert shown == expected


def _metrics(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.slow
def test_speech_and_colour_pictures_train_through_the_same_classes(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", numbers=(0, 1, 5, 6, 7, 8), speakers=("ann", "bob"))
    small = {"speech": "[32]", "cifar10": "[8]"}
    for folder, data in (("speech", corpus), ("cifar10", pictures)):
        flags = ["--data.data_dir", str(data), "--data.val_size", "10", "--trainer.max_epochs", "3", *QUIET]
        width = "hidden" if folder == "speech" else "channels"
        for config in ("teacher", "student", "distill"):
            own = [*flags, "--run_dir", f"runs/{folder}/{config}"]
            if config != "teacher":
                own += [f"--model.student.{width}", small[folder]]
            if config == "distill":
                own += ["--model.teachers", f"runs/{folder}/teacher", "--model.soft_targets", "stored", *UNTRAINED]
            assert main(["fit", "--config", str(CONFIGS / folder / f"{config}.yaml"), *own]) == 0
            assert main(["test", "--ckpt_path", f"runs/{folder}/{config}", *QUIET]) == 0
    for folder, unit in (("speech", "frames"), ("cifar10", "images")):
        assert _metrics(Path(f"runs/{folder}/distill"))["unit"] == unit
        capsys.readouterr()
        assert main(["report", f"runs/{folder}"]) == 0
        examples = _metrics(Path(f"runs/{folder}/distill"))["test"]["examples"]
        assert f"errors of {examples:,} test {unit}" in " ".join(capsys.readouterr().out.split())
        page = Path(f"runs/{folder}/report.html").read_text(encoding="utf-8")
        other = "frames" if unit == "images" else "images"
        assert f"test {unit}" in page
        assert f"test {other}" not in page


def test_no_class_of_its_own_trains_colour_pictures() -> None:
    package = Path(main.__code__.co_filename).parents[1]
    for room in ("modules", "teachers", "runs", "reports", "training", "methods", "cli"):
        for file in (package / room).glob("*.py"):
            assert not re.search(r"\b(CIFARData|ImageFolder|ResNet|VGG)", file.read_text(encoding="utf-8")), file


def test_no_pictures_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "cifar10/teacher.yaml")
    assert main(["fit", "--config", config, "--data.data_dir", "nowhere", *QUIET]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "no folder nowhere/train; expected one with a folder of pictures per class" in errors[0]
