"""Which running jobs have fallen silent, and what a user can do about one.

A job is silent while neither its log nor its progress file changes.  Nothing is ended: silence is told, since
it may be a long download as well as a dead lock, and a look at the processor says which.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Sequence

import psutil

from zerosearch import artifacts
from zerosearch.jobs import Board, Job
from zerosearch.progress import PROGRESS, clock
from zerosearch.run_log import printable

LAST_WORDS = 120  # characters


@dataclass(slots=True)
class _Silence:
    """What a job's files looked like when they last changed, when that was, and how often it was told."""

    files: tuple[tuple[int, int], ...]
    since: float
    told: int = 0


class Stalls:
    """Tells which running jobs have fallen silent: neither their log nor their progress has changed.

    folder: of the run.  limit: seconds.  stalled: the jobs that are silent for longer at the moment.
    """

    def __init__(self, folder: Path, limit: float):
        self.folder, self.limit = folder, limit
        self.stalled: set[Job] = set()
        self._silences: dict[Job, _Silence] = {}

    def look(self, board: Board, running: Sequence[Job], now: float) -> Iterator[str]:
        """Yield what is to be told now: a job fell silent, is still silent after as long again, or moves on."""
        for job in [job for job in self._silences if job not in running]:
            del self._silences[job]
            self.stalled.discard(job)
        for job in running:
            seen = self._files(board, job)
            silence = self._silences.setdefault(job, _Silence(seen, now))
            quiet = now - silence.since
            if seen != silence.files:
                self._silences[job] = _Silence(seen, now)
                if job in self.stalled:
                    self.stalled.discard(job)
                    yield f"stage {job.stage} ({job.name}) moves on after {clock(quiet)} without a word"
            elif quiet >= self.limit * (silence.told + 1):
                silence.told = int(quiet // self.limit)
                self.stalled.add(job)
                yield _stall_text(board, job, quiet)

    def _files(self, board: Board, job: Job) -> tuple[tuple[int, int], ...]:
        """Return (time of change, size) of what a job writes while it works."""
        found = []
        for path in (board.log(job), self.folder / job.folder / PROGRESS):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime_ns, status.st_size))
        return tuple(found)


def _stall_text(board: Board, job: Job, quiet: float) -> str:
    status, log = board.status(job), board.log(job)
    pid = status.process.pid if status else 0
    doing = "computing" if is_computing(pid) else "waiting for something"
    kill, here = f"kill {pid}", status is None or status.here
    if not here:
        doing, kill = "on another machine", "scancel its job"
    return (
        f"stage {job.stage} ({job.name}) is stalled: not a word for {clock(quiet)}, its processes are {doing}; "
        f"last words: {_last_words(log)}\n"
        f"  look: tail {artifacts.shown(log)}\n"
        f"  end it: {kill} (the same command then goes on from its last saved state), or wait"
    )


def _last_words(log: Path) -> str:
    """Return the last line of a log that is not empty; the file may be long."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    words = [text for line in lines if (text := printable(line))]
    return words[-1][-LAST_WORDS:] if words else "(none)"


def is_computing(pid: int, seconds: float = 0.2) -> bool:
    """Say whether a process or one of its descendants uses the processor: a tenth of a core or more."""
    before = _cpu_seconds(pid)
    time.sleep(seconds)
    return _cpu_seconds(pid) - before >= 0.1 * seconds


def _cpu_seconds(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _family(pid: int) -> list[psutil.Process]:
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
