"""PopQA: ``possible_answers`` and the aliases are lists written as JSON inside a cell or a text."""

from __future__ import annotations

import json
from typing import Any

from zerosearch.checked_json import shown
from zerosearch.question_sets.drafts import Draft, worth_keeping
from zerosearch.rows import MAX_ANSWER, MAX_QUESTION, Row

_KEPT = ("subj", "prop", "obj", "s_wiki_title", "o_wiki_title")
_COUNTS = ("s_pop", "o_pop")


def read(row: Row) -> Draft:
    """Return a row of ``popQA.tsv`` or of a JSON file with its columns: all possible answers, canonical first.

    Kept are subject, property and object with their titles in Wikipedia, how often their pages are read, and
    the subject's aliases; not the paragraphs that some files add.
    """
    fields = row.fields or {}
    possible = _listed(row, "possible_answers")
    answers = () if row.faults else row.texts("possible_answers", possible, max_length=MAX_ANSWER)
    kept = {name: fields.get(name) for name in _KEPT} | {name: _number(fields.get(name)) for name in _COUNTS}
    if fields.get("s_aliases"):
        kept["s_aliases"] = _listed(row, "s_aliases")
    return Draft(
        row.text("question", max_length=MAX_QUESTION), answers, row.id_text("id") if row.has("id") else "",
        metadata=worth_keeping(kept),
    )


def _listed(row: Row, name: str) -> Any:
    """Return a list that stands in a text as JSON; a list as it is."""
    value = (row.fields or {}).get(name)
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):
        return found
    row.fault(f"{name}: expected a JSON list of texts in the cell, found {shown(value)}; quote the cell the csv way")
    return None


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else None
