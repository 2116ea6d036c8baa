"""``logs/run.log``: what happened in a run, for whoever comes back to it in the morning.

Plain lines with UTC time, appended at once, over all calls of the run; the file is bounded.  It tells, it
decides nothing: no manifest names it, no rule waits for it, and a line that cannot be written is dropped.
"""

from __future__ import annotations

import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Callable

RUN_LOG = "run.log"
LARGEST_BYTES, OLD_FILES = 10 * 2**20, 1


class RunLog:
    """The open log of one run folder.

    folder: the run's.  clock: seconds since 1970.  largest_bytes: beyond it the file becomes ``run.log.1``
    (in the place of an older one) and a new one begins.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.time, largest_bytes: int = LARGEST_BYTES
    ):
        self.path, self.clock = folder / "logs" / RUN_LOG, clock
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = _Handler(
            self.path, maxBytes=largest_bytes, backupCount=OLD_FILES, encoding="utf-8", delay=True
        )

    def write(self, text: str) -> None:
        """Append one line; line breaks and control characters in text become blanks."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock()))
        self._handler.handle(logging.makeLogRecord({"msg": f"{stamp} {printable(text)}"}))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line: a full disk is reported by other means, and a log must not end the run."""


def printable(text: str) -> str:
    """Return text on one line: what is not printable (control, direction, line break) becomes a blank."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
