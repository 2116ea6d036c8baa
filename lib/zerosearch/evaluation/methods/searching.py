"""Methods in which the policy searches: by itself, forced, as an agent, over refined passages, in its memory."""

from __future__ import annotations

from typing import Sequence

from zerosearch.engines.base import Engine
from zerosearch.evaluation.methods.base import Method
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever
from zerosearch.retrievers.by_policy import SELF, PolicyWriter, RefiningRetriever, SelfRetriever
from zerosearch.rollout import RolloutRequest
from zerosearch.schema import Question


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


class RaAgent(Method):
    """An agent in the manner of ReAct: thought, action, observation, step by step.

    Every message is made to begin with a thought; after the last search that the budget allows the only
    action left is the answer, and the message is made to begin with it.
    """

    name = "ra-agent"

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        wording = prompts.template
        return [
            RolloutRequest(
                q, prompt=prompts.agent_prompt(q.question, self.max_searches), turn_prefix=wording.agent_prefix,
                last_prefix=wording.agent_last_prefix,
            )
            for q in questions
        ]


class SearchO1(Search):
    """As ``search``, but the policy condenses what a search found before its reasoning goes on.

    It reads the passages cut to max_observation_tokens, as everybody does, and writes one message.
    """

    name = "search-o1"

    def retriever(self, engine: Engine, prompts: Prompts) -> Retriever:
        """Return the engine with the policy behind it; only the condensed text enters the trajectory."""
        settings = self.bench.settings
        writer = PolicyWriter(engine, prompts, settings.run_seed, settings.temperature, settings.max_turn_tokens)
        return RefiningRetriever(self.bench.retriever, writer, settings.max_observation_tokens)


class OwnSearch(Search):
    """As ``search``, but the policy is its own engine: it reads passages written from its memory (SSRL)."""

    name = "own-search"
    searched = SELF

    def retriever(self, engine: Engine, prompts: Prompts) -> Retriever:
        """Return the policy as its own engine; the real one is not asked."""
        settings = self.bench.settings
        writer = PolicyWriter(engine, prompts, settings.run_seed, settings.temperature, settings.max_observation_tokens)
        return SelfRetriever(writer, self.bench.passages_per_query)
