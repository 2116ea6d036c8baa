"""Shared by all tests: quiet machines, outputs in a temporary folder, the real data slices."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Iterator

import browsers
import pytest
from hypothesis import settings
from terminal import signals_of_a_terminal  # noqa: F401 - a fixture of every test

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the network

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: kernels run without a GPU

settings.register_profile("workbook", deadline=None, derandomize=True)  # shared cores: time says nothing
settings.load_profile("workbook")

VARIABLE = "ZEROSEARCH_SHARED_DATA"
# How reasons for skipping begin.
_NO_DATA, _NO_BROWSER, _NO_TRITON = "real data: expected", "expected a Chromium", "expected triton"


@pytest.fixture(scope="session")
def _shared_data_folder() -> Path | None:
    """The folder with qa/, corpus/, raw/ and serpapi/, None where it is not on this machine."""
    folder = Path(os.environ.get(VARIABLE, ""))
    return folder.resolve() if os.environ.get(VARIABLE) and (folder / "qa").is_dir() else None


@pytest.fixture
def shared_data(_shared_data_folder: Path | None) -> Path:
    """The folder with slices of the real data sets.

    Where it is missing, a test fails in continuous integration; elsewhere it is skipped and counted.
    """
    if _shared_data_folder is not None:
        return _shared_data_folder
    found = os.environ.get(VARIABLE) or "nothing"
    message = f"{_NO_DATA} {VARIABLE} to name a folder with qa/*.jsonl, found {found}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def triton() -> None:
    """Triton, which the extra [dev] brings on Linux x86-64.

    Where it is missing there, a test fails; on other machines it is skipped and counted.
    """
    if importlib.util.find_spec("triton") is None:
        message = f"{_NO_TRITON}, found none"
        if sys.platform == "linux" and platform.machine() == "x86_64":
            pytest.fail(f"{message}; run `pip install -c constraints.txt -e '.[dev]'`")
        pytest.skip(message)


@pytest.fixture(scope="session")
def _browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser | None]:
    """One browser for all tests, None where the machine has none."""
    program = browsers.find()
    found = browsers.Browser(program, tmp_path_factory.mktemp("browser")) if program else None
    yield found
    if found is not None:
        found.close()


@pytest.fixture
def browser(_browser: browsers.Browser | None) -> browsers.Browser:
    """A headless Chromium; where there is none, a test is skipped and counted."""
    if _browser is None:
        pytest.skip(f"{_NO_BROWSER} ({', '.join(browsers.NAMES)}), found none; name one with {browsers.VARIABLE}")
    _browser.resize(1200, 900)
    _browser.prefer("light")
    return _browser


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of outputs/."""
    folder = tmp_path / "outputs"
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(folder))
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests had no real data to work on, how many no browser or no Triton."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]  # of all workers
    for what, needed in (
        (_NO_DATA, f"the real data slices; set {VARIABLE}"),
        (_NO_TRITON, "Triton, for which this is not the machine (Linux x86-64),"),
        (_NO_BROWSER, f"a Chromium; install one, or name it with {browsers.VARIABLE},"),
    ):
        if count := sum(what in reason for reason in reasons):
            terminalreporter.write_line(f"{count} tests skipped for want of {needed} to run them")
