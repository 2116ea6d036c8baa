"""What a format reads from one row, before it is a question: ids and sets are settled by ``reading``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

PASSAGE_KEYS = ("context", "paragraphs", "ctxs")  # passages that came with a question


@dataclass(frozen=True, slots=True)
class Draft:
    """One row.  id: "" where the row has none.  dataset: the set that the row itself names, "" where it does not.

    one_text: the answers came as one text although the format joins several into one, so that they cannot be
    told apart.
    """

    question: str
    answers: tuple[str, ...]
    id: str = ""
    dataset: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    one_text: bool = False


def worth_keeping(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata without empty values and without the passages that came with the question.

    A policy finds its passages by searching; the question's own would make a run's files a hundred times larger.
    """
    return {
        name: value for name, value in fields.items()
        if value not in (None, "", [], {}) and not (name in PASSAGE_KEYS and isinstance(value, (dict, list)))
    }
