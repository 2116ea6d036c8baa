"""Passages in files: every form a corpus is published in, read passage by passage.

A row is one of: ``id``, ``title``, ``text`` (optional ``metadata``); ``id``, ``contents`` with the title in quotes
on its first line (Search-R1, FlashRAG); ``title``, ``sentences`` (an object of titles).  A file is JSON lines, a JSON
list, a table with tabs (DPR's psgs_w100) or Parquet, packed with gzip or not.  Where a JSON list, a table or
an object of titles gives no ids, passages are numbered from 0.  Several passages may share a title.

Files are checked to the end: all their problems are raised at once, each with file and line.  Called by stage 00, the
check before a run, and whoever opens an engine over a file.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

from zerosearch import files
from zerosearch.checked_json import is_text, shown
from zerosearch.errors import BadInput
from zerosearch.row_files import open_rows
from zerosearch.rows import MAX_ID, MAX_PASSAGE, MAX_QUESTION, Lines, Row, Rows
from zerosearch.schema import Passage

PASSAGE_FORMAT = '{"id": "1", "title": "...", "text": "..."}'
MAX_BYTES = 2 * 2**30  # of a file whose passages are kept in memory
_WORLD_KEYS = ("kind", "subject", "relation", "object")  # metadata that the micro-world's measurements read


def load_corpus(file: Path | str) -> list[Passage]:
    """Return the passages of a file, in its order; at least one.  A title may be empty or missing.

    Raises MissingInput where there is no file, BadInput for anything wrong in it or over MAX_BYTES.
    """
    check_size(Path(file))
    rows = open_rows(Path(file), "passages")
    made = list(each_passage(rows))
    raise_if(problems_of(rows), file)
    return made


read_corpus = load_corpus  # a run's corpus.jsonl has the same format


def write_corpus(path: Path | str, passages: Iterable[Passage]) -> Path:
    """Write passages as JSON lines that ``load_corpus`` gives back unchanged."""
    return files.write_jsonl(Path(path), (asdict(p) for p in passages))


def each_passage(rows: Rows) -> Iterator[Passage]:
    """Yield the faultless passages of a file; what is wrong with the others stands in ``rows.problems``."""
    for number, row in enumerate(rows):
        needs_id = isinstance(rows, Lines) or row.has("id") or row.has("_id")
        key = row.key("_id" if row.has("_id") else "id", max_length=MAX_ID) if needs_id else str(number)
        title, text = _title_and_text(row)
        metadata = row.mapping("metadata", texts=_WORLD_KEYS)
        if not row.faults:
            yield Passage(key, title, text, metadata)


def problems_of(rows: Rows, what: str = "passage") -> list[str]:
    """Return the problems of a file that was read, or that it has not a single row."""
    empty = f"{rows.path}: expected at least one {what}, found none; fill the file or remove it"
    return rows.listing() or ([] if rows.n_rows else [empty])


def raise_if(problems: Sequence[str], file: Path | str) -> None:
    """Raise the problems of a file of passages, if there are any."""
    if problems:
        wanted = f"expected lines like {PASSAGE_FORMAT}, or another form that a corpus is published in"
        raise BadInput(f"passages in {file}: {wanted}, found otherwise; mend these and start again", problems)


def check_size(file: Path) -> None:
    """Raise BadInput for a file that is too large to be kept in memory."""
    size = file.stat().st_size if file.is_file() else 0
    if size > MAX_BYTES:
        raise BadInput(
            f"passages in {file}: expected at most {MAX_BYTES / 2**30:g} GiB, since they are kept in memory, found "
            f"{size / 2**30:,.1f} GiB; give a part of them with `--corpus FILE`, or let a server search the whole and "
            "choose an engine that asks it with --set 01.retriever=NAME"
        )


def _title_and_text(row: Row) -> tuple[str, str]:
    """Return title and text of a row in any of the three shapes."""
    if row.has("sentences"):
        return row.text("title", default="", max_length=MAX_QUESTION), _joined(row, (row.fields or {})["sentences"])
    if row.has("contents") and not row.has("text"):
        return _split_contents(row.text("contents", max_length=MAX_PASSAGE))
    return row.text("title", default="", max_length=MAX_QUESTION), row.text("text", max_length=MAX_PASSAGE)


def _split_contents(contents: str) -> tuple[str, str]:
    """Return title and text of ``"Title"\\ntext``; a single line is all text."""
    first, line_break, rest = contents.partition("\n")
    if not (line_break and rest.strip()):
        return "", contents
    title = first.strip()
    return (title[1:-1].strip() if len(title) > 1 and title[0] == title[-1] == '"' else title), rest


def _joined(row: Row, sentences: Any) -> str:
    """Return sentences as one text; many begin with the space before them, some do not."""
    texts = isinstance(sentences, list) and all(isinstance(s, str) for s in sentences)
    if not (texts and any(map(is_text, sentences))):
        row.fault(f"sentences: expected a list of texts that are not all empty, found {shown(sentences)}")
        return ""
    text = "".join(s if s[:1].isspace() else f" {s}" for s in sentences if s).strip()
    if len(text) > MAX_PASSAGE:
        row.fault(f"sentences: expected at most {MAX_PASSAGE:,} characters, found {len(text):,}; shorten or split it")
    return text
