"""pass@k: the estimate by hand, its table over questions and training seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch.errors import ConfigError
from zerosearch.evaluation.pass_at_k import PASS_COLUMNS, pass_at_k, pass_at_k_table


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (5, 0, 1, 0.0), (5, 5, 3, 1.0), (5, 2, 1, 0.4), (5, 2, 2, 1 - 3 / 10), (5, 2, 3, 1 - 1 / 10), (5, 2, 4, 1.0),
        (10, 3, 5, 1 - 21 / 252), (1, 1, 1, 1.0), (200, 1, 100, 0.5),
    ],
)
def test_pass_at_k_by_hand(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected)


def test_pass_at_k_is_unbiased_where_the_power_is_not() -> None:
    """Six samples, each right with chance 0.3: the mean of the estimate is 1 - 0.7^3 exactly."""
    chances = [(c, 0.3**c * 0.7 ** (6 - c) * w) for c, w in enumerate((1, 6, 15, 20, 15, 6, 1))]
    assert sum(p * pass_at_k(6, c, 3) for c, p in chances) == pytest.approx(1 - 0.7**3)
    assert sum(p * (1 - (1 - c / 6) ** 3) for c, p in chances) < 1 - 0.7**3 - 0.01


def samples(right: dict[str, str], method: str = "m", seed: int = 0) -> pd.DataFrame:
    """Return samples of questions: ``{"a": "100"}`` is one right answer and two wrong ones to question a."""
    rows = [(method, seed, "nq", q, float(c)) for q, marks in right.items() for c in marks]
    return pd.DataFrame(rows, columns=["method", "seed", "dataset", "question_id", "em"])


def test_the_table_by_hand() -> None:
    table = pass_at_k_table(samples({"a": "1000", "b": "0000"}), n_resamples=200)
    assert list(table.columns) == PASS_COLUMNS
    of_set = table[table["dataset"] == "nq"]
    assert of_set["k"].tolist() == [1, 2, 3, 4]
    assert of_set["value"].tolist() == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert (of_set[["n", "samples", "seeds"]] == [2, 4, 1]).all(axis=None)
    assert (of_set["low"] == 0.0).all() and of_set["high"].tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_training_seeds_are_averaged_and_widen_the_interval() -> None:
    marks = {str(i): "10" for i in range(8)}
    alike = pd.concat([samples(marks, seed=0), samples(marks, seed=1)])
    apart = pd.concat([samples({q: "11" for q in marks}, seed=0), samples({q: "00" for q in marks}, seed=1)])
    first, second = (pass_at_k_table(t, (1,), n_resamples=500).iloc[0] for t in (alike, apart))
    assert first["value"] == second["value"] == 0.5 and first["seeds"] == second["seeds"] == 2
    assert (first["low"], first["high"]) == (0.5, 0.5) and (second["low"], second["high"]) == (0.0, 1.0)


def test_more_ks_than_samples_and_uneven_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 <= k <= samples"):
        pass_at_k_table(samples({"a": "10"}), (3,))
    with pytest.raises(ConfigError, match="found 1 to 2; delete samples.parquet"):
        pass_at_k_table(samples({"a": "10", "b": "1"}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("01", min_size=4, max_size=4), min_size=1, max_size=6))
def test_more_tries_never_hurt(marks: list[str]) -> None:
    values = pass_at_k_table(samples({str(i): m for i, m in enumerate(marks)}), n_resamples=0)
    values = values[values["dataset"] == "average"]["value"].tolist()
    assert values == sorted(values) and values[-1] == pytest.approx(np.mean(["1" in m for m in marks]))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, 1, 0), (3, -1, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ConfigError, match="1 <= k <= samples"):
        pass_at_k(n, c, k)
