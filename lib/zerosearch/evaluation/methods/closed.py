"""Methods whose prompt says everything: direct answer, chain of thought, RAG.  The policy does not search."""

from __future__ import annotations

from typing import Sequence

from zerosearch.evaluation.methods.base import Method, Prediction, Progress
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest, rollout
from zerosearch.schema import Question, Retrieval, SearchRequest, Trajectory


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


def _closed(question: Question, prompt: str) -> RolloutRequest:
    """Return a request that may not search: one message, and what it does not answer scores 0."""
    return RolloutRequest(question, prompt=prompt, max_searches=0)


def _failed(retrieval: Retrieval) -> Trajectory:
    """Return the record of a question whose passages could not be retrieved."""
    return Trajectory(
        retrieval.request.question, (), (), (), (), (), "retriever_error", error=retrieval.error
    )
