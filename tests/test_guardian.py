"""The guardian: whatever ends first, nothing of what the command started is left.  Real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

import psutil
import pytest

GUARDIAN = [sys.executable, "-m", "zerosearch.engines.guardian"]
# A server with a worker in a session of its own, as vLLM's: asked to end, it ends its worker; killed, it does not.
SERVER = """
import pathlib, signal, subprocess, sys, os
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: (worker.kill(), sys.exit(0)))
pathlib.Path(sys.argv[1]).write_text(f"{os.getpid()} {worker.pid}")
worker.wait()
"""


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """Where the server writes (its id, its worker's id); nothing of them survives a failed test."""
    path = tmp_path / "pids"
    yield path
    for pid in map(int, path.read_text().split()) if path.exists() else ():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait_for(condition: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"expected {what} within 30 s")


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start(pids: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Return the guardian and the processes below it."""
    guardian = subprocess.Popen([*GUARDIAN, sys.executable, "-c", SERVER, str(pids)], stdin=subprocess.PIPE)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the server to start")
    return guardian, list(map(int, pids.read_text().split()))


def test_everything_ends_when_standard_input_closes(pids: Path) -> None:
    guardian, family = start(pids)
    assert not any(map(gone, family))
    guardian.stdin.close()
    guardian.wait(timeout=30)
    assert all(map(gone, family))


def test_a_killed_server_takes_its_worker_along(pids: Path) -> None:
    guardian, family = start(pids)
    os.kill(family[0], signal.SIGKILL)
    assert guardian.wait(timeout=30) != 0
    assert all(map(gone, family))
    guardian.stdin.close()


def test_a_killed_guardian_ends_the_server(pids: Path) -> None:
    guardian, family = start(pids)
    guardian.kill()
    guardian.wait(timeout=30)
    wait_for(lambda: all(map(gone, family)), "server and worker to be gone")
    guardian.stdin.close()


def test_a_killed_parent_takes_everything_along(pids: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, *GUARDIAN, sys.executable, "-c", SERVER, str(pids)])
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the server to start")
    family = list(map(int, pids.read_text().split()))
    family += [p.pid for p in psutil.Process(parent.pid).children()]
    parent.kill()
    parent.wait(timeout=30)
    wait_for(lambda: all(map(gone, family)), "guardian, server and worker to be gone")


def test_the_exit_code_of_the_command_is_passed_on() -> None:
    guardian = subprocess.Popen([*GUARDIAN, sys.executable, "-c", "raise SystemExit(7)"], stdin=subprocess.PIPE)
    assert guardian.wait(timeout=60) == 7
    guardian.stdin.close()
