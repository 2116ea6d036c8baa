"""opening.py: the engine that a stage asks for, by its name."""

from __future__ import annotations

import importlib.util

import pytest
from conftest_models import TOKENIZER, tiny_model

from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError, NotReady


def test_transformers_is_the_engine_over_this_very_model() -> None:
    model = tiny_model()
    engine = open_text_engine("transformers", model, TOKENIZER, "toy", 3, stop_strings=())
    assert isinstance(engine, TransformersEngine) and engine.model is model
    assert (engine.name, engine.max_batch) == ("toy", 3)
    assert len(engine.generate([GenerationRequest((5, 6), 1, 4)])[0].token_ids) <= 4


def test_an_unknown_engine_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'vllm'"):
        open_text_engine("vlm", tiny_model(), TOKENIZER, "toy")


def test_without_the_package_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else found(name, *a))
    with pytest.raises(NotReady, match="scripts/prepare_vllm.sh"):
        open_text_engine("vllm", tiny_model(), TOKENIZER, "toy")
