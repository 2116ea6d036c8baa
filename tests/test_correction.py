"""Importance correction: hand-computed weights, losses and gradients; engines that cannot train are refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zerosearch.errors import ConfigError
from zerosearch.training.correction import Correction, importance_weights
from zerosearch.training.objective import policy_loss

LN2, LN3 = math.log(2.0), math.log(3.0)
TOKEN, SEQUENCE = Correction("token", 2.0), Correction("sequence", 2.0)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


SAMPLER = vector(-1.0, -1.0, -1.0, -1.0)
TRAINER = SAMPLER + vector(LN3, -LN2, LN2, LN2)  # ratios 3, 1/2 | 2, 2
ROWS = torch.tensor([0, 0, 1, 1])  # products 3/2 | 4


def test_weights_by_hand() -> None:
    assert importance_weights(TRAINER, SAMPLER, ROWS, Correction()).tolist() == pytest.approx([3.0, 0.5, 2.0, 2.0])
    assert importance_weights(TRAINER, SAMPLER, ROWS, TOKEN).tolist() == pytest.approx([2.0, 0.5, 2.0, 2.0])
    # the second trajectory's ratio, 4, is above the cap: both of its tokens go
    assert importance_weights(TRAINER, SAMPLER, ROWS, SEQUENCE).tolist() == pytest.approx([1.5, 1.5, 0.0, 0.0])


def test_loss_gradient_and_terms_by_hand() -> None:
    advantages, share = vector(1.0, -1.0, 1.0, 2.0), torch.full((4,), 0.25, dtype=torch.float64)
    logp = TRAINER.clone().requires_grad_()
    loss, terms = policy_loss(logp, SAMPLER, advantages, share, clip=0.2, correction=TOKEN, rows=ROWS)
    loss.backward()
    # r is 1 on-policy: -w A / 4 summed, and the gradient of r is 1: nothing is clipped
    assert loss.item() == pytest.approx(-(2.0 - 0.5 + 2.0 + 4.0) / 4)
    assert logp.grad.tolist() == pytest.approx([-0.5, 0.125, -0.5, -1.0])
    assert (terms.n_clipped, terms.n_dropped) == (0, 0)
    assert (terms.weight_sum, terms.weight_square_sum) == pytest.approx((6.5, 12.25))
    assert terms.gaps == pytest.approx((LN3, LN2, LN2, LN2)) and terms.gap_sum == pytest.approx(LN3 + 3 * LN2)
    logp = TRAINER.clone().requires_grad_()
    loss, terms = policy_loss(logp, SAMPLER, advantages, share, clip=0.2, correction=SEQUENCE, rows=ROWS)
    loss.backward()
    assert loss.item() == pytest.approx(0.0) and terms.n_dropped == 2  # -1.5 + 1.5, the others gone
    assert logp.grad.tolist() == pytest.approx([-0.375, 0.375, 0.0, 0.0])


def test_the_kl_is_not_weighted() -> None:
    logp, ref, one = vector(-1.0), vector(-1.0 + LN2), vector(1.0)
    loss, _ = policy_loss(
        logp, logp - 10.0, vector(0.0), one, clip=0.2, ref_logp=ref, kl_weight=1.0, correction=Correction("sequence")
    )
    assert loss.item() == pytest.approx(1.0 - LN2)  # k3 = 2 - ln 2 - 1 although the trajectory is dropped


@given(st.lists(st.floats(-3.0, 0.0), min_size=1, max_size=8), st.sampled_from(["none", "token", "sequence"]))
def test_where_sampler_and_trainer_agree_all_kinds_are_the_same(values: list[float], kind: str) -> None:
    logp, size = vector(*values), len(values)
    advantages, share = torch.linspace(-1, 1, size).double(), torch.full((size,), 1 / size, dtype=torch.float64)
    found, terms = policy_loss(logp, logp, advantages, share, clip=0.2, correction=Correction(kind))  # type: ignore[arg-type]
    plain, _ = policy_loss(logp, logp, advantages, share, clip=0.2)
    assert found.item() == plain.item() and terms.n_dropped == 0
    assert terms.weight_sum**2 / (size * terms.weight_square_sum) == pytest.approx(1.0)


def test_wrong_corrections() -> None:
    with pytest.raises(ConfigError, match="did you mean 'token'"):
        Correction("tokens")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cap of at least 1, found 0.5"):
        Correction("token", 0.5)
