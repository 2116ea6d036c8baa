"""What a file is when it is no file of JSON lines: another encoding, an array, a table, an archive.

Looks at the beginning of a file only and says what it looks like and which command converts it, so that a
reader meets one sentence and not one complaint per line.  Called by ``rows``.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

HEAD_BYTES = 1 << 16
_MARKS = (  # the longer ones first: a mark of UTF-32 begins like one of UTF-16
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)
_ARCHIVES = (
    (b"\x1f\x8b", "gzip", "gunzip -c {file} > {new}"), (b"PK\x03\x04", "zip", "unzip -p {file} > {new}"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc {file} > {new}"), (b"BZh", "bzip2", "bunzip2 -c {file} > {new}"),
    (b"PAR1", "Parquet", "{pandas}read_parquet({quoted}){save}"),
)
_ARRAY = re.compile(rb"\s*\[\s*(\{|\]|$|\n)")
_SPREAD_OBJECT = re.compile(rb'\s*\{[ \t\r]*\n\s*"')
_COLUMNS = {"id", "question", "golden_answers", "answer", "answers", "title", "text", "contents"}


def form_problem(path: Path, head: bytes) -> str | None:
    """Return what a file looks like and the command that converts it; None for what may be JSON lines.

    head: the first bytes of the file, at most HEAD_BYTES.
    """
    if (encoding := wide_encoding(head)) is not None:
        return _told(path, f"text in {encoding}", f"iconv -f {encoding} -t UTF-8 {{file}} > {{new}}")
    for mark, name, command in _ARCHIVES:
        if head.startswith(mark):
            return _told(path, f"a {name} file", command)
    head = head.removeprefix(b"\xef\xbb\xbf")
    if _ARRAY.match(head):
        return _told(path, "a JSON array", "jq -c '.[]' {file} > {new}")
    if _SPREAD_OBJECT.match(head):
        return _told(path, "JSON spread over several lines", "jq -c . {file} > {new}")
    return _table(path, head)


def narrow_encoding_hint(path: Path, sample: bytes) -> str:
    """Return what a file without any UTF-8 beyond ASCII is probably written in, with the command.

    sample: a line that is no UTF-8.  Bytes 0x80 to 0x9f are letters in Windows-1252 only.
    """
    encoding = "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in sample) else "LATIN1"
    return _told(path, f"text that looks like {encoding}", f"iconv -f {encoding} -t UTF-8 {{file}} > {{new}}")


def wide_encoding(head: bytes) -> str | None:
    """Return the encoding whose mark a file begins with, or whose zero bytes it has without a mark."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    start = head[:64]
    if len(start) >= 8 and start[1:8:2] == b"\0\0\0\0" and b"\0" not in start[0:8:2]:
        return "UTF-16LE"
    if len(start) >= 8 and start[0:8:2] == b"\0\0\0\0" and b"\0" not in start[1:8:2]:
        return "UTF-16BE"
    return None


def _table(path: Path, head: bytes) -> str | None:
    """Return the complaint about a table with a head line, or with tabs, that is given as JSON lines."""
    first = head.split(b"\n", 1)[0].decode("utf-8", errors="replace").strip()
    if not first or first[0] in '{["':
        return None
    for name, separator in (("TSV", "\t"), ("CSV", ","), ("CSV", ";")):
        columns = {column.strip(' "').lower() for column in first.split(separator)}
        if len(columns) > 1 and columns & _COLUMNS:
            command = f"{{pandas}}read_csv({{quoted}}, sep={separator!r}){{save}}"
            return _told(path, f"a {name} table with the columns {first[:80]}", command) + (
                "; then make golden_answers a list of texts"
            )
    return None


def _told(path: Path, found: str, command: str) -> str:
    """Return the sentence.  command: with {file}, {new} for the shell, or the three parts of a call of pandas."""
    new = path.with_name(path.name + ".new")  # another suffix: beside the old file it is no question set
    save = f".to_json({str(new)!r}, orient='records', lines=True)"
    filled = command.format(
        file=shlex.quote(str(path)), new=shlex.quote(str(new)), quoted=repr(str(path)), save=save, pandas="",
    )
    if "{pandas}" in command:
        filled = f"python -c {shlex.quote('import pandas; pandas.' + filled)}"
    return (
        f"{path}: expected one JSON object per line in UTF-8, found {found}; convert it with `{filled}` and put the "
        "new file in its place"
    )
