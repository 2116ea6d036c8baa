"""Tests of differences against numbers by hand, against scipy, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test, t

from zerosearch.evaluation.paired_tests import holm, is_binary, mcnemar, sign_flips, welch_seeds


def pairs(only_a: int, only_b: int, both: int = 3, neither: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return two columns of 0 and 1 with these counts of questions."""
    a = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    b = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    return np.array(a, dtype=float), np.array(b, dtype=float)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (0, 6, 2 / 64), (6, 1, 2 * (1 + 7) / 128), (3, 3, 1.0)],
)
def test_mcnemar_counts_coins(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(*pairs(only_a, only_b)) == pytest.approx(p)


def test_mcnemar_sees_only_the_questions_on_which_one_is_right() -> None:
    assert mcnemar(*pairs(6, 1)) == mcnemar(*pairs(6, 1, both=400, neither=500))


def test_sign_flips_by_hand() -> None:
    """Three differences of 1: of the eight patterns two are as far from 0."""
    assert sign_flips({"nq": np.ones((3, 1))})["nq"] == pytest.approx([0.25])
    # 3, 1, 1: sums 5, 3, 3, 1 and their negatives; the observed 5 is reached twice in eight
    assert sign_flips({"nq": np.array([[3.0], [1.0], [1.0]])})["nq"] == pytest.approx([0.25])
    assert sign_flips({"nq": np.array([[2.0], [-1.0]])})["nq"] == pytest.approx([1.0])
    assert sign_flips({"nq": np.zeros((4, 1))})["nq"] == pytest.approx([1.0])


def test_all_patterns_equal_scipy_and_mcnemar() -> None:
    rng = np.random.default_rng(0)
    f1 = np.round(rng.random(9) - 0.3, 2)
    expected = permutation_test(
        (f1,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    ).pvalue
    a, b = pairs(6, 1, both=1, neither=1)
    found = sign_flips({"nq": np.column_stack([f1, a - b])})["nq"]
    assert found == pytest.approx([expected, mcnemar(a, b)])


def test_drawn_patterns_come_near_the_exact_p() -> None:
    a, b = pairs(30, 14, both=50, neither=50)
    drawn = sign_flips({"nq": (a - b)[:, None]}, 20_000)["nq"][0]
    exact = mcnemar(a, b)
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


def test_a_drawn_p_is_never_zero() -> None:
    """Twenty ones: no draw of 50 reaches the two patterns in a million; Hoeffding's bound is 2 exp(-10)."""
    found = sign_flips({"nq": np.ones((20, 1))}, 50)["nq"][0]
    assert found == pytest.approx(2 * np.exp(-10)) and found > 2 / 2**20
    # nine ones among 500 questions: the bound 2 exp(-4.5) says less than 1 in 100
    weak = np.zeros((500, 1))
    weak[:9] = 1.0
    assert sign_flips({"nq": weak}, 99)["nq"][0] == pytest.approx(0.01)


def test_the_average_is_unweighted_and_uses_every_set() -> None:
    """One set of two certain questions, one of 40 without any effect: p of the average is that of both means."""
    values = {"small": np.ones((2, 1)), "large": np.tile([[1.0], [-1.0]], (20, 1))}
    found = sign_flips(values, 20_000)
    assert found["small"] == pytest.approx([0.5]) and found["large"][0] == pytest.approx(1.0)
    # mean of small is +-1 or 0; sums of both means reach 1 when small is +-1 and large is on its side or 0
    even = np.random.default_rng(1).choice([-1, 1], (20_000, 40)).mean(axis=1)
    small = np.random.default_rng(2).choice([-1, 1], (20_000, 2)).mean(axis=1)
    assert found["average"][0] == pytest.approx((np.abs(even + small) >= 1 - 1e-9).mean(), abs=0.02)


def test_one_set_is_its_own_average() -> None:
    values = {"nq": np.array([[0.5], [0.25], [-0.125]])}
    assert sign_flips(values)["average"] == sign_flips(values)["nq"]


def test_same_seed_same_p_whatever_the_order_of_the_sets() -> None:
    rng = np.random.default_rng(0)
    values = {"nq": rng.normal(0.1, 1, (40, 2)), "popqa": rng.normal(0.1, 1, (30, 2))}
    first, other = sign_flips(values, 300), sign_flips(dict(reversed(values.items())), 300)
    assert all((first[name] == other[name]).all() for name in first)
    assert (sign_flips(values, 300, seed=1)["nq"] != first["nq"]).any()


def test_p_is_below_alpha_no_more_often_than_promised() -> None:
    """2,000 columns without an effect: about 5 in 100 below 0.05 (three standard errors above are allowed)."""
    values = np.random.default_rng(3).normal(0, 1, (30, 2_000))
    assert (sign_flips({"nq": values}, 999)["nq"] < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2_000)


def test_welch_by_hand() -> None:
    """Means 0.5 and 0.2, variances 0.01 and 0.04 over three seeds: SE^2 = 0.05 / 3, df by Satterthwaite."""
    a, b = [0.4, 0.5, 0.6], [0.0, 0.2, 0.4]
    first, second = 0.01 / 3, 0.04 / 3
    df = (first + second) ** 2 / (first**2 / 2 + second**2 / 2)
    assert welch_seeds(a, b) == pytest.approx(2 * t.sf(0.3 / np.sqrt(first + second), df))
    assert welch_seeds(b, a) == pytest.approx(welch_seeds(a, b))


def test_seeds_against_a_fixed_number() -> None:
    """Mean 0.5, standard error 0.1 / sqrt(3), two degrees of freedom."""
    expected = 2 * t.sf(0.2 / (0.1 / np.sqrt(3)), 2)
    assert welch_seeds([0.4, 0.5, 0.6], [0.3]) == pytest.approx(expected)
    assert welch_seeds([0.3], [0.4, 0.5, 0.6]) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b"), [([0.5], [0.4]), ([0.5, 0.5], [0.4]), ([0.5, 0.5], [0.4, 0.4])])
def test_without_spread_over_seeds_there_is_no_p(a: list[float], b: list[float]) -> None:
    assert np.isnan(welch_seeds(a, b))


def test_seeds_without_spread_are_a_fixed_number() -> None:
    assert welch_seeds([0.4, 0.5, 0.6], [0.3, 0.3, 0.3]) == pytest.approx(welch_seeds([0.4, 0.5, 0.6], [0.3]))


def test_holm_published_example() -> None:
    """Four hypotheses from the encyclopaedia's article on the Holm-Bonferroni method: the first and the last fall."""
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert list(adjusted < 0.05) == [True, False, False, True]


def test_holm_by_hand() -> None:
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([0.5, 0.6, 0.9]) == pytest.approx([1.0, 1.0, 1.0])
    assert holm([0.01, 0.01, 0.01]) == pytest.approx([0.03, 0.03, 0.03])
    with_gap = holm([0.02, float("nan"), 0.03])
    assert with_gap[[0, 2]] == pytest.approx([0.04, 0.04]) and np.isnan(with_gap[1])
    assert holm([]).size == 0


def test_binary_values() -> None:
    assert is_binary(np.array([0.0, 1.0]), np.array([1.0]))
    assert not is_binary(np.array([0.0, 1.0]), np.array([0.5]))
