"""Answers of engines on disk: each is there, whole and flushed, before anybody uses it (rule 10).

A folder with one SQLite database, kept by diskcache: several threads and processes may share it, nothing is
ever thrown out, and values are JSON (a folder that comes from somebody else cannot run code).  An answer is
found by the engine's identity and the normalised query.  Beside the answers stand claims, which say who is
asking for what at this moment, and the paid answers that no ledger has been told of yet.

Called by the replay cache and its commands.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
import unicodedata
import weakref
import zlib
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from errno import EACCES, ENOSPC
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import diskcache

from zerosearch import files
from zerosearch.errors import BadInput, DiskProblem
from zerosearch.processes import ProcessId, alive, this_process
from zerosearch.schema import Passage

_IGNORE_CASE = ("bm25 ",)  # how identities of engines begin that make no difference between upper and lower case
_SETTINGS: dict[str, Any] = {
    "eviction_policy": "none", "cull_limit": 0, "size_limit": 2**60,  # nothing is ever thrown out
    "disk_min_file_size": 2**30,  # everything in the database, which is flushed; files beside it are not
    "sqlite_synchronous": 2,  # FULL: a commit returns when the disk has it
}
_DAMAGE = (zlib.error, ValueError, KeyError, TypeError, AttributeError)
_PATIENCE, _LOOK_AGAIN = 60.0, 0.05  # seconds: for a locked database, between two looks at who asks


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine answered once.  query: normalised.  time: when, ISO.  paid: it was billed."""

    engine: str
    query: str
    passages: tuple[Passage, ...]
    time: str = ""
    paid: bool = False

    @property
    def key(self) -> str:
        """Return its address."""
        return key_of(self.engine, self.query)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Answer:
        """Return the answer of a row as ``row`` makes it; ValueError, KeyError or TypeError for anything else."""
        texts = (row["engine"], row["query"], row.get("time", ""))
        if not all(isinstance(text, str) for text in texts) or not isinstance(row["passages"], list):
            raise TypeError("engine, query, passages or time has another type")
        passages = tuple(Passage(**passage) for passage in row["passages"])
        if not all(isinstance(text, str) for p in passages for text in (p.id, p.title, p.text)):
            raise TypeError("a passage without texts")
        return cls(texts[0], normalised(texts[1], texts[0]), passages, texts[2], row.get("paid") is True)

    def row(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


def normalised(query: str, engine: str) -> str:
    """Return the query as it is asked and found again: NFC, single blanks, lower case where the engine ignores case."""
    text = " ".join(unicodedata.normalize("NFC", query).split())
    return text.lower() if engine.startswith(_IGNORE_CASE) else text


def key_of(engine: str, query: str) -> str:
    """Return the address of an engine's answer to a query."""
    asked = f"{engine}\n{normalised(query, engine)}"
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


def now() -> str:
    """Return the time as it is written down."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class _JsonDisk(diskcache.JSONDisk):
    """JSON and nothing else: a pickled value, which could run code, is refused."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode != diskcache.core.MODE_RAW:
            raise ValueError("a value that is not JSON")
        return super().fetch(mode, filename, value, read)

    def get(self, key: Any, raw: bool) -> Any:
        if not raw:
            raise ValueError("a key that is not JSON")
        return super().get(key, raw)


class Answers:
    """The open folder of answers.

    Raises BadInput where its database is damaged, DiskProblem where the disk does not take it.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self._me = this_process().text()
        with files.disk_problems(self.folder), self._problems():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._cache = diskcache.Cache(str(self.folder), timeout=_PATIENCE, disk=_JsonDisk, **_SETTINGS)
        weakref.finalize(self, self._cache.close)  # a kernel ends with its objects alive: leave one file, no log

    def __len__(self) -> int:
        with self._problems():
            return sum(isinstance(key, str) for key in self._cache)

    def __iter__(self) -> Iterator[Answer]:
        """Yield all answers, by engine and query."""
        with self._problems():
            found = [self._cache[key] for key in self._cache if isinstance(key, str)]
            yield from sorted(map(Answer.from_row, found), key=lambda a: (a.engine, a.query))

    def close(self) -> None:
        """Let go of the database, which is one file then, without a log beside it; it is opened again when needed."""
        with self._problems():
            self._cache.close()

    def get(self, key: str) -> Answer | None:
        """Return the answer at an address, None where there is none."""
        with self._problems():
            row = self._cache.get(key)
            return None if row is None else Answer.from_row(row)

    def add(self, answers: Sequence[Answer], account: str = "") -> int:
        """Put answers on the disk, all or none, and return how many were new; those already there stay as they are.

        account: who is to be told of those that were paid for, see ``untold``.
        """
        with self._problems(), self._cache.transact(retry=True):
            fresh = [a for a in answers if self._cache.add(a.key, a.row(), retry=True)]
            paid = [a.key for a in fresh if a.paid]
            if account and paid:
                self._cache.set(["untold", account], [*self.untold(account), *paid], retry=True)
        return len(fresh)

    # -- paid answers that no ledger knows of -----------------------------------------------------

    def untold(self, account: str) -> list[str]:
        """Return the addresses of paid answers that the account has not been told of."""
        with self._problems():
            return self._cache.get(["untold", account], [])

    def told(self, account: str, keys: Sequence[str]) -> None:
        """Note that the account has been told of some paid answers."""
        with self._problems(), self._cache.transact(retry=True):
            left = [key for key in self.untold(account) if key not in set(keys)]
            self._cache.set(["untold", account], left, retry=True)

    # -- who asks for what ------------------------------------------------------------------------

    def claim(self, keys: Sequence[str]) -> list[str]:
        """Return those of the addresses that the caller is to ask for now; ``release`` them afterwards.

        The others have an answer by now, or somebody else, a living process, is asking for it.
        """
        with self._problems(), self._cache.transact(retry=True):
            mine = [key for key in keys if key not in self._cache and not self._asked_elsewhere(key)]
            for key in mine:
                self._cache.set(["asked", key], self._me, retry=True)
        return mine

    def release(self, keys: Sequence[str]) -> None:
        """Give claims back."""
        with self._problems(), self._cache.transact(retry=True):
            for key in keys:
                self._cache.delete(["asked", key], retry=True)

    def wait(self) -> None:
        """Let some time pass before the next look at who asks."""
        time.sleep(_LOOK_AGAIN)

    def _asked_elsewhere(self, key: str) -> bool:
        found = self._cache.get(["asked", key])
        return isinstance(found, str) and (found == self._me or alive(ProcessId.from_text(found)))

    # -- damage -----------------------------------------------------------------------------------

    def mend(self) -> int:
        """Remove values that cannot be read and return how many there were; their queries will be asked again."""
        damaged = 0
        with self._problems():
            for key in list(self._cache):
                if isinstance(key, str):
                    try:
                        Answer.from_row(self._cache[key])
                    except _DAMAGE:
                        damaged += self._cache.delete(key, retry=True)
        return damaged

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        """Tell what the database or the disk complains of in a sentence."""
        try:
            yield
        except (sqlite3.DatabaseError, diskcache.Timeout, *_DAMAGE) as error:
            raise self._problem(error) from error

    def _problem(self, error: Exception) -> BadInput | DiskProblem:
        text, place = str(error), self.folder / diskcache.core.DBNAME
        for sign, number in (("is full", ENOSPC), ("readonly", EACCES), ("unable to open", EACCES)):
            if isinstance(error, sqlite3.Error) and sign in text:
                return DiskProblem(place, OSError(number, text))
        return BadInput(
            f"{place}: expected recorded answers, found damage ({type(error).__name__}: {text[:200]}); take out what "
            f"cannot be read, to be asked again, with `python -m zerosearch.retrievers.cache check {self.folder}`, or "
            "restore the folder from a copy"
        )
