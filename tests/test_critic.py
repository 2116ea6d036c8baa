"""critic.py and the advantages of PPO: by hand, and an interrupted training that ends with the same numbers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_policy_rl import SETTINGS, _Stopped, dense_reward, stop_after, train, weights
from training_toys import random_trajectories, toy_model, toy_trajectory

from zerosearch.schema import Trajectory
from zerosearch.training import checkpoints
from zerosearch.training.advantages import STD_EPSILON, generalised_advantages, whitened
from zerosearch.training.credit import Credit, Judges, Outcome, assign_credit
from zerosearch.training.critic import FILE, Critic, ValueLesson, value_losses
from zerosearch.training.losses import micro_batch_loss
from zerosearch.training.policy_trainer import RLSettings

PPO = replace(SETTINGS, algorithm="ppo")
# Two messages (2 and 3 policy tokens) with three retrieved tokens between them.
TWO_MESSAGES = toy_trajectory([5, 6], [10, 11, 20, 21, 22, 12, 13, 14], [1, 1, 0, 0, 0, 1, 1, 1])


def critic_of(model: torch.nn.Module, **changes: float) -> Critic:
    settings = {"learning_rate": 1e-2, "warmup_steps": 0, "clip": 0.5, "max_grad_norm": 1.0} | changes
    return Critic(model, **settings)


class Told:
    """A critic whose values are written down: one per (row's) policy token, for a batch of one trajectory."""

    def __init__(self, values: list[float]):
        self.told = torch.tensor(values)

    def values(self, batch) -> torch.Tensor:  # noqa: ANN001
        return self.told


def judged(
    trajectories: list[Trajectory], rewards: list[float], critic: object, reference: torch.nn.Module | None = None,
    settings: RLSettings = PPO, packed: bool = False,
) -> Credit:
    outcome = Outcome(trajectories, np.array(rewards), np.arange(len(rewards)))
    judges = Judges(reference, critic, 1.0, torch.device("cpu"))  # type: ignore[arg-type]
    return assign_credit(outcome, settings, judges, pad_id=0, packed=packed)


# -- GAE, whitening, clip: by hand --------------------------------------------------------------------


def test_gae_by_hand() -> None:
    rewards, values = np.array([0.0, 0.0, 0.0, 0.0, 1.0]), np.array([0.5, 0.4, 0.6, 0.2, 0.8])
    # with both 1: what is still to come, minus the value
    np.testing.assert_allclose(generalised_advantages(rewards, values), [0.5, 0.6, 0.4, 0.8, 0.2], atol=1e-12)
    # lambda 0: one step ahead: V_{t+1} - V_t, and 1 - 0.8 at the end
    np.testing.assert_allclose(
        generalised_advantages(rewards, values, lam=0.0), [-0.1, 0.2, -0.4, 0.6, 0.2], atol=1e-12
    )
    # gamma 0.5, lambda 0.5, from the end: d = .2, .2, -.5, -.1, -.3;  A_t = d_t + A_{t+1} / 4
    wanted = [-0.3 + (-0.1 - 0.4375 / 4) / 4, -0.1 - 0.4375 / 4, -0.4375, 0.25, 0.2]
    np.testing.assert_allclose(generalised_advantages(rewards, values, 0.5, 0.5), wanted, atol=1e-12)


def test_gae_of_a_penalty_on_every_token() -> None:
    found = generalised_advantages(np.array([-0.1, -0.2, 0.7]), np.array([0.0, 0.5, 0.0]))
    np.testing.assert_allclose(found, [0.4, 0.0, 0.7], atol=1e-12)  # 0.4; 0.5 - 0.5; 0.7


def test_the_next_state_after_a_message_is_the_next_message() -> None:
    """lambda 0 shows it: the second token looks at the value of the third policy token, past three retrieved ones."""
    credit = judged([TWO_MESSAGES], [1.0], Told([0.5, 0.4, 0.6, 0.2, 0.8]), settings=replace(PPO, gae_lambda=0.0))
    raw = np.array([-0.1, 0.2, -0.4, 0.6, 0.2])
    (batch,) = credit.micro_batches
    np.testing.assert_allclose(batch.advantages, (raw - 0.1) / (raw.std(ddof=1) + STD_EPSILON), atol=1e-6)
    assert batch.targets.tolist() == [10, 11, 12, 13, 14]
    np.testing.assert_allclose(credit.lessons[0].returns, [0.4, 0.6, 0.2, 0.8, 1.0], atol=1e-6)  # A + V
    np.testing.assert_allclose(credit.lessons[0].values, [0.5, 0.4, 0.6, 0.2, 0.8], atol=1e-6)


def test_the_reward_is_earned_by_the_last_policy_token() -> None:
    """A last observation stands behind it, and two trajectories of other lengths do not mix."""
    first = toy_trajectory([5], [10, 11, 30, 31], [1, 1, 0, 0], index=0)
    second = toy_trajectory([5], [12, 30, 13, 14], [1, 0, 1, 1], index=1)
    credit = judged([first, second], [1.0, 0.25], Told([0.0] * 5))
    (batch,) = credit.micro_batches
    by_target = dict(zip(batch.targets.tolist(), credit.lessons[0].returns.tolist(), strict=True))
    assert by_target == {10: 1.0, 11: 1.0, 12: 0.25, 13: 0.25, 14: 0.25}
    np.testing.assert_allclose(credit.advantages, [batch.advantages[batch.rows == r].mean() for r in _rows(batch, 2)])


def _rows(batch, n: int) -> list[int]:  # noqa: ANN001
    """Return the row of each trajectory in the micro-batch: of the first target, then of the second's."""
    first = {10: 0, 12: 1}
    found = {first[t]: int(r) for t, r in zip(batch.targets.tolist(), batch.rows.tolist()) if t in first}
    return [found[i] for i in range(n)]


def test_whitening_by_hand() -> None:
    # mean 2; squared distances 1, 0, 1; std with n - 1 is 1
    np.testing.assert_allclose(whitened(np.array([1.0, 2.0, 3.0])), np.array([-1, 0, 1]) / (1 + STD_EPSILON))
    assert whitened(np.array([0.7])).tolist() == [0.0] and whitened(np.zeros(0)).shape == (0,)
    assert whitened(np.full(5, 1.0)).tolist() == [0.0] * 5  # all right from the start: nothing to learn


def test_whitening_is_over_the_policy_tokens_of_the_batch() -> None:
    made = random_trajectories(5, seed=3)
    credit = judged(made, [1.0, 0.0, 0.5, 0.0, 1.0], critic_of(toy_model()), settings=replace(PPO, micro_batch_tokens=60))
    assert len(credit.micro_batches) > 1
    advantages = torch.cat([batch.advantages for batch in credit.micro_batches]).double()
    assert len(advantages) == sum(sum(t.loss_mask) for t in made)
    assert advantages.mean().item() == pytest.approx(0.0, abs=1e-6) and advantages.std().item() == pytest.approx(1, abs=1e-3)


def test_the_value_clip_by_hand() -> None:
    lesson = ValueLesson(torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, -1.0, 0.2]))
    values = torch.tensor([0.25, 0.75, 0.75, -0.75], requires_grad=True)
    losses = value_losses(values, lesson, clip=0.5)
    # 0.75^2; max(0.25^2, 0.5^2); max(1.75^2, 1.5^2); max(0.95^2, 0.7^2): halves of them
    np.testing.assert_allclose(losses.detach(), [0.28125, 0.125, 1.53125, 0.45125], atol=1e-6)
    losses.sum().backward()
    np.testing.assert_allclose(values.grad, [-0.75, 0.0, 1.75, -0.95], atol=1e-6)  # too far already: no pull


