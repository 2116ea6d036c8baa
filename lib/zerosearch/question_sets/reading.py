"""One file of questions -> ``Question`` records: format, ids, sets, limits, and notes for the reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zerosearch.question_sets import formats
from zerosearch.question_sets.drafts import Draft
from zerosearch.question_sets.names import TRAIN_SUFFIX, Name
from zerosearch.rows import MAX_ID, Row, Rows
from zerosearch.schema import Question, Split


@dataclass(slots=True)
class ReadFile:
    """What a file gave.  notes: what a reader should know.  format: "" where none was recognised."""

    questions: list[Question] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    format: str = ""


def read_rows(rows: Rows, name: Name, format_name: str = "") -> ReadFile:
    """Return the faultless questions of a file and everything that is wrong with it.

    name: set and split that the file's name says.  format_name: "" to tell the format from the first row.  A
    question's id is ``<set>/<id>``, or ``<set>_train/<id>`` where it trains; rows without an id are numbered
    from 0.  The set that a row names goes before the file's.
    """
    made, one_text = ReadFile(), 0
    found = formats.by_name(format_name) if format_name else None
    for number, row in enumerate(rows):
        found = found or formats.of_row(row)
        draft = found.read(row) if found else None
        dataset = _dataset(row, draft, name) if draft else ""
        if draft is None or not dataset:
            rows.problems += row.faults
            break  # the other rows would say the same
        key = draft.id or ("" if row.faults else str(number))
        key = row.new(key, max_length=MAX_ID, among=dataset) if key else ""
        if not row.faults:
            made.questions.append(_question(draft, dataset, key, name.trains))
            one_text += draft.one_text
    made.format = found.name if found else ""
    made.problems = _problems(rows)
    made.notes = [_one_text_note(rows.path, one_text)] if one_text else []
    return made


def _dataset(row: Row, draft: Draft, name: Name) -> str:
    """Return the set that a row or its file names; "" and a fault where neither does."""
    dataset = draft.dataset or name.dataset
    if not dataset:
        row.fault(
            "expected the name of the set in the file's name, as in nq_train.jsonl, or in every row, found none; "
            "rename the file"
        )
    return dataset


def _question(draft: Draft, dataset: str, key: str, trains: bool) -> Question:
    prefix = dataset + (TRAIN_SUFFIX if trains else "")
    split: Split = "train" if trains else "eval"
    return Question(f"{prefix}/{key}", dataset, draft.question, draft.answers, split, draft.metadata)


def _problems(rows: Rows) -> list[str]:
    empty = f"{rows.path}: expected at least one question, found none; fill the file or remove it"
    return rows.listing() or ([] if rows.n_rows else [empty])


def _one_text_note(path: Path, n: int) -> str:
    return (
        f"{path}: the answers of {n:,} of its rows are one text with ', ' in it; if several were joined there, they "
        "cannot be told apart, and only the whole text counts as right"
    )
