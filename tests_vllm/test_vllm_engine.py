"""vLLM behind the engine interface, against the transformers engine and a teacher-forced forward pass."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from conftest import MODEL, truth

from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import BadInput, ConfigError
from zerosearch.microworld import models
from zerosearch.prompts import prompt_ids
from zerosearch.training.sampler import check_sampler, follow, rest


def asked(tokenizer, count: int, temperature: float) -> list[GenerationRequest]:  # noqa: ANN001
    texts = [f"Question: who directed film {i}\n" for i in range(count)]
    return [GenerationRequest(tuple(prompt_ids(tokenizer, t)), 2**63 + i, 32, temperature, i) for i, t in enumerate(texts)]


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_logprobs_are_those_of_a_forward_pass_at_the_sampling_temperature(engine, loaded, temperature) -> None:  # noqa: ANN001
    model, tokenizer = loaded
    requests = asked(tokenizer, 24, temperature)
    for request, made in zip(requests, engine.generate(requests), strict=True):
        logps = truth(model, request.prompt_ids + made.token_ids, temperature or 1.0)
        before = len(request.prompt_ids) - 1
        expected = [logps[before + i, token].item() for i, token in enumerate(made.token_ids)]
        assert expected == pytest.approx(made.logprobs, abs=1e-4)


def test_greedy_equals_the_transformers_engine(engine, loaded) -> None:  # noqa: ANN001
    requests = asked(loaded[1], 200, 0.0)
    pairs = list(zip(TransformersEngine(*loaded).generate(requests), engine.generate(requests), strict=True))
    same = [(a, b) for a, b in pairs if a.token_ids == b.token_ids]
    assert len(same) >= 198
    assert all(a.stop_reason == b.stop_reason for a, b in same)
    assert max(abs(x - y) for a, b in same for x, y in zip(a.logprobs, b.logprobs, strict=True)) < 5e-5


def test_draws_depend_on_the_seed_and_on_nothing_else(engine, loaded) -> None:  # noqa: ANN001
    requests = asked(loaded[1], 40, 1.0)
    together = [g.token_ids for g in engine.generate(requests)]
    turned = [g.token_ids for g in engine.generate(requests[::-1])][::-1]
    alone = [engine.generate([r])[0].token_ids for r in requests[:10]]
    assert sum(a == b for a, b in zip(together, turned, strict=True)) >= 39 and alone == together[:10]
    others = [GenerationRequest(r.prompt_ids, r.seed + 1, 32, 1.0) for r in requests]
    assert [g.token_ids for g in engine.generate(others)] != together


def test_sampling_follows_the_distribution(engine, loaded) -> None:  # noqa: ANN001
    model, tokenizer = loaded
    prompt = tuple(prompt_ids(tokenizer, "Question: who directed film 1\n"))
    made = engine.generate([GenerationRequest(prompt, seed, 1) for seed in range(2000)])
    probabilities = truth(model, prompt)[-1].exp()
    for token in probabilities.topk(3).indices.tolist():
        p, share = probabilities[token].item(), sum(g.token_ids[0] == token for g in made) / 2000
        assert abs(share - p) < 4 * (p * (1 - p) / 2000) ** 0.5 + 1e-9


def test_a_later_turn_pays_for_its_new_tokens_only(engine, loaded) -> None:  # noqa: ANN001
    engine.release()
    engine.counts.take()
    first = GenerationRequest(tuple(range(100, 300)), 1, 4)
    made = engine.generate([first])[0]
    again = engine.generate([GenerationRequest(first.prompt_ids + made.token_ids + tuple(range(50)), 2, 4)])[0]
    counts = engine.counts.take()
    assert counts.cached >= 192 and counts.prompt + counts.cached == 200 + 200 + len(made.token_ids) + 50
    assert counts.generated == len(made.token_ids) + len(again.token_ids)


def test_a_tag_of_several_tokens_stops_as_it_does_elsewhere(loaded) -> None:  # noqa: ANN001
    """The stop string is what the model writes anyway as its third and fourth token."""
    model, tokenizer = loaded
    request = asked(tokenizer, 1, 0.0)[0]
    free = TransformersEngine(model, tokenizer, stop_strings=()).generate([request])[0]
    tag = tokenizer.decode(free.token_ids[2:4])
    theirs = TransformersEngine(model, tokenizer, stop_strings=(tag,)).generate([request])[0]
    assert theirs.stop_reason == "stop" and len(theirs.token_ids) == 4
    ours = open_text_engine("vllm", model, tokenizer, "tag", stop_strings=(tag,))
    made = ours.generate([request] * 3)
    assert all((m.token_ids, m.stop_reason) == (theirs.token_ids, "stop") for m in made)
    ours.close()


def test_budgets_ends_and_lengths() -> None:
    loaded = models.load(MODEL)
    engine = open_text_engine("vllm", *loaded, MODEL, max_batch=2)
    prompt = asked(loaded[1], 1, 0.0)[0].prompt_ids
    short = engine.generate([GenerationRequest(prompt, i, 1 + i % 2, 0.0) for i in range(5)])
    assert [len(g.token_ids) for g in short] == [1, 2, 1, 2, 1] and all(g.stop_reason == "length" for g in short)
    with pytest.raises(BadInput, match="within its 4096 tokens, found 5000"):
        engine.generate([GenerationRequest((5,) * 4999, 0, 1)])
    engine.add("given up", GenerationRequest(prompt, 1, 32))
    engine.add("kept", GenerationRequest(prompt, 1, 1))
    engine.abort(["given up"])
    assert [handle for handle, _ in engine.step()] == ["kept"] and engine.step() == []
    engine.close()
    engine.close()


def test_global_generators_stay_as_they_were(loaded) -> None:  # noqa: ANN001
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = [torch.rand(1).item(), np.random.rand(), random.random()]
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    open_text_engine("vllm", *loaded, "x").close()
    assert [torch.rand(1).item(), np.random.rand(), random.random()] == expected


def test_after_an_update_logprobs_are_the_trainers_or_the_engine_refuses(loaded) -> None:  # noqa: ANN001
    """A GPU takes the weights of an update; a CPU's packed ones would stay, so there it says so."""
    model, tokenizer = copy.deepcopy(loaded[0]), loaded[1]
    engine = open_text_engine("vllm", model, tokenizer, "followed")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="found VllmEngine.*CPU backend cannot take new weights"):
            check_sampler(engine)
        with pytest.raises(ConfigError, match="expected a GPU, since vLLM's CPU backend cannot take new weights"):
            follow(engine, model)
        engine.close()
        engine = open_text_engine("vllm", model, tokenizer, "another")  # a fresh one is right everywhere
    else:
        rest(engine)
        follow(engine, model)
    for request, made in zip(asked(tokenizer, 8, 1.0), engine.generate(asked(tokenizer, 8, 1.0)), strict=True):
        logps, before = truth(model, request.prompt_ids + made.token_ids), len(request.prompt_ids) - 1
        assert [logps[before + i, t].item() for i, t in enumerate(made.token_ids)] == pytest.approx(made.logprobs, abs=1e-4)
    engine.close()