def test_a_penalty_lowers_the_returns_of_what_came_before() -> None:
    base = toy_model()
    ids = torch.tensor([TWO_MESSAGES.prompt_ids + TWO_MESSAGES.token_ids])
    with torch.no_grad():
        scores = torch.log_softmax(base(input_ids=ids).logits[0, :-1], -1)
    reference = [float(scores[i - 1, ids[0, i]]) for i in (2, 3, 7, 8, 9)]
    steps = np.array([0.0, 0.3, 0.0, 0.2, 0.0])  # how much more the policy likes its tokens than the base does
    logprobs = np.zeros(8)
    logprobs[[0, 1, 5, 6, 7]] = reference + steps
    drifted = replace(TWO_MESSAGES, logprobs=tuple(logprobs))
    credit = judged([drifted], [1.0], Told([0.0] * 5), base, replace(PPO, kl_weight=0.1))
    np.testing.assert_allclose(credit.lessons[0].returns, [0.95, 0.95, 0.98, 0.98, 1.0], atol=1e-5)
    assert credit.measured["kl_reward"] == pytest.approx(-0.05, abs=1e-6) and credit.measured["kl"] > 0


# -- retrieved tokens and failed trajectories ------------------------------------------------------------


def test_no_term_is_about_a_retrieved_token() -> None:
    """Targets, states, values and returns are those of the policy's tokens: five of eight."""
    critic = critic_of(toy_model())
    credit = judged([TWO_MESSAGES], [1.0], critic)
    (batch,), (lesson,) = credit.micro_batches, credit.lessons
    assert batch.positions.tolist() == [1, 2, 6, 7, 8]  # the state before each: prompt of 2, tokens 0 1 | 5 6 7
    assert len(lesson.values) == len(lesson.returns) == len(batch.advantages) == len(critic.values(batch)) == 5


