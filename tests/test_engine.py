"""The transformers engine: exact log-probs, draws that do not depend on the batch, real stops."""

from __future__ import annotations

import pytest
import torch
from conftest_models import TOKENIZER, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.transformers_engine import TransformersEngine

MODELS = {kind: tiny_model(kind) for kind in ("qwen2", "llama")}
TEXTS = ["Question: who directed Silver Harbor\n", "Question: x", "Think, then answer: When was Ivo Falk born?\n", "Ĝ 東京"]


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False).input_ids)


def truth(kind: str, prompt: tuple[int, ...], written: tuple[int, ...]) -> list[float]:
    """Log-probs of a full, unpadded forward pass through the plain attention."""
    with torch.no_grad():
        logps = torch.log_softmax(MODELS[kind](input_ids=torch.tensor([prompt + written])).logits[0].double(), -1)
    return [logps[len(prompt) - 1 + i, token].item() for i, token in enumerate(written)]


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_logprobs_of_two_turns_equal_a_full_forward_pass(kind: str) -> None:
    engine = TransformersEngine(MODELS[kind], TOKENIZER)
    prompts = [ids(t) for t in TEXTS]
    for turn in range(3):
        made = engine.generate([GenerationRequest(p, 100 * turn + i, 12, key=i) for i, p in enumerate(prompts)])
        for prompt, generation in zip(prompts, made, strict=True):
            assert truth(kind, prompt, generation.token_ids) == pytest.approx(generation.logprobs, abs=2e-6)
        prompts = [p + g.token_ids + ids(f"<information>\n fact {turn}\n</information>") for p, g in zip(prompts, made, strict=True)]
    assert engine.counts.cached > 0


@given(st.permutations(range(4)), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_draws_do_not_depend_on_order_or_batch_size(order: list[int], max_batch: int) -> None:
    engine = TransformersEngine(MODELS["qwen2"], TOKENIZER, max_batch=max_batch)
    requests = [GenerationRequest(ids(t), 7 + i, 10) for i, t in enumerate(TEXTS)]
    alone = [engine.generate([r])[0].token_ids for r in requests]
    together = engine.generate([requests[i] for i in order])
    assert [together[order.index(i)].token_ids for i in range(4)] == alone


def test_greedy_is_argmax_and_ignores_the_seed() -> None:
    engine = TransformersEngine(MODELS["qwen2"], TOKENIZER)
    a, b = engine.generate([GenerationRequest(ids(TEXTS[0]), s, 6, temperature=0.0) for s in (1, 2)])
    assert a == b
    logits = MODELS["qwen2"](input_ids=torch.tensor([ids(TEXTS[0])])).logits[0, -1]
    assert a.token_ids[0] == int(logits.argmax())


def test_sampling_follows_the_distribution() -> None:
    engine = TransformersEngine(MODELS["qwen2"], TOKENIZER, stop_strings=())
    prompt = ids(TEXTS[0])
    made = engine.generate([GenerationRequest(prompt, s, 1, temperature=0.05) for s in range(3000)])
    logits = MODELS["qwen2"](input_ids=torch.tensor([prompt])).logits[0, -1].detach() / 0.05
    probability, token = torch.softmax(logits, -1).max(-1)
    share = sum(g.token_ids[0] == int(token) for g in made) / 3000
    assert abs(share - probability.item()) < 4 * (probability.item() * (1 - probability.item()) / 3000) ** 0.5 + 1e-9


class Forced(torch.nn.Module):
    """Output head that writes a fixed text, whatever the hidden states."""

    def __init__(self, model: torch.nn.Module, text: str, prompt_length: int):
        super().__init__()
        self.target, self.start, self.calls = ids(text), prompt_length, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.full((*hidden.shape[:-1], len(TOKENIZER)), -50.0)
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
    head = Forced(model, text, 3)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: head)
    made = TransformersEngine(model, TOKENIZER).generate([GenerationRequest(ids(TEXTS[1]), 0, len(ids(text)), 0.0)])[0]
    assert made.stop_reason == stop and made.token_ids == ids(text)


def test_a_changed_prefix_is_not_taken_from_the_store() -> None:
    engine = TransformersEngine(MODELS["qwen2"], TOKENIZER)
    first = engine.generate([GenerationRequest(ids(TEXTS[0]), 1, 5, key="same")])[0]
    other = ids(TEXTS[2]) + first.token_ids
    again = engine.generate([GenerationRequest(other, 2, 5, key="same")])[0]
    assert truth("qwen2", other, again.token_ids) == pytest.approx(again.logprobs, abs=2e-6)
