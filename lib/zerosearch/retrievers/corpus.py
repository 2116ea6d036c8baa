"""Passages for engines: a small file in memory, a large one left on the disk and read passage by passage.

A large file is read once to the end: where each passage begins, what the corpus is called (a digest of its
texts) and which kinds of passages it holds are kept beside the other caches, under the hash of the file.
Called by the BM25 engine, its server, and notebooks that open an engine.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence, overload

import numpy as np
from filelock import FileLock

from zerosearch import artifacts, files
from zerosearch.errors import BadInput, MissingInput
from zerosearch.questions import load_corpus
from zerosearch.retrievers import ENGINES, REMOTE
from zerosearch.schema import Passage

IN_MEMORY_BYTES = 64 * 2**20  # a larger file stays on the disk
_LOCAL = frozenset(ENGINES) - frozenset(REMOTE)
_MAX_SHOWN = 100  # problems of one file that are listed
_STARTS, _ABOUT = "starts.npy", "about.json"
_ABOUT_KEYS = {"digest": str, "kinds": list, "n": int}
_FORMATS = '{"id": "1", "title": "...", "text": "..."} or {"id": "1", "contents": "\\"...\\"\\n..."}'


def open_passages(path: Path | str, cache: Path | None = None, in_memory: int = IN_MEMORY_BYTES) -> Sequence[Passage]:
    """Return the passages of a file of JSON lines, in its order.

    cache: folder of caches, ``artifacts.cache_dir()`` if None.  in_memory: bytes up to which a file is read
    whole.  Raises MissingInput where there is no such file, BadInput for lines that are no passages.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInput(f"passages: expected a file of JSON lines, found none at {path}; check the path")
    if path.stat().st_size <= in_memory:
        first = next((line for line in path.open("rb") if line.strip()), b"")
        return list(_each(path)) if b'"contents"' in first else load_corpus(path)
    return PassageFile.open(path, cache or artifacts.cache_dir())


def of_run(stage: artifacts.Stage, engine: str) -> Sequence[Passage]:
    """Return the passages of the run; none where it has none and its engine does without (a server, a simulator).

    Raises MissingInput where stage 00 left none for an engine that searches them.
    """
    name = "corpus.jsonl"
    path = stage.require("00", name) if engine in _LOCAL else stage.find("00", name)
    return open_passages(path) if path is not None else ()


def passage_of(row: Mapping[str, Any], default_id: str = "") -> Passage:
    """Return the passage of a JSON object with ``text`` (and ``title``), or with ``contents`` in their place.

    contents: title and text as one string, the title on the first line, in quotes; that is how published
    Wikipedia corpora and their servers write passages.  Raises ValueError for anything else.
    """
    key, title, text = row.get("id", default_id), row.get("title"), row.get("text")
    contents = row.get("contents")
    if not isinstance(text, str) and isinstance(contents, str):
        head, line_break, rest = contents.partition("\n")
        in_contents, text = (_unquoted(head.strip()), rest) if line_break else ("", contents)
        title = title if isinstance(title, str) else in_contents
    if not isinstance(text, str) or not isinstance(title, str | None) or isinstance(key, bool):
        raise ValueError("no passage: expected texts under 'title' and 'text', or under 'contents'")
    if not isinstance(key, str | int):
        raise ValueError("no passage: expected a text or a number under 'id'")
    metadata = row.get("metadata")
    return Passage(str(key), title or "", text, metadata if isinstance(metadata, dict) else {})


def _unquoted(title: str) -> str:
    """Return a title without the quotes around it; quotes that belong to it stay."""
    return title[1:-1] if len(title) > 1 and title[0] == title[-1] == '"' else title


def digest_of(passages: Sequence[Passage]) -> str:
    """Return 16 hex digits that change with ids, titles, texts and order of the passages."""
    if isinstance(passages, PassageFile):
        return passages.digest
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(_digested(passage))
    return digest.hexdigest()[:16]


def kinds_of(passages: Sequence[Passage]) -> set[str]:
    """Return the kinds that the passages' metadata name; none for a corpus of real passages."""
    if isinstance(passages, PassageFile):
        return set(passages.kinds)
    return {kind for p in passages if isinstance(kind := p.metadata.get("kind"), str)}


class PassageFile(Sequence[Passage]):
    """The passages of a file that stays on the disk; what is asked for is read.

    digest, kinds: as ``digest_of`` and ``kinds_of`` give them.  The file must not change while it is open.
    """

    def __init__(self, path: Path, starts: np.ndarray, digest: str, kinds: Sequence[str]):
        self.path, self.digest, self.kinds = path, digest, tuple(kinds)
        self._starts = starts  # (P,) int64, byte at which each passage's line begins
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @classmethod
    def open(cls, path: Path, cache: Path) -> PassageFile:
        """Return the passages of a file; what was learnt about it lies in a folder of the cache."""
        folder = cache / f"passages-{files.sha256(path)[:16]}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            about = files.find_object(folder / _ABOUT, _ABOUT_KEYS)
            if about is None or not (folder / _STARTS).is_file():
                about = _learn(path, folder)
        starts = np.load(folder / _STARTS, mmap_mode="r")
        return cls(path, starts, about["digest"], about["kinds"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as a path, which is opened there."""
        return open_passages, (self.path.absolute(), None, 0)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Passage: ...
    @overload
    def __getitem__(self, index: slice) -> list[Passage]: ...
    def __getitem__(self, index: int | slice) -> Passage | list[Passage]:
        """Return a passage, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = int(self._starts[index])
        end = self._bytes.find(b"\n", start)
        return passage_of(json.loads(self._bytes[start : end if end >= 0 else len(self._bytes)]))

    def __iter__(self) -> Iterator[Passage]:
        return (passage_of(json.loads(line)) for _, line in _lines(self.path))


def _learn(path: Path, folder: Path) -> dict[str, Any]:
    """Read a file to its end and leave in folder where its passages begin and what they are."""
    starts, digest, kinds = array("q"), hashlib.sha256(), set[str]()
    for passage in _each(path, starts):
        digest.update(_digested(passage))
        if isinstance(kind := passage.metadata.get("kind"), str):
            kinds.add(kind)
    about = {"digest": digest.hexdigest()[:16], "kinds": sorted(kinds), "n": len(starts)}

    def write(temporary: Path) -> None:
        np.save(temporary / _STARTS, np.frombuffer(starts, dtype=np.int64))
        files.write_json(temporary / _ABOUT, about)

    files.save_folder(folder, write)
    return about


def _each(path: Path, starts: array[int] | None = None) -> Iterator[Passage]:
    """Yield the passages of a file and note where they begin; BadInput at its end if there were problems."""
    problems, n_problems, n_passages = list[str](), 0, 0
    for number, (start, line) in enumerate(_lines(path), 1):
        try:
            passage = passage_of(json.loads(line))
        except (ValueError, AttributeError, RecursionError) as error:
            n_problems += 1
            problems += [f"{path}: passage {number}: {error}"] if len(problems) < _MAX_SHOWN else []
            continue
        n_passages += 1
        if starts is not None:
            starts.append(start)
        yield passage
    if n_problems or not n_passages:
        found = f"{n_problems} that are not" if n_problems else "no line"
        raise BadInput(f"{path}: expected passages like {_FORMATS}, found {found}; mend the file", problems)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (first byte, line) of every line that is not empty."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield start, line
            start += len(line)


def _digested(passage: Passage) -> bytes:
    return "\x1f".join((passage.id, passage.title, passage.text, "\n")).encode("utf-8", "surrogatepass")
