"""objective.py: hand-computed losses, the sign of the KL, the clip, and no gradient from retrieved tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_toys import random_trajectories, toy_model

from zerosearch.training.batching import MicroBatch, make_micro_batches
from zerosearch.training.objective import kl_estimate, policy_loss, token_logprobs


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


HALF = vector(0.5, 0.5)


def test_two_token_toy_by_hand() -> None:
    # ratios: exp(0.1) = 1.10517 inside the clip, exp(-0.1) = 0.90484 inside; A = +1 and -2
    logp, old = vector(-1.0, -2.0), vector(-1.1, -1.9)
    loss, terms = policy_loss(logp, old, vector(1.0, -2.0), HALF, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * (-math.exp(0.1)) + 0.5 * (2.0 * math.exp(-0.1)))
    assert (terms.n_tokens, terms.n_clipped, terms.kl_sum) == (2, 0, 0.0)
    assert terms.gap_sum == pytest.approx(0.2)


def test_clip_by_hand() -> None:
    # ratio 1.5 with A = +1: gain cut to 1.2.  ratio 0.5 with A = -1: cut to -0.8.
    logp, old = vector(math.log(1.5), math.log(0.5)), vector(0.0, 0.0)
    loss, terms = policy_loss(logp, old, vector(1.0, -1.0), HALF, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * -1.2 + 0.5 * 0.8)
    assert terms.n_clipped == 2


def test_clip_does_not_soften_what_got_worse() -> None:
    # ratio 0.5 with A = +1, ratio 1.5 with A = -1: the pessimistic side is kept whole
    logp, old = vector(math.log(0.5), math.log(1.5)), vector(0.0, 0.0)
    loss, terms = policy_loss(logp, old, vector(1.0, -1.0), HALF, clip=0.2)
    assert loss.item() == pytest.approx(0.5 * -0.5 + 0.5 * 1.5)
    assert terms.n_clipped == 0


def test_a_clipped_token_has_no_gradient() -> None:
    logp = vector(math.log(1.5), -1.0).requires_grad_()
    loss, _ = policy_loss(logp, vector(0.0, -1.0), vector(1.0, 1.0), HALF, clip=0.2)
    loss.backward()
    assert logp.grad.tolist() == pytest.approx([0.0, -0.5])


def test_gradient_pushes_good_tokens_up_and_bad_ones_down() -> None:
    logp = vector(-1.0, -1.0).requires_grad_()
    loss, _ = policy_loss(logp, logp.detach(), vector(2.0, -1.0), HALF, clip=0.2)
    loss.backward()
    assert logp.grad.tolist() == pytest.approx([-1.0, 0.5])  # -w * A; descent moves against it


def test_k3_by_hand() -> None:
    # reference twice as likely: d = ln 2, k3 = 2 - ln 2 - 1;  half as likely: 0.5 + ln 2 - 1
    found = kl_estimate(vector(0.0, 0.0), vector(math.log(2.0), -math.log(2.0)))
    assert found.tolist() == pytest.approx([1.0 - math.log(2.0), math.log(2.0) - 0.5])


@given(st.floats(-8.0, 0.0), st.floats(-8.0, 0.0))
def test_k3_is_never_negative_and_zero_at_home(logp: float, ref: float) -> None:
    assert kl_estimate(vector(logp), vector(ref)).item() >= 0.0
    assert kl_estimate(vector(logp), vector(logp)).item() == 0.0


def test_k3_is_the_kl_in_expectation() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    exact = (p * (p / q).log()).sum().item()
    assert (p * kl_estimate(p.log(), q.log())).sum().item() == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("drift", [0.3, -0.3, 1.0])
def test_kl_is_added_so_the_loss_rises_with_drift(drift: float) -> None:
    """The reference implementation subtracted it, which pays the policy for leaving the base model."""
    ref = vector(-1.0, -2.0)
    zero = vector(0.0, 0.0)
    arguments = {"clip": 0.2, "kl_weight": 0.1}
    at_home, _ = policy_loss(ref, ref, zero, HALF, ref_logp=ref, **arguments)
    drifted, terms = policy_loss(ref + drift, ref + drift, zero, HALF, ref_logp=ref, **arguments)
    assert at_home.item() == 0.0
    assert drifted.item() == pytest.approx(0.1 * (math.exp(-drift) + drift - 1.0)) and drifted.item() > 0
    assert terms.kl_sum == pytest.approx(2 * (math.exp(-drift) + drift - 1.0))


def test_kl_gradient_pulls_back_to_the_reference() -> None:
    logp = vector(-0.5, -3.0).requires_grad_()  # one above, one below the reference
    loss, _ = policy_loss(
        logp, logp.detach(), vector(0.0, 0.0), HALF, clip=0.2, ref_logp=vector(-1.0, -2.0), kl_weight=1.0
    )
    loss.backward()
    assert logp.grad[0] > 0 > logp.grad[1]  # descent lowers the first and raises the second


# -- through the model ----------------------------------------------------------------------------


def batch_loss(model: torch.nn.Module, batch: MicroBatch, temperature: float = 1.0) -> torch.Tensor:
    logp, _ = token_logprobs(model, batch.input_ids, batch.positions, batch.targets, temperature)
    loss, _ = policy_loss(logp, batch.old_logp, batch.advantages, batch.weights, clip=0.2)
    return loss


def test_logprobs_equal_a_plain_forward_pass_row_by_row() -> None:
    """Right padding without a mask, cut ends, selected rows: the same numbers as one row at a time."""
    model, trajectories = toy_model(), random_trajectories(6)
    (batch,) = make_micro_batches(trajectories, np.zeros(6), pad_id=0, max_tokens=10_000)
    logp, entropy = token_logprobs(
        model, batch.input_ids, batch.positions, batch.targets, temperature=0.7, with_entropy=True
    )
    expected, entropies = [], []
    for t in sorted(trajectories, key=lambda t: -_trained_length(t)):
        ids = torch.tensor([t.prompt_ids + t.token_ids])
        scores = torch.log_softmax(model(input_ids=ids).logits[0].double() / 0.7, dim=-1)
        for i, own in enumerate(t.loss_mask):
            if own:
                at = scores[len(t.prompt_ids) + i - 1]
                expected.append(at[t.token_ids[i]].item())
                entropies.append(-(at.exp() * at).sum().item())
    np.testing.assert_allclose(logp.detach().numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(entropy.numpy(), entropies, atol=2e-5)


def _trained_length(t) -> int:  # noqa: ANN001
    return len(t.prompt_ids) + max(i for i, own in enumerate(t.loss_mask) if own) + 1


def test_gradient_is_exactly_zero_on_every_retrieved_token() -> None:
    """Through the real model: the state that would predict a retrieved, prompt or padding token gets 0."""
    model, trajectories = toy_model(), random_trajectories(5, seed=3)
    (batch,) = make_micro_batches(trajectories, np.array([1.0, -1.0, 0.5, -0.5, 2.0]), pad_id=0, max_tokens=10_000)
    on_policy, _ = token_logprobs(model, batch.input_ids, batch.positions, batch.targets)
    batch = replace(batch, old_logp=on_policy.detach())
    kept: list[torch.Tensor] = []

    def keep(module, inputs, output) -> None:  # noqa: ANN001
        output.retain_grad()
        kept.append(output)

    handle = model.get_decoder().norm.register_forward_hook(keep)
    batch_loss(model, batch).backward()
    handle.remove()
    gradient = kept[0].grad.reshape(-1, kept[0].shape[-1])
    trained = torch.zeros(len(gradient), dtype=torch.bool)
    trained[batch.positions] = True
    assert (~trained).sum() > 20
    assert (gradient[~trained] == 0.0).all()
    assert (gradient[trained].abs().sum(dim=1) > 0).all()


def test_retrieved_tokens_are_read_but_never_learned() -> None:
    """A token that occurs only in retrieved text gets no gradient on its output row."""
    model = toy_model(tie_word_embeddings=False)
    (trajectory,) = random_trajectories(1, seed=1, vocab_size=50)
    block = [i for i, own in enumerate(trajectory.loss_mask) if not own]
    tokens = list(trajectory.token_ids)
    tokens[block[0]] = 55  # occurs nowhere else
    changed = type(trajectory)(
        trajectory.question, trajectory.prompt_ids, tuple(tokens), trajectory.loss_mask, trajectory.logprobs,
        (), "answer",
    )
    (batch,) = make_micro_batches([changed], np.ones(1), pad_id=0, max_tokens=10_000)
    assert 55 in batch.input_ids and 55 not in batch.targets
    batch_loss(model, batch).backward()
    read = model.get_input_embeddings().weight.grad[55].abs().sum()
    assert read > 0  # it was context for later policy tokens


@pytest.mark.parametrize("normalisation", ["token", "sequence"])
def test_micro_batch_splits_agree(normalisation: str) -> None:
    """1 x 12, 3 x 4 or 12 x 1 rows: the same loss and the same gradient, to rounding."""
    trajectories, advantages = random_trajectories(12, seed=5), np.linspace(-1.0, 2.0, 12)
    found = []
    for max_tokens in (10_000, 120, 1):
        model = toy_model()
        batches = make_micro_batches(
            trajectories, advantages, pad_id=0, max_tokens=max_tokens, normalisation=normalisation
        )
        total = 0.0
        for batch in batches:
            loss = batch_loss(model, batch)
            loss.backward()
            total += loss.item()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found.append((len(batches), total, gradient))
    assert [n for n, _, _ in found][0] == 1 and found[2][0] == 12 and 1 < found[1][0] < 12
    for _, total, gradient in found[1:]:
        assert total == pytest.approx(found[0][1], abs=1e-6)
        torch.testing.assert_close(gradient, found[0][2], atol=1e-6, rtol=1e-4)


def test_skipping_idle_rows_changes_neither_loss_nor_gradient() -> None:
    """Groups without contrast have advantage 0: without a KL they may be left out, their weight stays."""
    trajectories, advantages = random_trajectories(8, seed=6), np.array([0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.5, 0.0])
    found = []
    for skip_idle in (False, True):
        model = toy_model()
        (batch,) = make_micro_batches(trajectories, advantages, pad_id=0, max_tokens=10_000, skip_idle=skip_idle)
        loss = batch_loss(model, batch)
        loss.backward()
        found.append((len(batch.input_ids), loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert (found[0][0], found[1][0]) == (8, 3)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-6)
    torch.testing.assert_close(found[0][2], found[1][2], atol=1e-6, rtol=1e-4)


def test_the_pad_id_changes_nothing() -> None:
    model, trajectories = toy_model(), random_trajectories(4, seed=9)
    losses = []
    for pad_id in (0, 7):
        (batch,) = make_micro_batches(trajectories, np.ones(4), pad_id=pad_id, max_tokens=10_000)
        losses.append(batch_loss(model, batch).item())
    assert losses[0] == losses[1]
