"""The short lists of options: all of them, in step with the code and with docs/options.md."""

import inspect
from pathlib import Path

import pytest
from lightning import LightningDataModule

import kd_lightning
from kd_lightning import Augment, ClassifierModule, FeatureLoss, SoftLoss, main
from kd_lightning.cli.arguments import ARGUMENTS, OPTIONS_POINTER, OTHER_COMMANDS, OTHER_COMMANDS_HELP, SUBCOMMANDS
from kd_lightning.cli.options import GROUPS, PARSERS, Option, markdown, options_of, options_of_command, run_options

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_is_in_step_with_the_code() -> None:
    expected = "python -m kd_lightning options --markdown true > docs/options.md"
    assert PAGE.read_text(encoding="utf-8") == markdown(), f"write it again: {expected}"


@pytest.mark.parametrize(("width", "most"), [(80, 56), (120, 55)])
def test_one_screen_holds_the_options_of_run_student_and_data(
    width: int, most: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    run_options([])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) <= width
    shown = [line.split()[0] for line in lines if line.startswith("  ")]
    assert {*ARGUMENTS, *inspect.signature(kd_lightning.DistillModule).parameters} <= set(shown)
    (temperature,) = (line for line in lines if line.startswith("  temperature "))
    kind = ["float", "|", "Linear"] if width == 120 else []
    assert temperature.split()[: len(kind) + 2] == ["temperature", *kind, "20.0"]
    assert any(line.startswith("  run_dir ") and " runs/unnamed/run " in line for line in lines)
    end = lines.index("classes, for class_path")
    assert not any("…" in line for line in lines[end:])
    listed = {word.strip(",") for line in lines[end:] for word in line.split()}
    assert {name for *_, names in GROUPS for name in names} <= listed
    assert " ".join(" ".join(lines[-4:]).split()).endswith(
        "All of a class's options, each in full: python -m kd_lightning options CLASS "
        "The run's in full, and those of the trainer: python -m kd_lightning fit --help"
    )


def test_in_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    run_options([])
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) > 120


def test_every_class_that_a_configuration_can_name_is_listed() -> None:
    listed = {name for *_, names in GROUPS for name in names}
    bases = (ClassifierModule, LightningDataModule, SoftLoss, FeatureLoss, Augment)
    public = {name: getattr(kd_lightning, name) for name in kd_lightning.__all__}
    named = {name for name, made in public.items() if isinstance(made, type) and issubclass(made, bases)}
    assert {name for name in named if not inspect.isabstract(public[name])} <= listed


def test_options_that_a_constructor_hands_on_are_listed() -> None:
    found = {option.name: option for option in options_of(kd_lightning.ImageFolderDataModule)}
    assert found["size"] == Option("size", "int | list[int] | null", "null", found["size"].text)
    assert found["images"].text.startswith("An image file")
    assert found["val_size"].default == "0"
    assert "options" not in found


def test_each_option_has_a_meaning() -> None:
    for *_, names in GROUPS:
        for name in names:
            for option in options_of(getattr(kd_lightning, name)):
                assert option.text, f"{name}.{option.name}"


def test_the_page_lists_what_the_other_subcommands_take() -> None:
    found = {command: {each.name: each for each in options_of_command(made())} for command, made in PARSERS.items()}
    assert set(found) == set(OTHER_COMMANDS) - {"options", "completion"}
    assert found["study"]["--seeds"][1:3] == ("PositiveInt | null", "null")
    assert found["study"]["--rows"][1:3] == ("list[str]", "null")
    assert found["export"]["run"][1:3] == ("str", "required")
    assert found["export"]["--format"][1:3] == ("safetensors | pt2 | onnx | onnx-int8", "onnx")
    assert all(option.text for options in found.values() for option in options.values())


def test_one_class_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    run_options(["kd_lightning.DKD"])
    assert "other_weight: float, default 8.0\n    Factor of the term" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nope", "no class Nope; expected one that python -m kd_lightning options lists, or an import path"),
        ("mlpp", "no class mlpp; did you mean MLP"),
        ("my_project.Net", "no class my_project.Net; "),
        ("kd_lightning.main", "must be a class"),
    ],
)
def test_what_is_no_class_is_said(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run_options([name])


def test_help_lists_all_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert OTHER_COMMANDS.keys() == OTHER_COMMANDS_HELP.keys()
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert {line.split()[0] for line in shown.splitlines() if line.startswith("    ") and line[4] != " "} >= {
        *SUBCOMMANDS,
        *OTHER_COMMANDS,
    }


def test_the_long_help_points_to_the_short_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith(OPTIONS_POINTER)
    assert OPTIONS_POINTER in " ".join(shown.split()[:200])
    assert "--run_dir" in shown
    assert "--save_every" not in shown  # which only fit has
    assert main(["fit", "--help"]) == 0
    assert "--save_every" in capsys.readouterr().out
