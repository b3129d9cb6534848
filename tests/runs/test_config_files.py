"""Configuration files that the parser would read in silence, or refuse without their name."""

import re
from pathlib import Path

import pytest

from kd_lightning.cli.command_line import main
from kd_lightning.runs.config_files import check_config_files, option_values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "configuration my.yaml must hold options, each as `name: value`, got a list"),
        (b"", "configuration my.yaml must hold options, each as `name: value`, got nothing"),
        (b"model\n", "configuration my.yaml must hold options, each as `name: value`, got one value"),
        (b"run_dir: caf\xe9\n", "configuration my.yaml must be UTF-8 text: invalid continuation byte at byte 12"),
        (b"a: [1\n", "configuration my.yaml, line 2 is no YAML: expected ',' or ']', but got '<stream end>'"),
        (b"a: \x00\n", "configuration my.yaml is no YAML: unacceptable character #x0000"),
        (
            b"model:\n  init_args:\n    temperature: 1\n    soft_weight: 1\n    temperature: 2\n",
            "configuration my.yaml has model.init_args.temperature twice, in lines 3 and 5; keep one of them",
        ),
        (
            b"trainer: {callbacks: [{class_path: A, class_path: B}]}\n",
            "configuration my.yaml has trainer.callbacks[0].class_path twice, in lines 1 and 1; keep one of them",
        ),
    ],
)
def test_a_bad_configuration_is_named(content: bytes, message: str) -> None:
    Path("my.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_config_files(["fit", "--config", "my.yaml"])


def test_main_looks_at_the_configuration_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.yaml").write_text("seed_everything: 1\nseed_everything: 2\n")
    assert main(["fit", "--config=my.yaml"]) == 1
    assert "error: configuration my.yaml has seed_everything twice, in lines 1 and 2" in capsys.readouterr().err


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder; expected a YAML file"):
        check_config_files(["fit", "--config", str(tmp_path)])


def test_the_values_of_an_option() -> None:
    arguments = ["fit", "--config=a.yaml", "--run_dir", "-c", "-c", "b.yaml", "--configs", "c.yaml", "--config"]
    assert option_values(arguments, ["-c", "--config"]) == ["a.yaml", "-c", "b.yaml"]


@pytest.mark.parametrize("given", [[], ["--ckpt_path", "last"], ["--ckpt_path", "."]])
def test_an_evaluation_of_no_run_says_what_it_needs(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", *given]) == 1
    shown = capsys.readouterr().err
    assert "error: test needs a trained net: --ckpt_path with a run's folder or a file of its checkpoints" in shown
    if given:
        assert f"got {given[1]}, which belongs to no run with a config.yaml; or name one with --config" in shown


def test_a_fit_of_nothing_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 1
    wording = "the following arguments are required: model|Option 'model' is required but .*None"  # of two releases
    needed = rf"error: ({wording}); name a configuration with --config, or a module with --model"
    assert re.search(needed, capsys.readouterr().err)


def test_a_file_is_not_read_in_another_encoding_than_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("run_dir: é", encoding="utf-8")
    check_config_files(["--config", str(file)])
    monkeypatch.setattr("locale.getpreferredencoding", lambda _: "ISO-8859-1")
    with pytest.raises(ValueError, match=r"a\.yaml is UTF-8 text and would be read as ISO-8859-1 in this locale"):
        check_config_files(["--config", str(file)])
    file.write_text("run_dir: e", encoding="utf-8")
    check_config_files(["--config", str(file)])
