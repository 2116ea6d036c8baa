"""The simulator as a retriever: a tuned model writes the passages, useful or misleading by a draw.

Every search draws for itself, keyed by (run seed, step, question, sample, turn), so the draws depend
neither on the batch nor on its order nor on concurrency (rule 11).  Question and golden answer reach
the prompt from the request's own record (rule 1).  What the model writes is kept as far as it can be
read: fewer passages than asked for, or none, are an answer too, and are counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Sequence

from zerosearch import seeds
from zerosearch.engines.base import Engine
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import check_passages_per_query, failure
from zerosearch.retrievers.writers import Ask, EngineWriter, Writer, Writing
from zerosearch.schema import Retrieval, SearchRequest


@dataclass
class SimulatorCounts:
    """Running totals: searches answered, with misleading passages, with fewer than K, with none; failed."""

    answered: int = 0
    noisy: int = 0
    short: int = 0
    empty: int = 0
    failed: int = 0


class SimulatorRetriever:
    """A retriever whose passages are written by a model.

    engine: continues the prompts, in this process (see ``EngineWriter``) or, as a Writer, elsewhere.
    prompts: the wording the simulator was tuned on.  k: passages per query, 1 to 20.  run_seed: first
    key of every draw.  temperature: 0 is greedy.  max_new_tokens: budget of all passages together.
    counts: SimulatorCounts since the start.  prompt_version: of the wording.  served_model: the model's name on its server, empty for none.
    """

    name, served_model = "simulator", ""

    def __init__(
        self, engine: Engine | Writer, prompts: Prompts, k: int = 5, run_seed: int = 0, temperature: float = 1.0,
        max_new_tokens: int = 160,
    ):
        self.engine, self.prompts, self.k = engine, prompts, check_passages_per_query(k)
        self.run_seed, self.temperature, self.max_new_tokens = run_seed, temperature, max_new_tokens
        self.counts = SimulatorCounts()
        self.prompt_version = prompts.simulator_version
        self._writer = engine if isinstance(engine, Writer) else EngineWriter(engine, prompts.tokenizer)

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the passages written for every request, in order; a text that was not written is a failure."""
        if not requests:
            return []
        started = time.perf_counter()
        noisy = [self.draw_noisy(r) for r in requests]
        written = self._writer.write([self._ask(r, bad) for r, bad in zip(requests, noisy, strict=True)])
        seconds = (time.perf_counter() - started) / len(requests)
        return [self._retrieval(*row, seconds) for row in zip(requests, noisy, written, strict=True)]

    def draw_noisy(self, request: SearchRequest) -> bool:
        """Return this search's own draw: True (misleading) with its noise probability."""
        return self._uniform("noise", request) < request.noise_probability

    def _uniform(self, purpose: str, r: SearchRequest) -> float:
        return seeds.uniform(self.run_seed, purpose, r.step, r.question.id, r.sample, r.turn)

    def prompt(self, request: SearchRequest, useful: bool) -> str:
        """Return what the model is asked for this search."""
        question = request.question
        return self.prompts.simulator_prompt(
            request.query, question.question, question.golden_answers[0], useful, self.k
        )

    def _ask(self, r: SearchRequest, noisy: bool) -> Ask:
        seed = seeds.derive_seed(self.run_seed, "simulator", r.step, r.question.id, r.sample, r.turn)
        return Ask(self.prompt(r, not noisy), seed, self.max_new_tokens, self.temperature)

    def _retrieval(self, request: SearchRequest, noisy: bool, written: Writing, seconds: float) -> Retrieval:
        if written.error is not None:
            self.counts.failed += 1
            return failure(request, self.name, written.error)
        prefix = f"simulated/{request.question.id}/{request.step}.{request.sample}.{request.turn}"
        passages = self.prompts.parse_passages(written.text, self.k, prefix)
        self.counts.answered += 1
        self.counts.noisy += noisy
        self.counts.short += 0 < len(passages) < self.k
        self.counts.empty += not passages
        return Retrieval(
            request, passages, self.name, noisy, wall_seconds=seconds, n_prompt_tokens=written.n_prompt,
            n_generated_tokens=written.n_generated,
        )
