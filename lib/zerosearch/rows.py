"""Checked rows of a reader's file: every complaint with file and line, none of them fatal.

A ``Row`` is one JSON object, whatever file it comes from; its readers (``text``, ``answers`` ...) return the
value or note what is wrong with it.  ``Rows`` is a file of them: the caller goes through it to the end and then
looks at ``problems``.  Nothing is repaired and nothing guessed.  ``Lines`` reads JSON lines, one by one: a file
may be larger than memory, and a line over MAX_LINE_BYTES is refused without being decoded.  The other forms of
file are in ``row_files``.  Called by ``questions``, ``passages`` and ``question_sets``.

Limits of a reader's own files: a longer question or answer fits into no prompt, and a passage is cut to a
few hundred tokens at most, so that what is longer is almost certainly a whole document in one line.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from pathlib import Path
from typing import IO, Any, Callable, Iterator, Mapping, Sequence

from zerosearch.checked_json import is_text, parsed, shown
from zerosearch.errors import MissingInput, did_you_mean
from zerosearch.file_forms import HEAD_BYTES, form_problem, narrow_encoding_hint

MAX_SHOWN = 100  # problems of one file that are listed one by one
MAX_LINE_BYTES = 1 << 20
MAX_ID, MAX_QUESTION, MAX_ANSWER, MAX_PASSAGE = 200, 10_000, 1_000, 100_000  # characters
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20

Opener = Callable[[Path], IO[bytes]]


def open_plain(path: Path) -> IO[bytes]:
    """Open a file as it is."""
    return path.open("rb")


class Rows:
    """The rows of a file, in order; subclasses read one form of file each.

    problems: all complaints so far, each beginning with the file.  n_rows: objects met.  opener: how the file
    is opened (``gzip.open`` for a packed one).
    """

    def __init__(self, path: Path, opener: Opener = open_plain):
        self.path, self.problems, self.n_rows = path, list[str](), 0
        self._opener, self._ids = opener, dict[tuple[str, str], str]()

    def __iter__(self) -> Iterator[Row]:
        try:
            with opened(self.path, self._opener) as file:
                for row in self._read(file):
                    if row.fields is not None:
                        self.n_rows += 1
                        yield row
                    self.problems += row.faults
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.problems.append(
                f"{self.path}: expected a whole gzip file, found one that is damaged or cut short ({error}); copy or "
                "download it again"
            )

    def listing(self) -> list[str]:
        """Return the problems for showing: what holds for the whole file, the first hundred, how many more."""
        more = len(self.problems) - MAX_SHOWN
        return self.problems[:MAX_SHOWN] + ([f"{self.path}: and {more} more"] if more > 0 else [])

    def _read(self, file: IO[bytes]) -> Iterator[Row]:
        """Yield all rows; those that are no object have ``fields`` None and say why in ``faults``."""
        raise NotImplementedError

    def _row(self, fields: Mapping[str, Any] | None, number: int, what: str = "line", fault: str = "") -> Row:
        """Return a row of this file; number: of its line, counted from 1, or of the row where lines mean nothing."""
        place = f"{self.path}:{number}" if what == "line" else f"{self.path}: {what} {number}"
        row = Row(fields, place, f"{what} {number}", self._ids)
        if fault:
            row.fault(fault)
        return row


@contextlib.contextmanager
def opened(path: Path, opener: Opener = open_plain) -> Iterator[IO[bytes]]:
    """Open a file for reading; what the system refuses is told as MissingInput with the way out."""
    try:
        with opener(path) as file:
            yield file
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingInput(
            f"expected a file of JSON lines at {path}, found none; check the paths given to "
            "`./run_all.sh --questions DIR --corpus FILE`"
        ) from error
    except gzip.BadGzipFile:
        raise
    except OSError as error:
        raise MissingInput(
            f"expected a file of JSON lines at {path} that can be read, found: {error.strerror}; make it "
            f"readable with `chmod u+r {path}` or give another file"
        ) from error


class Lines(Rows):
    """The JSON objects of a file of JSON lines.  Empty lines are passed over, a byte order mark too.

    max_bytes: stop after the line in which so many bytes are reached, None to read all.
    """

    def __init__(self, path: Path, max_bytes: int | None = None, opener: Opener = open_plain):
        super().__init__(path, opener)
        self._max_bytes, self._undecodable, self._has_utf8 = max_bytes, b"", False

    def listing(self) -> list[str]:
        """Return the problems for showing, led by the encoding the file seems to have where it is not UTF-8."""
        wrongly_encoded = bool(self._undecodable) and not self._has_utf8
        hint = [narrow_encoding_hint(self.path, self._undecodable)] if wrongly_encoded else []
        return hint + super().listing()

    def _read(self, file: IO[bytes]) -> Iterator[Row]:
        whole = form_problem(self.path, file.read(HEAD_BYTES))
        if whole is not None:
            self.problems.append(whole)
            return
        file.seek(0)
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                self.problems.append(_too_long(f"{self.path}:{number}", len(line) + _skip_line(file, line)))
            elif (line := line.removeprefix(_BOM) if number == 1 else line).strip():
                yield self._parsed(line, number)
            if self._max_bytes is not None and file.tell() >= self._max_bytes:
                return

    def _parsed(self, line: bytes, number: int) -> Row:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            self._note_encoding(line, decoded=False)
            found = f"expected UTF-8, found byte {line[error.start]:#04x} at column {error.start + 1}"
            return self._row(None, number, fault=found)
        self._note_encoding(line, decoded=True)
        found, fault = parsed(text)
        return self._row(found, number, fault=fault)

    def _note_encoding(self, line: bytes, decoded: bool) -> None:
        """Remember the first line that is no UTF-8, and whether there is any UTF-8 beyond ASCII in the file.

        Byte 0xed stands before halves of surrogate pairs, which some programs write as if they were characters.
        """
        if not decoded:
            self._undecodable = self._undecodable or line
            self._has_utf8 |= not line.decode("utf-8", errors="ignore").isascii() or b"\xed" in line
        elif not self._has_utf8:
            self._has_utf8 = not line.isascii()


class Row:
    """One row.  fields: its JSON object, None if it is none.  faults: what is wrong with it.

    place: file and line, for messages.  where: the line or row alone, such as ``line 3``.  ids: ids of the rows
    before and where they stand, shared by all rows of a file.
    """

    def __init__(
        self, fields: Mapping[str, Any] | None, place: str, where: str, ids: dict[tuple[str, str], str] | None = None
    ):
        self.fields, self.place, self.where = fields, place, where
        self._ids = {} if ids is None else ids
        self.faults: list[str] = []

    def has(self, *names: str) -> bool:
        """Say whether the row has all of these keys."""
        return self.fields is not None and all(name in self.fields for name in names)

    def key(self, name: str, max_length: int = MAX_LINE_BYTES) -> str:
        """Return the row's id (a text, or a whole number as text) after checking that it is new."""
        value = self.id_text(name)
        return self.new(value, name, max_length) if value else ""

    def id_text(self, name: str) -> str:
        """Return an id as text, whether or not it is new; notes anything else."""
        value = self._get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return value if is_text(value) else self._wrong(name, "a text that is not empty") or ""

    def new(self, value: str, name: str = "id", max_length: int = MAX_LINE_BYTES, among: str = "") -> str:
        """Return an id after checking that no row before has it.  among: a set that has ids of its own."""
        if (among, value) in self._ids:
            before = self._ids[among, value]
            self.fault(f"{name}: expected an id of its own, found {value[:60]!r} of {before} again")
        self._ids.setdefault((among, value), self.where)
        return self._not_longer(name, value, max_length)

    def text(self, name: str, default: str | None = None, max_length: int = MAX_LINE_BYTES) -> str:
        """Return a text of at most so many characters; without a default it may be neither missing nor blank."""
        value = self._get(name)
        if default is not None and value in (None, ""):
            return default
        if not is_text(value):
            return self._wrong(name, "a text that is not empty") or ""
        return self._not_longer(name, value, max_length)

    def answers(self, name: str, max_length: int = MAX_LINE_BYTES) -> tuple[str, ...]:
        """Return a list of texts with at least one text in it, none of them blank or over so many characters."""
        value = self._get(name)
        if isinstance(value, list) and value and all(is_text(v) for v in value):
            return tuple(self._not_longer(name, v, max_length) for v in value)
        hint = f'; write [{shown(value)}]' if is_text(value) else ""
        return self._wrong(name, "a list of one or more texts that are not empty", hint) or ()

    def texts(self, name: str, value: Any, max_length: int = MAX_LINE_BYTES) -> tuple[str, ...]:
        """Return one text or a list of them, blank ones passed over and each kept once; one at least must be left.

        name: what the value is called in a complaint.
        """
        found = [value] if isinstance(value, str) else value
        if isinstance(found, list) and all(isinstance(v, str) for v in found) and any(map(is_text, found)):
            return tuple(self._not_longer(name, v, max_length) for v in dict.fromkeys(found) if is_text(v))
        self.fault(f"{name}: expected a text or a list of texts that are not empty, found {shown(value)}")
        return ()

    def mapping(self, name: str, texts: Sequence[str] = ()) -> dict[str, Any]:
        """Return a JSON object, empty when it is missing.  texts: keys that hold a text where they occur."""
        value = self._get(name)
        if not isinstance(value, dict):
            return {} if value is None else self._wrong(name, "an object") or {}
        for key in texts:
            if key in value and not isinstance(value[key], str):
                self.fault(f"{name}.{key}: expected a text, found {shown(value[key])}; rename or remove this key")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return one of some texts."""
        value = self._get(name)
        return value if value in choices else self._wrong(name, f"one of {', '.join(choices)}") or ""

    def _get(self, name: str) -> Any:
        return (self.fields or {}).get(name)

    def _not_longer(self, name: str, value: str, max_length: int) -> str:
        """Return the text; note when it has more characters than allowed."""
        if len(value) > max_length:
            self.fault(f"{name}: expected at most {max_length:,} characters, found {len(value):,}; shorten or split it")
        return value

    def _wrong(self, name: str, wanted: str, hint: str = "") -> None:
        """Note that a key holds something else, or is absent (with the nearest key there is)."""
        keys = [*(self.fields or {})]
        found = shown(self._get(name)) if name in keys else f"no such key{did_you_mean(name, keys)}"
        self.fault(f"{name}: expected {wanted}, found {found}{hint}")

    def fault(self, text: str) -> None:
        """Note something that is wrong with this row."""
        self.faults.append(f"{self.place}: {text}")


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
