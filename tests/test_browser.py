"""TensorBoard and the report in a real browser. Needs Chromium and its driver: apt install chromium chromium-driver."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kd_lightning.cli.command_line import main
from scripts.screenshots import ALL_TEXT, IMAGES, browser, open_tab, tensorboard

CONFIGS = Path(__file__).parent.parent / "configs" / "quickstart"
QUIET = ["--trainer.enable_progress_bar", "false"]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="no Chromium driver here"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    student = ["--config", str(CONFIGS / "distill.yaml"), "--model.teachers", str(root / "teacher")]
    for name, flags in {
        "teacher": ["--config", str(CONFIGS / "teacher.yaml"), "--model.net.hidden", "[40]"],
        "cold": [*student, "--model.temperature", "2", "--model.student.hidden", "[20]"],
        "hot": [*student, "--model.temperature", "20", "--model.student.hidden", "[20]"],
    }.items():
        assert main(["fit", *flags, "--run_dir", str(root / name), "--trainer.max_epochs", "2", *QUIET]) == 0
        assert main(["test", "--ckpt_path", str(root / name), *QUIET]) == 0
    assert main(["report", str(root)]) == 0
    return root


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as opened:
        yield opened


def test_tensorboards_tabs_show(runs: Path, driver: Any) -> None:
    with tensorboard(runs) as address:
        first = open_tab(driver, address, "timeseries", "/hard_loss_training")  # TensorBoard splits tags
        assert "epoch" not in first.split()
        charts = open_tab(driver, address, "custom_scalars", "soft loss, training")
        for name in (
            "hard loss, training",
            "hard loss, validation",
            "accuracy of the teachers",
            "share of the soft loss",
            "rate",
        ):
            assert name in charts
        assert "train/soft_loss" in charts
        pictures = open_tab(driver, address, "images", "confusion")
        assert "soft targets" in pictures
        assert all(width > 100 for width, _ in driver.execute_script(IMAGES))
        assert driver.execute_script(IMAGES)
        hyperparameters = open_tab(driver, address, "hparams", "temperature")
        for name in ("soft_weight", "test/errors", "val/accuracy"):
            assert name in hyperparameters
        text = open_tab(driver, address, "text", "soft_weight")
        assert "class_path: kd_lightning.DistillModule" in text


def test_the_report_shows_and_asks_for_nothing(runs: Path, driver: Any) -> None:
    driver.get_log("browser")  # forget what other pages said
    driver.get((runs / "report.html").as_uri())
    text = driver.execute_script(ALL_TEXT)
    for shown in ("cold", "hot", "teacher", "Loss curves", "Accuracy, reliability, errors by class", "Confusion"):
        assert shown in text
    assert len(driver.execute_script(IMAGES)) >= 4
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect().width)"
    )
    assert len(drawn) >= 8
    assert all(width > 100 for width in drawn)
    # The page forbids itself every request: one that it tried all the same would be an error on the console.
    assert "default-src 'none'" in driver.page_source
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    wide = driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0


def test_the_report_is_dark_where_the_reader_wants_it(runs: Path, driver: Any) -> None:
    shown = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        driver.get((runs / "report.html").as_uri())
        shown[scheme] = driver.execute_script(
            "const body = getComputedStyle(document.body), chart = getComputedStyle(document.querySelector('svg'));"
            "return [body.backgroundColor, body.color, chart.filter]"
        )
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert shown["light"] == ["rgb(255, 255, 255)", "rgb(34, 34, 34)", "none"]
    assert shown["dark"][:2] == ["rgb(27, 27, 27)", "rgb(221, 221, 221)"]
    assert "invert" in shown["dark"][2]
