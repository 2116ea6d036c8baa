"""The judge's verdicts on disk: append-only lines, each flushed before its verdict is used (rule 10).

Built like ``retrievers.cache``: a line that was cut off by a crash is the last one and is dropped, several
processes may share a file, and only verdicts are kept, never failures or keys.  Called by ``judge``.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from filelock import FileLock

from zerosearch.errors import BadInput


class VerdictStore:
    """Verdicts by key.  path: the file, made when the first verdict arrives."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._right: dict[str, bool] = {}
        self._read = self._n_lines = 0  # bytes and lines that are in memory
        self._threads = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._processes = FileLock(f"{self.path}.lock")
        with self._processes:
            self._refresh()

    def __len__(self) -> int:
        return len(self._right)

    def get(self, key: str) -> bool | None:
        """Return whether the prediction was judged right, None where there is no verdict yet."""
        return self._right.get(key)

    def add(self, key: str, right: bool, **about: object) -> None:
        """Append a verdict and wait until it is on the disk; about: what people want to read beside it."""
        line = json.dumps({"key": key, "right": right, **about}) + "\n"  # ASCII: no line breaks inside a character
        with self._threads, self._processes:
            self._refresh()
            with self.path.open("ab") as file:
                file.write(line.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
                self._read = file.tell()
            self._n_lines += 1
            self._right[key] = right

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
            row = json.loads(line)
            key, right = row["key"], row["right"]
            if not (isinstance(key, str) and isinstance(right, bool)):
                raise TypeError("key or right has another type")
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{self.path}:{self._n_lines}: expected a recorded verdict, found a damaged line "
                f"({type(error).__name__}: {error}); remove that line, and its question will be judged again"
            ) from error
        self._right[key] = right
