"""HotpotQA and 2WikiMultiHopQA: native (lists of pairs) and as the hub has them (columns).

Kept are type, level, supporting facts as ``[title, sentence]`` and evidences as triples.  The paragraphs of the
context are not: some rows have fewer than ten, and a policy is to find them itself.
"""

from __future__ import annotations

from typing import Any, Mapping

from zerosearch.checked_json import shown
from zerosearch.question_sets.drafts import Draft, worth_keeping
from zerosearch.rows import MAX_ANSWER, MAX_QUESTION, Row


def read(row: Row) -> Draft:
    """Return a native row: ``_id``, ``question``, ``answer``, ``supporting_facts``, ``context``.

    2WikiMultiHopQA adds ``evidences`` and, in its files with ids, ``answer_id``: the key to the aliases that
    stand in a file of their own (see ``folder``).
    """
    return _draft(row, "_id", _facts(row, _get(row, "supporting_facts")), _get(row, "evidences"))


def read_hub(row: Row) -> Draft:
    """Return a row of the hub's schema: the same, with columns in the place of pairs, and ``id``."""
    facts, evidences = _get(row, "supporting_facts"), _get(row, "evidences")
    if isinstance(facts, Mapping):
        facts = _rows_of(facts, "title", "sent_id")
    if isinstance(evidences, Mapping):
        evidences = _rows_of(evidences, "fact", "relation", "entity")
    return _draft(row, "id" if row.has("id") else "_id", _facts(row, facts), evidences)


def _draft(row: Row, key: str, facts: list[list[Any]], evidences: Any) -> Draft:
    answers = row.texts("answer", _get(row, "answer"), max_length=MAX_ANSWER)
    metadata = {name: _get(row, name) for name in ("type", "level", "answer_id")}
    return Draft(
        row.text("question", max_length=MAX_QUESTION), answers, row.id_text(key),
        metadata=worth_keeping({**metadata, "supporting_facts": facts, "evidences": evidences}),
    )


def _facts(row: Row, found: Any) -> list[list[Any]]:
    """Return supporting facts as ``[title, sentence]``; a test set has none."""
    if found in (None, [], {}):
        return []
    pairs = isinstance(found, list) and all(isinstance(fact, list) and len(fact) == 2 for fact in found)
    if not (pairs and all(isinstance(title, str) and isinstance(number, int) for title, number in found)):
        row.fault(f"supporting_facts: expected pairs of title and sentence, found {shown(found)}")
        return []
    return [list(fact) for fact in found]


def _rows_of(columns: Mapping[str, Any], *names: str) -> Any:
    """Return columns of equal length as rows; what is none as it is."""
    found = [columns.get(name) for name in names]
    if not all(isinstance(column, list) for column in found) or len({len(column) for column in found}) != 1:
        return columns
    return [list(values) for values in zip(*found, strict=True)]


def _get(row: Row, name: str) -> Any:
    return (row.fields or {}).get(name)
