"""Tests that need vLLM; run in an environment of their own by run_tests.sh.  None is skipped."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Iterator

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
for name, value in {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}.items():
    os.environ.setdefault(name, value)

from terminal import signals_of_a_terminal  # noqa: E402, F401 - a fixture of every test

from zerosearch.engines.opening import open_text_engine  # noqa: E402
from zerosearch.engines.vllm_engine import VllmEngine  # noqa: E402
from zerosearch.microworld import models  # noqa: E402

MODEL = "micro/llama-base"


@pytest.fixture(scope="session")
def loaded():  # noqa: ANN201
    """(model, tokenizer) of a shipped base."""
    return models.load(MODEL)


@pytest.fixture(scope="module")
def engine(loaded) -> Iterator[VllmEngine]:  # noqa: ANN001
    """A vLLM engine over the same weights; one at a time is open."""
    opened = open_text_engine("vllm", *loaded, MODEL)
    yield opened
    opened.close()


def truth(model, ids: tuple[int, ...], temperature: float = 1.0) -> torch.Tensor:  # noqa: ANN001
    """Return the log-probs (T, V) after each token, from a plain forward pass without a cache."""
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double() / temperature, -1)
