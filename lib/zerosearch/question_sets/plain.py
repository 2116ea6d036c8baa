"""``id``, ``question``, ``golden_answers``, optional ``metadata``: this workbook's own format, and FlashRAG's."""

from __future__ import annotations

from typing import Any, Mapping

from zerosearch.question_sets.drafts import PASSAGE_KEYS, Draft
from zerosearch.questions import question_metadata
from zerosearch.rows import MAX_ANSWER, MAX_QUESTION, Row


def read(row: Row) -> Draft:
    """Return the question of a row; its metadata are kept as they are, but for passages."""
    key = row.id_text("id")
    text = row.text("question", max_length=MAX_QUESTION)
    answers = row.answers("golden_answers", max_length=MAX_ANSWER)
    return Draft(text, answers, key, metadata=_without_passages(question_metadata(row)))


def read_flashrag(row: Row) -> Draft:
    """Return the question of a row of the FlashRAG collection: of a list of answers, blank ones are passed over."""
    text = row.text("question", max_length=MAX_QUESTION)
    answers = row.texts("golden_answers", (row.fields or {}).get("golden_answers"), max_length=MAX_ANSWER)
    return Draft(text, answers, row.id_text("id"), metadata=_without_passages(row.mapping("metadata")))


def _without_passages(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metadata.items() if not (k in PASSAGE_KEYS and isinstance(v, (dict, list)))}
