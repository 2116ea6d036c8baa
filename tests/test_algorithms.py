"""algorithms.py and credit.py: what each algorithm makes of rewards, by hand, and through the real trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_policy_rl import CURRICULUM, ROLLOUT, SETTINGS, dense_reward, train
from training_toys import FakeStage, ScriptedRetriever, random_trajectories, read_rows, toy_model, toy_question

from zerosearch import checks, profiles
from zerosearch.curriculum import Curriculum
from zerosearch.errors import ConfigError
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.stage_parameters import AlgorithmName
from zerosearch.training.advantages import STD_EPSILON
from zerosearch.training.algorithms import ALGORITHMS, get_algorithm, place_of_kl, problem_of
from zerosearch.training.credit import Credit, Judges, Outcome, assign_credit
from zerosearch.training.losses import frozen_logp, micro_batch_loss
from zerosearch.training.policy_rl import train_policy
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.step_metrics import METRICS, OF_SOME_ALGORITHMS

NAMES = ("grpo", "reinforce", "reinforce-loo", "ppo")
WITHOUT_CRITIC = NAMES[:3]


def settings_of(algorithm: str, **changes) -> RLSettings:  # noqa: ANN003
    return replace(SETTINGS, **{"algorithm": algorithm, **changes})


def outcome_of(rewards: list[float], groups: list[int], failed: tuple[int, ...] = ()) -> Outcome:
    made = [
        replace(t, stop_reason="retriever_error", error="down") if i in failed else t
        for i, t in enumerate(random_trajectories(len(rewards), seed=5))
    ]
    return Outcome(made, np.array(rewards), np.array(groups))


def credit_of(algorithm: str, outcome: Outcome, reference=None, **changes) -> Credit:  # noqa: ANN001, ANN003
    judges = Judges(reference, None, 1.0, torch.device("cpu"))
    return assign_credit(outcome, settings_of(algorithm, **changes), judges, pad_id=0)


# -- names, and what is refused ---------------------------------------------------------------------


def test_the_table_and_the_parameter_name_the_same_algorithms() -> None:
    assert tuple(ALGORITHMS) == NAMES == AlgorithmName.__args__
    assert [place_of_kl(name) for name in NAMES] == ["loss", "loss", "loss", "reward"]
    assert [place_of_kl(name, "loss") for name in NAMES] == ["loss"] * 4 and place_of_kl("grpo", "reward") == "reward"


@pytest.mark.parametrize(("wrong", "near"), [("reinforce_loo", "reinforce-loo"), ("pppo", "ppo"), ("GRPO", "grpo")])
def test_an_unknown_algorithm_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near):
        get_algorithm(wrong)
    with pytest.raises(ConfigError, match=near):
        settings_of(wrong)


def test_an_unknown_place_of_the_kl_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'reward'"):
        settings_of("grpo", kl_in="rewards")


@pytest.mark.parametrize("name", ["grpo", "reinforce-loo"])
def test_groups_of_one_are_refused_where_nothing_could_be_learned(name: str) -> None:
    with pytest.raises(ConfigError, match="add --set 03.group_size=8, or choose --set 03.algorithm=reinforce or"):
        settings_of(name, group_size=1)
    assert problem_of({"algorithm": name, "group_size": 2}) == ""


@pytest.mark.parametrize("name", ["reinforce", "ppo"])
def test_groups_of_one_are_enough_without_a_group_baseline(name: str) -> None:
    assert settings_of(name, group_size=1).group_size == 1


def test_the_check_before_a_run_refuses_them_too() -> None:
    wrong = profiles.load("smoke", {"03.group_size": "1"})
    (problem,) = checks.algorithm_problems(wrong, ["03"])
    assert "03.algorithm grpo: expected groups of at least 2" in problem
    assert checks.algorithm_problems(wrong, ["04"]) == []  # stage 03 does not run
    assert checks.algorithm_problems(profiles.load("smoke", {"03.group_size": "1"}, arms=["sft"]), ["03"]) == []
    fine = profiles.load("smoke", {"03.group_size": "1", "03.algorithm": "ppo"})
    assert checks.algorithm_problems(fine, ["03"]) == []


def test_an_estimator_of_your_own_choice_and_none_beside_a_critic() -> None:
    assert settings_of("grpo").estimator == "grpo" and settings_of("grpo", advantage="centered").estimator == "centered"
    assert settings_of("reinforce-loo").estimator == "leave_one_out" and settings_of("reinforce").estimator == "plain"
    with pytest.raises(ConfigError, match="expected none with the algorithm ppo"):
        settings_of("ppo", advantage="centered")


# -- advantages without a critic, by hand -----------------------------------------------------------

THIRD = np.sqrt(1.0 / 3.0)  # std of 1, 0, 0 with n - 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # groups: all wrong, all right, one right of three, a single one
        ("grpo", [0, 0, 1, 1, 2, 2, 2, 3]),
        ("reinforce", [0, 0, 1, 1, 1, 0, 0, 0.5]),
        ("reinforce-loo", [0, 0, 0, 0, 1, -0.5, -0.5, 0]),
    ],
)
def test_advantages_by_hand(name: str, expected: list[float]) -> None:
    rewards, groups = [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.5], [0, 0, 1, 1, 2, 2, 2, 3]
    if name == "grpo":
        right, wrong = (2 / 3) / (THIRD + STD_EPSILON), (-1 / 3) / (THIRD + STD_EPSILON)
        expected = [0, 0, 0, 0, right, wrong, wrong, 0]
    credit = credit_of(name, outcome_of(rewards, groups))
    np.testing.assert_allclose(credit.advantages, expected, atol=1e-12)
    assert not credit.lessons and not credit.measured


@pytest.mark.parametrize(("name", "expected"), [
    ("grpo", [0.5 / (np.sqrt(0.5) + STD_EPSILON), -0.5 / (np.sqrt(0.5) + STD_EPSILON), 0.0]),
    ("reinforce", [1.0, 0.0, 0.0]), ("reinforce-loo", [1.0, -1.0, 0.0]),
])
@pytest.mark.parametrize("place", ["loss", "reward"])
def test_a_failed_member_is_out_of_baseline_and_batch(name: str, expected: list[float], place: str) -> None:
    """The third one's reward of 0.7 would move every baseline, and nobody would see it."""
    outcome = outcome_of([1.0, 0.0, 0.7], [0, 0, 0], failed=(2,))
    model = toy_model()
    credit = credit_of(name, outcome, reference=model if place == "reward" else None, kl_in=place, kl_weight=0.0)
    np.testing.assert_allclose(credit.advantages, expected, atol=1e-12)
    tokens = sum(len(b.targets) for b in credit.micro_batches)
    trained = [sum(t.loss_mask) for t, a in zip(outcome.trajectories[:2], expected) if place == "reward" or a]
    assert tokens == sum(trained)


