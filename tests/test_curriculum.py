"""curriculum.py: the published formula, by hand and by its properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosearch.curriculum import Curriculum, constant, mean_rise, noise_probability

probabilities = st.floats(0.0, 1.0)
bases = st.floats(0.05, 50.0)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),  # 4^0 - 1 = 0
        (50, 0.5 / 3.0),  # 4^(1/2) = 2, so (2 - 1) / 3 of the rise
        (25, (math.sqrt(2.0) - 1.0) / 3.0 * 0.5),  # 4^(1/4) = sqrt 2
        (100, 0.5),
    ],
)
def test_published_formula_by_hand(step: int, expected: float) -> None:
    assert noise_probability(step, 100, 0.0, 0.5, base=4.0) == pytest.approx(expected, abs=1e-12)


def test_start_is_added() -> None:
    # p_s = 0.25, p_e = 0.5 (the published range of Llama-3.2-3B), half way: 0.25 + 1/3 * 0.25
    assert noise_probability(5, 10, 0.25, 0.5) == pytest.approx(0.25 + 0.25 / 3.0)


def test_base_one_is_the_straight_line() -> None:
    assert noise_probability(3, 10, 0.0, 1.0, base=1.0) == pytest.approx(0.3)
    assert noise_probability(3, 10, 0.0, 1.0, base=1.0001) == pytest.approx(0.3, abs=1e-4)


def test_reversed_curriculum_falls() -> None:
    values = Curriculum(start=0.5, end=0.0, total_steps=20).schedule()
    assert values == sorted(values, reverse=True) and values[-1] == 0.0


def test_mean_rise_of_base_four_is_the_known_0_388() -> None:
    assert mean_rise(4.0) == pytest.approx(0.388, abs=5e-4)
    values = Curriculum(start=0.0, end=1.0, total_steps=20_000).schedule()
    assert sum(values) / len(values) == pytest.approx(mean_rise(4.0), abs=1e-4)
    assert mean_rise(1.0) == 0.5


def test_constant_has_no_rise() -> None:
    assert constant(0.0, 7).schedule() == [0.0] * 7


@given(st.integers(1, 300), probabilities, probabilities, bases)
def test_stays_between_start_and_end_and_never_turns(total: int, start: float, end: float, base: float) -> None:
    values = [noise_probability(i, total, start, end, base) for i in range(total + 1)]
    assert values[0] == pytest.approx(start) and values[-1] == pytest.approx(end)
    assert all(min(start, end) <= v <= max(start, end) for v in values)
    rising = values if end >= start else values[::-1]
    assert all(b >= a - 1e-12 for a, b in zip(rising, rising[1:]))


@given(st.integers(1, 100), st.integers(2, 5))
def test_only_progress_counts(step: int, factor: int) -> None:
    """Twice the steps at the same progress: the same noise."""
    longer = noise_probability(step * factor, 100 * factor, 0.0, 0.5)
    assert noise_probability(step, 100, 0.0, 0.5) == pytest.approx(longer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((11, 10, 0.0, 0.5), "step from 0 to 10, found 11"),
        ((-1, 10, 0.0, 0.5), "found -1"),
        ((1, 0, 0.0, 0.5), "at least 1 step"),
        ((1, 10, -0.1, 0.5), "start: expected a probability"),
        ((1, 10, 0.0, 1.5), "end: expected a probability"),
        ((1, 10, 0.0, 0.5, 0.0), "above 0"),
    ],
)
def test_refuses_what_makes_no_sense(arguments: tuple, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        noise_probability(*arguments)
