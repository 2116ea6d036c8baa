"""batching.py: which tokens are trained, where they stand, and what they weigh."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_toys import random_trajectories, toy_trajectory

from zerosearch.training.batching import make_micro_batches, token_weights, trained_tokens


def test_positions_and_targets_by_hand() -> None:
    # columns:            0  1 | 2   3   4   5   6   7
    # tokens:            10 11 | 20  21 [30  31] 22  23   retrieved in brackets, 23 not the policy's
    trajectory = toy_trajectory([10, 11], [20, 21, 30, 31, 22, 23], [1, 1, 0, 0, 1, 0], [-1, -2, 0, 0, -3, 0])
    (batch,) = make_micro_batches([trajectory], np.array([0.5]), pad_id=0, max_tokens=100)
    assert batch.input_ids.tolist() == [[10, 11, 20, 21, 30, 31]]  # 22 is only predicted, 23 not even that
    assert batch.positions.tolist() == [1, 2, 5]
    assert batch.targets.tolist() == [20, 21, 22]
    assert batch.old_logp.tolist() == [-1.0, -2.0, -3.0]
    assert batch.advantages.tolist() == [0.5] * 3
    assert batch.weights.tolist() == pytest.approx([1 / 3] * 3)


def test_padding_is_on_the_right_and_rows_are_flattened() -> None:
    long = toy_trajectory([5, 6, 7], [8, 9], [1, 1], index=0)
    short = toy_trajectory([5], [8], [1], index=1)
    (batch,) = make_micro_batches([short, long], np.array([1.0, -1.0]), pad_id=0, max_tokens=100)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [5, 0, 0, 0]]  # longest first
    assert batch.positions.tolist() == [2, 3, 4]  # the short row starts at cell 4
    assert batch.advantages.tolist() == [-1.0, -1.0, 1.0]


def test_end_of_text_is_trained_even_when_it_is_the_pad_token() -> None:
    trajectory = toy_trajectory([5], [8, 0], [1, 1])
    (batch,) = make_micro_batches([trajectory], np.array([1.0]), pad_id=0, max_tokens=100)
    assert batch.targets.tolist() == [8, 0]


def test_failed_rollouts_and_rows_without_policy_tokens_are_left_out() -> None:
    failed = toy_trajectory([5], [8, 9], [1, 1], stop="retriever_error", index=0)
    empty = toy_trajectory([5], [5], [0], stop="length", index=1)
    good = toy_trajectory([5], [8], [1], index=2)
    batches = make_micro_batches([failed, empty, good], np.ones(3), pad_id=0, max_tokens=100)
    assert len(batches) == 1 and batches[0].targets.tolist() == [8]
    assert batches[0].weights.tolist() == [1.0]
    assert make_micro_batches([failed, empty], np.ones(2), pad_id=0, max_tokens=100) == []


def test_weights_by_hand() -> None:
    assert token_weights([1, 3]).tolist() == [0.25, 0.25]
    assert token_weights([1, 3], "sequence").tolist() == pytest.approx([0.5, 1 / 6])
    assert token_weights([0, 2], "sequence").tolist() == [0.0, 0.5]
    assert token_weights([0, 0]).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="'token' or 'sequence'"):
        token_weights([1], "mean")  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.sampled_from(["token", "sequence"]))
def test_weights_sum_to_one_over_the_tokens(counts: list[int], normalisation: str) -> None:
    total = float((token_weights(counts, normalisation) * np.array(counts)).sum())  # type: ignore[arg-type]
    assert total == pytest.approx(1.0 if any(counts) else 0.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(1, 400), st.integers(0, 1000))
def test_a_split_loses_and_doubles_nothing(count: int, max_tokens: int, seed: int) -> None:
    trajectories = random_trajectories(count, seed)
    batches = make_micro_batches(trajectories, np.arange(count, dtype=float), pad_id=0, max_tokens=max_tokens)
    trained = sum(len(b.targets) for b in batches)
    assert trained == sum(trained_tokens(t) for t in trajectories)
    assert float(sum(b.weights.sum() for b in batches)) == pytest.approx(1.0, abs=1e-5)
    wanted = sorted(tok for t in trajectories for tok, own in zip(t.token_ids, t.loss_mask) if own)
    assert sorted(torch.cat([b.targets for b in batches]).tolist()) == wanted
    for batch in batches:
        rows, width = batch.input_ids.shape
        assert rows * width <= max_tokens or rows == 1
    widths = [b.input_ids.shape[1] for b in batches]
    assert widths == sorted(widths, reverse=True)


def test_refuses_what_does_not_fit_together() -> None:
    trajectory = toy_trajectory([5], [8], [1])
    with pytest.raises(ValueError, match="expected 1 advantages, one per trajectory, found 2"):
        make_micro_batches([trajectory], np.zeros(2), pad_id=0, max_tokens=9)
    with pytest.raises(ValueError, match="prompt of at least one token"):
        make_micro_batches([toy_trajectory([], [8], [1])], np.zeros(1), pad_id=0, max_tokens=9)
