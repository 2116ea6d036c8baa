"""losses.py: both ways of each loss agree on recorded trajectories, in all trainers; the profile's line is obeyed."""

from __future__ import annotations

import functools
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_policy_rl import QUESTIONS, SETTINGS, dense_reward, micro_model, train, weights
from test_simulator_sft import BEARING
from training_toys import FakeStage, ScriptedRetriever, toy_model

from zerosearch import kernels, notebook_runner, profiles
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.microworld import models
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutSettings, rollout
from zerosearch.schema import Trajectory
from zerosearch.stage_parameters import LOSS_VARIABLE
from zerosearch.training import losses
from zerosearch.training.asking import Asking
from zerosearch.training.batching import MicroBatch, make_micro_batches
from zerosearch.training.correction import Correction
from zerosearch.training.objective import token_logprobs
from zerosearch.training.laying import frozen_copy
from zerosearch.training.policy_rl import run_fingerprint
from zerosearch.training.policy_sft import SupervisedTrainer
from zerosearch.training.policy_trainer import PolicyTrainer, ScoredBatch
from zerosearch.training.simulator_sft import SFTSettings, tune_simulator

TIMELESS = ["loss", "grad_norm", "kl", "entropy", "logprob_gap"]


@functools.cache
def record(name: str) -> list[Trajectory]:
    """Return trajectories of a small base policy that searches: ragged, retrieved text between its own tokens."""
    policy, tokenizer = models.load(name)
    prompts, limits = Prompts.load("micro", tokenizer), RolloutSettings(max_searches=2, max_observation_tokens=60)
    requests = [Asking().request(prompts, q, 1, sample, 0.0) for q in QUESTIONS for sample in range(3)]
    made = rollout(requests, TransformersEngine(policy, tokenizer), ScriptedRetriever(), prompts, limits)
    assert len({len(t.token_ids) for t in made}) > 3 and any(t.n_searches for t in made)
    return made


@pytest.fixture
def recorded() -> list[Trajectory]:
    return record("micro/llama-base")


def small_model() -> torch.nn.Module:
    """Return a random model with room for the recorded tokens."""
    return toy_model(vocab_size=900)


def micro_batches(recorded: list[Trajectory], normalisation: str = "token") -> list[MicroBatch]:
    advantages = np.linspace(-1.5, 2.0, len(recorded))
    return make_micro_batches(recorded, advantages, pad_id=0, max_tokens=900, normalisation=normalisation)


