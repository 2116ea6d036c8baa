"""All answers of a folder as one file, for reviewers: a head line that counts and hashes, one answer per line.

A file that was cut short, changed or is of another kind is refused as a whole.  Records of earlier versions,
JSON lines without a head, are read too.  Names ending in ``.gz`` are compressed.  Called by ``cache``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any, Iterable, Iterator

from zerosearch import files
from zerosearch.errors import BadInput, MissingInput
from zerosearch.retrievers.answers import Answer, Answers

FORMAT, VERSION = "zerosearch answers", 1
_MAX_LINE = 2**24  # bytes: an answer of twenty passages of the greatest length
_AT_ONCE = 500  # answers put on the disk together


def export(answers: Iterable[Answer], path: Path) -> int:
    """Write answers into a file, whole or not at all, and return how many; the same answers give the same bytes."""
    lines = [json.dumps(answer.row()).encode("ascii") + b"\n" for answer in answers]
    head = {"format": FORMAT, "version": VERSION, "answers": len(lines), "sha256": _digest(lines)}
    content = b"".join([json.dumps(head).encode("ascii") + b"\n", *lines])
    files.write_atomic(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return len(lines)


def import_file(path: Path, into: Answers) -> tuple[int, int]:
    """Add the answers of a file and return (new ones, all of the file); those already there stay as they are.

    Raises MissingInput where there is no such file, BadInput, before anything is added, for a file that is
    not whole.
    """
    found = list(_answers(path))
    new = sum(into.add(found[start : start + _AT_ONCE]) for start in range(0, len(found), _AT_ONCE))
    return new, len(found)


def _answers(path: Path) -> Iterator[Answer]:
    lines = list(_lines(path))
    head = _parsed(path, 1, lines[0]) if lines else {}
    if head.get("format") == FORMAT:
        _check(path, head, lines[1:])
    elif lines and not lines[-1].endswith(b"\n"):
        del lines[-1]  # of an earlier version: cut off by a crash, and never used
    first = 1 if head.get("format") == FORMAT else 0
    for number, line in enumerate(lines[first:], first + 1):
        row = _parsed(path, number, line)
        try:
            yield Answer.from_row(row)
        except (ValueError, KeyError, TypeError) as error:
            raise _no_answer(path, number, f"{type(error).__name__}: {error}") from error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(_MAX_LINE + 1):
                if len(line) > _MAX_LINE:
                    raise BadInput(f"{path}: expected lines of at most {_MAX_LINE} bytes, found a longer one")
                yield line
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingInput(f"answers: expected a file, found none at {path}; check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{path}: expected a whole gzip file, found {error}; fetch it again") from error


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _no_answer(path, number, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise _no_answer(path, number, f"a {type(found).__name__}")
    return found


def _no_answer(path: Path, number: int, found: str) -> BadInput:
    return BadInput(
        f"{path}:{number}: expected a recorded answer, found a damaged line ({found}); fetch the file again, or remove "
        "that line, and its query will be asked again"
    )


def _check(path: Path, head: dict[str, Any], lines: list[bytes]) -> None:
    """Raise BadInput unless the lines are those that the head speaks of."""
    if head.get("version") != VERSION:
        raise BadInput(f"{path}: expected version {VERSION}, found {head.get('version')!r}; update this project")
    if (len(lines), _digest(lines)) != (head.get("answers"), head.get("sha256")):
        raise BadInput(
            f"{path}: expected {head.get('answers')} answers as they were written, found {len(lines)}, or others; the "
            "file was cut short or changed: fetch it again"
        )


def _digest(lines: list[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()
