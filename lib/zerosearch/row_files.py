"""Rows from files that are no JSON lines: a JSON list, a JSON object of rows, a table with tabs, Parquet; any of
the text forms packed with gzip.

``open_rows`` looks at the beginning of a file, never at its name, and returns the reader for it; what it does not
know goes to ``rows.Lines``, which says what the file looks like.  Every reader streams: a file may be larger than
memory.  Called by ``passages`` and ``question_sets``.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
import zlib
from pathlib import Path
from typing import IO, Any, Iterator, Literal

from zerosearch.file_forms import HEAD_BYTES, wide_encoding
from zerosearch.json_documents import WRAPPER, JsonList, TitledLists
from zerosearch.rows import MAX_LINE_BYTES, Lines, Opener, Row, Rows, open_plain, opened

Content = Literal["questions", "passages"]
_GZIP, _PARQUET, _BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
_LIST = re.compile(rb"\s*\[\s*(\{|\]|$)")
_WRAPPED = re.compile(WRAPPER.encode())
_TITLES = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[\s*["\]]')


def open_gzip(path: Path) -> IO[bytes]:
    """Open a file that gzip has packed."""
    return gzip.open(path, "rb")  # type: ignore[return-value]


def open_rows(path: Path, content: Content, max_bytes: int | None = None) -> Rows:
    """Return the rows of a file of any known form.

    content: what the file holds; only passages come as one object of titles.  max_bytes: read about so much of
    it (of JSON lines and tables), None for all.  MissingInput where there is no file to read.
    """
    head, opener = _head(path)
    if head.startswith(_PARQUET):
        return ParquetRows(path)
    if wide_encoding(head) is not None:
        return Lines(path, max_bytes, opener)  # says so
    if _LIST.match(head):
        return JsonList(path, opener, max_bytes)
    if _WRAPPED.match(head):
        return JsonList(path, opener, max_bytes, before=WRAPPER)
    if content == "passages" and _TITLES.match(head) and not _is_passage_line(head):
        return TitledLists(path, opener, max_bytes)
    if _is_tabbed(head):
        return TabbedRows(path, opener, max_bytes)
    return Lines(path, max_bytes, opener)


def _head(path: Path) -> tuple[bytes, Opener]:
    """Return the beginning of a file (unpacked), without the mark of its encoding, and how to open the file."""
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    if not head.startswith(_GZIP):
        return head.removeprefix(_BOM), open_plain
    try:
        with opened(path, open_gzip) as file:
            return file.read(HEAD_BYTES).removeprefix(_BOM), open_gzip
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b"", open_gzip  # whoever reads on is told


def _is_passage_line(head: bytes) -> bool:
    """Say whether a file begins with a line that is a passage, whatever the order of its keys."""
    try:
        found = json.loads(head.partition(b"\n")[0])
    except ValueError:
        return False
    return isinstance(found, dict) and not found.keys().isdisjoint(("text", "contents"))


def _is_tabbed(head: bytes) -> bool:
    first = head.partition(b"\n")[0].lstrip()
    return b"\t" in first.rstrip() and not first.startswith((b"{", b"["))


class TabbedRows(Rows):
    """The rows of a table with tabs and a head line, quoted the csv way; all values are texts."""

    def __init__(self, path: Path, opener: Opener = open_plain, max_bytes: int | None = None):
        super().__init__(path, opener)
        self._max_bytes = max_bytes
        self._damage = ""  # what is wrong with the encoding of the row that is being read

    def _read(self, file: IO[bytes]) -> Iterator[Row]:
        cells = csv.reader(self._lines(file), delimiter="\t", strict=True)
        columns: list[str] = []
        while True:
            number = cells.line_num + 1
            try:
                found = next(cells)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._row(None, number, fault=f"expected cells quoted the csv way, found: {error}; mend this row")
                continue
            damage, self._damage = self._damage, ""
            if damage:
                yield self._row(None, number, fault=damage)
            elif columns and found:
                yield self._cells(columns, found, number)
            elif len(set(found)) < len(found):
                self.problems.append(f"{self.path}:{number}: expected each column once, found {', '.join(found)[:200]}")
                return
            columns = columns or found

    def _cells(self, columns: list[str], found: list[str], number: int) -> Row:
        if len(found) == len(columns):
            return self._row(dict(zip(columns, found, strict=True)), number)
        wanted = f"{len(columns)} cells ({', '.join(columns)[:80]})"
        return self._row(None, number, fault=f"expected {wanted}, found {len(found)}; mend this row")

    def _lines(self, file: IO[bytes]) -> Iterator[str]:
        """Yield the lines as text; of one that is no UTF-8 it is noted for the row it belongs to."""
        read = 0
        while line := file.readline(MAX_LINE_BYTES):
            try:
                yield (line.removeprefix(_BOM) if read == 0 else line).decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"found byte {line[error.start]:#04x} at column {error.start + 1}"
                self._damage = f"expected UTF-8, {found}; convert the file with `iconv -f WINDOWS-1252 -t UTF-8`"
                yield line.decode("utf-8", errors="replace")
            read += len(line)
            if self._max_bytes is not None and read >= self._max_bytes:
                return


class ParquetRows(Rows):
    """The rows of a Parquet file, told apart by their numbers."""

    def _read(self, file: IO[bytes]) -> Iterator[Row]:
        import pyarrow as pa
        from pyarrow import parquet

        number = 0
        try:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    number += 1
                    yield self._row(plain_values(fields), number, "row")
        except (pa.ArrowException, OSError) as error:
            found = str(error).partition("\n")[0][:200]
            self.problems.append(
                f"{self.path}: expected a whole Parquet file, found one that is damaged or cut short ({found}); copy "
                "or download it again"
            )


def plain_values(value: Any) -> Any:
    """Return an Arrow value as JSON has it: no absent keys, dates and the like as text."""
    if isinstance(value, dict):
        return {key: plain_values(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [plain_values(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, type(None))) else str(value)

