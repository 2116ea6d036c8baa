"""The rows of one JSON document: a list of objects, or an object of titles with their sentences.

Read piece by piece: a document may be larger than memory, and only one row of at most MAX_LINE_BYTES need fit.
After bad JSON nothing more can be told apart, so reading ends there.  Called by ``row_files``.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from pathlib import Path
from typing import IO, Any, Iterator, NoReturn

from zerosearch.checked_json import DECODER, READING_ERRORS, json_fault, object_fault
from zerosearch.rows import MAX_LINE_BYTES, Opener, Row, Rows, open_plain

WRAPPER = r'\s*\{\s*"Data"\s*:\s*\['  # how TriviaQA's files begin
_SPACE = re.compile(r"[ \t\r\n]*")
_READ_BYTES = 1 << 20


class JsonList(Rows):
    """The objects of one JSON list.

    max_bytes: read no more of the file.  before: pattern of what stands before the first object.
    """

    def __init__(
        self, path: Path, opener: Opener = open_plain, max_bytes: int | None = None, before: str = r"\s*\["
    ):
        super().__init__(path, opener)
        self._before, self._max_bytes = before, max_bytes

    def _read(self, file: IO[bytes]) -> Iterator[Row]:
        text, number = _Text(file, self._max_bytes), 0
        with self._reading(text):
            text.skip(self._before)
            while text.peek() != "]":
                number += 1
                found, source, line = text.value()
                yield self._numbered(found, line, number, object_fault(found, source))
                text.comma("]")
            text.end(alone=self._before != WRAPPER)

    @contextlib.contextmanager
    def _reading(self, text: _Text) -> Iterator[None]:
        """Note where the document is broken; that no more of it was to be read is no problem."""
        try:
            yield
        except _Broken as error:
            self.problems.append(f"{self.path}:{text.line}: {error}; mend the file or make it again")
        except _Enough:
            return

    def _numbered(self, fields: dict[str, Any], line: int, number: int, fault: str) -> Row:
        row = self._row(None if fault else fields, line)
        row.place, row.where = f"{row.place} (row {number})", f"{row.where} (row {number})"
        if fault:
            row.fault(fault)
        return row


class TitledLists(JsonList):
    """Rows ``title`` and ``sentences`` of one JSON object whose keys are titles and whose values lists of texts."""

    def _read(self, file: IO[bytes]) -> Iterator[Row]:
        text, number = _Text(file, self._max_bytes), 0
        with self._reading(text):
            text.skip(r"\s*\{")
            while text.peek() != "}":
                number += 1
                title, _, line = text.value()
                text.skip(r"\s*:")
                sentences, source, _ = text.value()
                fields = {"title": title, "sentences": sentences}
                yield self._numbered(fields, line, number, object_fault(fields, source))
                text.comma("}")
            text.end()


class _Broken(Exception):
    """A JSON document that cannot be read further."""


class _Enough(Exception):
    """As much of a JSON document was read as was wanted."""


class _Text:
    """The text of a JSON document, of which a few MiB are held at a time.  line: where reading has come to."""

    def __init__(self, file: IO[bytes], max_bytes: int | None):
        self._file, self._left = file, max_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self.line, self._ended = "", 0, 1, False

    def value(self) -> tuple[Any, str, int]:
        """Return (the JSON value that stands here, its text, the line it begins in)."""
        self.peek()
        start, line = self._at, self.line
        try:
            found, end = DECODER.raw_decode(self._text, start)
        except READING_ERRORS as error:
            self._raise(error, len(self._text) - start)
        self._move(end)
        return found, self._text[start:end], line

    def peek(self) -> str:
        """Return the next character that is no space; _Broken or _Enough where there is none."""
        self._fill()
        self._move(_SPACE.match(self._text, self._at).end())  # type: ignore[union-attr]
        if self._at == len(self._text):
            raise self._end_of_text("expected the document to go on, found its end: it is cut short")
        return self._text[self._at]

    def skip(self, pattern: str) -> None:
        """Pass over what a pattern describes."""
        self._fill()
        found = re.compile(pattern).match(self._text, self._at)
        if found is None:
            raise self._end_of_text(f"expected a JSON document, found {self._text[self._at : self._at + 20]!r}")
        self._move(found.end())

    def comma(self, closing: str) -> None:
        """Pass over the comma before the next row; a closing bracket is left where it is."""
        following = self.peek()
        if following not in (",", closing):
            raise _Broken(f"expected a comma or {closing!r} after a row, found {following!r}")
        if following == ",":
            self._move(self._at + 1)
            if self.peek() == closing:
                raise _Broken(f"expected another row after the comma, found {closing!r}")

    def end(self, alone: bool = True) -> None:
        """Pass over the closing bracket.  alone: nothing may stand after it."""
        self._move(self._at + 1)
        self._fill()
        rest = self._text[self._at :].strip()
        if alone and rest:
            raise _Broken(f"expected one JSON document, found more after its end: {rest[:20]!r}")

    def _raise(self, error: Exception, ahead: int) -> NoReturn:
        """Raise what is wrong with the value that stands here; ahead: characters held of it and of what follows."""
        if isinstance(error, json.JSONDecodeError):
            runs_on = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 1
            if ahead > MAX_LINE_BYTES and runs_on:
                wanted = f"rows of at most {MAX_LINE_BYTES / 2**20:g} MiB"
                raise _Broken(f"expected {wanted}, found a longer one (or a quotation mark too few)")
            self._move(min(error.pos, len(self._text)))
            column = self._at - self._text.rfind("\n", 0, self._at)
            raise self._end_of_text(f"expected a JSON object, found bad JSON: {error.msg} at column {column}")
        raise _Broken(json_fault(error))

    def _end_of_text(self, complaint: str) -> Exception:
        """Return the complaint, or that no more was to be read."""
        return _Enough() if self._left == 0 else _Broken(complaint)

    def _fill(self) -> None:
        """Hold two rows of the greatest length ahead of where reading is."""
        if self._at > _READ_BYTES:
            self._text, self._at = self._text[self._at :], 0
        while not self._ended and len(self._text) - self._at < 2 * MAX_LINE_BYTES:
            piece = self._file.read(_READ_BYTES if self._left is None else min(_READ_BYTES, self._left))
            self._ended = not piece
            self._left = None if self._left is None else self._left - len(piece)
            try:
                self._text += self._decoder.decode(piece, final=self._ended and self._left is None)
            except UnicodeDecodeError as error:
                self.line += self._text.count("\n", self._at) + error.object[: error.start].count(b"\n")
                raise _Broken(
                    f"expected UTF-8, found byte {error.object[error.start]:#04x}; convert the file with "
                    "`iconv -f WINDOWS-1252 -t UTF-8`"
                ) from error

    def _move(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to
