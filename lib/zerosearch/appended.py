"""A record that only grows: JSON lines that are on the disk before they are used (rule 10).

Several processes may share the file.  A line that was cut off by a crash is the last one; it is dropped.
Called by the records of judges' verdicts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from filelock import FileLock

from zerosearch.errors import BadInput
from zerosearch.files import disk_problems


class AppendedLines:
    """The open record.

    path: the file, made when the first line arrives.  take: called with every row, whoever wrote it; raises
    ValueError, KeyError or TypeError for one that is no such row.  what, again: for the message about a
    damaged line, e.g. ``a recorded answer`` and ``its query will be asked again``.
    """

    def __init__(self, path: Path, take: Callable[[dict[str, Any]], None], what: str, again: str):
        self.path, self._take_row, self._what, self._again = path, take, what, again
        self._read = self._n_lines = 0  # bytes and lines of the record that are in memory
        path.parent.mkdir(parents=True, exist_ok=True)
        self._processes = FileLock(f"{path}.lock")
        with self._processes:
            self._refresh()

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows and wait until they are on the disk; they and what others appended are taken in."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)  # ASCII: a line cannot break inside a character
        with self._processes:
            self._refresh()
            with disk_problems(self.path), self.path.open("ab") as file:
                file.write(lines.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            self._refresh()

    def _refresh(self) -> None:
        """Take in what was appended since the last look; drop a torn last line.  Needs the file lock."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            file.seek(self._read)
            fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            if len(whole) < len(fresh):
                file.truncate(self._read + len(whole))
        for line in whole.splitlines():
            self._n_lines += 1
            self._take(line)
        self._read += len(whole)

    def _take(self, line: bytes) -> None:
        try:
            self._take_row(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{self.path}:{self._n_lines}: expected {self._what}, found a damaged line "
                f"({type(error).__name__}: {error}); remove that line, and {self._again}"
            ) from error
