"""MuSiQue with its decomposition: the canonical answer first, then its aliases."""

from __future__ import annotations

from typing import Any

from zerosearch.checked_json import shown
from zerosearch.question_sets.drafts import Draft, worth_keeping
from zerosearch.rows import MAX_ANSWER, MAX_QUESTION, Row


def read(row: Row) -> Draft:
    """Return a native row: ``id``, ``question``, ``answer``, ``answer_aliases``, ``question_decomposition``.

    Kept are the single questions with their answers (``decomposition``), how many there are (``n_hops``) and the
    titles of the supporting paragraphs.  A row that is marked as not answerable is refused.
    """
    fields = row.fields or {}
    canonical = row.text("answer", max_length=MAX_ANSWER)
    aliases = fields.get("answer_aliases") or []
    more = row.texts("answer_aliases", aliases, max_length=MAX_ANSWER) if aliases else ()
    if fields.get("answerable") is False:
        row.fault("answerable: expected a question that can be answered, found false; use the files named musique_ans")
    steps = _steps(row, fields.get("question_decomposition"))
    metadata = {"decomposition": steps, "n_hops": len(steps) or None, "supporting_titles": _titles(fields)}
    return Draft(
        row.text("question", max_length=MAX_QUESTION), tuple(dict.fromkeys((canonical, *more))), row.id_text("id"),
        metadata=worth_keeping(metadata),
    )


def _steps(row: Row, found: Any) -> list[dict[str, str]]:
    """Return the single questions and their answers."""
    steps = found if isinstance(found, list) else []
    if not all(isinstance(step, dict) and {"question", "answer"} <= set(step) for step in steps):
        row.fault(f"question_decomposition: expected questions with answers, found {shown(found)}")
        return []
    return [{"question": str(step["question"]), "answer": str(step["answer"])} for step in steps]


def _titles(fields: Any) -> list[str]:
    paragraphs = fields.get("paragraphs")
    marked = paragraphs if isinstance(paragraphs, list) else []
    titles = (p.get("title") for p in marked if isinstance(p, dict) and p.get("is_supporting") is True)
    return list(dict.fromkeys(title for title in titles if isinstance(title, str)))
