"""Weights in shorter numbers, by torchao for real: what is rounded and how far, which layers, and a server of vLLM.

These tests run in the environment of vLLM because torchao, the extra quant, is installed there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_toys import toy_model, toy_question

from zerosearch import layouts
from zerosearch.engines import quantised
from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.serving import serve
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.layouts import Layout
from zerosearch.microworld import models
from zerosearch.prompts import prompt_ids
from zerosearch.schema import Passage, SearchRequest
from zerosearch.simulator_weights import AS_IS
from zerosearch.training.arm_setup import open_retriever
from zerosearch.training.arms import get_arm

MODEL = "micro/simulator-medium"  # width 128, layers in multiples of 128


def linear_layers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}


@pytest.mark.parametrize(("kind", "levels", "group", "bytes_of_one"), [("int8", 254, 128, 1.0), ("w4a16", 15, 128, 0.5)])
def test_every_linear_layer_but_the_head_is_rounded_to_its_levels(
    kind: str, levels: int, group: int, bytes_of_one: float
) -> None:
    """No weight moves by more than half a step: of 254 between -max and max of its row, of 15 between its group's ends."""
    (plain, _), (short, _) = models.load(MODEL), models.load(MODEL)
    before = plain.state_dict()
    quantised.quantise(short, AS_IS)
    assert all(torch.equal(value, before[name]) for name, value in short.state_dict().items())
    quantised.quantise(short, kind)
    assert short.lm_head.weight is short.model.embed_tokens.weight and type(short.lm_head.weight) is torch.nn.Parameter
    blocks = {name: weight for name, weight in linear_layers(plain).items() if name != "lm_head"}
    for name, weight in blocks.items():
        layer = short.get_submodule(name)
        rounded = layer(torch.eye(weight.shape[1])) - (0 if layer.bias is None else layer.bias)  # identity: W itself
        rows = weight.reshape(-1, weight.shape[1]) if kind == "int8" else weight.reshape(-1, group)
        most = rows.abs().amax(1, keepdim=True) * 2 if kind == "int8" else rows.amax(1, keepdim=True) - rows.amin(1, keepdim=True)
        gap = (rounded.T - weight).abs().reshape(rows.shape)
        assert 0 < gap.max() and (gap <= 0.51 * most / levels + 0.01 * rows.abs()).all(), name
    numbers = sum(weight.numel() for weight in blocks.values())
    rest = sum(p.numel() for p in plain.parameters()) - numbers
    assert 0 <= quantised.weight_bytes(short) - (bytes_of_one * numbers + 4 * rest) < 0.1 * numbers  # and scales


def test_what_a_model_or_a_cpu_cannot_hold_is_refused_with_what_it_can() -> None:
    with pytest.raises(ConfigError, match="multiples of 32.* of width 80; use --set layout.simulator_weights=int8"):
        quantised.quantise(models.load("micro/simulator-small")[0], "w4a16")
    with layouts.using(Layout(simulator_weights="fp8")), pytest.raises(ConfigError, match="as-is, int8, w4a16 here .a CPU"):
        quantised.asked_here()
    with layouts.using(Layout(simulator_weights="w4a16")), pytest.raises(ConfigError, match="as-is, int8 here .a CPU, vLLM"):
        quantised.asked_here(served=True)
    with layouts.using(Layout(simulator_weights="auto")):
        assert quantised.asked_here() == quantised.layout_here().simulator_weights == "int8"


def test_the_switch_reaches_the_simulator_of_an_arm_and_off_is_the_plain_result() -> None:
    """Passages of the switched-off simulator are those of the default; odd widths (32, 48) can be int8."""
    def written(layout: Layout) -> list[tuple[Passage, ...]]:
        with layouts.using(layout):
            opened = open_retriever(get_arm("untuned"), k=2, seed=0, simulator=MODEL, max_new_tokens=24)
            return [r.passages for r in opened.search([SearchRequest("film", toy_question(i), step=1) for i in range(8)])]

    plain = written(Layout())
    assert written(Layout(simulator_weights="as-is")) == plain != written(Layout(simulator_weights="w4a16"))
    model = toy_model()
    quantised.quantise(model, "int8")
    assert type(model.model.layers[0].mlp.down_proj.weight) is not torch.nn.Parameter


def test_bfloat16_and_int8_go_together() -> None:
    with layouts.using(Layout(precision="bf16", simulator_weights="int8")):
        opened = open_retriever(get_arm("untuned"), k=1, seed=0, simulator="micro/simulator-small", max_new_tokens=8)
        (found,) = opened.search([SearchRequest("film", toy_question(), step=1)])
    assert found.error is None and found.n_generated_tokens > 0


def test_a_server_of_vllm_writes_what_the_same_weights_write_here(tmp_path: Path) -> None:
    model, tokenizer = models.load(MODEL)
    texts = [f"Write 2 useful passages for the query.\nQuery: director of film {i}" for i in range(10)]
    asked = [GenerationRequest(tuple(prompt_ids(tokenizer, t)), i, 30, 0.0, i) for i, t in enumerate(texts)]
    with serve(model, tokenizer, tmp_path / "server.log", weights="int8") as served:
        theirs = served.generate(asked)
    plain = TransformersEngine(model, tokenizer, stop_strings=()).generate(asked)
    quantised.quantise(model, "int8")
    mine = TransformersEngine(model, tokenizer, stop_strings=()).generate(asked)

    def gap(ours: list) -> float:
        same = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.token_ids == b.token_ids]
        assert len(same) >= 8
        return sum(abs(x - y) for a, b in same for x, y in zip(a.logprobs, b.logprobs, strict=True)) / len(same)

    assert gap(mine) < 0.5 * gap(plain), "the server's weights are rounded as ours are"