def moved_away(model: torch.nn.Module) -> torch.nn.Module:
    """Change a model a little, so that ratios leave 1 and the KL leaves 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", ["micro/llama-base", "micro/qwen2-base"])
@pytest.mark.parametrize("normalisation", ["token", "sequence"])
def test_the_same_losses_and_gradients_on_recorded_trajectories(name: str, normalisation: str) -> None:
    base = models.load(name)[0].float()
    found = []
    for loss in losses.LOSSES:
        model, reference = moved_away(frozen_copy(base)).requires_grad_(), frozen_copy(base)
        made = []
        for batch in micro_batches(record(name), normalisation):
            total, terms, entropy = losses.micro_batch_loss(
                model, reference, batch, clip=0.2, kl_weight=0.1, temperature=0.9, loss=loss
            )
            total.backward()
            made.append([total.item(), terms.kl_sum, terms.gap_sum, entropy, terms.n_tokens])
            assert terms.n_clipped > 0
        found.append((np.array(made), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (plain, wanted), (fused, gradient) = found
    np.testing.assert_allclose(fused, plain, rtol=1e-4)
    assert ((gradient - wanted).norm() / wanted.norm()).item() < 1e-4
    assert (gradient - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
@pytest.mark.parametrize("correction", [
    Correction(), Correction("token", 2.0), Correction("token", 1.1), Correction("sequence", 2.0),
    Correction("sequence", 1.2),
], ids=str)
def test_every_correction_is_the_same_in_both(
    recorded: list[Trajectory], correction: Correction, kl_weight: float
) -> None:
    """Sampled by one model, trained in another: loss, gradient and every term, with weights cut or dropped."""
    base, found = models.load("micro/llama-base")[0].float(), []
    for loss in losses.LOSSES:
        model, reference = moved_away(frozen_copy(base)).requires_grad_(), frozen_copy(base) if kl_weight else None
        settings = {"clip": 0.2, "kl_weight": kl_weight, "temperature": 1.0, "loss": loss, "correction": correction}
        made = [losses.micro_batch_loss(model, reference, batch, **settings) for batch in micro_batches(recorded)]
        sum(total for total, _, _ in made).backward()
        found.append((made, torch.cat([p.grad.flatten() for p in model.parameters()])))
    (plain, wanted), (fused, gradient) = found
    assert len(plain) > 1 and ((gradient - wanted).norm() / wanted.norm()).item() < 1e-4
    for (loss, terms, entropy), (also, theirs, spread) in zip(plain, fused, strict=True):
        assert (also.item(), spread) == pytest.approx((loss.item(), entropy), rel=1e-4, abs=1e-6)
        assert theirs.gaps == pytest.approx(terms.gaps, abs=1e-5) and len(terms.gaps) == terms.n_tokens > 0
        sums, same = ({name: v for name, v in asdict(t).items() if name != "gaps"} for t in (terms, theirs))
        assert same == pytest.approx(sums, rel=1e-4, abs=1e-5)
    all_terms = [terms for _, terms, _ in plain]
    assert any(terms.n_clipped for terms in all_terms) == (correction.kind == "none")
    assert any(terms.n_dropped for terms in all_terms) == (correction == Correction("sequence", 1.2))
    assert all(terms.n_dropped < terms.n_tokens for terms in all_terms)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_the_trainer_hands_its_correction_on(recorded: list[Trajectory], tmp_path: Path, loss: str) -> None:
    (batch, *_), wanted = micro_batches(recorded), Correction("token", 1.1)
    settings = replace(SETTINGS, loss=loss, correction=wanted, kl_weight=0.0)
    trainer = PolicyTrainer(
        small_model(), build_tokenizer(), QUESTIONS, settings, tmp_path, lambda slots: ScoredBatch([], 0.0),
        lambda report: None,
    )
    found = [trainer.compute_loss(trainer.model, batch).item()]
    for correction in (wanted, Correction()):
        found.append(losses.micro_batch_loss(
            trainer.model, None, batch, clip=settings.clip, kl_weight=0.0, temperature=1.0, loss=loss,
            correction=correction,
        )[0].item())
    assert found[0] == found[1] != found[2]


def test_the_same_supervised_losses_and_gradients(recorded: list[Trajectory], tmp_path: Path) -> None:
    found = []
    for loss in losses.LOSSES:
        model = small_model()
        trainer = SupervisedTrainer(
            model, build_tokenizer(), [recorded] * 4, replace(SETTINGS, loss=loss), tmp_path / loss,
            lambda step: ScoredBatch([], 0.0), lambda report: None,
        )
        for batch in micro_batches(recorded):
            trainer.compute_loss(model, batch).backward()
        found.append((trainer._entropy_sum, torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert ((found[1][1] - found[0][1]).norm() / found[0][1].norm()).item() < 1e-4


def test_a_whole_training_gives_the_same_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts, four updates, Adam: rounding grows on the way, and stays small."""
    dense_reward(monkeypatch)
    found = []
    for loss in losses.LOSSES:
        monkeypatch.setenv(LOSS_VARIABLE, loss)
        _, history, model = train(tmp_path / loss)
        found.append((history, weights(model)))
    np.testing.assert_allclose(found[1][0][TIMELESS].iloc[:1], found[0][0][TIMELESS].iloc[:1], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found[1][0][TIMELESS], found[0][0][TIMELESS], rtol=0.02, atol=1e-4)
    assert not torch.equal(found[1][1], found[0][1])  # the switch did switch
    assert (found[1][1] - found[0][1]).abs().max() < 0.01


def test_the_simulator_learns_the_same_lessons(tmp_path: Path) -> None:
    found = []
    for loss in losses.LOSSES:
        tokenizer, settings = build_tokenizer(), SFTSettings(steps=3, batch_size=4, learning_rate=1e-2, loss=loss)
        found.append(tune_simulator(
            BEARING, micro_model(), tokenizer, Prompts.load("micro", tokenizer), settings, FakeStage(tmp_path / loss)
        ))
    columns = ["loss", "nll", "nll_golden", "grad_norm"]
    np.testing.assert_allclose(found[1][columns], found[0][columns], rtol=1e-3)


