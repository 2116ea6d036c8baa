"""The formats of question files, and how one is told from the keys of a file's first row.

The order matters: a format with more keys stands before one whose keys are among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping

from zerosearch.errors import did_you_mean, unknown_name
from zerosearch.question_sets import answers, hotpotqa, musique, plain, popqa, triviaqa, verl
from zerosearch.question_sets.drafts import Draft
from zerosearch.rows import Row

Fields = Mapping[str, Any]


def _always(fields: Fields) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Format:
    """One format.  keys: that every row has.  also: what else tells it.  read: one row -> Draft."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[Row], Draft]
    about: str
    also: Callable[[Fields], bool] = _always

    def fits(self, fields: Fields) -> bool:
        """Say whether a row is of this format."""
        return all(key in fields for key in self.keys) and self.also(fields)


def _has_answer_object(fields: Fields) -> bool:
    return isinstance(fields.get("answer", fields.get("Answer")), Mapping)


def _has_columns(fields: Fields) -> bool:
    return isinstance(fields["supporting_facts"], Mapping) or isinstance(fields.get("context"), Mapping)


_HOTPOT = ("question", "answer", "supporting_facts")
PLAIN = Format("plain", ("id", "question", "golden_answers"), plain.read, "this workbook's own; FlashRAG JSON lines")
FLASHRAG = Format("flashrag", PLAIN.keys, plain.read_flashrag, "the FlashRAG collection on the hub")
FORMATS: tuple[Format, ...] = (
    Format("verl", ("data_source", "reward_model"), verl.read, "Search-R1, ZeroSearch, verl"),
    Format("popqa", ("question", "possible_answers"), popqa.read, "PopQA as TSV or JSON"),
    Format("musique", ("id", "question", "answer", "question_decomposition"), musique.read, "MuSiQue"),
    Format("hotpotqa_hub", ("id", *_HOTPOT), hotpotqa.read_hub, "HotpotQA and 2WikiMultiHopQA on the hub",
           _has_columns),
    Format("hotpotqa", ("_id", *_HOTPOT), hotpotqa.read, "HotpotQA and 2WikiMultiHopQA, native"),
    Format("triviaqa", ("Question", "QuestionId", "Answer"), triviaqa.read, "TriviaQA, native", _has_answer_object),
    Format("triviaqa_hub", ("question", "question_id", "answer"), triviaqa.read_hub, "TriviaQA on the hub",
           _has_answer_object),
    Format("simpledeepsearcher", ("Question", "answer", "source", "id"), answers.read_simpledeepsearcher,
           "SimpleDeepSearcher"),
    Format("bamboogle", ("Question", "Answer"), answers.read_bamboogle, "Bamboogle's own table"),
    Format("efficientqa", ("question", "answer", "answer_and_def_correct_predictions"), answers.read_efficientqa,
           "EfficientQA (NQ-open)"),
    PLAIN,
    Format("answer", ("question", "answer"), answers.read,
           "NQ-open; ReAct's HotpotQA; 2WikiMultiHopQA and MuSiQue as questions and answers, with aliases or without"),
    Format("dpr", ("question", "answers"), answers.read_dpr, "DPR and FiD"),
    FLASHRAG,  # never told from keys, which are those of plain: named by the hub's source, or by a reader
)
NAMES = tuple(one.name for one in FORMATS)


def by_name(name: str) -> Format:
    """Return the format of a name; ConfigError with the nearest name for one that does not exist."""
    for one in FORMATS:
        if one.name == name:
            return one
    raise unknown_name("00.questions_format", name, NAMES)


def of_row(row: Row) -> Format | None:
    """Return the format of a file's first row, None (and a fault of the row) when its keys belong to none.

    A row that has some key of ``plain`` counts as one, so that what it lacks is told.
    """
    fields = row.fields or {}
    for one in FORMATS:
        if one.fits(fields):
            return one
    if not fields.keys().isdisjoint(PLAIN.keys):
        return PLAIN
    known = "; ".join(f"{one.name} ({', '.join(one.keys)})" for one in FORMATS if one is not FLASHRAG)
    near = next((hint for key in fields if (hint := did_you_mean(key, ("question", "golden_answers")))), "")
    row.fault(
        f"expected the keys of a known format: {known}; found {', '.join(map(str, fields))[:200] or 'no key'}{near}; "
        "rename the keys, or name the format with --set 00.questions_format=NAME"
    )
    return None
