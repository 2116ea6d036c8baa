"""Question and answer in a few keys: NQ-open, EfficientQA, DPR, ReAct's HotpotQA, SimpleDeepSearcher, Bamboogle.

The answer is a text or a list of texts, of which the first is canonical unless the format says otherwise.
"""

from __future__ import annotations

from typing import Any

from zerosearch.question_sets.drafts import Draft, worth_keeping
from zerosearch.question_sets.names import known_set
from zerosearch.rows import MAX_ANSWER, MAX_QUESTION, Row

_IDS = ("id", "_id", "test_id", "question_id")


def read(row: Row) -> Draft:
    """Return ``question``, ``answer`` (a text or a list): NQ-open, ReAct's HotpotQA, 2WikiMultiHopQA with aliases.

    In 2WikiMultiHopQA's files with aliases a list need not hold the spelling of the question; it is kept as it is.
    """
    return _draft(row, "question", "answer", {name: _get(row, name) for name in ("type", "level")})


def read_dpr(row: Row) -> Draft:
    """Return ``question``, ``answers`` (a list), as DPR and FiD write them; their passages are not kept."""
    return _draft(row, "question", "answers", {})


def read_efficientqa(row: Row) -> Draft:
    """Return ``question`` with the original answers first and then those that people judged to be right as well."""
    original = row.texts("answer", _get(row, "answer"), max_length=MAX_ANSWER)
    name = "answer_and_def_correct_predictions"
    judged = row.texts(name, _get(row, name), max_length=MAX_ANSWER)
    answers = tuple(dict.fromkeys((*original, *judged)))
    return Draft(row.text("question", max_length=MAX_QUESTION), answers, metadata={"n_original_answers": len(original)})


def read_simpledeepsearcher(row: Row) -> Draft:
    """Return ``Question``, ``answer``, ``source``, ``id`` as SimpleDeepSearcher writes them; ``source`` is the set."""
    draft = _draft(row, "Question", "answer", {"note": _get(row, "note")})
    source = _get(row, "source")
    named = known_set(source) if isinstance(source, str) else ""
    return Draft(draft.question, draft.answers, draft.id, named, draft.metadata)


def read_bamboogle(row: Row) -> Draft:
    """Return ``Question``, ``Answer`` as Bamboogle's own table has them."""
    return _draft(row, "Question", "Answer", {})


def _draft(row: Row, question: str, answer: str, metadata: dict[str, Any]) -> Draft:
    answers = row.texts(answer, _get(row, answer), max_length=MAX_ANSWER)
    named = next((name for name in _IDS if row.has(name)), None)
    key = row.id_text(named) if named else ""
    return Draft(row.text(question, max_length=MAX_QUESTION), answers, key, metadata=worth_keeping(metadata))


def _get(row: Row, name: str) -> Any:
    return (row.fields or {}).get(name)

