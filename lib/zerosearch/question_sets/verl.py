"""Rows for RL trainers: Search-R1, ZeroSearch and verl, as Parquet or JSON lines.

The answers stand in one of several places, as a list or as one text, and the type differs between sets: a list is
taken wherever there is one.  Some files join several answers into one text with ", ", which cannot be split back,
since answers hold commas themselves; such a text is kept whole and the reader is told.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from zerosearch.checked_json import is_text
from zerosearch.question_sets.drafts import Draft, worth_keeping
from zerosearch.question_sets.names import known_set
from zerosearch.rows import MAX_ANSWER, MAX_QUESTION, Row

_BEFORE_QUESTION = "Question:"  # ends the instructions in Search-R1's prompts


def read(row: Row) -> Draft:
    """Return a row: ``data_source``, ``reward_model``, ``extra_info`` or ``prompt``, with or without ``question``."""
    fields = row.fields or {}
    extra = _inner(fields, "extra_info")
    answers = _answers(row, fields, extra)
    question = next((text for text in _questions(fields, extra) if is_text(text)), "")
    if not question:
        row.fault("question: expected a text under question, extra_info.question or prompt, found none")
    elif len(question) > MAX_QUESTION:
        row.fault(f"question: expected at most {MAX_QUESTION:,} characters, found {len(question):,}; shorten it")
    source = fields.get("data_source")
    metadata = worth_keeping({**_inner(fields, "metadata"), "data_source": source})
    named = known_set(source) if isinstance(source, str) else ""
    one_text = len(answers) == 1 and ", " in answers[0] and not any(isinstance(v, list) for v in _values(fields, extra))
    return Draft(question, answers, _id(fields, extra), named, metadata, one_text)


def _answers(row: Row, fields: Mapping[str, Any], extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the first list of answers, or else the first text."""
    values = list(_values(fields, extra))
    lists = [v for v in values if isinstance(v, list)]
    texts = [v for v in values if isinstance(v, str)]
    found = next(iter(lists + texts), None)
    if found is None:
        row.fault(
            "answers: expected a list or a text under golden_answers, extra_info.answer or reward_model.ground_truth, "
            "found none"
        )
        return ()
    return row.texts("answers", found, max_length=MAX_ANSWER)


def _values(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what stands in the places where answers may be, the best place first."""
    truth = _inner(fields, "reward_model").get("ground_truth")
    target = truth.get("target") if isinstance(truth, Mapping) else truth
    yield from (fields.get("golden_answers"), extra.get("golden_answers"), extra.get("answer"), target)


def _questions(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what stands in the places where the question may be; of a prompt what follows its instructions."""
    yield from (fields.get("question"), extra.get("question"))
    prompt = fields.get("prompt")
    messages = [m for m in prompt if isinstance(m, Mapping)] if isinstance(prompt, list) else []
    asked = [m.get("content") for m in messages if m.get("role") == "user"]
    if asked and isinstance(asked[-1], str):
        yield asked[-1].rpartition(_BEFORE_QUESTION)[2].strip()


def _id(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """Return the row's id, or split and index, which are unique within a set; "" where there is neither."""
    key = fields.get("id")
    if is_text(key) or (isinstance(key, int) and not isinstance(key, bool)):
        return str(key)
    index, split = extra.get("index"), extra.get("split")
    if not isinstance(index, int) or isinstance(index, bool):
        return ""
    return f"{split}_{index}" if is_text(split) else str(index)


def _inner(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = fields.get(name)
    return found if isinstance(found, Mapping) else {}