@pytest.mark.parametrize("name", WITHOUT_CRITIC)
@pytest.mark.parametrize("place", ["loss", "reward"])
def test_a_batch_of_failures_teaches_nothing(name: str, place: str) -> None:
    credit = credit_of(name, outcome_of([0.0, 0.0], [0, 0], failed=(0, 1)), toy_model(), kl_in=place)
    assert credit.micro_batches == [] and credit.advantages.tolist() == [0.0, 0.0]


# -- KL in the reward ---------------------------------------------------------------------------------


def drifted(model: torch.nn.Module, drift: float) -> torch.nn.Module:
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(drift * torch.randn(parameter.shape, generator=noise))
    return model


def test_the_kl_in_the_reward_by_hand() -> None:
    """Plain REINFORCE shows the reduced reward itself: r - weight * sum of (log p - log p_base) over policy tokens."""
    outcome, base = outcome_of([1.0, 0.25, 0.0], [0, 0, 0]), drifted(toy_model(), 0.1)
    credit = credit_of("reinforce", outcome, base, kl_in="reward", kl_weight=0.01)
    wanted = []
    for t, reward in zip(outcome.trajectories, outcome.rewards, strict=True):
        ids = torch.tensor([t.prompt_ids + t.token_ids])
        with torch.no_grad():
            scores = torch.log_softmax(base(input_ids=ids).logits[0, :-1], -1)
        at = [len(t.prompt_ids) + i for i, own in enumerate(t.loss_mask) if own]
        wanted.append(reward - 0.01 * sum(t.logprobs[i - len(t.prompt_ids)] - scores[i - 1, ids[0, i]] for i in at))
    np.testing.assert_allclose(credit.advantages, torch.stack(wanted).numpy(), atol=1e-5)
    assert credit.measured["kl_reward"] == pytest.approx(np.mean(wanted) - np.mean(outcome.rewards), abs=1e-5)


def sampled_by(model: torch.nn.Module, outcome: Outcome) -> Outcome:
    """Return the same trajectories with the log-probs that a model gives their tokens."""
    made = []
    for t in outcome.trajectories:
        with torch.no_grad():
            scores = torch.log_softmax(model(input_ids=torch.tensor([t.prompt_ids + t.token_ids])).logits[0], -1)
        start = len(t.prompt_ids)
        values = [float(scores[start + i - 1, token]) if own else 0.0
                  for i, (token, own) in enumerate(zip(t.token_ids, t.loss_mask))]
        made.append(replace(t, logprobs=tuple(values)))
    return replace(outcome, trajectories=made)


def test_drift_lowers_the_reward() -> None:
    """Towards its own samples: the further the policy prefers them to the base, the more they cost."""
    base, found = toy_model(), []
    plain = sampled_by(base, outcome_of([0.5] * 4, [0, 0, 1, 1]))
    for preferred in (0.0, 0.2, 0.5):
        moved = [replace(t, logprobs=tuple(x + preferred * own for x, own in zip(t.logprobs, t.loss_mask)))
                 for t in plain.trajectories]
        credit = credit_of("reinforce", replace(plain, trajectories=moved), base, kl_in="reward", kl_weight=0.01)
        found.append(credit.advantages)
        lengths = np.array([sum(t.loss_mask) for t in moved])
        np.testing.assert_allclose(credit.advantages, 0.5 - 0.01 * preferred * lengths, atol=1e-5)
    assert (found[0] > found[1]).all() and (found[1] > found[2]).all()


