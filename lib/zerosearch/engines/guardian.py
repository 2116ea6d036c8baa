"""Runs one command and takes everything that it started along when it ends: ``python -m`` this module.

    python -m zerosearch.engines.guardian COMMAND...

A server starts workers, and they live on when the server is killed.  The guardian stands between the server and
who wants it.  It ends the command with all its descendants when its own standard input closes (whoever held
the other end has finished, crashed or was killed), when it is asked to end, and when the command itself ends.
If the guardian is killed, the system (Linux) asks the command to end.  Called by ``serving``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

import psutil

_SUBREAPER, _DEATH_SIGNAL = 36, 1  # prctl(2), Linux
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 5.0


def _prctl(option: int, value: int) -> None:
    """Ask Linux for something; elsewhere there is no such call, and nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _ends_with_guardian() -> None:
    _prctl(_DEATH_SIGNAL, signal.SIGTERM)  # SIGKILL would leave the workers alive: the server must end them


def main(command: list[str]) -> int:
    """Run the command until it ends, or nobody wants it any more; return its exit code."""
    _prctl(_SUBREAPER, 1)  # descendants whose parent was killed become children of the guardian
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_ends_with_guardian  # noqa: PLW1509
    )
    try:
        while child.poll() is None and _is_wanted():
            pass
    finally:
        _end_descendants(child)
    return child.returncode if child.returncode is not None else 1


def _is_wanted() -> bool:
    """Wait a moment; say whether the other end of standard input is still held."""
    readable, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
    return not readable or bool(os.read(sys.stdin.fileno(), 1024))


def _end_descendants(child: subprocess.Popen[bytes]) -> None:
    """End all descendants: politely, then by force, until there is none."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    until = time.monotonic() + _GRACE_SECONDS
    while (family := _living()) and time.monotonic() < until:
        if child.poll() is not None:  # the rest has lost its head
            break
        time.sleep(0.05)
    while family := _living():
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=1.0)
        child.poll()
    with contextlib.suppress(ChildProcessError):  # orphans that became the guardian's: leave no zombie
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _living() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.is_running() and _status(p) != psutil.STATUS_ZOMBIE]


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
