"""packing.py: a packed row means what padded rows mean, nobody sees a neighbour, and the model is left as it was."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import pytest
import torch
from conftest_models import TOKENIZER, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import TIMELESS, moved_away, record
from test_policy_rl import CURRICULUM, QUESTIONS, ROLLOUT, SETTINGS, dense_reward, micro_model, train, weights
from training_toys import random_trajectories, toy_model, toy_trajectory
from transformers import (
    Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM,
)

from zerosearch import notebook_runner, profiles
from zerosearch.errors import ConfigError
from zerosearch.microworld import models
from zerosearch.schema import Trajectory
from zerosearch.stage_parameters import PACKING_VARIABLE
from zerosearch.training import losses, packing
from zerosearch.training.batching import MicroBatch, make_micro_batches, trained_tokens
from zerosearch.training.correction import Correction
from zerosearch.training.laying import frozen_copy
from zerosearch.training.objective import hidden_states, token_logprobs
from zerosearch.training.policy_rl import run_fingerprint
from zerosearch.training.policy_sft import SupervisedTrainer
from zerosearch.training.policy_trainer import PolicyTrainer

RAGGED = random_trajectories(9, seed=3)
PLAIN = {"clip": 0.2, "kl_weight": 0.1, "temperature": 0.9, "loss": "plain"}


def batches(trajectories: Sequence[Trajectory], packed: bool, max_tokens: int = 60, **changes: Any) -> list[MicroBatch]:
    advantages = np.linspace(-1.5, 2.0, len(trajectories))
    return make_micro_batches(trajectories, advantages, pad_id=0, max_tokens=max_tokens, packed=packed, **changes)


def logps_of(model: PreTrainedModel, batch: MicroBatch) -> torch.Tensor:
    with torch.no_grad():
        return token_logprobs(model, batch.input_ids, batch.positions, batch.targets, segments=batch.segments)[0]


def by_trajectory(trajectories: Sequence[Trajectory], model: PreTrainedModel, packed: bool) -> list[list[float]]:
    """Return the log-probabilities of each trajectory, sorted: its advantage says whose tokens they are."""
    found: dict[float, list[float]] = {}
    for batch in batches(trajectories, packed):
        for advantage, logp in zip(batch.advantages.tolist(), logps_of(model, batch).tolist(), strict=True):
            found.setdefault(advantage, []).append(logp)
    return [found[a] for a in sorted(found)]


def gradients(
    model: PreTrainedModel, reference: PreTrainedModel | None, made: Sequence[MicroBatch], **changes: Any
) -> tuple[float, torch.Tensor]:
    """Return (loss, gradient of every parameter) of micro-batches together."""
    model, total = copy.deepcopy(model).requires_grad_(), 0.0
    with packing.attending_alone(model) if any(b.segments for b in made) else nullcontext():
        for batch in made:
            loss, _, _ = losses.micro_batch_loss(model, reference, batch, **(PLAIN | changes))
            loss.backward()
            total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


def assert_same(found: tuple[float, torch.Tensor], wanted: tuple[float, torch.Tensor]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5, abs=1e-6)
    assert ((found[1] - wanted[1]).norm() / wanted[1].norm()).item() < 1e-5
    assert (found[1] - wanted[1]).abs().max() < 1e-5 * wanted[1].abs().max()


# -- the same numbers as padded rows ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_log_probs_loss_and_every_gradient_are_those_of_padded_rows(kind: str) -> None:
    model = tiny_model(kind)
    assert model.config.num_key_value_heads < model.config.num_attention_heads  # grouped heads
    alone, padded = (by_trajectory(RAGGED, model, packed) for packed in (True, False))
    for found, wanted in zip(alone, padded, strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    reference = moved_away(frozen_copy(model))
    packed, rows = batches(RAGGED, True), batches(RAGGED, False)
    assert len(packed) > 1 and any(len(b.segments) > 1 for b in packed)
    assert_same(gradients(model, reference, packed), gradients(model, reference, rows))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_any_number_of_shared_heads(kind: str, heads: int) -> None:
    sizes = dict(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=heads,
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**sizes)) if kind == "qwen2" else LlamaForCausalLM(LlamaConfig(**sizes))
    assert_same(gradients(model, None, batches(RAGGED, True)), gradients(model, None, batches(RAGGED, False)))


@pytest.mark.parametrize("name", ["micro/llama-base", "micro/qwen2-base"])
@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("kind", ["none", "token", "sequence"])
def test_shipped_models_on_recorded_trajectories_in_both_losses(name: str, loss: str, kind: str) -> None:
    base = models.load(name)[0].float()
    model, trajectories = moved_away(frozen_copy(base)), record(name)
    settings_ = {"loss": loss, "correction": Correction(kind, 2.0)}
    packed, rows = (batches(trajectories, way, 1500) for way in (True, False))
    assert max(len(b.segments) for b in packed) > 2
    assert_same(gradients(model, base, packed, **settings_), gradients(model, base, rows, **settings_))


@pytest.mark.parametrize("count", [1, 2])
def test_one_trajectory_and_one_longer_than_the_budget(count: int) -> None:
    huge = toy_trajectory([5] * 40, [6, 7, 8, 9] * 60, [1, 1, 0, 1] * 60, index=0)
    model, trajectories = toy_model(), [huge, *RAGGED][:count]
    reference = moved_away(frozen_copy(model))
    packed = batches(trajectories, True, 50)
    assert [b.segments for b in packed][0] == (279,) and len(packed) == count  # the last token is only predicted
    rows = batches(trajectories, False, 50)
    assert_same(gradients(model, reference, packed), gradients(model, reference, rows))


def test_micro_batches_add_up_to_the_whole() -> None:
    model = toy_model()
    whole = gradients(model, None, batches(RAGGED, True, 10_000))
    for budget in (30, 60, 120):
        made = batches(RAGGED, True, budget)
        assert len(made) > 1
        assert_same(gradients(model, None, made), whole)


# -- nobody sees a neighbour ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_another_text_beside_it_changes_nothing_of_a_trajectory(kind: str) -> None:
    model = tiny_model(kind)
    (before,) = batches(RAGGED, True, 10_000)
    for place in range(len(before.segments)):
        ids, start = before.input_ids.clone(), sum(before.segments[:place])
        ids[0, start : start + before.segments[place]] = 3
        logps, changed = logps_of(model, before), logps_of(model, replace(before, input_ids=ids))
        own = before.rows == place
        assert torch.equal(logps[~own], changed[~own]) and not torch.equal(logps[own], changed[own])


def test_each_trajectory_stands_at_the_places_it_would_have_alone() -> None:
    model = tiny_model()
    (batch,) = batches(RAGGED, True, 10_000)
    assert batch.input_ids.shape == (1, sum(batch.segments))  # no cell is padding
    with packing.attending_alone(model):
        places = packing.arguments(model, batch.segments, torch.device("cpu"))["position_ids"]
    assert places.tolist() == [[i for n in batch.segments for i in range(n)]]


# -- what is packed together ------------------------------------------------------------------------


def test_first_fit_by_hand() -> None:
    assert packing.first_fit([3, 9, 4, 12, 6, 1], 10) == [[3], [1, 5], [4, 2], [0]]
    assert packing.first_fit([], 10) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(1, 400), st.integers(0, 1000), st.booleans())
def test_every_trained_token_is_there_once(count: int, budget: int, seed: int, skip_idle: bool) -> None:
    trajectories = random_trajectories(count, seed)
    made = make_micro_batches(
        trajectories, np.arange(count, dtype=float), pad_id=0, max_tokens=budget, packed=True, skip_idle=skip_idle
    )
    trained = trajectories[skip_idle:]  # the first has advantage 0
    wanted = sorted(tok for t in trained for tok, own in zip(t.token_ids, t.loss_mask) if own)
    assert sorted(token for b in made for token in b.targets.tolist()) == wanted
    assert sum(len(b.segments) for b in made) == len(trained)
    for batch in made:
        assert batch.input_ids.numel() == sum(batch.segments)
        assert sum(batch.segments) <= budget or len(batch.segments) == 1
        ends = torch.tensor(batch.segments).cumsum(0) - 1
        inside = ~torch.isin(batch.positions, ends)  # what the last cell of a trajectory predicts stands nowhere
        assert torch.equal(batch.input_ids[0, batch.positions[inside] + 1], batch.targets[inside])
    if not skip_idle:
        assert float(sum(b.weights.sum() for b in made)) == pytest.approx(1.0, abs=1e-5)
        assert sum(len(b.targets) for b in made) == sum(map(trained_tokens, trajectories))
    filled = [sum(b.segments) for b in made]
    assert all(a + b > budget for i, a in enumerate(filled) for b in filled[:i])  # no two would fit into one


# -- the model is left as it was --------------------------------------------------------------------


def test_attention_is_as_before_even_after_an_exception() -> None:
    ids = torch.arange(2, 12).unsqueeze(0)
    for way in ("sdpa", "eager"):
        model = tiny_model()
        model.set_attn_implementation(way)
        before = model(ids).logits
        with pytest.raises(ZeroDivisionError), packing.attending_alone(model):
            assert model.config._attn_implementation == packing.SEGMENTED
            raise ZeroDivisionError
        assert model.config._attn_implementation == way and torch.equal(model(ids).logits, before)


def test_a_packed_row_outside_is_refused_where_there_is_a_gradient() -> None:
    (batch,), model = batches(RAGGED, True, 10_000), tiny_model()
    with torch.no_grad():
        hidden_states(model, batch.input_ids, batch.positions, batch.segments)
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError, match="inside attending_alone"):
        hidden_states(model, batch.input_ids, batch.positions, batch.segments)


def test_activations_that_are_computed_again_see_the_same() -> None:
    model = tiny_model()
    wanted = gradients(model, None, batches(RAGGED, True))
    model.gradient_checkpointing_enable()
    assert_same(gradients(model.train(), None, batches(RAGGED, True)), wanted)


# -- models that cannot -----------------------------------------------------------------------------


def gemma() -> PreTrainedModel:
    sizes = dict(
        vocab_size=60, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8,
    )
    return Gemma2ForCausalLM(Gemma2Config(**sizes)).eval()


def capped() -> PreTrainedModel:
    """Return a model whose layers all attend to everything before them, with a cap on the products."""
    model = gemma()
    model.config.layer_types = ["full_attention"] * 2
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    return model


def carrying() -> PreTrainedModel:
    """Return a model that carries something from token to token, which its configuration does not say."""
    model = toy_model()
    model.model.layers[0].register_forward_hook(lambda layer, given, states: states.cumsum(1))
    return model


def windowed() -> PreTrainedModel:
    return toy_model(use_sliding_window=True, sliding_window=8, max_window_layers=0)


@pytest.mark.parametrize("make", [gemma, windowed])
def test_sliding_windows_are_refused_and_auto_pads(make: Callable[[], PreTrainedModel]) -> None:
    with pytest.raises(ConfigError, match="found layers of kind sliding_attention; write `packing: padded`"):
        packing.packs(make(), "packed")
    assert not packing.packs(make(), "auto") and not packing.packs(make(), "padded")
    assert packing.packs(toy_model(), "auto") and packing.packs(toy_model(), "packed")


def test_a_cap_on_the_products_is_refused_when_it_is_met() -> None:
    model = capped()
    (batch,) = batches(RAGGED, True, 10_000)
    with pytest.raises(ConfigError, match="found softcap in Gemma2Attention; write `packing: padded`"):
        logps_of(model, batch)


@pytest.mark.parametrize("make, found", [(capped, "softcap in Gemma2Attention"), (carrying, "layers that see the text beside it")])
def test_three_tokens_tell_what_a_configuration_does_not(make: Callable[[], PreTrainedModel], found: str) -> None:
    model = make().train()
    with pytest.raises(ConfigError, match=f"found {found}; write `packing: padded`"):
        packing.packs(model, "packed")
    assert not packing.packs(model, "auto")
    assert model.training and model.config._attn_implementation == make().config._attn_implementation


# -- in the trainers --------------------------------------------------------------------------------


def test_training_is_the_same_as_with_padded_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    found = {}
    for way in ("padded", "packed"):
        monkeypatch.setenv(PACKING_VARIABLE, way)
        _, history, model = train(tmp_path / way)
        assert model.config._attn_implementation == "sdpa"
        found[way] = history, weights(model)
    (padded, wanted), (packed, trained) = found["padded"], found["packed"]
    np.testing.assert_allclose(packed[TIMELESS], padded[TIMELESS], rtol=2e-3, atol=2e-5)
    assert ((trained - wanted).norm() / wanted.norm()).item() < 1e-3


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_lessons_are_learned_the_same(loss: str, tmp_path: Path) -> None:
    found = []
    for way in ("padded", "packed"):
        model = toy_model(vocab_size=len(TOKENIZER))
        chosen = replace(SETTINGS, steps=1, loss=loss, packing=way, micro_batch_tokens=60)
        trainer = SupervisedTrainer(
            model, TOKENIZER, [RAGGED], chosen, tmp_path / way, lambda step: None, lambda report: None  # type: ignore[arg-type, return-value]
        )
        trainer._probed = lambda step: None  # type: ignore[method-assign]
        total = trainer.training_step(model, [{"step": 1}])
        found.append((float(total), torch.cat([p.grad.flatten() for p in model.parameters()])))
        assert model.config._attn_implementation == "sdpa"
    assert_same(*found)


def test_an_update_that_breaks_off_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = micro_model()
    trainer = PolicyTrainer(
        model, TOKENIZER, QUESTIONS, replace(SETTINGS, packing="packed"), tmp_path, lambda slots: None,  # type: ignore[arg-type, return-value]
        lambda report: None, reference=frozen_copy(model),
    )
    damaged = [replace(b, targets=b.targets + 10**6) for b in batches(RAGGED, True)]
    trainer._prepare_inputs = lambda inputs: damaged  # type: ignore[method-assign]
    with pytest.raises((IndexError, RuntimeError)):
        trainer.training_step(model, [])
    assert {m.config._attn_implementation for m in (model, trainer.reference)} == {"sdpa"}


# -- which one --------------------------------------------------------------------------------------


def test_the_profile_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PACKING_VARIABLE, raising=False)
    assert packing.chosen_packing() == "padded" and packing.chosen_packing("auto") == "auto"
    said = {name: profiles.read_profile(name).packing for name in profiles.names()}
    assert {said[name] for name in ("smoke", "laptop", "full_table")} == {"padded"}
    assert {said[name] for name in ("single_gpu", "a100_node")} == {"packed"}
    for way in packing.PACKINGS:
        environment = notebook_runner.kernel_environment(1, offline=True, packing=way)
        monkeypatch.setenv(PACKING_VARIABLE, environment[PACKING_VARIABLE])
        assert packing.chosen_packing() == way
    monkeypatch.setenv(PACKING_VARIABLE, "paked")
    with pytest.raises(ConfigError, match="did you mean 'packed'"):
        packing.chosen_packing()


def test_checkpoints_of_one_are_not_continued_by_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(way: str) -> dict[str, Any]:
        return run_fingerprint(QUESTIONS, micro_model(), "bm25", replace(SETTINGS, packing=way), CURRICULUM, ROLLOUT)

    monkeypatch.delenv(PACKING_VARIABLE, raising=False)
    assert made("") == made("padded") != made("packed") == made("auto")
    assert "packing" not in made("") and "packing" not in made("packed")["settings"]
