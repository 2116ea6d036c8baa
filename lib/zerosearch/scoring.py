"""One normalisation, three metrics, two rewards: the only place where an answer is judged.

EM asks whether prediction and golden answer are equal, cover EM whether the prediction contains the
golden answer as whole words, F1 how many words they share.  All three come from the same prediction
after the same normalisation (SQuAD: lower case, no ASCII punctuation, no articles, single blanks), and
each is the best over the golden answers.  No metric goes under another's name (rule 8).

No answer (None) scores 0.  A text that normalises to nothing, such as ``---`` or ``The``, has no words
to compare: it matches nothing, neither as a prediction nor as a golden answer.  Hence em <= cover_em
and em <= f1 hold without exception.

This module never looks for an answer inside a text: ``prompts.parse_action`` does, on tokens that the
policy wrote, and nowhere else.  Called by training (rewards), labels, and evaluation (metrics).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import Callable, Sequence

from zerosearch.errors import unknown_name

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

Reward = Callable[[str | None, Sequence[str]], float]


@dataclass(frozen=True, slots=True)
class Scores:
    """The three metrics of one prediction, each in [0, 1]."""

    em: float
    cover_em: float
    f1: float


def normalize(text: str) -> str:
    """Return the text as SQuAD compares it: lower case, no ASCII punctuation, no articles, single blanks.

    Punctuation goes before the articles, so ``A.`` becomes nothing and ``U.S.A.`` becomes ``usa``.
    Accents, emoji and full-width signs stay; a non-breaking space is a blank like any other.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def em(prediction: str | None, golden_answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals a golden answer after normalisation, else 0.0."""
    return _best(_equal, prediction, golden_answers)


def cover_em(prediction: str | None, golden_answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction contains a golden answer as consecutive whole words, else 0.0.

    Whole words: ``1935`` does not contain ``35``, and the one-letter answer ``l`` is not in ``hello``.
    """
    return _best(_contains, prediction, golden_answers)


def f1(prediction: str | None, golden_answers: Sequence[str]) -> float:
    """Return the best harmonic mean of word precision and recall over the golden answers, in [0, 1]."""
    return _best(_overlap, prediction, golden_answers)


def score(prediction: str | None, golden_answers: Sequence[str]) -> Scores:
    """Return all three metrics of one prediction."""
    return Scores(*(metric(prediction, golden_answers) for metric in (em, cover_em, f1)))


def contains_answer(text: str, answers: Sequence[str]) -> bool:
    """Return whether one of the answers stands in the text as consecutive whole words.

    For passages: the same comparison as cover EM, so that "the golden answer was retrieved" and "the
    golden answer was said" mean the same.  An answer that normalises to nothing stands nowhere.
    """
    return cover_em(text, answers) == 1.0


REWARDS: dict[str, Reward] = {"f1": f1, "em": em}


def reward(name: str) -> Reward:
    """Return the reward function ``f1`` or ``em``: (prediction, golden_answers) -> float in [0, 1].

    cover EM is no reward on purpose: a policy is paid by it for naming many answers at once.
    Raises ConfigError with the nearest match for any other name.
    """
    if name not in REWARDS:
        raise unknown_name("reward", name, tuple(REWARDS))
    return REWARDS[name]


def _best(
    compare: Callable[[list[str], list[str]], float], prediction: str | None, golden_answers: Sequence[str]
) -> float:
    """Return the best comparison of the words of the prediction with those of any golden answer."""
    if isinstance(golden_answers, str):
        raise TypeError(f"golden_answers: expected a list of strings, found the string {golden_answers!r}")
    words = normalize(prediction).split() if prediction is not None else []
    if not words:
        return 0.0
    golden = (normalize(answer).split() for answer in golden_answers)
    return max((compare(words, answer) for answer in golden if answer), default=0.0)


def _equal(words: list[str], answer: list[str]) -> float:
    return float(words == answer)


def _contains(words: list[str], answer: list[str]) -> float:
    return float(f" {' '.join(answer)} " in f" {' '.join(words)} ")


def _overlap(words: list[str], answer: list[str]) -> float:
    shared = (Counter(words) & Counter(answer)).total()
    return 2.0 * shared / (len(words) + len(answer))
