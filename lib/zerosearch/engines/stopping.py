"""Where a message ends: at an end-of-text token, at a closing tag, at its budget.

One rule for every engine.  It looks at the sampled ids alone, so that a tag which the prompt began is not
completed by the first sampled token, and it decodes a short tail only when a token may close a tag.
"""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from zerosearch.engines.base import GenerationStop

_TAIL = 16  # tokens decoded to look for a closing tag; every tag is shorter


class StopRule:
    """Says after every sampled token whether, and why, the message ends.

    stop_strings: a message ends when one of them is complete.  end_ids: tokens that end a text.
    single: ids that are a whole stop string by themselves.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_strings: Sequence[str], end_ids: Iterable[int]):
        self.tokenizer, self.stop_strings, self.end_ids = tokenizer, tuple(stop_strings), frozenset(end_ids)
        self.single, self._closing = self._tables()

    def _tables(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return ids that are a whole stop string, and ids whose text may complete one."""
        last_letters = {s[-1] for s in self.stop_strings}
        texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))]) if self.stop_strings else []
        single = frozenset(i for i, text in enumerate(texts) if text in self.stop_strings)
        closing = frozenset(i for i, text in enumerate(texts) if any(c in text for c in last_letters))
        return single, closing

    def reason(self, ids: Sequence[int], max_new_tokens: int) -> GenerationStop | None:
        """Return why a message ends with its last token, None if it goes on.  ids: all sampled so far."""
        token = ids[-1]
        if token in self.end_ids:
            return "eos"
        if token in self.single or (token in self._closing and self._completes(ids)):
            return "stop"
        return "length" if len(ids) >= max_new_tokens else None

    def _completes(self, ids: Sequence[int]) -> bool:
        before, tail = self.tokenizer.decode(ids[-_TAIL:-1]), self.tokenizer.decode(ids[-_TAIL:])
        return any(tail.count(s) > before.count(s) for s in self.stop_strings)


def end_ids(config: PreTrainedConfig, generation_config: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return every token that ends a text: chat models may name some in their generation settings only."""
    named = (config.eos_token_id, getattr(generation_config, "eos_token_id", None), tokenizer.eos_token_id)
    return {i for value in named for i in _as_list(value) if i is not None}


def _as_list(value: int | list[int] | None) -> list[int | None]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