@pytest.mark.parametrize("who", ["actor", "critic"])
def test_the_gradient_is_exactly_zero_at_every_other_state(who: str) -> None:
    """The last hidden states: only those that predict a policy token receive a gradient; all others exactly none."""
    model = toy_model()
    critic = critic_of(model)
    torch.nn.init.normal_(critic.model.head.weight, generator=torch.Generator().manual_seed(0))
    credit = judged([TWO_MESSAGES, replace(TWO_MESSAGES, token_ids=(10, 11, 40, 41, 42, 15, 16, 17))], [1.0, 0.0], critic)
    (batch,), (lesson,) = credit.micro_batches, credit.lessons
    body, seen = (model if who == "actor" else critic.model).get_decoder(), []

    def keep(module, inputs, output):  # noqa: ANN001, ANN202
        output.last_hidden_state.retain_grad()
        seen.append(output.last_hidden_state)

    with torch.enable_grad():
        handle = body.register_forward_hook(keep)
        if who == "actor":
            loss = micro_batch_loss(model, None, batch, clip=1e6, kl_weight=0.0, temperature=1.0, loss="plain")[0]
        else:
            loss = critic.loss(batch, lesson, len(batch.targets))
        handle.remove()
    loss.backward()
    gradient = seen[0].grad.reshape(-1, seen[0].shape[-1]).abs().sum(dim=1)
    trained = torch.zeros(len(gradient), dtype=torch.bool)
    trained[batch.positions] = True
    assert (gradient[trained] > 0).all() and (gradient[~trained] == 0).all() and int(trained.sum()) == 10


def test_what_the_critic_would_say_at_retrieved_tokens_changes_nothing() -> None:
    """Values of all columns are replaced except at states that predict a policy token: the credit stays, bit by bit."""
    made, rewards = random_trajectories(4, seed=9), [1.0, 0.0, 0.5, 0.25]
    critic = critic_of(toy_model())
    torch.nn.init.normal_(critic.model.head.weight, generator=torch.Generator().manual_seed(0))
    before = judged(made, rewards, critic)
    untouched = {tuple(b.input_ids.flatten().tolist()): b.positions for b in before.micro_batches}
    body = critic.model.body

    def spoil(module, inputs, keywords, output):  # noqa: ANN001, ANN202
        positions = untouched[tuple(keywords["input_ids"].flatten().tolist())]
        flat = torch.full_like(output.last_hidden_state, 1e3).reshape(-1, output.last_hidden_state.shape[-1])
        flat[positions] = output.last_hidden_state.reshape(flat.shape)[positions]
        output.last_hidden_state = flat.reshape(output.last_hidden_state.shape)
        return output

    body.register_forward_hook(spoil, with_kwargs=True)
    after = judged(made, rewards, critic)
    for old, new in zip(before.micro_batches, after.micro_batches, strict=True):
        assert torch.equal(old.advantages, new.advantages)
    for old, new in zip(before.lessons, after.lessons, strict=True):
        assert torch.equal(old.values, new.values) and torch.equal(old.returns, new.returns)


