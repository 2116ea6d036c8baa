"""Passages that the policy itself writes: condensed from an engine's (Search-o1), or from its memory (SSRL).

Both are retrievers, so the one loop of ``rollout`` runs them.  They ask the engine that the policy answers
with: what they cost stands in its counts and goes to the ledger as the policy's tokens, and after an update
the policy that writes is the updated one.  Their texts are read up to the first tag (``prompts.untagged``):
an answer or a query that the policy writes here is no action of its trajectory.  Draws are keyed by (run
seed, step, question, sample, turn).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Sequence

from zerosearch import seeds
from zerosearch.engines.base import Engine, GenerationRequest
from zerosearch.prompts import Prompts, prompt_ids, untagged
from zerosearch.retrievers.base import Retriever, check_passages_per_query, check_rows
from zerosearch.schema import Retrieval, SearchRequest

SELF = "self"  # name of the engine that is the policy's own memory
Ask = tuple[str, str]  # prompt, start of the reply


class PolicyWriter:
    """Lets the policy write texts beside its trajectories.

    engine: the one that the policy answers with.  run_seed: first key of every draw.  temperature: 0 is
    greedy.  max_tokens: budget of one text.
    """

    def __init__(self, engine: Engine, prompts: Prompts, run_seed: int, temperature: float, max_tokens: int):
        self.engine, self.prompts, self.run_seed = engine, prompts, run_seed
        self.temperature, self.max_tokens = temperature, max_tokens

    def write(self, purpose: str, requests: Sequence[SearchRequest], asks: Sequence[Ask]) -> list[str]:
        """Return one text per request, in order.  purpose: keys the draws, beside the request."""
        tokenizer = self.prompts.tokenizer
        asked = [self._request(purpose, r, ask) for r, ask in zip(requests, asks, strict=True)]
        made = self.engine.generate(asked) if asked else []
        return [untagged(tokenizer.decode(m.token_ids, skip_special_tokens=True)) for m in made]

    def _request(self, purpose: str, r: SearchRequest, ask: Ask) -> GenerationRequest:
        tokenizer = self.prompts.tokenizer
        ids = [*prompt_ids(tokenizer, ask[0]), *tokenizer(ask[1], add_special_tokens=False).input_ids]
        seed = seeds.derive_seed(self.run_seed, purpose, r.step, r.question.id, r.sample, r.turn)
        return GenerationRequest(tuple(ids), seed, self.max_tokens, self.temperature)


class SelfRetriever:
    """The policy as its own search engine: k passages per query from memory, no engine is asked.

    The tokens are the policy's and counted as such; the retrieval says 0, so that nobody counts them twice.
    """

    name = SELF

    def __init__(self, writer: PolicyWriter, k: int = 5):
        self.writer, self.k = writer, check_passages_per_query(k)

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return what the policy wrote for every request, in order; fewer passages than k, or none, may come."""
        started = time.perf_counter()
        prompts = self.writer.prompts
        asks = [prompts.recall_prompt(r.query, r.question.question, self.k) for r in requests]
        texts = self.writer.write("self-search", requests, asks)
        seconds = (time.perf_counter() - started) / max(1, len(requests))
        return [
            Retrieval(r, prompts.parse_passages(text, self.k, f"self/{_place(r)}"), SELF, wall_seconds=seconds)
            for r, text in zip(requests, texts, strict=True)
        ]


class RefiningRetriever:
    """A retriever whose passages the policy condenses before its trajectory goes on (reason-in-documents).

    The condensation sees the query, the reasoning so far and the passages, cut to max_read tokens; only
    what it writes enters the trajectory.  The retrieval keeps the engine's passages as they were.
    """

    def __init__(self, retriever: Retriever, writer: PolicyWriter, max_read: int):
        self._retriever, self.writer, self.max_read = retriever, writer, max_read
        self.name = retriever.name

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the wrapped retriever's retrievals with ``condensed``; failed ones as they are."""
        found = check_rows(requests, self._retriever.search(requests), self.name)
        ready = [r for r in found if r.error is None]
        prompts = self.writer.prompts
        asks = [prompts.refine_prompt(r.request.query, r.request.context, r.passages, self.max_read) for r in ready]
        texts = iter(self.writer.write("refine", [r.request for r in ready], asks))
        return [replace(r, condensed=next(texts)) if r.error is None else r for r in found]


def _place(r: SearchRequest) -> str:
    return f"{r.question.id}/{r.step}.{r.sample}.{r.turn}"