def test_in_the_reward_the_kl_is_out_of_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    asked: list[object] = []
    real = micro_batch_loss

    def watched(model, reference, *rest, **settings):  # noqa: ANN001, ANN002, ANN003, ANN202
        asked.append(reference)
        return real(model, reference, *rest, **settings)

    monkeypatch.setattr("zerosearch.training.policy_trainer.micro_batch_loss", watched)
    _, history, _ = train(tmp_path, settings_of("reinforce-loo", kl_in="reward"))
    assert asked and set(asked) == {None}
    assert history["kl"].iloc[0] == pytest.approx(0.0, abs=1e-6) and history["kl"].iloc[-1] > 1e-6  # still measured
    assert history["kl_reward"].notna().all() and history["value_mean"].isna().all()


def test_the_place_of_the_kl_changes_the_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    heavy = {"kl_weight": 0.5}
    ends = [train(tmp_path / place, settings_of("reinforce", kl_in=place, **heavy))[1] for place in ("loss", "reward")]
    assert ends[0]["reward_mean"].iloc[0] == ends[1]["reward_mean"].iloc[0]
    assert ends[0]["grad_norm"].iloc[-1] != ends[1]["grad_norm"].iloc[-1]


# -- micro-batches, losses, the whole training ----------------------------------------------------------


@pytest.mark.parametrize("loss", ["plain", "fused"])
@pytest.mark.parametrize("place", ["loss", "reward"])
def test_splits_of_a_reinforce_batch_give_one_gradient(loss: str, place: str) -> None:
    base, found = drifted(toy_model(), 0.05), []
    outcome = outcome_of([1.0, 0.0, 0.5, 0.25, 1.0], [0, 0, 0, 1, 1])
    for tokens in (60, 10_000):
        model = toy_model()
        credit = credit_of("reinforce", outcome, base, kl_in=place, micro_batch_tokens=tokens, loss=loss)
        for batch in credit.micro_batches:
            reference = base if place == "loss" else None
            micro_batch_loss(model, reference, batch, clip=0.2, kl_weight=0.1, temperature=1.0, loss=loss)[0].backward()
        found.append((len(credit.micro_batches), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert found[0][0] > found[1][0] == 1
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-7, rtol=1e-4)


def test_the_frozen_log_probs_are_the_same_in_both_losses() -> None:
    credit, model = credit_of("reinforce", outcome_of([1.0, 0.5], [0, 0])), toy_model(seed=3)
    (batch,) = credit.micro_batches
    plain, fused = (frozen_logp(model, batch, 0.7, loss) for loss in ("plain", "fused"))
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)
    assert not plain.requires_grad and not fused.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_learns_what_is_rewarded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    settings = settings_of(name, steps=30, group_size=8, save_every=100)
    _, history, _ = train(tmp_path, settings, curriculum=Curriculum(0.0, 0.0, 30))
    assert history["reward_mean"].tail(3).mean() > history["reward_mean"].head(3).mean() + 0.05
    with_values = [name == "ppo"] * 3
    assert list(history[list(OF_SOME_ALGORITHMS)].notna().all()) == [name == "ppo", *with_values]


@pytest.mark.parametrize("name", ["reinforce", "ppo"])
def test_groups_of_one_train(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    retriever = ScriptedRetriever(noisy=False)
    _, history, _ = train(tmp_path, settings_of(name, group_size=1, questions_per_step=3), retriever=retriever)
    assert history["step"].tolist() == [1, 2, 3, 4] and set(METRICS) == set(read_rows(tmp_path / "metrics.jsonl")[0])
    assert history["groups_with_spread"].eq(0).all() and (history["grad_norm"] > 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loss", ["plain", "fused"])
def test_two_real_steps_on_the_shipped_policy(
    name: str, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense_reward(monkeypatch)
    policy, tokenizer = models.load("micro/llama-base")
    before = torch.cat([p.detach().flatten() for p in policy.parameters()])
    settings = RLSettings(steps=2, questions_per_step=2, group_size=4, algorithm=name, loss=loss)
    history = train_policy(
        [toy_question(i, answer) for i, answer in enumerate(("Silver Harbor", "Port Amber"))], policy, tokenizer,
        ScriptedRetriever(noisy=False), Prompts.load(models.prompt_template(tokenizer), tokenizer), settings,
        FakeStage(tmp_path), curriculum=Curriculum(0.0, 0.0, 2),
        rollout_settings=replace(ROLLOUT, max_turn_tokens=24, max_observation_tokens=80, max_total_tokens=400),
    )
    assert len(history) == 2 and np.isfinite(history["loss"]).all()
    assert history["logprob_gap"].max() < 1e-4 and (history["clip_share"] == 0).all()
    after = torch.cat([p.detach().flatten() for p in policy.parameters()])
    assert torch.isfinite(after).all() and not torch.equal(before, after)
