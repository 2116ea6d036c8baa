"""What an engine is: token ids in, token ids and log-probs out (rule 2: token ids are the truth).

An engine never sees text of a conversation and never re-encodes what it sampled.  Generation ends
at a closing tag, at the end-of-text token, or at the token budget, and says which (rule 5).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Hashable, Literal, Protocol, Sequence

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
