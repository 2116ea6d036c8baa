"""Looks after a run that nobody watches: the run's log, silent stages, disk and memory that run out.

``Watch.look`` is what ``pipeline.execute`` calls twice a second.  It only reads, with one exception: when the
disk is nearly full it raises OutOfSpace, which ends the run as an interrupt does, before files are cut off.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

import psutil

from zerosearch.checks import usable_memory_gib
from zerosearch.console import Display, Line
from zerosearch.environment import installed_version
from zerosearch.errors import WorkbookError
from zerosearch.jobs import Board, Job
from zerosearch.processes import tree_rss_mib
from zerosearch.profiles import Profile
from zerosearch.progress import clock
from zerosearch.run_log import RunLog
from zerosearch.stalls import Stalls

MIB = 2**20
HEARTBEAT_EVERY, MEASURE_EVERY = 60.0, 5.0  # seconds between lines in run.log, between looks at memory
STOP_DISK_MIB = 200.0  # below it a checkpoint may not fit any more
UNFINISHED = ("waiting", "running", "stalled")
LEAST_DISK_MIB, LEAST_MEMORY_MIB, SHARE_OF_NEEDS = 500.0, 256.0, 0.1  # where warnings begin
RECOVERED = 1.25  # times the line: a value that hovers around its line is told once
NAMED_VERSIONS = ("torch", "transformers", "trl", "snakemake")
# What makes a stage smaller; the others hold no batch.
SMALLER = {"01": "01.batch_size", "02": "02.batch_size", "03": "03.questions_per_step", "04": "04.batch_size"}


class OutOfSpace(WorkbookError):
    """The disk is nearly full; the run was stopped while what it has written is still whole."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """When a watch speaks up.  Sizes in MiB that are free; stall_seconds: without a word from a stage."""

    stall_seconds: float
    disk_warn: float
    disk_stop: float
    memory_warn: float

    @classmethod
    def of(cls, profile: Profile) -> Limits:
        """Return a tenth of what the profile needs as lines of warning, or fixed ones for small profiles."""
        disk, memory = (SHARE_OF_NEEDS * 1024 * gib for gib in (profile.needs.disk_gib, profile.needs.memory_gib))
        return cls(
            60 * profile.stall_minutes, max(disk, LEAST_DISK_MIB), STOP_DISK_MIB, max(memory, LEAST_MEMORY_MIB)
        )

    def text(self) -> str:
        """Return the limits as a sentence."""
        return (
            f"warns below {self.disk_warn:.0f} MiB of free disk and {self.memory_warn:.0f} MiB of available memory, "
            f"stops below {self.disk_stop:.0f} MiB of disk, calls a stage stalled after {clock(self.stall_seconds)} "
            f"without a word"
        )


class Watch:
    """Looks after one call.  Use as a context manager; give ``look`` to ``pipeline.execute``.

    display: where warnings are shown.  folder: of the run.  command: as typed, for the log.
    now: seconds that do not run while the machine sleeps, so that a laptop that was shut stalls nothing.
    """

    def __init__(
        self, display: Display, folder: Path, profile: Profile, command: str,
        now: Callable[[], float] = time.monotonic,
    ):
        self.display, self.folder, self.command, self.now = display, folder, command, now
        self.profile, self.limits, self.log = profile, Limits.of(profile), RunLog(folder)
        self.stalls = Stalls(folder, self.limits.stall_seconds)
        display.stalled = self.stalls.stalled
        self.disk, self.memory = Alarm(self.limits.disk_warn), Alarm(self.limits.memory_warn)
        self.states: dict[Job, str] = {}
        self.started = self.beaten = now()
        self.measured = float("-inf")
        self.stopping = False

    def __enter__(self) -> Watch:
        """Write the start into the log."""
        versions = ", ".join(f"{name} {installed_version(name)}" for name in NAMED_VERSIONS)
        self.log.write(
            f"start: {self.command} · profile {self.profile.name} · python {platform.python_version()}, {versions}"
        )
        self.log.write(f"limits: {self.limits.text()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._write_end("interrupted" if kind is KeyboardInterrupt else f"stopped by {kind.__name__}")
        self.log.close()

    def ended(self, exit_code: int) -> None:
        """Write the end into the log."""
        self._write_end("finished" if exit_code == 0 else f"failed, exit code {exit_code} of Snakemake")

    def look(self, board: Board) -> None:
        """Take one look at everything; OutOfSpace when the disk is nearly full."""
        now, lines = self.now(), self.display.lines(board)
        self._note_changes(lines)
        running = [line.job for line in lines if line.state in ("running", "stalled")]
        for text in self.stalls.look(board, running, now):
            self._warn(text)
        self.display.show(lines)
        self._check_disk(unfinished=any(line.state in UNFINISHED for line in lines))
        if now - self.measured >= MEASURE_EVERY:
            self.measured = now
            self._check_memory(board, running)
        if now - self.beaten >= HEARTBEAT_EVERY:
            self.beaten += HEARTBEAT_EVERY * ((now - self.beaten) // HEARTBEAT_EVERY)
            self._write_heartbeat(lines)

    def _note_changes(self, lines: Sequence[Line]) -> None:
        for line in lines:
            before = self.states.setdefault(line.job, "waiting")
            if line.state != before and line.state != "up to date":
                took = f" after {clock(line.seconds)}" if line.seconds and line.state != "running" else ""
                self.log.write(f"{line.job.name}: {line.state}{took}")
            self.states[line.job] = line.state

    def _warn(self, text: str) -> None:
        self.display.tell(text)
        self.log.write(f"warning: {text}")

    def _check_disk(self, unfinished: bool) -> None:
        free = free_disk_mib(self.folder)
        if free < self.limits.disk_stop and unfinished and not self.stopping:
            self.stopping = True  # raised once: the notebooks are then asked to save, and looked at meanwhile
            self._warn(f"disk: {free:.0f} MiB are left at {self.folder}; the run is being stopped")
            raise OutOfSpace(
                f"disk: expected at least {self.limits.disk_stop:.0f} MiB to stay free at {self.folder}, found "
                f"{free:.0f}; the run was stopped. Free some space (`./run_all.sh --clean NAME` deletes a run); the "
                f"same command goes on from here"
            )
        if self.disk.rings(free):
            self._warn(
                f"disk: {free:.0f} MiB are left at {self.folder}; free some space (`./run_all.sh --clean NAME` deletes "
                f"a run): below {self.limits.disk_stop:.0f} MiB the run is stopped"
            )

    def _check_memory(self, board: Board, running: Sequence[Job]) -> None:
        available = available_memory_mib()
        if self.memory.rings(available):
            self._warn(f"memory: {available:.0f} MiB are available{_largest(board, running)}; close other programs")

    def _write_heartbeat(self, lines: Sequence[Line]) -> None:
        beats = [f"{line.job.name} {line.word or 'at work'}" for line in lines if line.state in ("running", "stalled")]
        self.log.write(
            f"heartbeat: {'; '.join(beats) or 'no stage at work'} | memory {tree_rss_mib(os.getpid()):.0f} MiB, available "
            f"{available_memory_mib():.0f} MiB, free disk {free_disk_mib(self.folder):.0f} MiB"
        )

    def _write_end(self, how: str) -> None:
        self.log.write(f"end: {how}, {clock(self.now() - self.started)}")


class Alarm:
    """Rings once when a value falls below its line, and again only after it has clearly recovered."""

    def __init__(self, line: float):
        self.line, self.low = line, False

    def rings(self, value: float) -> bool:
        """Take a value and say whether to tell somebody."""
        before = self.low
        self.low = value < self.line or (before and value < RECOVERED * self.line)
        return self.low and not before


def _largest(board: Board, running: Sequence[Job]) -> str:
    """Return which job holds most memory and what makes it smaller, as part of a sentence."""
    sizes = {}
    for job in running:
        if (status := board.status(job)) and status.here:
            sizes[job] = tree_rss_mib(status.process.pid)
    if not sizes:
        return ""
    job = max(sizes, key=lambda one: sizes[one])
    smaller = f" (smaller with --set {SMALLER[job.stage]}=N)" if job.stage in SMALLER else ""
    return f", most is held by stage {job.stage} ({job.name}): {sizes[job]:.0f} MiB{smaller}"


def free_disk_mib(folder: Path) -> float:
    """Return the space that is left on a folder's disk, MiB."""
    return shutil.disk_usage(folder).free / MIB


def available_memory_mib() -> float:
    """Return the memory that can still be taken, MiB: of the machine, or of a container with a limit."""
    own_limit = 1024 * usable_memory_gib() - tree_rss_mib(os.getpid())
    return max(0.0, min(psutil.virtual_memory().available / MIB, own_limit))
