"""The multi-turn loop: a policy thinks, searches, reads passages and answers.

Token in, token out (rule 2): what the engine sampled is appended as it is, the observation is encoded
once, and nothing is decoded and encoded again.  Only the prompt gets what a tokenizer puts around one
(begin-of-text, chat template); what follows is appended bare.  Every trajectory carries its own loss
mask, built from lengths.  Only the policy's own tokens of a turn are parsed for an action (rule 3).  A
search beyond the budget is not carried out (rule 6); a trajectory that runs out of room ends and says
so (rule 5).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable, Mapping, Sequence

import pandas as pd

from zerosearch import seeds
from zerosearch.engines.base import Engine, Generation, GenerationRequest
from zerosearch.prompts import Prompts, parse_action, prompt_ids
from zerosearch.retrievers.base import Retriever
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, StopReason, Trajectory, Turn


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """Limits and randomness of a rollout.

    max_searches: searches that are carried out.  max_turn_tokens: tokens of one policy message.
    max_observation_tokens: tokens of passages in one observation, tags not counted.
    max_total_tokens: prompt and trajectory together.  temperature: 0 is greedy.
    run_seed: first key of every draw.  forced_prefix: text put at the start of the first message (not
    sampled, so not trained); empty for none.
    """

    max_searches: int = 5
    max_turn_tokens: int = 48
    max_observation_tokens: int = 160
    max_total_tokens: int = 1024
    temperature: float = 1.0
    run_seed: int = 0
    forced_prefix: str = ""


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """One trajectory to be produced; step and sample key its draws.

    prompt: None for the policy prompt of the question, or another text (RAG, direct ...).
    max_searches: None for that of the settings.  forced_prefix: likewise.
    turn_prefix: text put at the start of every message (of the first one only where nothing is forced).
    last_prefix: the same for the message after the last search that is allowed; empty for turn_prefix.
    """

    question: Question
    step: int = 0
    sample: int = 0
    noise_probability: float = 0.0
    prompt: str | None = None
    max_searches: int | None = None
    forced_prefix: str | None = None
    turn_prefix: str = ""
    last_prefix: str = ""


class Conversation:
    """A trajectory under way."""

    def __init__(self, request: RolloutRequest, prompts: Prompts, settings: RolloutSettings, index: int):
        self.request, self.settings, self.index = request, settings, index
        self.tokenizer = prompts.tokenizer
        text = prompts.policy_prompt(request.question.question) if request.prompt is None else request.prompt
        self.prompt_ids = prompt_ids(self.tokenizer, text)
        self.max_searches = settings.max_searches if request.max_searches is None else request.max_searches
        self.token_ids: list[int] = []
        self.loss_mask: list[bool] = []
        self.logprobs: list[float] = []
        self.turns: list[Turn] = []
        self.stop_reason: StopReason | None = None
        self.answer: str | None = None
        self.error: str | None = None
        self.n_searches = 0
        forced = settings.forced_prefix if request.forced_prefix is None else request.forced_prefix
        self._begin_message(forced or self._turn_prefix())

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _begin_message(self, prefix: str) -> None:
        """Put text into the policy's mouth: read as its own words, but not sampled, so not trained."""
        self.pending_prefix = self._encode(prefix) if prefix else []
        self._insert(self.pending_prefix)

    def _turn_prefix(self) -> str:
        last = self.n_searches >= self.max_searches
        return self.request.last_prefix if last and self.request.last_prefix else self.request.turn_prefix

    def _insert(self, ids: Sequence[int]) -> None:
        self.token_ids += ids
        self.loss_mask += [False] * len(ids)
        self.logprobs += [0.0] * len(ids)

    @property
    def room(self) -> int:
        """Tokens that the trajectory may still grow by."""
        return self.settings.max_total_tokens - len(self.prompt_ids) - len(self.token_ids)

    def generation_request(self) -> GenerationRequest:
        request, settings = self.request, self.settings
        seed = seeds.derive_seed(
            settings.run_seed, "policy", request.step, request.question.id, request.sample, len(self.turns)
        )
        return GenerationRequest(
            (*self.prompt_ids, *self.token_ids), seed, min(settings.max_turn_tokens, self.room),
            settings.temperature, key=self.index,
        )

    def take_message(self, made: Generation) -> SearchRequest | None:
        """Append the policy's message; return the search that it asks for, if it is to be carried out."""
        self.token_ids += made.token_ids
        self.loss_mask += [True] * len(made.token_ids)
        self.logprobs += made.logprobs
        own = self.tokenizer.decode([*self.pending_prefix, *made.token_ids], skip_special_tokens=False)
        self.pending_prefix = []
        action, content = parse_action(own)
        self.turns.append(Turn(own, action, content))
        if action == "answer":
            self.answer, self.stop_reason = content, "answer"
        elif action == "none":
            self.stop_reason = "length" if made.stop_reason == "length" else "no_action"
        elif self.n_searches >= self.max_searches:
            self.stop_reason = "max_searches"
        if self.stop_reason is not None:
            return None
        request = self.request
        context = "".join(turn.text + turn.observation for turn in self.turns)
        return SearchRequest(
            content, request.question, request.step, request.sample, len(self.turns) - 1, request.noise_probability,
            context,
        )

    def take_retrieval(self, retrieval: Retrieval, prompts: Prompts) -> None:
        """Append what the search returned, cut to budget first and wrapped after (rule 4)."""
        self.n_searches += 1
        if retrieval.error is not None:
            self.turns[-1] = replace(self.turns[-1], retrieval=retrieval)
            self.stop_reason, self.error = "retriever_error", retrieval.error
            return
        observation = _observation(retrieval, prompts, self.settings.max_observation_tokens)
        self.turns[-1] = replace(self.turns[-1], retrieval=retrieval, observation=observation)
        ids = self._encode(observation)
        if len(ids) >= self.room:  # neither the block nor the answer may be cut: the trajectory ends here
            self.stop_reason = "length"
            return
        self._insert(ids)
        self._begin_message(self._turn_prefix())

    def finish(self) -> Trajectory:
        if not any(self.loss_mask):  # nothing could be sampled: one masked token keeps the record trainable
            self._insert([self.prompt_ids[-1]] if self.prompt_ids else [0])
        return Trajectory(
            self.request.question, tuple(self.prompt_ids), tuple(self.token_ids), tuple(self.loss_mask),
            tuple(self.logprobs), tuple(self.turns), self.stop_reason or "length", self.answer,
            self.request.step, self.request.sample, self.error,
        )


