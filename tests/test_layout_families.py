"""Families of models and tokenizers under the full layout of one card: one update of a policy, one of a simulator.

Adapters, bfloat16, blocks computed again, small passes.  Families that cannot be computed are refused in a sentence.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest_models import FAMILIES, tiny_model, tokenizer_of
from test_engine import Forced
from test_models import LLAMA_TEMPLATE, published_tokenizer
from test_policy_rl import QUESTIONS, TOKENIZER
from test_renaming import EXAMPLES
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from training_toys import FakeStage, ScriptedRetriever
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import adapters, layouts
from zerosearch.curriculum import constant
from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.layouts import Layout
from zerosearch.microworld import models
from zerosearch.prompts import Prompts, prompt_ids
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import ScoredTrajectory
from zerosearch.training.policy_rl import train_policy
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.simulator_sft import SFTSettings, tune_simulator

FULL = Layout(precision="bf16", lora_rank=4, gradient_checkpointing=True, micro_batch_tokens=300, sft_rows=2)
RL = RLSettings(steps=1, questions_per_step=2, group_size=3, learning_rate=1e-2, kl_weight=1e-2, warmup_steps=0)
ROLLOUT = RolloutSettings(max_searches=1, max_turn_tokens=6, max_observation_tokens=20, max_total_tokens=600)
SFT = SFTSettings(steps=1, batch_size=4, learning_rate=1e-2, max_length=1500, warmup_share=0.0)
SHIPPED = ("micro/llama-base", "micro/llama-instruct", "micro/qwen2-base", "micro/qwen2-instruct")


@pytest.fixture(autouse=True)
def _rewards_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(trajectories, reward="f1"):  # noqa: ANN001, ANN202
        return [ScoredTrajectory(t, i % 3 / 2, 0.0, 0.0, 0.0) for i, t in enumerate(trajectories)]

    monkeypatch.setattr("zerosearch.training.policy_rl.score_trajectories", scored)


def update_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> pd.DataFrame:
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    return train_policy(
        QUESTIONS, model, tokenizer, ScriptedRetriever(noisy=False), prompts, RL, FakeStage(folder),
        curriculum=constant(0.0, 1), rollout_settings=ROLLOUT,
    )


def check_updates(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Update a model both ways under the full layout: finite losses, the base as reference, a plain model after it."""
    before, names = weights(model), [name for name, _ in model.named_parameters()]
    with layouts.using(FULL):
        (row,) = update_policy(model, tokenizer, folder / "rl").to_dict("records")
        prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
        tuned = tune_simulator(EXAMPLES, model, tokenizer, prompts, SFT, FakeStage(folder / "sft"))
    assert row["kl"] == 0.0 and row["logprob_gap"] < 0.05 and np.isfinite([row["loss"], *tuned["loss"]]).all()
    assert [name for name, _ in model.named_parameters()] == names and not adapters.layers(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and not torch.equal(weights(model), before)


def weights(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# -- tokenizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "chat"), FAMILIES)
def test_tiny_models_of_every_family(family: str, chat: bool, tmp_path: Path) -> None:
    """Begin of text or none, a chat template or none, padding that is the end of text."""
    tokenizer = copy.deepcopy(tokenizer_of(family, chat))
    check_updates(tiny_model(family, tokenizer=tokenizer).to(torch.bfloat16), tokenizer, tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_bases(name: str, tmp_path: Path) -> None:
    with layouts.using(FULL):
        model, tokenizer = models.load(name)
    check_updates(model, tokenizer, tmp_path)


def merging_tokenizer(template: str | None) -> PreTrainedTokenizerBase:
    """Return a tokenizer as published ones are, where parts of tags and their neighbours are one token."""
    made = published_tokenizer(template)
    letters = {t: i for t, i in made.get_vocab().items() if not t.startswith("<|")}
    merges = [("<", "/"), (".", "</"), (">", "Ċ"), ("s", "e"), ("a", "r"), ("ar", "c"), ("arc", "h"), ("se", "arch")]
    tokens = sorted(letters, key=letters.__getitem__) + [a + b for a, b in merges]
    backend = Tokenizer.from_str(made.backend_tokenizer.to_str())
    backend.model = BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    backend.pre_tokenizer = pre_tokenizers.Sequence([  # as Llama 3 and Qwen split: a line's end goes with its marks
        pre_tokenizers.Split(Regex(r" ?[^\s\p{L}\p{N}]+[\r\n]*|\p{L}+|\p{N}+|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    backend.add_special_tokens([t for t in made.get_vocab() if t.startswith("<|")])
    merging = type(made)(
        tokenizer_object=backend, bos_token=made.bos_token, eos_token=made.eos_token, pad_token=made.eos_token,
        clean_up_tokenization_spaces=False,
    )
    merging.chat_template = template
    return merging


@pytest.mark.parametrize("template", [None, LLAMA_TEMPLATE])
def test_tags_that_merge_with_their_neighbours(
    template: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = merging_tokenizer(template)
    text = "<search> a.</search>\nmore"
    pieces = [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False).input_ids]
    assert pieces == ["<", "search", ">", " ", "a", ".</", "search", ">\n", "m", "o", "r", "e"]
    model = tiny_model("llama", tokenizer=tokenizer)
    head = Forced(text, tokenizer)
    with monkeypatch.context() as patch:
        patch.setattr(model, "get_output_embeddings", lambda: head)
        asked = GenerationRequest(tuple(prompt_ids(tokenizer, "Question: x")), 0, 30, 0.0)
        (made,) = TransformersEngine(model, tokenizer).generate([asked])
    assert made.stop_reason == "stop" and tokenizer.decode(made.token_ids) == "<search> a.</search>\n"
    check_updates(model.to(torch.bfloat16), tokenizer, tmp_path)


# -- architectures ----------------------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 8,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
OTHERS: dict[str, dict[str, Any]] = {
    "mistral": SIZES | {"sliding_window": 6},
    "gemma": SIZES,
    "gemma2": SIZES | {
        "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "sliding_window": 6,
    },
    "gemma3_text": SIZES | {"query_pre_attn_scalar": 8, "sliding_window": 6},
    "gpt_neox": {name: value for name, value in SIZES.items() if name != "head_dim"},
    "gpt2": GPT2,  # dropout, and layers that are no torch.nn.Linear
    "cohere": SIZES,  # a factor on the logits
    "granite": SIZES | {"logits_scaling": 4.0},
}
REFUSED: dict[str, dict[str, Any]] = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "gpt_oss": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def other_model(kind: str, settings: dict[str, Any]) -> PreTrainedModel:
    """Return a random model of an architecture, its weights large enough that attention is not all alike."""
    torch.manual_seed(0)
    ends = {name: getattr(TOKENIZER, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(kind, vocab_size=len(TOKENIZER), **ends, **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return model


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_are_sampled_from_and_trained(kind: str, tmp_path: Path) -> None:
    model = other_model(kind, OTHERS[kind])
    (row,) = update_policy(model, TOKENIZER, tmp_path / "plain").to_dict("records")
    assert row["kl"] == pytest.approx(0.0, abs=1e-9)
    assert row["logprob_gap"] < 1e-4  # sampler and trainer are one function
    check_updates(other_model(kind, OTHERS[kind]).to(torch.bfloat16), TOKENIZER, tmp_path)


@pytest.mark.parametrize("kind", OTHERS)
def test_log_probs_of_the_engine_are_the_models_own(kind: str) -> None:
    """Two prompts longer than the window, against the whole model: its own masks, caps and factors."""
    model = other_model(kind, OTHERS[kind])
    asked = [GenerationRequest(tuple(range(7, 7 + n)), n, 8, key=n) for n in (12, 5)]
    for request, made in zip(asked, open_text_engine("transformers", model, TOKENIZER, "toy").generate(asked)):
        with torch.no_grad():
            ids = torch.tensor([request.prompt_ids + made.token_ids])
            logps = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].double(), -1)
        own = [logps[len(request.prompt_ids) - 1 + i, token].item() for i, token in enumerate(made.token_ids)]
        assert list(made.logprobs) == pytest.approx(own, abs=1e-4)


@pytest.mark.parametrize("kind", REFUSED)
def test_architectures_that_the_engine_cannot_compute_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a model with the attention of .*; use the engine vllm"):
        update_policy(other_model(kind, REFUSED[kind]), TOKENIZER, tmp_path)


def test_experts_have_no_adapters(tmp_path: Path) -> None:
    model = other_model("mixtral", SIZES | {"num_local_experts": 4})
    assert np.isfinite(update_policy(model, TOKENIZER, tmp_path / "plain")["loss"]).all()
    with layouts.using(FULL), pytest.raises(ConfigError, match="MixtralExperts.*--set layout.lora_rank=0"):
        update_policy(model, TOKENIZER, tmp_path / "adapted")


def test_mambas_have_no_adapters() -> None:
    with pytest.raises(ConfigError, match="found MambaForCausalLM.*--set layout.lora_rank=0"):
        adapters.add(other_model("mamba", REFUSED["mamba"]), 4, seed=0)


def test_gemma_2_is_loaded_with_the_cap_of_its_scores(tmp_path: Path) -> None:
    other_model("gemma2", OTHERS["gemma2"]).save_pretrained(tmp_path / "gemma")
    TOKENIZER.save_pretrained(tmp_path / "gemma" / "tokenizer")
    model, _ = models.load(str(tmp_path / "gemma"))
    assert model.config._attn_implementation == "eager"
    assert models.load("micro/llama-base")[0].config._attn_implementation == "sdpa"
