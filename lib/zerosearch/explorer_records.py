"""What the trajectory explorer shows of one trajectory: tokens by source, searches, scores.

Tokens are decoded once, here, and never encoded again (rule 2); the loss mask decides who wrote them.
Scores come from ``scoring`` alone.  Control characters become visible signs (``display.clean``), nothing
else about a text is changed: the page inserts it as text.  Called by ``explorer`` and the notebooks.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Iterator, Literal, Mapping, Sequence

import pandas as pd

from zerosearch import prompts, rollout, scoring
from zerosearch.display import clean
from zerosearch.evaluation.conditions import HARD_NEGATIVE
from zerosearch.microworld import language
from zerosearch.schema import Passage, Retrieval, ScoredTrajectory, Trajectory

if TYPE_CHECKING:  # tokenizers are passed in
    from transformers import PreTrainedTokenizerBase

Source = Literal["prompt", "policy", "inserted", "text"]
Span = tuple[str, tuple[int, ...]]
Range = tuple[int, int]
_SPECIAL = re.compile(r"<\|[^<>|]{1,40}\|>")
_EDGES = string.punctuation
_REMEMBERED = 8  # ids of a stretch whose text is kept: neighbours come again and again, long stretches do not


@dataclass(frozen=True, slots=True)
class Origin:
    """Who made a trajectory.  stage: ``03`` or ``04``.  method: name of the arm or method."""

    stage: str
    method: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens of one source that stand together.

    spans: text and token ids; the bytes of one character stay in one span.  logprobs: nats, one per
    span, empty unless the policy wrote it.  golden: whether a span is part of a golden answer.
    source ``text``: only the text was kept, as one span without ids.
    """

    source: Source
    spans: tuple[Span, ...]
    logprobs: tuple[float, ...]
    golden: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class ShownPassage:
    """One passage as the retriever returned it.  kind: what the world says it is, empty if nothing.

    misleading: whether that kind misleads.  golden: ranges of characters that state a golden answer.
    """

    title: str
    text: str
    kind: str
    misleading: bool
    golden: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class ShownSearch:
    """One search.  turn: from 0; -1 when it was made before the policy wrote (RAG).

    noisy: the draw of the noise, None where there is none.
    """

    turn: int
    query: str
    source: str
    noisy: bool | None
    cached: bool
    error: str
    passages: tuple[ShownPassage, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One trajectory as the explorer shows it.

    key: unique.  group: the same for all that are shown side by side.  reward, advantage: None outside
    training.  n_tokens: tokens after the prompt; n_written: those of the policy.
    """

    key: str
    origin: Origin
    group: str
    step: int
    sample: int
    dataset: str
    question: str
    golden_answers: tuple[str, ...]
    answer: str | None
    scores: scoring.Scores
    reward: float | None
    advantage: float | None
    stop_reason: str
    error: str
    n_searches: int
    n_tokens: int
    n_written: int
    segments: tuple[Segment, ...]
    searches: tuple[ShownSearch, ...]


class Speller:
    """Decodes token ids into spans, and remembers what it has decoded."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, ...], str] = {}

    def spell(self, ids: Sequence[int]) -> tuple[Span, ...]:
        """Return the spans of the ids; their texts together are the ids decoded at once.

        A token is decoded behind its neighbour, because some tokenizers drop the blank of a first token.
        """
        spans: list[Span] = []
        ids, context, first, before = tuple(ids), 0, 0, ""
        for end in range(1, len(ids) + 1):
            whole = self._decode(ids[context:end])
            if whole.endswith("\ufffd") and end < len(ids):
                continue
            spans.append((clean(whole[len(before):]), ids[first:end]))
            context, first = first, end
            before = self._decode(ids[context:end])
        return tuple(spans)

    def _decode(self, ids: tuple[int, ...]) -> str:
        if len(ids) > _REMEMBERED:
            return self._tokenizer.decode(list(ids))
        if ids not in self._known:
            self._known[ids] = self._tokenizer.decode(list(ids))
        return self._known[ids]


# -- records --------------------------------------------------------------------------------------


def of_trajectory(
    t: Trajectory, speller: Speller, origin: Origin, reward: float | None = None,
    advantage: float | None = None, given: bool = False,
) -> Record:
    """Return the record of a trajectory.

    given: the first turn is a search made before the policy wrote (see ``evaluation.kept``).
    """
    retrievals = [(n - given, turn.retrieval) for n, turn in enumerate(t.turns) if turn.retrieval is not None]
    golden = t.question.golden_answers
    asked = f"{t.step}/{t.question.id}" if origin.stage == "03" else t.question.id
    place = f"{origin.stage}/{origin.method}/{origin.seed}"
    return Record(
        f"{place}/{t.step}/{t.sample}/{t.question.id}", origin,
        f"{place}/{asked}" if origin.stage == "03" else f"{origin.stage}/{asked}", t.step, t.sample,
        t.question.dataset, clean(t.question.question), tuple(map(clean, golden)),
        None if t.answer is None else clean(t.answer), scoring.score(t.answer, golden), reward, advantage,
        t.stop_reason, clean(t.error or ""), len(retrievals), len(t.token_ids), sum(t.loss_mask),
        tuple(_segments(t, speller)), tuple(_search(turn, r, golden) for turn, r in retrievals),
    )


def of_scored(
    scored: ScoredTrajectory, speller: Speller, origin: Origin, advantage: float | None = None
) -> Record:
    """Return the record of a trajectory that was rewarded."""
    return of_trajectory(scored.trajectory, speller, origin, scored.reward, advantage)


def of_table(table: pd.DataFrame, speller: Speller, origin: Origin | None = None) -> list[Record]:
    """Return one record per row of a table of whole trajectories, in order.

    origin: of a training's table (stage 03).  None for one made by ``evaluation.kept.split`` (stage 04),
    whose rows name their method and seed themselves.
    """
    return [
        of_trajectory(
            rollout.from_row(row), speller, origin or Origin("04", row["method"], int(row["seed"])),
            _number(row, "reward"), _number(row, "advantage"), bool(row.get("given", False)),
        )
        for row in table.to_dict("records")
    ]


def of_transcripts(predictions: pd.DataFrame) -> list[Record]:
    """Return one record per row of ``predictions.parquet``: what was written, without tokens or passages."""
    return [_of_transcript(row) for row in predictions.to_dict("records")]


def _of_transcript(row: Mapping[str, Any]) -> Record:
    golden, answer = tuple(row["golden_answers"]), _text(row["prediction"])
    return Record(
        f"04/{row['method']}/{row['seed']}/0/0/{row['question_id']}",
        Origin("04", row["method"], int(row["seed"])), f"04/{row['question_id']}", 0, 0, row["dataset"],
        clean(row["question"]), tuple(map(clean, golden)), None if answer is None else clean(answer),
        scoring.score(answer, golden), None, None, row["stop_reason"], clean(_text(row["error"]) or ""),
        int(row["n_searches"]), 0, int(row["n_tokens"]), (_text_segment(clean(row["transcript"]), golden),), (),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return None if value is None or pd.isna(value) else float(value)


# -- tokens and searches --------------------------------------------------------------------------


def _segments(t: Trajectory, speller: Speller) -> Iterator[Segment]:
    """Yield the prompt, then every longest stretch of tokens with one source."""
    golden = t.question.golden_answers
    if t.prompt_ids:
        yield _segment("prompt", speller.spell(t.prompt_ids), (), golden)
    start = 0
    for trained, stretch in groupby(t.loss_mask):
        end = start + len(list(stretch))
        spans = speller.spell(t.token_ids[start:end])
        logprobs = t.logprobs[start:end] if trained else ()
        yield _segment("policy" if trained else "inserted", spans, logprobs, golden)
        start = end


def _segment(
    source: Source, spans: tuple[Span, ...], logprobs: Sequence[float], golden: Sequence[str]
) -> Segment:
    """Return a segment; the log-probability of a span is the sum over its ids."""
    ranges = golden_ranges("".join(text for text, _ in spans), golden)
    sums: list[float] = []
    marks: list[bool] = []
    n_ids = n_characters = 0
    for text, ids in spans:
        if logprobs:
            sums.append(float(sum(logprobs[n_ids : n_ids + len(ids)])))
        end = n_characters + len(text)
        marks.append(any(a < end and n_characters < b for a, b in ranges))
        n_ids, n_characters = n_ids + len(ids), end
    return Segment(source, spans, tuple(sums), tuple(marks))


def _text_segment(text: str, golden: Sequence[str]) -> Segment:
    """Return a text of which no tokens are known, cut where a golden answer begins and ends."""
    edges = sorted({0, len(text), *(edge for pair in golden_ranges(text, golden) for edge in pair)})
    starts = {a for a, _ in golden_ranges(text, golden)}
    pieces = list(zip(edges, edges[1:]))
    return Segment("text", tuple((text[a:b], ()) for a, b in pieces), (), tuple(a in starts for a, _ in pieces))


def _search(turn: int, retrieval: Retrieval, golden: Sequence[str]) -> ShownSearch:
    return ShownSearch(
        turn, clean(retrieval.request.query), retrieval.source, retrieval.noisy, retrieval.cached,
        clean(retrieval.error or ""), tuple(_passage(p, golden) for p in retrieval.passages),
    )


def _passage(passage: Passage, golden: Sequence[str]) -> ShownPassage:
    kind, text = str(passage.metadata.get("kind", "")), clean(passage.text)
    misleading = kind in language.MISLEADING or kind == HARD_NEGATIVE
    return ShownPassage(clean(passage.title), text, clean(kind), misleading, golden_ranges(text, golden))


# -- golden answers -------------------------------------------------------------------------------


def golden_ranges(text: str, golden_answers: Sequence[str]) -> tuple[Range, ...]:
    """Return the ranges of characters where a golden answer stands as whole words, none overlapping.

    The words are compared as cover EM compares them; tags of the policy count as blanks.
    """
    blanked = _SPECIAL.sub(_blank, prompts.TAG.sub(_blank, text))
    words = [
        (word, found.span()) for found in re.finditer(r"\S+", blanked)
        for word in _words(found.group())
    ]
    said = [word for word, _ in words]
    ranges = []
    for answer in golden_answers:
        wanted = scoring.normalize(answer).split()
        for at in range(len(said) - len(wanted) + 1) if wanted else ():
            if said[at : at + len(wanted)] == wanted:
                ranges.append(_trimmed(text, words[at][1][0], words[at + len(wanted) - 1][1][1]))
    return _merged(ranges)


@lru_cache(maxsize=65536)
def _words(chunk: str) -> tuple[str, ...]:
    return tuple(scoring.normalize(chunk).split())


def _blank(found: re.Match[str]) -> str:
    return " " * len(found.group())


def _trimmed(text: str, start: int, end: int) -> Range:
    """Return the range without punctuation at its edges."""
    inner = text[start:end]
    return end - len(inner.lstrip(_EDGES)), start + len(inner.rstrip(_EDGES))


def _merged(ranges: list[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