def _observation(retrieval: Retrieval, prompts: Prompts, max_tokens: int) -> str:
    """Return the block that the policy reads: the passages, or what was made of them."""
    if retrieval.condensed is None:
        return prompts.observation(retrieval.passages, max_tokens)
    return prompts.condensed_observation(retrieval.condensed, max_tokens)


def rollout(
    requests: Sequence[RolloutRequest], engine: Engine, retriever: Retriever | None, prompts: Prompts,
    settings: RolloutSettings, on_progress: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """Return one finished trajectory per request, in the order of the requests.

    Turn-synchronous: all open trajectories write one message, then all their searches are answered.
    retriever may be None when no request may search (max_searches 0).  on_progress(done, total) is
    called after every turn.  A failed search ends its own trajectory as ``retriever_error``, no other.
    """
    conversations = [Conversation(r, prompts, settings, i) for i, r in enumerate(requests)]
    active = conversations
    while active:
        for conversation in active:
            if conversation.room <= 0:
                conversation.stop_reason = "length"
        active = [c for c in active if c.stop_reason is None]
        made = engine.generate([c.generation_request() for c in active]) if active else []
        searches = [(c, s) for c, m in zip(active, made, strict=True) if (s := c.take_message(m)) is not None]
        if searches:
            if retriever is None:
                raise ValueError("a trajectory asked for a search, but there is no retriever; set max_searches to 0")
            for (conversation, _), found in zip(searches, retriever.search([s for _, s in searches]), strict=True):
                conversation.take_retrieval(found, prompts)
        active = [c for c in active if c.stop_reason is None]
        if on_progress:
            on_progress(len(conversations) - len(active), len(conversations))
    engine.release()
    return [c.finish() for c in conversations]


# -- tables ---------------------------------------------------------------------------------------


def trajectories_to_table(trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """Return one row per trajectory; nothing is lost (``table_to_trajectories`` is the inverse)."""
    return pd.DataFrame([to_row(t) for t in trajectories], columns=_COLUMNS)


def table_to_trajectories(table: pd.DataFrame) -> list[Trajectory]:
    """Return the trajectories of a table made by ``trajectories_to_table``."""
    return [from_row(row) for row in table.to_dict("records")]


_COLUMNS = [
    "question_id", "dataset", "split", "question", "golden_answers", "metadata", "step", "sample", "stop_reason",
    "answer", "error", "n_searches", "n_tokens", "prompt_ids", "token_ids", "loss_mask", "logprobs", "turns",
]


def to_row(t: Trajectory) -> dict[str, Any]:
    """Return a trajectory as one row that JSON and parquet can hold; ``from_row`` is the inverse."""
    question = t.question
    return {
        "question_id": question.id, "dataset": question.dataset, "split": question.split,
        "question": question.question, "golden_answers": list(question.golden_answers),
        "metadata": json.dumps(dict(question.metadata), ensure_ascii=False), "step": t.step, "sample": t.sample,
        "stop_reason": t.stop_reason, "answer": t.answer, "error": t.error, "n_searches": t.n_searches,
        "n_tokens": len(t.token_ids), "prompt_ids": list(t.prompt_ids), "token_ids": list(t.token_ids),
        "loss_mask": list(t.loss_mask), "logprobs": list(t.logprobs),
        "turns": json.dumps([_turn_to_dict(turn) for turn in t.turns], ensure_ascii=False),
    }


def _turn_to_dict(turn: Turn) -> dict[str, Any]:
    made: dict[str, Any] = {
        "text": turn.text, "action": turn.action, "content": turn.content, "observation": turn.observation
    }
    if turn.retrieval is not None:
        r = turn.retrieval
        made["retrieval"] = {
            "query": r.request.query, "turn": r.request.turn, "noise_probability": r.request.noise_probability,
            "source": r.source, "noisy": r.noisy, "cached": r.cached, "wall_seconds": r.wall_seconds,
            "n_prompt_tokens": r.n_prompt_tokens, "n_generated_tokens": r.n_generated_tokens, "error": r.error,
            "passages": [asdict(p) for p in r.passages],
            **({} if r.condensed is None else {"condensed": r.condensed}),
        }
    return made


def from_row(row: Mapping[str, Any]) -> Trajectory:
    """Return the trajectory of a row made by ``to_row``."""
    question = Question(
        row["question_id"], row["dataset"], row["question"], tuple(row["golden_answers"]), row["split"],
        json.loads(row["metadata"]),
    )
    turns = tuple(_turn_from_dict(d, question, row) for d in json.loads(row["turns"]))
    return Trajectory(
        question, tuple(map(int, row["prompt_ids"])), tuple(map(int, row["token_ids"])),
        tuple(map(bool, row["loss_mask"])), tuple(map(float, row["logprobs"])), turns, row["stop_reason"],
        _none(row["answer"]), int(row["step"]), int(row["sample"]), _none(row["error"]),
    )


def _turn_from_dict(made: dict[str, Any], question: Question, row: Mapping[str, Any]) -> Turn:
    retrieval = None
    if (r := made.get("retrieval")) is not None:
        request = SearchRequest(
            r["query"], question, int(row["step"]), int(row["sample"]), r["turn"], r["noise_probability"]
        )
        passages = tuple(Passage(**p) for p in r["passages"])
        retrieval = Retrieval(
            request, passages, r["source"], r["noisy"], r["cached"], r["wall_seconds"], r["n_prompt_tokens"],
            r["n_generated_tokens"], r["error"], r.get("condensed"),
        )
    return Turn(made["text"], made["action"], made["content"], retrieval, made["observation"])


def _none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
