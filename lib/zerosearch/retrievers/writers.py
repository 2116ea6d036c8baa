"""Who writes a simulator's passages: a model in this process, or one on a server.

A writer gets prompts as text and gives text back, one for one.  A model in this process is asked through
its tokens, as everything else here; a served one has its own tokenizer and chat template, counts the
tokens itself, and can fail: a prompt without an answer is a failed search, and what no request can pass
(key, credit, address) is raised and ends the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Sequence, runtime_checkable

from transformers import PreTrainedTokenizerBase

from zerosearch.chat import Chat, Prompt, Reply
from zerosearch.engines.base import Engine, Generation, GenerationRequest
from zerosearch.errors import RetrieverError
from zerosearch.prompts import prompt_ids
from zerosearch.remote import Answer

_SERVED_SEED = 2**31  # servers differ in the seeds that they accept; all accept these


@dataclass(frozen=True, slots=True)
class Ask:
    """One text to be written.  seed: keys its draws.  temperature: 0 is greedy."""

    prompt: str
    seed: int
    max_new_tokens: int
    temperature: float


@dataclass(frozen=True, slots=True)
class Writing:
    """What was written, its end-of-text left out; tokens read and written.  error: why nothing was."""

    text: str = ""
    n_prompt: int = 0
    n_generated: int = 0
    error: str | None = None


@runtime_checkable
class Writer(Protocol):
    """Anything that goes on from prompts."""

    def write(self, asks: Sequence[Ask]) -> list[Writing]:
        """Return one Writing per prompt, in order."""
        ...


class EngineWriter:
    """A model in this process.

    engine: made with ``stop_strings=()``, since passages end at end-of-text.  An engine that cannot be
    reached (OSError, RetrieverError) leaves every prompt without an answer.
    """

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase):
        self.engine, self.tokenizer = engine, tokenizer
        special = (i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
        self._end_ids = frozenset((*tokenizer.all_special_ids, *special))  # Llama has ends besides its eos token

    def write(self, asks: Sequence[Ask]) -> list[Writing]:
        """Return one Writing per prompt, in order."""
        ids = [tuple(prompt_ids(self.tokenizer, ask.prompt)) for ask in asks]
        requests = [
            GenerationRequest(known, ask.seed, ask.max_new_tokens, ask.temperature)
            for known, ask in zip(ids, asks, strict=True)
        ]
        try:
            made = self.engine.generate(requests)
        except (OSError, RetrieverError) as error:
            return [Writing(error=f"{type(error).__name__}: {error}")] * len(asks)
        return [self._writing(known, one) for known, one in zip(ids, made, strict=True)]

    def _writing(self, known: tuple[int, ...], made: Generation) -> Writing:
        ended = bool(made.token_ids) and made.token_ids[-1] in self._end_ids
        own = made.token_ids[:-1] if ended else made.token_ids
        text = self.tokenizer.decode(own, skip_special_tokens=False)
        return Writing(text, len(known), len(made.token_ids))


class ServedWriter:
    """A model behind the OpenAI protocol."""

    def __init__(self, chat: Chat):
        self.chat = chat

    def write(self, asks: Sequence[Ask]) -> list[Writing]:
        """Return one Writing per prompt, in order; RemoteRefused where no request can pass."""
        prompts = [
            Prompt(a.prompt, max_tokens=a.max_new_tokens, temperature=a.temperature, seed=a.seed % _SERVED_SEED)
            for a in asks
        ]
        return [_served(answer) for answer in self.chat.ask_all(prompts)]


def _served(answer: Answer[Reply]) -> Writing:
    if answer.value is None:
        detail = answer.failure and answer.failure.detail
        return Writing(error=f"{answer.failure}: {detail}" if detail else str(answer.failure))
    return Writing(answer.value.text, answer.value.n_prompt, answer.value.n_generated)
