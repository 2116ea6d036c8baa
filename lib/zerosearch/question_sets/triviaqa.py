"""TriviaQA: native (``Data`` of ``Question``, ``QuestionId``, ``Answer``) and as the hub has it."""

from __future__ import annotations

from zerosearch.checked_json import is_text, shown
from zerosearch.question_sets.drafts import Draft
from zerosearch.rows import MAX_ANSWER, MAX_QUESTION, Row


def read(row: Row) -> Draft:
    """Return a native row."""
    return _draft(row, "Question", "QuestionId", "Answer", "Value", "Aliases")


def read_hub(row: Row) -> Draft:
    """Return a row of the hub's schema."""
    return _draft(row, "question", "question_id", "answer", "value", "aliases")


def _draft(row: Row, question: str, key: str, answer: str, value: str, aliases: str) -> Draft:
    """Return the question with the answer's value first and then its aliases, as they are spelt."""
    found = (row.fields or {}).get(answer)
    whole = isinstance(found, dict) and is_text(found.get(value)) and isinstance(found.get(aliases, []), list)
    if not whole:
        row.fault(f"{answer}: expected an object with {value} and {aliases}, found {shown(found)}")
    answers = row.texts(answer, [found[value], *found.get(aliases, [])], max_length=MAX_ANSWER) if whole else ()
    return Draft(row.text(question, max_length=MAX_QUESTION), answers, row.id_text(key))
