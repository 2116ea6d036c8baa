"""Asked to stop: long work finishes the unit under way, saves it, and says how to go on.

Ctrl-C, the interrupt button of a notebook (both SIGINT) and a cluster that takes a machine back
(SIGTERM) all mean the same.  Inside ``StopRequest`` they are noted and acted upon at the next safe place;
a second one ends the work at once, and then the last checkpoint counts.  Called by everything that
works in steps or parts.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from zerosearch.errors import WorkbookError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GO_ON = "to go on from there run the notebook again from its first cell, or the same command again"


class Stopped(WorkbookError):
    """The work ended because it was asked to; what was done is saved."""


class StopRequest:
    """Use as a context manager around work in units; ask ``requested`` or call ``check`` between them.

    Signals reach the main thread only; in another thread nothing is caught and nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self, done: str) -> None:
        """Raise Stopped if the work was asked to stop.  done: what is saved, e.g. ``40 of 600 trajectories``."""
        if self.requested:
            raise Stopped(f"stopped as asked; {done} saved; {GO_ON}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("asked to stop: saving first (once more: stop at once)", flush=True)