def test_failed_trajectories_are_out_of_everything() -> None:
    made, critic = random_trajectories(3, seed=1), critic_of(toy_model())
    broken = replace(made[1], stop_reason="retriever_error", error="down")
    with_it = judged([made[0], broken, made[2]], [1.0, 0.9, 0.0], critic)
    without = judged([made[0], made[2]], [1.0, 0.0], critic)
    for a, b in zip(with_it.micro_batches, without.micro_batches, strict=True):
        assert torch.equal(a.advantages, b.advantages) and torch.equal(a.targets, b.targets)
    assert with_it.advantages[1] == 0.0 and with_it.measured == without.measured
    nobody = judged([broken], [0.9], critic)
    assert nobody.micro_batches == nobody.lessons == [] and nobody.measured == {}


# -- the critic itself ------------------------------------------------------------------------------------


def test_it_starts_at_zero_with_the_policys_body() -> None:
    model = toy_model()
    critic = critic_of(model)
    credit = judged(random_trajectories(2), [1.0, 0.0], critic)
    assert all((lesson.values == 0).all() for lesson in credit.lessons) and credit.measured["value_mean"] == 0.0
    assert credit.measured["explained_variance"] == 0.0  # a constant explains nothing
    pairs = list(zip(model.get_decoder().parameters(), critic.model.body.parameters(), strict=True))
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)


def test_it_learns_the_returns_and_leaves_the_policy_alone() -> None:
    model, made = toy_model(), random_trajectories(6, seed=4)
    before, critic = weights(model).clone(), critic_of(model, learning_rate=3e-3)
    rewards, losses = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], []
    for _ in range(40):
        credit = judged(made, rewards, critic)
        losses.append(critic.learn(credit.micro_batches, credit.lessons))
    assert losses[0] == pytest.approx(0.5 * np.mean([r for t, r in zip(made, rewards) for m in t.loss_mask if m]))
    assert losses[-1] < 0.1 * losses[0] and judged(made, rewards, critic).measured["explained_variance"] > 0.8
    assert torch.equal(before, weights(model))


