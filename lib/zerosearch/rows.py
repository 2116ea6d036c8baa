"""Checked lines of a reader's JSON-lines file: every complaint with file and line, none of them fatal.

``Lines(path)`` yields one ``Row`` per JSON object; a row's readers (``text``, ``answers`` ...) return
the value or note what is wrong with it.  The caller goes through the whole file and then looks at
``Lines.problems``.  Nothing is repaired and nothing guessed.  A file is read line by line: it may be
larger than memory, and a line over MAX_LINE_BYTES is refused without being decoded.  Called by ``questions``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import IO, Any, Iterator, Sequence

from zerosearch.errors import MissingInput, did_you_mean
from zerosearch.file_forms import HEAD_BYTES, form_problem, narrow_encoding_hint

MAX_SHOWN = 100  # problems of one file that are listed one by one
MAX_LINE_BYTES = 1 << 20
MAX_DEPTH = 50  # objects and lists inside each other
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20


class Lines:
    """The JSON objects of a file, in order.  Empty lines are passed over, a byte order mark too.

    max_bytes: stop after the line in which so many bytes are reached, None to read all.  problems: all
    complaints so far, each beginning with the file.  n_rows: objects met.
    """

    def __init__(self, path: Path, max_bytes: int | None = None):
        self.path, self.problems, self.n_rows = path, list[str](), 0
        self._max_bytes, self._undecodable, self._has_utf8 = max_bytes, b"", False

    def __iter__(self) -> Iterator[Row]:
        try:
            with self.path.open("rb") as file:
                whole = form_problem(self.path, file.read(HEAD_BYTES))
                if whole is not None:
                    self.problems.append(whole)
                    return
                file.seek(0)
                yield from self._rows(file)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingInput(
                f"expected a file of JSON lines at {self.path}, found none; check the paths given to "
                "`./run_all.sh --questions DIR --corpus FILE`"
            ) from error
        except OSError as error:
            raise MissingInput(
                f"expected a file of JSON lines at {self.path} that can be read, found: {error.strerror}; make it "
                f"readable with `chmod u+r {self.path}` or give another file"
            ) from error

    def listing(self) -> list[str]:
        """Return the problems for showing: what holds for the whole file, the first hundred, how many more."""
        more = len(self.problems) - MAX_SHOWN
        wrongly_encoded = bool(self._undecodable) and not self._has_utf8
        hint = [narrow_encoding_hint(self.path, self._undecodable)] if wrongly_encoded else []
        return hint + self.problems[:MAX_SHOWN] + ([f"{self.path}: and {more} more"] if more > 0 else [])

    def _rows(self, file: IO[bytes]) -> Iterator[Row]:
        ids: dict[str, int] = {}
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{self.path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                self.problems.append(_too_long(place, len(line) + _skip_line(file, line)))
            elif (line := line.removeprefix(_BOM) if number == 1 else line).strip():
                row = Row(line, place, ids, number)
                self._note_encoding(line, row)
                if row.fields is not None:
                    self.n_rows += 1
                    yield row
                self.problems += row.faults
            if self._max_bytes is not None and file.tell() >= self._max_bytes:
                return

    def _note_encoding(self, line: bytes, row: Row) -> None:
        """Remember the first line that is no UTF-8, and whether there is any UTF-8 beyond ASCII in the file.

        Byte 0xed stands before halves of surrogate pairs, which some programs write as if they were characters.
        """
        if not row.decoded:
            self._undecodable = self._undecodable or line
            self._has_utf8 |= not line.decode("utf-8", errors="ignore").isascii() or b"\xed" in line
        elif not self._has_utf8:
            self._has_utf8 = not line.isascii()


class Row:
    """One line.  fields: its JSON object, None if it is none.  faults: what is wrong with it.

    ids: ids of the lines before and their line numbers, shared by all rows of a file.  decoded: False
    when the line is no UTF-8.
    """

    def __init__(self, line: bytes, place: str, ids: dict[str, int], number: int):
        self.place, self.number, self._ids, self.decoded = place, number, ids, True
        self.faults: list[str] = []
        self.fields = self._parse(line)

    def key(self, name: str, max_length: int = MAX_LINE_BYTES) -> str:
        """Return the row's id (a text, or a whole number as text) after checking that it is new."""
        value = self._get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not _is_text(value):
            return self._wrong(name, "a text that is not empty") or ""
        if value in self._ids:
            self.fault(f"{name}: expected an id of its own, found {value[:60]!r} of line {self._ids[value]} again")
        self._ids.setdefault(value, self.number)
        return self._not_longer(name, value, max_length)

    def text(self, name: str, default: str | None = None, max_length: int = MAX_LINE_BYTES) -> str:
        """Return a text of at most so many characters; without a default it may be neither missing nor blank."""
        value = self._get(name)
        if default is not None and value in (None, ""):
            return default
        if not _is_text(value):
            return self._wrong(name, "a text that is not empty") or ""
        return self._not_longer(name, value, max_length)

    def answers(self, name: str, max_length: int = MAX_LINE_BYTES) -> tuple[str, ...]:
        """Return a list of texts with at least one text in it, none of them blank or over so many characters."""
        value = self._get(name)
        if isinstance(value, list) and value and all(_is_text(v) for v in value):
            return tuple(self._not_longer(name, v, max_length) for v in value)
        hint = f'; write [{_shown(value)}]' if _is_text(value) else ""
        return self._wrong(name, "a list of one or more texts that are not empty", hint) or ()

    def mapping(self, name: str, texts: Sequence[str] = ()) -> dict[str, Any]:
        """Return a JSON object, empty when it is missing.  texts: keys that hold a text where they occur."""
        value = self._get(name)
        if not isinstance(value, dict):
            return {} if value is None else self._wrong(name, "an object") or {}
        for key in texts:
            if key in value and not isinstance(value[key], str):
                self.fault(f"{name}.{key}: expected a text, found {_shown(value[key])}; rename or remove this key")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return one of some texts."""
        value = self._get(name)
        return value if value in choices else self._wrong(name, f"one of {', '.join(choices)}") or ""

    def _get(self, name: str) -> Any:
        return (self.fields or {}).get(name)

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            found = json.loads(line.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_number)
            if b"\\u" in line:
                json.dumps(found, ensure_ascii=False).encode("utf-8")
        except UnicodeDecodeError as error:
            self.decoded = False
            return self.fault(f"expected UTF-8, found byte {line[error.start]:#04x} at column {error.start + 1}")
        except UnicodeEncodeError:
            return self.fault("expected text, found half of a surrogate pair (such as \\ud83d without its other half)")
        except json.JSONDecodeError as error:
            return self.fault(f"expected a JSON object, found bad JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            return self.fault("expected a JSON object, found one that is nested too deeply")
        except _Refused as error:
            return self.fault(f"expected a JSON object, found {error}")
        except ValueError:  # Python reads no number of thousands of digits
            return self.fault("expected a JSON object, found a number of thousands of digits; write it as a text")
        if line.count(b"{") + line.count(b"[") > MAX_DEPTH and _depth(found) > MAX_DEPTH:
            return self.fault(f"expected a JSON object, found one that is nested too deeply (over {MAX_DEPTH} levels)")
        return found if isinstance(found, dict) else self.fault(f"expected a JSON object, found {_shown(found)}")

    def _not_longer(self, name: str, value: str, max_length: int) -> str:
        """Return the text; note when it has more characters than allowed."""
        if len(value) > max_length:
            self.fault(f"{name}: expected at most {max_length:,} characters, found {len(value):,}; shorten or split it")
        return value

    def _wrong(self, name: str, wanted: str, hint: str = "") -> None:
        """Note that a key holds something else, or is absent (with the nearest key there is)."""
        keys = [*(self.fields or {})]
        found = _shown(self._get(name)) if name in keys else f"no such key{did_you_mean(name, keys)}"
        self.fault(f"{name}: expected {wanted}, found {found}{hint}")

    def fault(self, text: str) -> None:
        """Note something that is wrong with this line."""
        self.faults.append(f"{self.place}: {text}")


class _Refused(Exception):
    """JSON that Python would read, but not without losing something."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError for a key that stands in it twice, of which JSON would keep the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Refused(f"the key {_shown(twice)} twice; remove one of them")
    return made


def _no_number(name: str) -> None:
    raise _Refused(f"{name}, which is no value in JSON; write null or a text")


def _depth(value: Any) -> int:
    """Return how many objects and lists stand inside each other."""
    depth, level = 0, [value]
    while level := [inner for outer in level if isinstance(outer, (dict, list))
                    for inner in (outer.values() if isinstance(outer, dict) else outer)]:
        depth += 1
    return depth


def _too_long(place: str, size: int) -> str:
    return (
        f"{place}: expected lines of at most {MAX_LINE_BYTES / 2**20:g} MiB, found one of {size / 2**20:,.1f} MiB; "
        "split it into shorter passages, one JSON object per line"
    )


def _skip_line(file: IO[bytes], begun: bytes) -> int:
    """Read on to the end of a line that is too long; return how many more bytes it had."""
    skipped, piece = 0, begun
    while not piece.endswith(b"\n") and (piece := file.readline(_CHUNK)):
        skipped += len(piece)
    return skipped


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
