"""Processes of this machine: which one it is, whether it lives, how to end it, who works in a folder.

A process is known by its id and its start time together, since ids are used again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from zerosearch import files
from zerosearch.errors import ConfigError, WorkbookError


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of this machine.  created: its start, seconds since 1970."""

    pid: int
    created: float

    def text(self) -> str:
        """Return it as one word, for an environment variable."""
        return f"{self.pid}:{self.created!r}"

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessId:
        """Return the identity of a running process."""
        return cls(process.pid, process.create_time())

    @classmethod
    def from_text(cls, text: str) -> ProcessId | None:
        """Return what ``text`` gave, None for an empty text."""
        pid, _, created = text.partition(":")
        return cls(int(pid), float(created)) if created else None


def this_process() -> ProcessId:
    """Return the identity of the calling process."""
    return ProcessId.of(psutil.Process(os.getpid()))


def alive(process: ProcessId | None) -> bool:
    """Say whether that very process still runs (not a later one with the same id, not a zombie)."""
    if process is None:
        return False
    try:
        found = psutil.Process(process.pid)
        return abs(found.create_time() - process.created) < 1.0 and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError, OverflowError):  # gone, or a record with an impossible id
        return False


def tree_rss_mib(pid: int) -> float:
    """Return the resident memory of a process and all its descendants together, MiB."""
    total = 0
    try:
        top = psutil.Process(pid)
        for process in [top, *top.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # one of them has just ended; the next measurement is soon
    return total / 2**20


def stop_tree(pid: int, grace_seconds: float = 10.0) -> None:
    """End a process with all its descendants: politely first, then by force."""
    try:
        top = psutil.Process(pid)
        family = [top, *top.children(recursive=True)]  # parents first: none may mistake the end of a child
    except psutil.NoSuchProcess:
        return
    for process in family:
        signal_process(process.pid, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(family, timeout=grace_seconds)
    for process in stubborn:
        signal_process(process.pid, signal.SIGKILL)
    psutil.wait_procs(stubborn, timeout=5)


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended by now."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class FolderLock:
    """Held by the process that works in a folder; the system frees it when the process ends, however it ends.

    path: the lock file; who holds it stands beside it.  Taking it again in the same process is free.
    """

    def __init__(self, path: Path):
        with files.disk_problems(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._holder = path.with_name(f"{path.name}.json")
        # One object per path: a notebook may open its stage again while it still holds it.
        self._lock = FileLock(path, thread_local=False, is_singleton=True)

    def take(self, what: str, patience_seconds: float = 10.0) -> None:
        """Take the lock; ``what`` says in the message what is locked.

        A process left behind by a killed one (its parent is gone) ends by itself; if it does not in time,
        it is ended.  Raises ConfigError that names the process when another one stays at work.
        """
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire(timeout=patience_seconds)
        except Timeout:
            self._end_orphan(what)
            self._lock.acquire(timeout=patience_seconds)
        parent = psutil.Process().parent()
        family = {"holder": this_process().text(), "parent": ProcessId.of(parent).text() if parent else ""}
        try:
            files.write_json(self._holder, family)
        except WorkbookError:  # the disk is full: nobody can work here, and nobody is kept out
            self.free()
            raise

    def free(self) -> None:
        """Give the lock back."""
        self._lock.release(force=True)

    def _end_orphan(self, what: str) -> None:
        """End the process that holds the lock if nobody owns it any more, else refuse."""
        found = files.find_object(self._holder, {"holder": str, "parent": str}) or {"holder": "", "parent": ""}
        holder, parent = (ProcessId.from_text(found[name]) for name in ("holder", "parent"))
        if alive(holder) and not alive(parent):
            stop_tree(holder.pid)
            return
        who = f"process {holder.pid}" if alive(holder) else "another process"
        raise ConfigError(
            f"{what}: expected nobody at work on it, found {who} (a command, or a notebook whose kernel still runs); "
            f"wait for it, shut that kernel down, or choose another name with `--run NAME`"
        )
