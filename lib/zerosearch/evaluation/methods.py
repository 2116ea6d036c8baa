"""Who answers the questions: five ways to use the untrained policy, and the trained policies.

    direct   answers at once, from memory
    cot      thinks first, then answers, no search
    rag      reads the passages found for the question itself, then answers
    search   the policy's own prompt: it may search, and decides by itself
    forced   the same, but its first message is made to begin as a search does
    <arm>    a trained policy, under exactly the conditions of ``search``

A method only decides what the policy is shown; one loop (``rollout``) runs them all, with the same
limits and the same real engine, so that a difference between two rows has one cause.  An answer counts
only if the policy itself wrote it (rule 3): prompts and passages are never parsed.
Called by ``evaluation.runner``; scores are made there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Callable, ClassVar, Mapping, Sequence

from zerosearch import files
from zerosearch.engines.base import Engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError, unknown_name
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import ReplayableRetriever, Retriever
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.schema import Question, Retrieval, SearchRequest, Trajectory

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a method works with.

    policy: name of the model, as stored in every row.  retriever: the real engine.
    settings: limits, temperature (0 is greedy) and run seed.  passages_per_query: K, as stored.
    open: returns (engine, prompts); called when a method runs, not before, so that only the policy at
    work is in memory.  identity: changes when weights or corpus change (for resuming).
    """

    policy: str
    retriever: Retriever
    settings: RolloutSettings
    passages_per_query: int
    open: Callable[[], tuple[Engine, Prompts]]
    identity: str = ""


def make_bench(
    policy: str, folder: str | Path, retriever: ReplayableRetriever, settings: RolloutSettings,
    passages_per_query: int, max_batch: int = 256,
) -> Bench:
    """Return the bench of one policy.

    policy: its name in the tables.  folder: where its model is (``micro/llama-base``, a folder, a hub id).
    retriever: with K = passages_per_query.  max_batch: rows generated at once.
    """
    place = Path(models.resolve(str(folder)))
    weights = files.sha256(place) if place.is_dir() else str(folder)
    digest = hashlib.sha256(f"{weights} {retriever.identity}".encode()).hexdigest()
    opener = partial(open_policy, str(folder), policy, max_batch, digest)
    return Bench(policy, retriever, settings, passages_per_query, opener, digest)


@lru_cache(maxsize=1)
def open_policy(folder: str, name: str, max_batch: int, digest: str) -> tuple[Engine, Prompts]:
    """Return (engine, prompts) of a model; the last one stays open, so that at most one is in memory.

    digest: changes with the model's files; other weights under the same name are loaded again.
    """
    model, tokenizer = models.load(folder)
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    return TransformersEngine(model, tokenizer, name, max_batch), prompts


@dataclass(frozen=True, slots=True)
class Prediction:
    """One question answered: the trajectory, and what was retrieved before it began (RAG only).

    shown: the text of the passages as the policy saw it, after the cut to the token budget.
    """

    trajectory: Trajectory
    given: Retrieval | None = None
    shown: str = ""

    @property
    def retrievals(self) -> tuple[Retrieval, ...]:
        """All searches carried out for this question, in order."""
        own = tuple(turn.retrieval for turn in self.trajectory.turns if turn.retrieval is not None)
        return own if self.given is None else (self.given, *own)


@dataclass(frozen=True)
class Method:
    """One way to answer.  name: as in every table.  arm: empty for the untrained policy.
    seed: training seed of a trained policy, else the seed of the run."""

    bench: Bench
    seed: int = 0
    arm: str = ""
    name: ClassVar[str] = ""

    @property
    def label(self) -> str:
        """Name in tables and figures; the arm's name for a trained policy."""
        return self.arm or self.name

    @property
    def max_searches(self) -> int:
        """Searches allowed for one question, as stored in every row."""
        return self.bench.settings.max_searches

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        """Return one rollout request per question, in order: what distinguishes the methods."""
        raise NotImplementedError

    def run(self, questions: Sequence[Question], on_progress: Progress | None = None) -> list[Prediction]:
        """Return one Prediction per question, in order.  on_progress(done, total) after every turn."""
        engine, prompts = self.bench.open()
        requests = self.requests(questions, prompts)
        made = rollout(requests, engine, self.bench.retriever, prompts, self.bench.settings, on_progress)
        return [Prediction(t, shown="".join(turn.observation for turn in t.turns)) for t in made]


class Direct(Method):
    """Answers at once, without thinking and without a search."""

    name = "direct"
    max_searches = 0

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        return [_closed(q, prompts.direct_prompt(q.question)) for q in questions]


class ChainOfThought(Method):
    """Thinks first, then answers, without a search."""

    name = "cot"
    max_searches = 0

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        return [_closed(q, prompts.cot_prompt(q.question)) for q in questions]


class Rag(Method):
    """One search with the question itself as the query; the passages stand in the prompt."""

    name = "rag"
    max_searches = 1

    def run(self, questions: Sequence[Question], on_progress: Progress | None = None) -> list[Prediction]:
        """Return one Prediction per question, in order; a failed search is ``retriever_error``, scored 0."""
        engine, prompts = self.bench.open()
        found = self.bench.retriever.search([SearchRequest(one.question, one) for one in questions])
        budget = self.bench.settings.max_observation_tokens
        ready = [r for r in found if r.error is None]
        requests = [
            _closed(r.request.question, prompts.rag_prompt(r.request.question.question, r.passages, budget))
            for r in ready
        ]
        made = iter(rollout(requests, engine, None, prompts, self.bench.settings, on_progress))
        return [
            Prediction(next(made), r, prompts.observation(r.passages, budget)) if r.error is None
            else Prediction(_failed(r), r)
            for r in found
        ]


class Search(Method):
    """The untrained policy with its own prompt: it may search, and decides by itself."""

    name = "search"

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        return [RolloutRequest(q) for q in questions]


class Forced(Method):
    """The untrained policy, whose first message is made to begin as a search does."""

    name = "forced"

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        return [RolloutRequest(q, forced_prefix=prompts.forced_prefix) for q in questions]


class Trained(Search):
    """A trained policy of one arm and seed, under exactly the conditions of ``search``."""

    name = "trained"


UNTRAINED: dict[str, type[Method]] = {c.name: c for c in (Direct, ChainOfThought, Rag, Search, Forced)}


def make_methods(
    names: Sequence[str], base: Bench, trained: Mapping[tuple[str, int], Bench], seed: int = 0
) -> list[Method]:
    """Return the methods in the order of the tables: the untrained ones as named, then arm by arm.

    base: the untrained policy's bench.  trained: (arm, training seed) -> bench of that policy.
    Raises ConfigError for an unknown or repeated name.
    """
    for name in names:
        if name not in UNTRAINED:
            raise unknown_name("method", name, tuple(UNTRAINED))
    if len(set(names)) < len(names):
        raise ConfigError(f"methods: expected each name once, found {', '.join(names)}; remove one")
    untrained = [UNTRAINED[name](base, seed) for name in names]
    return untrained + [Trained(bench, seed=k, arm=arm) for (arm, k), bench in trained.items()]


def _closed(question: Question, prompt: str) -> RolloutRequest:
    """Return a request that may not search: one message, and what it does not answer scores 0."""
    return RolloutRequest(question, prompt=prompt, max_searches=0)


def _failed(retrieval: Retrieval) -> Trajectory:
    """Return the record of a question whose passages could not be retrieved."""
    return Trajectory(
        retrieval.request.question, (), (), (), (), (), "retriever_error", error=retrieval.error
    )