def test_plain_is_what_it_always_was(recorded: list[Trajectory]) -> None:
    """The plain loss, written out with the model's own head: equal to the last bit, and so are its gradients."""
    found = []
    for written_out in (False, True):
        model = small_model()
        for batch in micro_batches(recorded):
            if written_out:
                states = model.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
                states = states.reshape(-1, states.shape[-1]).index_select(0, batch.positions)
                scores = torch.log_softmax(model.get_output_embeddings()(states).float() / 0.9, dim=-1)
                ratio = (scores.gather(1, batch.targets.unsqueeze(1)).squeeze(1) - batch.old_logp).exp()
                gains = [r * batch.advantages for r in (ratio, ratio.clamp(0.8, 1.2))]
                loss = (batch.weights * -torch.minimum(*gains)).sum()
            else:
                loss, _, _ = losses.micro_batch_loss(
                    model, None, batch, clip=0.2, kl_weight=0.0, temperature=0.9, loss="plain"
                )
            loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*found)


# -- which one ------------------------------------------------------------------------------------


def test_the_profile_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOSS_VARIABLE, raising=False)
    assert losses.chosen_loss() == "plain" and losses.chosen_loss("fused") == "fused"
    said = {name: profiles.read_profile(name).loss for name in profiles.names()}
    assert {said[name] for name in ("smoke", "laptop")} == {"plain"}
    assert {said[name] for name in ("single_gpu", "a100_node")} == {"fused"}
    for loss in losses.LOSSES:
        environment = notebook_runner.kernel_environment(1, offline=True, loss=loss)
        monkeypatch.setenv(LOSS_VARIABLE, environment[LOSS_VARIABLE])
        assert losses.chosen_loss() == loss


def test_an_unknown_loss_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOSS_VARIABLE, "fussed")
    with pytest.raises(ConfigError, match="did you mean 'fused'"):
        losses.chosen_loss()


def test_checkpoints_of_one_are_not_continued_by_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_policy_rl import CURRICULUM, ROLLOUT

    def made(loss: str) -> dict:
        return run_fingerprint(QUESTIONS, micro_model(), "bm25", replace(SETTINGS, loss=loss), CURRICULUM, ROLLOUT)

    monkeypatch.delenv(LOSS_VARIABLE, raising=False)
    assert made("") == made("plain") != made("fused") and "loss" not in str(sorted(made("plain")))
    assert "loss" not in made("")["settings"] and made("")["settings"]["correction"] == {"kind": "none", "cap": 2.0}
    monkeypatch.setenv(LOSS_VARIABLE, "fused")
    assert made("") == made("fused")


# -- heads ----------------------------------------------------------------------------------------


def test_the_head_of_a_model() -> None:
    model = toy_model()
    head = losses.head_of(model)
    assert head.weight is model.get_input_embeddings().weight  # tied
    assert (head.bias, head.softcap, head.scale) == (None, None, 1.0)
    assert losses.head_of(toy_model(tie_word_embeddings=False)).weight.shape == (60, 32)
    model.config.final_logit_softcapping, model.config.logits_scaling = 30.0, 8.0
    assert losses.head_of(model) == kernels.Head(head.weight, None, 30.0, 0.125)


def test_a_head_with_an_adapter_is_refused() -> None:
    model = toy_model()
    model.lm_head = torch.nn.Sequential(torch.nn.Linear(32, 60))
    with pytest.raises(ConfigError, match="found Sequential; write `loss: plain`"):
        losses.head_of(model)


def test_a_frozen_head_learns_nothing_and_the_rest_does(recorded: list[Trajectory]) -> None:
    found = []
    for loss in losses.LOSSES:
        model = toy_model(vocab_size=900, tie_word_embeddings=False)
        model.lm_head.requires_grad_(False)
        (batch, *_) = micro_batches(recorded)
        losses.micro_batch_loss(model, None, batch, clip=0.2, kl_weight=0.0, temperature=1.0, loss=loss)[0].backward()
        assert model.lm_head.weight.grad is None
        found.append(model.get_input_embeddings().weight.grad)
    assert ((found[1] - found[0]).norm() / found[0].norm()).item() < 1e-4


def test_log_probabilities_of_both_kinds(recorded: list[Trajectory]) -> None:
    model, (batch, *_) = small_model(), micro_batches(recorded)
    where = (batch.input_ids, batch.positions, batch.targets)
    wanted = token_logprobs(model, *where, temperature=0.7, with_entropy=True)
    states = losses.hidden_states(model, batch.input_ids, batch.positions)
    found = kernels.token_logps(states, losses.head_of(model), batch.targets, temperature=0.7)
    torch.testing.assert_close(found, tuple(t.detach() for t in wanted), rtol=1e-5, atol=1e-5)
    assert "TRITON_INTERPRET" not in os.environ or kernels.chosen("auto", torch.device("cpu")) == "torch"
