"""The judge's verdicts on disk: append-only lines, each flushed before its verdict is used (rule 10).

Only verdicts are kept, never failures or keys; several processes may share a file (``appended``).  Called
by ``judge``.
"""

from __future__ import annotations

import threading
from pathlib import Path

from zerosearch.appended import AppendedLines


class VerdictStore:
    """Verdicts by key.  path: the file, made when the first verdict arrives."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._right: dict[str, bool] = {}
        self._threads = threading.Lock()
        self._lines = AppendedLines(self.path, self._take, "a recorded verdict", "its question will be judged again")

    def __len__(self) -> int:
        return len(self._right)

    def get(self, key: str) -> bool | None:
        """Return whether the prediction was judged right, None where there is no verdict yet."""
        return self._right.get(key)

    def add(self, key: str, right: bool, **about: object) -> None:
        """Append a verdict and wait until it is on the disk; about: what people want to read beside it."""
        with self._threads:
            self._lines.append([{"key": key, "right": right, **about}])

    def _take(self, row: dict[str, object]) -> None:
        key, right = row["key"], row["right"]
        if not (isinstance(key, str) and isinstance(right, bool)):
            raise TypeError("key or right has another type")
        self._right[key] = right
