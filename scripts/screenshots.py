"""Open TensorBoard and a report in a real browser, and keep what it shows.

    python -m scripts.screenshots runs/quickstart --output docs     # needs the extra kd_lightning[browser] and Chromium

The tests marked browser use the same functions.
"""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import jsonargparse

# TensorBoard's tabs, the wait until they have drawn, and what else must be clicked.
TABS = ("custom_scalars", "images", "hparams", "text")
# Text of everything that is shown, also inside shadow roots, where TensorBoard keeps its charts.
ALL_TEXT = """
const texts = [];
const walk = node => {
  if (node.shadowRoot) walk(node.shadowRoot);
  if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) texts.push(node.textContent.trim());
  if (!["SCRIPT", "STYLE"].includes(node.nodeName)) node.childNodes.forEach(walk);
};
walk(document.body);
return texts.join("\\n");
"""
# A picture counts once it has pixels.
IMAGES = """
const found = [];
const walk = node => {
  if (node.shadowRoot) walk(node.shadowRoot);
  if (node.nodeName === "IMG" && node.naturalWidth > 0) found.push([node.naturalWidth, node.naturalHeight]);
  node.childNodes.forEach(walk);
};
walk(document.body);
return found;
"""


@contextmanager
def browser(width: int = 1400, height: int = 900) -> Iterator[Any]:  # Any: selenium's driver
    """A headless Chromium that keeps its console."""
    from selenium import webdriver  # comes with the extra kd_lightning[browser]

    options = webdriver.ChromeOptions()
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-proxy-server", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--window-size={width},{height}")
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver") or ""))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """TensorBoard over a folder; yields its address.

    Raises:
        TimeoutError: If it does not answer within a minute.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603  # our own
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urlopen(f"{address}/data/runs", timeout=5).close()  # noqa: S310  # this machine's own server
                break
            except (URLError, OSError):
                time.sleep(0.5)
        else:
            raise TimeoutError(f"TensorBoard over {logdir} does not answer")
        yield address
    finally:
        server.terminate()
        server.wait()


def open_tab(driver: Any, address: str, tab: str, wait_for: str, seconds: float = 60) -> str:
    """Open a tab and give its text once that holds `wait_for`.

    The tab is opened again each ten seconds: that of the hyperparameters shows what TensorBoard had read when it was
    opened, and on a slow machine that is not yet every run.

    Raises:
        TimeoutError: If it never does.
    """
    text = ""
    for half_second in range(int(2 * seconds)):
        if half_second % 20 == 0:
            driver.get("about:blank")
            driver.get(f"{address}/?darkMode=false#{tab}")
        time.sleep(0.5)
        text = str(driver.execute_script(ALL_TEXT))
        if wait_for in text:
            time.sleep(3)  # until the charts are drawn
            return str(driver.execute_script(ALL_TEXT))
    raise TimeoutError(f"the tab {tab} does not show {wait_for}; it shows:\n{text[:2000]}")


def run(runs: str, output: str = "docs", report: str | None = None) -> None:
    """Keep a picture of each of TensorBoard's tabs, and of a report's page.

    Args:
        runs: Folder of runs.
        output: Folder of the pictures.
        report: A report.html; by default the one in the folder of runs, where there is one.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    waited = dict(zip(TABS, ("soft loss, validation", "confusion", "temperature", "soft_weight"), strict=True))
    with browser() as driver, tensorboard(Path(runs)) as address:
        for tab, text in waited.items():
            open_tab(driver, address, tab, text)
            _save(driver, folder / f"tensorboard-{tab.replace('_', '-')}.png")
        page = Path(report) if report else Path(runs) / "report.html"
        if page.is_file():
            driver.set_window_size(1300, 1710)  # as wide as the table, as high as the first pictures
            driver.get(page.absolute().as_uri())
            _save(driver, folder / "report.png")


def _save(driver: Any, path: Path) -> None:
    driver.save_screenshot(str(path))
    print(f"written: {path}")


if __name__ == "__main__":
    jsonargparse.auto_cli(run)
