"""What an engine is: token ids in, token ids and log-probs out (rule 2: token ids are the truth).

An engine never sees text of a conversation and never re-encodes what it sampled.  Generation ends
at a closing tag, at the end-of-text token, or at the token budget, and says which (rule 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Hashable, Iterable, Literal, Protocol, Sequence

GenerationStop = Literal["stop", "eos", "length"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One continuation to be written.

    prompt_ids: all tokens so far.  seed: 64-bit, keys the draws of this continuation alone.
    max_new_tokens: budget, at least 1.  temperature: 0 means greedy.  key: requests of one
    conversation share a key, so that an engine may reuse what it computed for the earlier turns.
    """

    prompt_ids: tuple[int, ...]
    seed: int
    max_new_tokens: int
    temperature: float = 1.0
    key: Hashable | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One continuation: token_ids as sampled (closing tag or EOS included), logprobs in nats at the
    sampling temperature (at temperature 1 for greedy), equally long; stop_reason."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop_reason: GenerationStop


@dataclass
class EngineCounts:
    """Running totals since the last ``take()``: tokens read (prompt), reused (cached) and written, seconds busy."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    seconds: float = 0.0

    def take(self) -> EngineCounts:
        """Return the totals and start again at zero."""
        taken = EngineCounts(self.prompt, self.cached, self.generated, self.seconds)
        self.prompt = self.cached = self.generated = 0
        self.seconds = 0.0
        return taken


@dataclass
class Engine(Protocol):
    """Anything that continues token sequences: transformers, vLLM, a server."""

    name: str
    tokenizer: object
    counts: EngineCounts = field(default_factory=EngineCounts)

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one Generation per request, in the order of the requests."""
        ...

    def release(self) -> None:
        """Forget every conversation (call when a batch of conversations is over or weights changed)."""
        ...


class SteppingEngine(Engine, Protocol):
    """An engine whose work can be joined and left at any time (continuous batching)."""

    def add(self, handle: Hashable, request: GenerationRequest) -> None:
        """Take one more continuation on; handle: names it until it is finished or aborted."""
        ...

    def step(self) -> list[tuple[Hashable, Generation]]:
        """Work for a moment; return what was finished in it, possibly nothing."""
        ...

    def abort(self, handles: Iterable[Hashable]) -> None:
        """Give up these continuations; what they had written is dropped."""
        ...


class Batched:
    """Any engine as a stepping one: a step generates whatever is waiting as one batch, to its end.

    Trajectories still go on as soon as their own passages are there, but new ones wait for the batch.
    """

    def __init__(self, engine: Engine):
        self.engine, self.name, self.tokenizer, self.counts = engine, engine.name, engine.tokenizer, engine.counts
        self._waiting: dict[Hashable, GenerationRequest] = {}

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """As the engine inside."""
        return self.engine.generate(requests)

    def release(self) -> None:
        """As the engine inside."""
        self.engine.release()

    def add(self, handle: Hashable, request: GenerationRequest) -> None:
        """Keep it for the next step."""
        self._waiting[handle] = request

    def step(self) -> list[tuple[Hashable, Generation]]:
        """Return a continuation for everything that waited."""
        batch, self._waiting = self._waiting, {}
        return list(zip(batch, self.engine.generate(list(batch.values())), strict=True)) if batch else []

    def abort(self, handles: Iterable[Hashable]) -> None:
        """Forget those that wait."""
        for handle in handles:
            self._waiting.pop(handle, None)


def stepping(engine: Engine) -> SteppingEngine:
    """Return the engine itself if it can be stepped, else ``Batched`` around it."""
    return engine if hasattr(engine, "step") else Batched(engine)
