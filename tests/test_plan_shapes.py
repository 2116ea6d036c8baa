"""planning/shapes.py: parameters are those of the models that transformers builds; the committed table is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

from zerosearch import model_files
from zerosearch.errors import WorkbookError
from zerosearch.planning import shapes


def built(config: object) -> int:
    """Return the parameters of the model that a configuration describes, made without memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())


@pytest.mark.parametrize("name", shapes.table())
def test_the_committed_sizes_give_the_stated_parameters(name: str) -> None:
    """The counts are those that the hub states for the weights; the model is built with two of its layers."""
    entry = shapes.table()[name]
    shape = shapes.from_config(entry["config"])
    assert shape.parameters == entry["parameters"] and entry["source"].startswith("https://huggingface.co/" + name)
    two = entry["config"] | {"num_hidden_layers": 2}
    kind = two.pop("model_type")
    assert shapes.from_config(two | {"model_type": kind}).parameters == built(AutoConfig.for_model(kind, **two))


def test_a_hand_count() -> None:
    """8 wide, 2 heads of 4, 1 of them for keys, MLP of 6, 10 words, one layer.

    q 64, k 32, v 32, o 64, three MLP matrices of 48, two norms of 8; embedding 80, last norm 8.
    """
    config = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10, "tie_word_embeddings": True}
    shape = shapes.from_config(config)
    assert shape.block == 64 + 32 + 32 + 64 + 3 * 48 + 2 * 8
    assert shape.parameters == shape.block + 80 + 8
    assert shape.multiplied == 64 + 32 + 32 + 64 + 3 * 48 + 80
    assert shape.lora(3) == 3 * (16 + 12 + 12 + 16 + 14 + 14 + 14)
    assert shape.kv_token(2) == 2 * 1 * 4 * 2 and shape.download() == 2 * shape.parameters
    assert shapes.from_config(config | {"model_type": "qwen2"}).block == shape.block + 8 + 4 + 4
    assert shapes.from_config(config | {"tie_word_embeddings": False}).parameters == shape.parameters + 80


@settings(max_examples=25)
@given(
    family=st.sampled_from(["llama", "qwen2"]), groups=st.sampled_from([1, 2, 4]), kv=st.integers(1, 3),
    width=st.sampled_from([4, 8]), layers=st.integers(1, 3), mlp=st.integers(1, 30), words=st.integers(2, 50),
    tied=st.booleans(), biases=st.booleans(),
)
def test_counts_are_those_of_the_built_model(
    family: str, groups: int, kv: int, width: int, layers: int, mlp: int, words: int, tied: bool, biases: bool
) -> None:
    own = {"attention_bias": biases, "mlp_bias": biases, "head_dim": width + 2} if family == "llama" else {}
    config = (LlamaConfig if family == "llama" else Qwen2Config)(
        hidden_size=groups * kv * width, intermediate_size=mlp, num_hidden_layers=layers,
        num_attention_heads=groups * kv, num_key_value_heads=kv, vocab_size=words, tie_word_embeddings=tied, **own,
    )
    assert shapes.from_config(config.to_dict()).parameters == built(config)


@pytest.mark.parametrize("name", model_files.shipped())
def test_shipped_models(name: str) -> None:
    config = AutoConfig.from_pretrained(shapes.artifacts.MICRO_LM / name.removeprefix("micro/"))
    shape = shapes.shape_of(name)
    assert shape is not None and shape.parameters == built(config) and shapes.at_hand(name)


def test_where_sizes_come_from(tmp_path: Path) -> None:
    table = shapes.table()["Qwen/Qwen2.5-3B"]["config"]
    (tmp_path / "config.json").write_text(json.dumps(table | {"num_hidden_layers": 1}))
    folder = shapes.shape_of(str(tmp_path))
    assert folder is not None and folder.layers == 1 and not shapes.at_hand(str(tmp_path))
    instruct = shapes.shape_of("Qwen/Qwen2.5-3B-Instruct")
    assert instruct is not None and instruct.parameters == 3_085_938_688
    assert shapes.shape_of("nobody/nothing") is None and shapes.shape_of("no name") is None
    (tmp_path / "config.json").write_text(json.dumps(table | {"model_type": "gpt2"}))
    assert shapes.shape_of(str(tmp_path)) is None


def test_what_cannot_be_counted_is_named() -> None:
    with pytest.raises(WorkbookError, match="llama, qwen2, mistral, found 'gpt2'"):
        shapes.from_config({"model_type": "gpt2"})
    with pytest.raises(WorkbookError, match="for hidden_size, intermediate_size"):
        shapes.from_config({"model_type": "llama"})
