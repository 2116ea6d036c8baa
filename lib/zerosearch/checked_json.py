"""JSON read with care: what Python would accept but not without losing something is refused, in words.

A key that stands twice, NaN, half of a surrogate pair, a number of thousands of digits, deep nesting.  Called
by ``rows`` and ``row_files``.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

MAX_DEPTH = 50  # objects and lists inside each other


class _Refused(Exception):
    """JSON that Python would read, but not without losing something."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError for a key that stands in it twice, of which JSON would keep the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Refused(f"the key {shown(twice)} twice; remove one of them")
    return made


def _no_number(name: str) -> None:
    raise _Refused(f"{name}, which is no value in JSON; write null or a text")


READING_ERRORS = (ValueError, RecursionError, _Refused)  # what DECODER raises
DECODER = json.JSONDecoder(object_pairs_hook=_once_each, parse_constant=_no_number)


def parsed(text: str) -> tuple[dict[str, Any] | None, str]:
    """Return (object, "") of one JSON object, or (None, what is wrong with it)."""
    try:
        found = DECODER.decode(text)
    except READING_ERRORS as error:
        return None, json_fault(error)
    fault = object_fault(found, text)
    return (None, fault) if fault else (found, "")


def json_fault(error: Exception) -> str:
    """Return what an error of DECODER says to a reader."""
    if isinstance(error, json.JSONDecodeError):
        return f"expected a JSON object, found bad JSON: {error.msg} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "expected a JSON object, found one that is nested too deeply"
    if isinstance(error, _Refused):
        return f"expected a JSON object, found {error}"
    return "expected a JSON object, found a number of thousands of digits; write it as a text"


def object_fault(found: Any, text: str) -> str:
    """Return what is wrong with a JSON value that was read from text and should be an object, "" if nothing is."""
    if "\\u" in text and not _encodable(found):
        return "expected text, found half of a surrogate pair (such as \\ud83d without its other half)"
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(found) > MAX_DEPTH:
        return f"expected a JSON object, found one that is nested too deeply (over {MAX_DEPTH} levels)"
    return "" if isinstance(found, dict) else f"expected a JSON object, found {shown(found)}"


def _encodable(found: Any) -> bool:
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: Any) -> int:
    """Return how many objects and lists stand inside each other."""
    depth, level = 0, [value]
    while level := [inner for outer in level if isinstance(outer, (dict, list))
                    for inner in (outer.values() if isinstance(outer, dict) else outer)]:
        depth += 1
    return depth


def is_text(value: Any) -> bool:
    """Say whether a value is a text with something in it."""
    return isinstance(value, str) and bool(value.strip())


def shown(value: Any) -> str:
    """Return a value as JSON, cut to sixty characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
