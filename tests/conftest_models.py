"""Tiny stand-ins for tests that need a model or a retriever but not a trained one."""

from __future__ import annotations

from functools import cache
from typing import Sequence

import torch
from transformers import (
    LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM,
)

from zerosearch.engines.base import EngineCounts, Generation, GenerationRequest
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.schema import Passage, Retrieval, SearchRequest

# Families of tokenizers: Llama's has a begin-of-text token and pads with its end; chat ones have a template.
FAMILIES = [("qwen2", False), ("qwen2", True), ("llama", False), ("llama", True)]


@cache
def tokenizer_of(family: str = "qwen2", chat: bool = False) -> PreTrainedTokenizerBase:
    """Return the micro-world's tokenizer of a family; do not change it, tests share it."""
    return build_tokenizer(family, chat)  # type: ignore[arg-type]


TOKENIZER = tokenizer_of()


def tiny_model(
    kind: str = "qwen2", seed: int = 0, tokenizer: PreTrainedTokenizerBase = TOKENIZER
) -> PreTrainedModel:
    """Return an untrained two-layer model with grouped heads and a tokenizer's special tokens, in eval mode."""
    sizes = dict(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**sizes)) if kind == "qwen2" else LlamaForCausalLM(LlamaConfig(**sizes))
    return model.float().eval()


class ScriptedEngine:
    """An engine whose messages are written down: script(prompt text, turn seed) -> text."""

    name = "scripted"

    def __init__(self, script, tokenizer=TOKENIZER):  # noqa: ANN001
        self.script, self.tokenizer, self.counts = script, tokenizer, EngineCounts()
        self.batches: list[int] = []

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.batches.append(len(requests))
        return [self._one(r) for r in requests]

    def _one(self, request: GenerationRequest) -> Generation:
        text = self.script(self.tokenizer.decode(request.prompt_ids))
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        cut = ids[: request.max_new_tokens]
        stop = "length" if len(cut) < len(ids) else "stop" if text.endswith(("</search>", "</answer>")) else "eos"
        return Generation(tuple(cut), tuple(-0.5 for _ in cut), stop)

    def release(self) -> None: ...


class EchoRetriever:
    """A retriever that returns passages naming the query and the question it belongs to."""

    name = "echo"

    def __init__(self, fail_on: str = ""):
        self.fail_on, self.seen = fail_on, []

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        self.seen += requests
        return [self._one(r) for r in requests]

    def _one(self, request: SearchRequest) -> Retrieval:
        if self.fail_on and self.fail_on in request.query:
            return Retrieval(request, (), self.name, error="scripted failure")
        text = f"{request.query} of {request.question.id} is {request.question.golden_answers[0]}."
        return Retrieval(request, (Passage("e", "", text),), self.name)
