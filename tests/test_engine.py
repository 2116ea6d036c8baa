"""The transformers engine: exact log-probs, draws that do not depend on the batch, real stops."""

from __future__ import annotations

import pytest
import torch
from conftest_models import FAMILIES, TOKENIZER, tiny_model, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from zerosearch.engines.base import Generation, GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.prompts import prompt_ids

MODELS = {(family, chat): tiny_model(family, tokenizer=tokenizer_of(family, chat)) for family, chat in FAMILIES}
QWEN = MODELS["qwen2", False]
TEXTS = ["Question: who directed Silver Harbor\n", "Question: x", "Think, then answer: When was Ivo Falk born?\n", "Ĝ 東京"]


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False).input_ids)


def truth(model: torch.nn.Module, prompt: tuple[int, ...], written: tuple[int, ...]) -> list[float]:
    """Log-probs of a full, unpadded forward pass through the plain attention."""
    with torch.no_grad():
        logps = torch.log_softmax(model(input_ids=torch.tensor([prompt + written])).logits[0].double(), -1)
    return [logps[len(prompt) - 1 + i, token].item() for i, token in enumerate(written)]


@pytest.mark.parametrize(("family", "chat"), FAMILIES)
def test_logprobs_of_two_turns_equal_a_full_forward_pass(family: str, chat: bool) -> None:
    """Also where padding is the end of text, and the end of text stands in the middle of a conversation."""
    model, tokenizer = MODELS[family, chat], tokenizer_of(family, chat)
    engine = TransformersEngine(model, tokenizer)
    prompts = [tuple(prompt_ids(tokenizer, text)) for text in TEXTS]
    prompts[1] += (tokenizer.eos_token_id,) * 3
    for turn in range(3):
        made = engine.generate([GenerationRequest(p, 100 * turn + i, 12, key=i) for i, p in enumerate(prompts)])
        for prompt, generation in zip(prompts, made, strict=True):
            assert truth(model, prompt, generation.token_ids) == pytest.approx(generation.logprobs, abs=2e-6)
        prompts = [p + g.token_ids + ids(f"<information>\n fact {turn}\n</information>") for p, g in zip(prompts, made, strict=True)]
    assert engine.counts.cached > 0


@given(st.permutations(range(4)), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_draws_do_not_depend_on_order_or_batch_size(order: list[int], max_batch: int) -> None:
    engine = TransformersEngine(QWEN, TOKENIZER, max_batch=max_batch)
    requests = [GenerationRequest(ids(t), 7 + i, 10) for i, t in enumerate(TEXTS)]
    alone = [engine.generate([r])[0].token_ids for r in requests]
    together = engine.generate([requests[i] for i in order])
    assert [together[order.index(i)].token_ids for i in range(4)] == alone


def test_greedy_is_argmax_and_ignores_the_seed() -> None:
    engine = TransformersEngine(QWEN, TOKENIZER)
    a, b = engine.generate([GenerationRequest(ids(TEXTS[0]), s, 6, temperature=0.0) for s in (1, 2)])
    assert a == b
    logits = QWEN(input_ids=torch.tensor([ids(TEXTS[0])])).logits[0, -1]
    assert a.token_ids[0] == int(logits.argmax())


def test_sampling_follows_the_distribution() -> None:
    engine = TransformersEngine(QWEN, TOKENIZER, stop_strings=())
    prompt = ids(TEXTS[0])
    made = engine.generate([GenerationRequest(prompt, s, 1, temperature=0.05) for s in range(3000)])
    logits = QWEN(input_ids=torch.tensor([prompt])).logits[0, -1].detach() / 0.05
    probability, token = torch.softmax(logits, -1).max(-1)
    share = sum(g.token_ids[0] == int(token) for g in made) / 3000
    assert abs(share - probability.item()) < 4 * (probability.item() * (1 - probability.item()) / 3000) ** 0.5 + 1e-9


class Forced(torch.nn.Module):
    """Output head that writes a fixed text, whatever the hidden states."""

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase = TOKENIZER):
        super().__init__()
        self.target, self.calls = tokenizer(text, add_special_tokens=False).input_ids, 0
        self.vocab_size = len(tokenizer)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.full((*hidden.shape[:-1], self.vocab_size), -50.0)
        logits[..., self.target[min(self.calls, len(self.target) - 1)]] = 50.0
        self.calls += 1
        return logits


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("<search> a</search>", "stop"), ("<think> no tag", "length"), ("<answer> b</answer>", "stop"),
        ("x<|endoftext|>", "eos"), ("</think> a > b", "length"),
    ],
)
def test_stops_at_the_closing_tag(text: str, stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    head = Forced(text)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: head)
    made = TransformersEngine(model, TOKENIZER).generate([GenerationRequest(ids(TEXTS[1]), 0, len(ids(text)), 0.0)])[0]
    assert made.stop_reason == stop and made.token_ids == ids(text)


@pytest.mark.parametrize(
    ("family", "chat", "text", "stop"),
    [
        ("qwen2", True, "x<|im_end|>", "eos"), ("qwen2", True, "x<|endoftext|>", "length"),
        ("llama", False, "x<|end_of_text|>", "eos"), ("llama", True, "x<|eot_id|>", "eos"),
        ("llama", True, "x<|end_of_text|>", "length"), ("llama", True, "<search> a</search>", "stop"),
    ],
)
def test_stops_at_the_end_of_its_family(
    family: str, chat: bool, text: str, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_of(family, chat)
    made = forced(text, tiny_model(family, tokenizer=tokenizer), tokenizer, monkeypatch)
    assert made.stop_reason == stop and list(made.token_ids) == tokenizer(text, add_special_tokens=False).input_ids


def test_every_end_that_a_model_names_is_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As published chat models do: several ends, in the generation settings or as a list in the model's."""
    tokenizer = tokenizer_of("llama", True)
    end_of_text = tokenizer.convert_tokens_to_ids("<|end_of_text|>")
    for where in ("config", "generation_config"):
        model = tiny_model("llama", tokenizer=tokenizer)
        getattr(model, where).eos_token_id = [tokenizer.eos_token_id, end_of_text]
        made = forced("x<|end_of_text|>", model, tokenizer, monkeypatch)
        assert made.stop_reason == "eos" and made.token_ids[-1] == end_of_text


def forced(
    text: str, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> Generation:
    """Return what the engine makes of a model that writes the text, with room for no more."""
    head = Forced(text, tokenizer)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: head)
    request = GenerationRequest(tuple(prompt_ids(tokenizer, TEXTS[1])), 0, len(head.target), 0.0)
    return TransformersEngine(model, tokenizer).generate([request])[0]


def test_a_changed_prefix_is_not_taken_from_the_store() -> None:
    engine = TransformersEngine(QWEN, TOKENIZER)
    first = engine.generate([GenerationRequest(ids(TEXTS[0]), 1, 5, key="same")])[0]
    other = ids(TEXTS[2]) + first.token_ids
    again = engine.generate([GenerationRequest(other, 2, 5, key="same")])[0]
    assert truth(QWEN, other, again.token_ids) == pytest.approx(again.logprobs, abs=2e-6)
