"""What every method works with and hands back: the bench, the prediction, the base class.

A method decides what the policy is shown, and may put something between the policy and the engine; one
loop (``rollout``) runs them all, with the same limits, so that a difference between two rows has one cause.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Callable, ClassVar, Sequence

from zerosearch import files
from zerosearch.engines.base import Engine
from zerosearch.engines.opening import open_text_engine
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import ReplayableRetriever, Retriever
from zerosearch.rollout import RolloutRequest, RolloutSettings
from zerosearch.rollout_async import roll_out
from zerosearch.schema import Question, Retrieval, Trajectory

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
    passages_per_query: int, max_batch: int = 256, engine: str = "transformers",
) -> Bench:
    """Return the bench of one policy.

    policy: its name in the tables.  folder: where its model is (``micro/llama-base``, a folder, a hub id).
    retriever: with K = passages_per_query.  max_batch: rows generated at once.
    engine: what generates, ``transformers`` or ``vllm``.
    """
    place = Path(models.resolve(str(folder)))
    weights = files.sha256(place) if place.is_dir() else str(folder)
    kind = "" if engine == "transformers" else f" {engine}"
    digest = hashlib.sha256(f"{weights} {retriever.identity}{kind}".encode()).hexdigest()
    opener = partial(open_policy, str(folder), policy, max_batch, digest, engine)
    return Bench(policy, retriever, settings, passages_per_query, opener, digest)


@lru_cache(maxsize=1)
def open_policy(
    folder: str, name: str, max_batch: int, digest: str, engine: str = "transformers"
) -> tuple[Engine, Prompts]:
    """Return (engine, prompts) of a model; the last one stays open, so that at most one is in memory.

    digest: changes with the model's files; other weights under the same name are loaded again.
    """
    model, tokenizer = models.load(folder)
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    return open_text_engine(engine, model, tokenizer, name, max_batch), prompts


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

    @property
    def searched(self) -> str:
        """Name of what answers its searches, as stored in every row."""
        return self.bench.retriever.name

    def retriever(self, engine: Engine, prompts: Prompts) -> Retriever:
        """Return what answers its searches.  engine, prompts: those of the policy at work."""
        return self.bench.retriever

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        """Return one rollout request per question, in order: what distinguishes the methods."""
        raise NotImplementedError

    def run(self, questions: Sequence[Question], on_progress: Progress | None = None) -> list[Prediction]:
        """Return one Prediction per question, in order.  on_progress(done, total) after every turn."""
        engine, prompts = self.bench.open()
        requests = self.requests(questions, prompts)
        searched = self.retriever(engine, prompts)
        made = roll_out(requests, engine, searched, prompts, self.bench.settings, on_progress)
        return [Prediction(t, shown="".join(turn.observation for turn in t.turns)) for t in made]
