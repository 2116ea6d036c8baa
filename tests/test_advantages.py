"""advantages.py: hand-computed groups, and what every estimator must keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosearch.errors import ConfigError
from zerosearch.training.advantages import ESTIMATORS, STD_EPSILON, group_advantages

rewards_lists = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12)


def one_group(rewards: list[float], kind: str) -> np.ndarray:
    return group_advantages(np.array(rewards), np.zeros(len(rewards), dtype=int), kind)


def test_grpo_by_hand() -> None:
    # mean 0.5; squared distances 4 * 0.25 = 1; std = sqrt(1 / 3)
    std = math.sqrt(1.0 / 3.0)
    expected = np.array([0.5, 0.5, -0.5, -0.5]) / (std + STD_EPSILON)
    np.testing.assert_allclose(one_group([1.0, 1.0, 0.0, 0.0], "grpo"), expected, rtol=1e-12)


def test_leave_one_out_by_hand() -> None:
    # the others' means: (0 + 0.5)/2, (1 + 0.5)/2, (1 + 0)/2
    np.testing.assert_allclose(one_group([1.0, 0.0, 0.5], "leave_one_out"), [0.75, -0.75, 0.0], atol=1e-12)


def test_centered_and_plain_by_hand() -> None:
    np.testing.assert_allclose(one_group([1.0, 0.0, 0.5], "centered"), [0.5, -0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(one_group([1.0, 0.0, 0.5], "plain"), [1.0, 0.0, 0.5])


@pytest.mark.parametrize("kind", ["grpo", "centered", "leave_one_out"])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 2.0 / 3.0])
def test_equal_rewards_teach_nothing(kind: str, value: float) -> None:
    """All wrong, all right, all the same: exact zeros, not rounding noise divided by a tiny std."""
    assert (one_group([value] * 8, kind) == 0.0).all()


def test_plain_pays_even_without_contrast() -> None:
    assert (one_group([1.0] * 3, "plain") == 1.0).all()


def test_groups_are_independent_and_interleaved() -> None:
    rewards, groups = np.array([1.0, 0.2, 0.0, 0.4]), np.array([7, 3, 7, 3])
    made = group_advantages(rewards, groups, "centered")
    np.testing.assert_allclose(made, [0.5, -0.1, -0.5, 0.1], atol=1e-12)


def test_failed_trajectories_leave_the_baseline_and_get_zero() -> None:
    rewards = np.array([1.0, 0.0, 0.0, 0.5])
    valid = np.array([True, True, False, True])
    made = group_advantages(rewards, np.zeros(4, dtype=int), "leave_one_out", valid)
    np.testing.assert_allclose(made, [0.75, -0.75, 0.0, 0.0], atol=1e-12)  # mean of the valid others


@pytest.mark.parametrize(
    ("kind", "expected"), [("grpo", 0.0), ("leave_one_out", 0.0), ("centered", 0.0), ("plain", 0.7)]
)
def test_a_group_of_one(kind: str, expected: float) -> None:
    made = group_advantages(np.array([0.7, 0.3]), np.zeros(2, dtype=int), kind, np.array([True, False]))
    np.testing.assert_allclose(made, [expected, 0.0])


def test_no_valid_member_and_no_trajectory() -> None:
    nobody = np.zeros(2, dtype=bool)
    assert (group_advantages(np.array([1.0, 0.5]), np.zeros(2, dtype=int), "plain", nobody) == 0).all()
    assert group_advantages(np.array([]), np.array([], dtype=int)).shape == (0,)


@given(rewards_lists, st.sampled_from(["grpo", "centered", "leave_one_out"]))
def test_baselines_centre_every_group(rewards: list[float], kind: str) -> None:
    assert abs(one_group(rewards, kind).mean()) < 1e-6


@given(rewards_lists)
def test_leave_one_out_is_the_centered_one_scaled(rewards: list[float]) -> None:
    n = len(rewards)
    np.testing.assert_allclose(
        one_group(rewards, "leave_one_out"), one_group(rewards, "centered") * n / (n - 1), atol=1e-9
    )


@given(rewards_lists, st.sampled_from(sorted(ESTIMATORS)), st.randoms(use_true_random=False))
def test_order_of_the_rows_does_not_matter(rewards: list[float], kind: str, random) -> None:  # noqa: ANN001
    order = list(range(len(rewards)))
    random.shuffle(order)
    direct = one_group(rewards, kind)[order]
    np.testing.assert_allclose(one_group([rewards[i] for i in order], kind), direct, atol=1e-9)


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="leave_one_out"):
        one_group([0.0, 1.0], "leave_one")


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(2,\), \(3,\)"):
        group_advantages(np.zeros(2), np.zeros(3))
