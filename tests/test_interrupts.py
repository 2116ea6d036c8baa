"""interrupts.py, processes.FolderLock, and a kernel that is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from zerosearch import artifacts
from zerosearch.errors import ConfigError
from zerosearch.interrupts import SIGNALS, Stopped, StopRequest
from zerosearch.processes import FolderLock, ProcessId, alive


@pytest.mark.parametrize("number", SIGNALS)
def test_the_unit_under_way_is_finished(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before, units = signal.getsignal(number), 0
    with pytest.raises(Stopped, match="stopped as asked; 2 of 5 units saved; to go on from there run"):
        with StopRequest() as stop:
            for _ in range(5):
                if units == 1:
                    signal.raise_signal(number)
                units += 1
                stop.check(f"{units} of 5 units")
    assert units == 2 and signal.getsignal(number) is before and "saving first" in capsys.readouterr().out


def test_asked_twice_it_ends_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGTERM)


def test_nobody_asked() -> None:
    with StopRequest() as stop:
        stop.check("everything")
    assert not stop.requested


def test_in_another_thread_signals_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


# -- one process at a time ------------------------------------------------------------------------

HOLD = """import sys, time
from zerosearch import artifacts
stage = artifacts.open_stage("a", "01", {"n": 1})
stage.write_text("half", "result.csv")
print("open", flush=True)
time.sleep(600)
"""


def start(code: str, through: bool = False) -> subprocess.Popen[str]:
    """Start Python code as a child; through: as the child of a child, whose parent can be killed."""
    if through:
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "open\n"
    return process


def test_a_stage_at_work_elsewhere_is_not_emptied(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = start(HOLD)
    try:
        monkeypatch.setattr(FolderLock.take, "__defaults__", (0.3,))
        with pytest.raises(ConfigError, match=rf"stage 01 of run 'a'.*process {other.pid} .*--run NAME"):
            artifacts.open_stage("a", "01", {"n": 2})
        assert (outputs / "a" / "01_collect" / "result.csv").read_text() == "half"
        artifacts.open_stage("b", "01", {"n": 2})  # another run does not care
    finally:
        other.kill()
        other.wait()
    assert artifacts.open_stage("a", "01", {"n": 1}).resumed


def test_an_orphan_that_does_not_end_is_ended(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = start(HOLD, through=True)
    orphan = ProcessId.of(psutil.Process(parent.pid).children()[0])
    parent.kill()
    parent.wait()
    assert alive(orphan)
    monkeypatch.setattr(FolderLock.take, "__defaults__", (0.3,))
    assert artifacts.open_stage("a", "01", {"n": 1}).resumed and not alive(orphan)


def test_a_finished_stage_is_free(outputs: Path) -> None:
    """A notebook that stays open after its last cell is in nobody's way."""
    other = start(HOLD.replace('print("open"', 'stage.finish()\nprint("open"'))
    assert not artifacts.open_stage("a", "01", {"n": 1}).resumed
    other.kill()
    other.wait()


# -- a notebook -----------------------------------------------------------------------------------

RUNNER = """import sys
from pathlib import Path
from zerosearch import jobs, notebook_runner as runner
stop = runner.KernelStop()
folder = Path(sys.argv[1])
run = runner.NotebookRun(folder / "n.ipynb", folder / "done.ipynb", folder / "n.log", {"n": 1})
with stop.taking_signals():
    sys.exit(runner._run_job(run, jobs.Board(folder), jobs.Job("01"), stop))
"""
LONG = """import time
from zerosearch.interrupts import StopRequest
with StopRequest() as stop:
    for unit in range(1, 1000):
        print("unit", unit, flush=True)
        time.sleep(0.2)
        stop.check(f"unit {unit}")"""
PLAIN = 'import time\nprint("unit 1", flush=True)\ntime.sleep(300)'


@pytest.mark.parametrize(("code", "message"), [(LONG, "stopped as asked; unit"), (PLAIN, "stopped in cell [3] as asked")])
def test_a_request_reaches_the_notebook(tmp_path: Path, code: str, message: str) -> None:
    cells = [nbformat.v4.new_code_cell("n: int = 1  # help", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell(code), nbformat.v4.new_code_cell('print("never")')]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "n.ipynb")
    process = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], env={**os.environ})
    log, deadline = tmp_path / "n.log", time.time() + 90
    while "unit 1" not in (log.read_text() if log.exists() else "") and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 1
    status = (tmp_path / "logs" / "01_collect_trajectories.json").read_text()
    assert '"stopped"' in status and message in status and "never" not in log.read_text()
    assert "to go on" in status and (tmp_path / "done.ipynb").is_file()
