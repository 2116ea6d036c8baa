"""How far a long stage is: one readable line in the notebook, one small file for the command line."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Mapping

from zerosearch import files

PROGRESS = "progress.json"
PRINT_EVERY, WRITE_EVERY = 5.0, 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The latest word of a stage.  done, total: units of its own; seconds_left: None until known."""

    done: float
    total: float
    message: str
    metric: str
    seconds_left: float | None

    def line(self) -> str:
        """Return e.g. ``12/45 (27 %) · reward 0.31 · 2:10 left``."""
        share = f"{self.done:g}/{self.total:g} ({100 * self.done / max(self.total, 1e-9):.0f} %)"
        left = f"{clock(self.seconds_left)} left" if self.seconds_left is not None else ""
        return " · ".join(part for part in (share, self.message, self.metric, left) if part)


class Progress:
    """Prints and writes heartbeats of one stage, at most every few seconds."""

    def __init__(self, folder: Path, name: str):
        self.file, self.name = folder / PROGRESS, name
        self.first: tuple[float, float] | None = (
            None  # (clock, done) of the first report: resumed work is not timed
        )
        self.latest = (0.0, 0.0)  # (done, total) of the last report
        self.printed = self.written = float("-inf")

    def report(
        self, done: float, total: float, message: str, metric: str | None, metrics: Mapping[str, float]
    ) -> None:
        """Take one report; the last one (done == total) is always shown."""
        now, last = time.perf_counter(), done >= total
        if self.first is None or total != self.latest[1] or done < self.latest[0]:  # other work has begun
            self.first = (now, done)
        self.latest = (done, total)
        texts = [metric] if metric else []
        texts += [f"{name} {value:.3g}" for name, value in metrics.items()]
        beat = Heartbeat(done, total, message, " ".join(texts), self._left(now, done, total))
        if last or now - self.written >= WRITE_EVERY:
            self.written = now
            files.write_json(self.file, asdict(beat))
        if last or now - self.printed >= PRINT_EVERY:
            self.printed = now
            print(f"{self.name} {beat.line()}", flush=True)

    def close(self) -> None:
        """Remove the file: the stage has finished."""
        self.file.unlink(missing_ok=True)

    def _left(self, now: float, done: float, total: float) -> float | None:
        started, before = self.first or (now, done)
        return (now - started) / (done - before) * max(total - done, 0.0) if done > before else None


def read_heartbeat(folder: Path, since: float = 0.0) -> Heartbeat | None:
    """Return the latest heartbeat in a stage folder, None without one after since (seconds since 1970)."""
    try:
        if (folder / PROGRESS).stat().st_mtime < since:
            return None  # left by an attempt that was cut off
        found: dict[str, Any] = files.read_json(folder / PROGRESS)
    except FileNotFoundError:
        return None
    return Heartbeat(**found)


def clock(seconds: float) -> str:
    """Return seconds as ``m:ss``, or ``h:mm:ss`` from one hour on."""
    minutes, second = divmod(int(round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
