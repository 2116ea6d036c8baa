"""sampler.py: after an update an engine's log-probs are the trainer's, or it is refused."""

from __future__ import annotations

import pytest
import torch
from conftest_models import TOKENIZER, tiny_model

from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.opening import open_text_engine
from zerosearch.errors import ConfigError
from zerosearch.training.sampler import check_sampler, follow, rest


class Sampler:
    top_p, holds_a_copy = 1.0, False


class Copy(Sampler):
    """Holds a copy, takes new weights, sleeps."""

    holds_a_copy = takes_weights = True

    def __init__(self) -> None:
        self.told: list[object] = []

    def take_weights(self, model: object) -> None:
        self.told.append(model)

    def sleep(self) -> None:
        self.told.append("sleep")


def test_engines_that_cannot_train_are_refused() -> None:
    check_sampler(Sampler())
    check_sampler(Copy())
    cut, copied = Sampler(), Sampler()
    cut.top_p, copied.holds_a_copy = 0.95, True
    with pytest.raises(ConfigError, match="found top_p 0.95"):
        check_sampler(cut)
    with pytest.raises(ConfigError, match="cannot take new weights.*--set 03.rollout_engine=transformers"):
        check_sampler(copied)


def test_who_holds_a_copy_is_told_and_may_sleep() -> None:
    copy, model = Copy(), tiny_model()
    follow(copy, model)
    rest(copy)
    assert copy.told == [model, "sleep"]
    follow(Sampler(), model)
    rest(Sampler())


def test_after_an_update_the_logprobs_are_those_of_the_updated_model() -> None:
    """The transformers engine; the same for vLLM stands in tests_vllm."""
    model = tiny_model()
    engine = open_text_engine("transformers", model, TOKENIZER, "toy")
    request = GenerationRequest((5, 6, 7), 1, 12)
    before = engine.generate([request])[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(input_ids=torch.tensor([[5, 6, 7, 8]]), labels=torch.tensor([[5, 6, 7, 8]])).loss.backward()
    optimizer.step()
    engine.release()
    follow(engine, model)
    after = engine.generate([request])[0]
    with torch.no_grad():
        logps = torch.log_softmax(model(input_ids=torch.tensor([request.prompt_ids + after.token_ids])).logits[0], -1)
    expected = [logps[2 + i, token].item() for i, token in enumerate(after.token_ids)]
    assert after.logprobs == pytest.approx(expected, abs=1e-4) and after.logprobs != before.logprobs
