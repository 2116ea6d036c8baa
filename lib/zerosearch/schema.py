"""The records that travel through the workbook: frozen, typed, one meaning each.

Data flows one way: Question -> Trajectory (made of Turns, which hold Retrievals of Passages)
-> ScoredTrajectory.  A record carries everything its reader needs, so nothing is ever looked up
by position or by text (rule 1 of the house plan: a query travels with its own row).

This module imports nothing of the library and does no work besides checking shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Mapping

Split = Literal["train", "eval"]
Action = Literal["search", "answer", "none"]
StopReason = Literal["answer", "max_searches", "length", "no_action", "retriever_error"]

STOP_REASONS: tuple[str, ...] = (
    "answer",           # the policy wrote a complete answer tag: the only way to earn a reward
    "max_searches",     # it asked for one search more than its budget; that search is not paid for
    "length",           # a turn or the whole trajectory ran out of its token budget
    "no_action",        # it ended its message (EOS) with neither a search nor an answer
    "retriever_error",  # the retriever failed for good; counted, masked from the loss
)


@dataclass(frozen=True, slots=True)
class Question:
    """One question with all its accepted answers.

    id: unique over the whole run, e.g. ``nq/0012``.  dataset: short name such as ``hotpotqa``.
    golden_answers: accepted strings, the canonical one first, never empty.
    split: ``train`` questions are never evaluated, ``eval`` questions are never trained on.
    """

    id: str
    dataset: str
    question: str
    golden_answers: tuple[str, ...]
    split: Split = "eval"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.golden_answers:
            raise ValueError(f"question {self.id!r}: expected at least one golden answer, found none")


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrieved text, whoever wrote it (engine or simulator)."""

    id: str
    title: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One query on its way to a retriever, together with the row that asked it.

    step / sample / turn: counters that, with the run seed and the question id, key every random
    draw (rule 11).  noise_probability: chance in [0, 1] that a simulator answers with misleading
    passages; real engines ignore it.  context: what the policy wrote and read before the query, for who
    condenses passages with respect to it; not stored and not compared, since the turns hold it.
    """

    query: str
    question: Question
    step: int = 0
    sample: int = 0
    turn: int = 0
    noise_probability: float = 0.0
    context: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What a retriever returned for one SearchRequest.

    source: retriever name (``bm25``, ``simulator``, ``serpapi`` ...).  noisy: the noise draw, None
    where there is none.  cached: answered from the replay cache (not paid again).
    error: reason of a final failure; then ``passages`` is empty.  n_prompt_tokens and
    n_generated_tokens: tokens a simulator read and wrote for it (0 for real engines).
    condensed: what was made of the passages and is shown in their place; None to show the passages.
    """

    request: SearchRequest
    passages: tuple[Passage, ...]
    source: str
    noisy: bool | None = None
    cached: bool = False
    wall_seconds: float = 0.0
    n_prompt_tokens: int = 0
    n_generated_tokens: int = 0
    error: str | None = None
    condensed: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One policy message and the observation that follows it.

    text: exactly what the policy wrote (decoded for reading; the ids of the trajectory are the
    truth).  action / content: parsed from these tokens alone.  retrieval: None unless a search was
    carried out.  observation: the text placed inside the information tags, already cut to budget.
    """

    text: str
    action: Action
    content: str
    retrieval: Retrieval | None = None
    observation: str = ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One finished record of one question.

    prompt_ids: token ids of the prompt.  token_ids: everything after it, as sampled or inserted.
    loss_mask: as long as token_ids, True where the policy itself sampled the token.
    logprobs: as long as token_ids, nats at the sampling temperature, 0.0 where loss_mask is False.
    answer: content of the answer tag the policy wrote, None if there is none (scores 0).
    step, sample: counters that keyed its random draws.  error: why it failed, if it did.
    """

    question: Question
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    answer: str | None = None
    step: int = 0
    sample: int = 0
    error: str | None = None

    def __post_init__(self) -> None:
        lengths = (len(self.token_ids), len(self.loss_mask), len(self.logprobs))
        if len(set(lengths)) != 1:
            raise ValueError(
                f"trajectory of {self.question.id!r}: token_ids, loss_mask and logprobs must be equally "
                f"long, found {lengths}"
            )
        if self.stop_reason not in STOP_REASONS:
            raise ValueError(f"unknown stop reason {self.stop_reason!r}; expected one of {STOP_REASONS}")

    @property
    def n_searches(self) -> int:
        """Number of searches carried out (and paid for)."""
        return sum(turn.retrieval is not None for turn in self.turns)

    @property
    def retrieved_passages(self) -> tuple[Passage, ...]:
        """All passages the policy was shown, in order."""
        return tuple(p for t in self.turns if t.retrieval for p in t.retrieval.passages)


@dataclass(frozen=True, slots=True)
class ScoredTrajectory:
    """A trajectory with its reward (enters the loss) and its metrics (only reported), all in [0, 1]."""

    trajectory: Trajectory
    reward: float
    em: float
    cover_em: float
    f1: float
