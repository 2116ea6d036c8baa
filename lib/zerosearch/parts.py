"""Finished parts of long work: written as soon as they are done, and never made twice.

A part is a file of JSON lines whose name says what it holds, settings included.  Rows are always
those read back from the file, so that a resumed stage and an undisturbed one hand on the same values.
Called by collection and evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Protocol

from zerosearch import files


class EventLog(Protocol):
    """Where amounts are written as they happen: the ledger of the stage."""

    def event(self, kind: str, unit: str | None = None, **fields: Any) -> None:
        """Append one event."""

    def keep(self, kept: Callable[[str | None], bool]) -> int:
        """Set aside the events of units that will be done again."""


class Parts:
    """Parts that belong together.  folder: a stage's ``checkpoints``, or a folder of one's own in it.

    ledger: what was spent on parts of this folder that were not finished is set aside at the start.
    """

    def __init__(self, folder: Path, ledger: EventLog | None = None):
        self.folder, self._prefix = folder, f"part {folder.name}/"
        if ledger is not None:
            ledger.keep(self._counts)

    def rows(self, name: str, make: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the rows of a part, made by ``make(unit)`` if it is not there; unit: its name in the ledger."""
        file = self._file(name)
        if not file.is_file():
            files.write_jsonl(file, make(f"{self._prefix}{name}"))
        return files.read_jsonl(file)

    def _counts(self, unit: str | None) -> bool:
        """Say whether an event stays: it is of another folder, or its part is finished."""
        unit = unit or ""
        return not unit.startswith(self._prefix) or self._file(unit.removeprefix(self._prefix)).is_file()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"