def test_splits_of_a_ppo_batch_give_one_update() -> None:
    """The actor's gradient and the critic's, from many micro-batches and from one."""
    made, rewards = random_trajectories(6, seed=8), [1.0, 0.0, 0.5, 1.0, 0.0, 0.25]
    actors, critics = [], []
    for tokens in (60, 10_000):
        model = toy_model()
        critic = critic_of(model)
        torch.nn.init.normal_(critic.model.head.weight, 0.0, 0.1, generator=torch.Generator().manual_seed(0))
        credit = judged(made, rewards, critic, toy_model(seed=1), replace(PPO, micro_batch_tokens=tokens))
        for batch in credit.micro_batches:
            micro_batch_loss(model, None, batch, clip=0.2, kl_weight=0.0, temperature=1.0, loss="plain")[0].backward()
        n = sum(len(batch.targets) for batch in credit.micro_batches)
        for batch, lesson in zip(credit.micro_batches, credit.lessons, strict=True):
            critic.loss(batch, lesson, n).backward()
        actors.append((len(credit.micro_batches), torch.cat([p.grad.flatten() for p in model.parameters()])))
        critics.append(torch.cat([p.grad.flatten() for p in critic.model.parameters()]))
    assert actors[0][0] > actors[1][0] == 1
    torch.testing.assert_close(actors[0][1], actors[1][1], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(critics[0], critics[1], atol=1e-6, rtol=1e-4)


def test_packed_rows_teach_the_critic_the_same() -> None:
    """Values, advantages, the KL and a step of the critic, with an actor whose body attends as before afterwards."""
    made, rewards, found = random_trajectories(7, seed=8), [1.0, 0.0, 0.5, 0.0, 1.0, 0.3, 0.0], []
    for packed in (False, True):
        critic, reference = critic_of(toy_model()), toy_model(seed=1)
        torch.nn.init.normal_(critic.model.head.weight, generator=torch.Generator().manual_seed(0))
        settings = replace(PPO, micro_batch_tokens=60, kl_weight=0.1)
        credit = judged(made, rewards, critic, reference, settings, packed)
        assert all(bool(batch.segments) == packed for batch in credit.micro_batches) and len(credit.micro_batches) > 1
        loss = critic.learn(credit.micro_batches, credit.lessons)
        assert critic.model.body.config._attn_implementation == reference.config._attn_implementation == "sdpa"
        gradient = torch.cat([p.grad.flatten() for p in critic.model.parameters()])
        found.append((credit, loss, gradient))
    (padded, loss, gradient), (packed_credit, packed_loss, packed_gradient) = found
    np.testing.assert_allclose(packed_credit.advantages, padded.advantages, atol=1e-4)
    assert packed_credit.measured == pytest.approx(padded.measured, rel=1e-4) and packed_loss == pytest.approx(loss, rel=1e-5)
    assert ((packed_gradient - gradient).norm() / gradient.norm()).item() < 1e-4


def test_its_gradient_is_clipped() -> None:
    model = toy_model()
    critic = critic_of(model, max_grad_norm=1e-3)
    credit = judged(random_trajectories(3), [1.0, 0.0, 1.0], critic)
    critic.learn(credit.micro_batches, credit.lessons)
    norm = torch.cat([p.grad.flatten() for p in critic.model.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-2)


# -- saving and resuming ------------------------------------------------------------------------------------


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    made, rewards = random_trajectories(3), [1.0, 0.0, 0.5]
    straight, other = critic_of(toy_model(), warmup_steps=3), critic_of(toy_model(), warmup_steps=3)

    def step(critic: Critic) -> None:
        credit = judged(made, rewards, critic)
        critic.learn(credit.micro_batches, credit.lessons)

    step(straight)
    step(straight)
    straight.save(tmp_path)
    kept = copy.deepcopy(weights(straight.model))
    other.load(tmp_path)
    assert torch.equal(weights(other.model), kept)
    for critic in (straight, other):
        step(critic)
    assert torch.equal(weights(straight.model), weights(other.model)) and not torch.equal(kept, weights(other.model))


def test_a_resumed_ppo_training_ends_like_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    _, whole, model = train(tmp_path / "whole", PPO)
    stop_after(monkeypatch, 3)  # after the checkpoint of step 2 and one step more
    with pytest.raises(_Stopped):
        train(tmp_path / "cut", PPO)
    stage, resumed, again = train(tmp_path / "cut", PPO)
    assert stage.progressed == [(2, 4), (3, 4), (4, 4)]
    timeless = [c for c in whole if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(resumed[timeless], whole[timeless], check_exact=True)
    assert torch.equal(weights(model), weights(again))
    assert whole["value_loss"].notna().all() and whole["value_mean"].iloc[-1] != 0.0
    ends = [torch.load(tmp_path / name / "checkpoints" / "checkpoint-4" / FILE, weights_only=True)[0]
            for name in ("whole", "cut")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_a_checkpoint_without_its_critic_is_not_resumed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    train(tmp_path, PPO)
    folder = tmp_path / "checkpoints" / "checkpoint-4"
    assert FILE in (folder / checkpoints.MARKER).read_text()
    (folder / FILE).unlink()
    stage, _, _ = train(tmp_path, PPO)
    assert [done for done, _ in stage.progressed] == [2, 3, 4]


def test_other_algorithms_keep_no_critic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    train(tmp_path)
    assert not list(tmp_path.rglob(FILE))
