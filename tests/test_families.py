"""Training with tokenizers like Llama's: begin-of-text in front, padding that is the end of text."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest_models import EchoRetriever, tiny_model, tokenizer_of
from test_renaming import EXAMPLES
from training_toys import FakeStage, toy_question
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch.curriculum import constant
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import ScoredTrajectory
from zerosearch.training.policy_rl import train_policy
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.simulator_sft import SFTSettings, tune_simulator

QUESTIONS = [toy_question(i) for i in range(4)]
RL = RLSettings(
    steps=2, questions_per_step=2, group_size=3, learning_rate=1e-2, kl_weight=1e-2, save_every=10,
    micro_batch_tokens=400,
)
ROLLOUT = RolloutSettings(max_searches=1, max_turn_tokens=6, max_observation_tokens=20, max_total_tokens=160)
SFT = SFTSettings(steps=3, batch_size=4, learning_rate=1e-2, save_every=10)


def with_own_pad(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return the same tokenizer with a pad token that is nothing else."""
    made = copy.deepcopy(tokenizer)
    made.pad_token = "<|end_header_id|>"
    assert made.pad_token_id != made.eos_token_id == tokenizer.pad_token_id
    return made


def weights(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def reward_length(trajectories, reward="f1"):  # noqa: ANN001, ANN201
    """Reward short messages, so that a random model's groups have an advantage."""
    return [ScoredTrajectory(t, 1.0 / (1 + sum(i % 2 for i in t.token_ids)), 0.0, 0.0, 0.0) for t in trajectories]


@pytest.mark.parametrize("chat", [False, True])
def test_the_pad_token_changes_nothing_in_policy_training(
    chat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zerosearch.training.policy_rl.score_trajectories", reward_length)
    tokenizer = tokenizer_of("llama", chat)
    trained: list[tuple[pd.DataFrame, torch.Tensor]] = []
    for name, used in (("end", copy.deepcopy(tokenizer)), ("own", with_own_pad(tokenizer))):
        model = tiny_model("llama", tokenizer=tokenizer)
        history = train_policy(
            QUESTIONS, model, used, EchoRetriever(), Prompts.load("micro", used), RL, FakeStage(tmp_path / name),
            curriculum=constant(0.0, RL.steps), rollout_settings=ROLLOUT,
        )
        trained.append((history, weights(model)))
    (first, a), (second, b) = trained
    assert torch.equal(a, b) and not torch.equal(a, weights(tiny_model("llama", tokenizer=tokenizer)))
    assert first["loss"].tolist() == second["loss"].tolist() and (first["logprob_gap"] < 1e-4).all()


@pytest.mark.parametrize("chat", [False, True])
def test_the_pad_token_changes_nothing_in_simulator_tuning(chat: bool, tmp_path: Path) -> None:
    tokenizer = tokenizer_of("llama", chat)
    pool = [*EXAMPLES, *(replace(e, useful=False, passages=e.passages[1:]) for e in EXAMPLES)]
    tuned: list[tuple[list[float], torch.Tensor]] = []
    for name, used in (("end", copy.deepcopy(tokenizer)), ("own", with_own_pad(tokenizer))):
        model = tiny_model("llama", tokenizer=tokenizer)
        prompts = Prompts.load("micro", used)
        history = tune_simulator(pool, model, used, prompts, SFT, FakeStage(tmp_path / name))
        tuned.append((history["loss"].tolist(), weights(model)))
    assert tuned[0][0] == tuned[1][0] and torch.equal(tuned[0][1], tuned[1][1])
    assert not torch.equal(tuned[0][1], weights(tiny_model("llama", tokenizer=tokenizer)))
