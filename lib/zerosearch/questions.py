"""Questions and passages in the files of a run: reading, writing, and which of them train.

A run's ``questions.jsonl`` names set and split on every line; ``corpus.jsonl`` holds its passages.  A reader's own
questions, in whatever form, come in through ``question_sets``, passages through ``passages``.

Files are checked to the end: all their problems are raised at once, each with file and line.  Called by every
stage after 00.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Iterable, Sequence

from zerosearch import files, seeds
from zerosearch.errors import BadInput
from zerosearch.passages import load_corpus, read_corpus, write_corpus
from zerosearch.rows import MAX_ANSWER, MAX_LINE_BYTES, MAX_QUESTION, Lines, Row
from zerosearch.schema import Passage, Question, Split
from zerosearch.scoring import normalize

__all__ = [
    "MAX_QUESTION", "answerable_share", "draw_training_share", "evaluation_questions", "load_corpus",
    "question_metadata", "read_corpus", "read_questions", "same_text", "split_counts", "training_questions",
    "write_corpus", "write_questions",
]

SPLIT_SETS = ("nq", "hotpotqa")  # give a share of their questions to training when nothing else trains
_SPLITS: tuple[Split, ...] = ("train", "eval")
_RUN_FORMAT = '{"id": "nq/1", "dataset": "nq", "split": "eval", "question": "...", "golden_answers": ["..."]}'


def read_questions(path: Path | str) -> list[Question]:
    """Return the questions of a run's ``questions.jsonl``, in the order of the file."""
    lines, made = Lines(Path(path)), list[Question]()
    for row in lines:
        key = row.key("id", max_length=MAX_LINE_BYTES)  # a run's own ids hold the set's name too
        text = row.text("question", max_length=MAX_QUESTION)
        answers = row.answers("golden_answers", max_length=MAX_ANSWER)
        own_set, own_split = row.text("dataset"), row.choice("split", _SPLITS)
        metadata = question_metadata(row)
        if not row.faults:
            made.append(Question(key, own_set, text, answers, own_split, metadata))  # type: ignore[arg-type]
    if problems := lines.listing():
        raise BadInput(
            f"questions in {path}: expected lines like {_RUN_FORMAT}, found otherwise; mend these and start again",
            problems,
        )
    return made


def question_metadata(row: Row) -> dict[str, Any]:
    """Return the metadata of a row; a fault where the micro-world's measurements would trip over them."""
    metadata = row.mapping("metadata", texts=("kind",))
    if metadata.get("kind") == "chain" and not isinstance(metadata.get("hops"), list):
        row.fault("metadata.kind: expected a list of hops beside the kind 'chain', found none; rename this key")
    return metadata


def write_questions(path: Path | str, questions: Iterable[Question]) -> Path:
    """Write questions as JSON lines that ``read_questions`` gives back unchanged."""
    return files.write_jsonl(Path(path), (asdict(q) for q in questions))


def draw_training_share(questions: Sequence[Question], fraction: float, seed: int) -> list[Question]:
    """Return the questions with a share of nq and of hotpotqa turned into training questions.

    fraction: in [0, 1], of each of the two sets, rounded.  The draw is keyed by (seed, set, text) and
    does not depend on the order.  A text that occurs more than once stays in evaluation.
    """
    if not 0.0 <= fraction <= 1.0:
        raise BadInput(f"train_fraction: expected a share in [0, 1], found {fraction}; use --set 00.train_fraction=0.2")
    times = Counter(same_text(q.question) for q in questions)
    chosen: set[str] = set()
    for name in SPLIT_SETS:
        mine = [q for q in questions if q.dataset == name]
        single = [q for q in mine if times[same_text(q.question)] == 1]
        single.sort(key=lambda q: seeds.uniform(seed, "training share", name, same_text(q.question)))
        chosen.update(q.id for q in single[: round(fraction * len(mine))])
    return [replace(q, split="train") if q.id in chosen else q for q in questions]


def split_counts(questions: Iterable[Question]) -> dict[str, dict[Split, int]]:
    """Return the number of training and evaluation questions per set: ``{"nq": {"train": 40, "eval": 160}}``."""
    counts: dict[str, dict[Split, int]] = {}
    for q in questions:
        counts.setdefault(q.dataset, {split: 0 for split in _SPLITS})[q.split] += 1
    return counts


def training_questions(questions: Iterable[Question]) -> list[Question]:
    """Return those that train."""
    return [q for q in questions if q.split == "train"]


def evaluation_questions(questions: Iterable[Question]) -> list[Question]:
    """Return those that are evaluated."""
    return [q for q in questions if q.split == "eval"]


def answerable_share(questions: Sequence[Question], passages: Iterable[Passage]) -> float:
    """Return the share of questions of which a golden answer stands in the title or text of any passage.

    Compared as cover EM does: whole words after normalisation.  One pass over the passages: at each word
    only the answers that begin with it are looked at.  1.0 without questions.
    """
    wanted: dict[str, set[tuple[str, ...]]] = {}
    answers = {q.id: [tuple(normalize(a).split()) for a in q.golden_answers] for q in questions}
    for words in (words for own in answers.values() for words in own if words):
        wanted.setdefault(words[0], set()).add(words)
    found: set[tuple[str, ...]] = set()
    for passage in passages:
        text = normalize(f"{passage.title} {passage.text}").split()
        for at, word in enumerate(text):
            if word in wanted:
                found.update(words for words in wanted[word] if tuple(text[at : at + len(words)]) == words)
    return sum(not found.isdisjoint(own) for own in answers.values()) / len(answers) if answers else 1.0


def same_text(question: str) -> str:
    """Return what two questions must share to be one and the same: words in lower case."""
    return " ".join(question.lower().split())
