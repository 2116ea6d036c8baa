"""Draws of fewer questions: by hand, against the closed form, and what they say of two close methods."""

from __future__ import annotations

import numpy as np
import pytest
from test_statistics import coin, one, predictions

from zerosearch.errors import ConfigError
from zerosearch.evaluation.subsets import ORDER_COLUMNS, SUBSET_COLUMNS, subset_draws, subset_order

BAMBOOGLE = {("a", 0): {"bamboogle": coin(125, 0.40)}, ("b", 0): {"bamboogle": coin(125, 0.24)[::-1]}}


def test_spread_of_72_of_125_in_closed_form() -> None:
    """Without replacement: s^2 / 72 times 1 - 72/125."""
    table = subset_draws(predictions(BAMBOOGLE), "bamboogle", 72, 4_000)
    assert list(table.columns) == SUBSET_COLUMNS
    row = one(table, method="a")
    assert (row["size"], row["of"], row["value"]) == (72, 125, pytest.approx(0.4))
    variance = 0.4 * 0.6 * 125 / 124
    assert row["mean"] == pytest.approx(0.4, abs=0.003)
    assert row["sd"] == pytest.approx(np.sqrt(variance / 72 * (1 - 72 / 125)), rel=0.05)
    assert row["low"] < 0.4 < row["high"]


def test_every_draw_has_its_size() -> None:
    """Scores of draws of two of four questions, one right: 0 or 1/2, each in half of them."""
    table = subset_draws(predictions({("a", 0): {"nq": [1, 0, 0, 0]}}), "nq", 2, 4_000)
    assert one(table, method="a")[["mean", "low", "high"]].tolist() == pytest.approx([0.25, 0.0, 0.5], abs=0.02)


def test_all_questions_are_one_draw() -> None:
    values = {("a", 0): {"nq": coin(10, 0.3)}, ("b", 0): {"nq": coin(10, 0.5)}}
    row = one(subset_draws(predictions(values), "nq", 10, 20), method="b")
    assert row[["value", "mean", "low", "high"]].tolist() == pytest.approx([0.5] * 4) and row["sd"] == pytest.approx(0)
    assert one(subset_order(predictions(values), "nq", 10, 20), method_a="a")["flips"] == 0.0


def test_flips_and_ties_by_hand() -> None:
    """a is right on questions 0 and 1, b on 2: one question of three leads b in 1 of 3 draws; two of four tie."""
    values = {("a", 0): {"nq": [1, 1, 0]}, ("b", 0): {"nq": [0, 0, 1]}}
    row = one(subset_order(predictions(values), "nq", 1, 6_000), method_a="a")
    assert list(row.index) == ORDER_COLUMNS
    assert (row["difference"], row["ties"]) == (pytest.approx(1 / 3), 0.0)
    assert row["flips"] == pytest.approx(1 / 3, abs=0.02)
    two = one(subset_order(predictions(values), "nq", 2, 6_000), method_a="a")  # {0,1}: a leads; {0,2}, {1,2}: a tie
    assert two["flips"] == 0.0 and two["ties"] == pytest.approx(2 / 3, abs=0.02)


def test_a_tie_of_all_questions_has_no_order_to_flip() -> None:
    values = {("a", 0): {"nq": [1, 0]}, ("b", 0): {"nq": [0, 1]}}
    assert subset_order(predictions(values), "nq", 1, 50)[["flips", "ties"]].isna().all().all()


def test_training_seeds_are_averaged() -> None:
    values = {("a", 0): {"nq": [1, 1]}, ("a", 1): {"nq": [0, 0]}, ("b", 0): {"nq": [1, 0]}}
    table = subset_draws(predictions(values), "nq", 1, 50)
    assert one(table, method="a")[["value", "low", "high"]].tolist() == [0.5, 0.5, 0.5]
    assert one(table, method="b")["high"] == 1.0


def test_same_draws_for_all_methods_and_orders_of_rows() -> None:
    table = predictions({("a", 0): {"nq": coin(30, 0.5)}, ("b", 0): {"nq": coin(30, 0.5)}})
    rows = subset_draws(table, "nq", 11, 40).drop(columns="method")
    assert rows.iloc[0].equals(rows.iloc[1])
    again = subset_draws(table.sample(frac=1, random_state=1).sort_values("method"), "nq", 11, 40)
    assert again.drop(columns="method").equals(rows)
    assert not subset_draws(table, "nq", 11, 40, seed=1).drop(columns="method").equals(rows)


def test_refusals() -> None:
    table = predictions({("a", 0): {"nq": [0, 1]}})
    with pytest.raises(ConfigError, match="expected one of nq, found 'bamboogle'"):
        subset_draws(table, "bamboogle", 1)
    for size in (0, 3):
        with pytest.raises(ConfigError, match=f"expected 1 to 2 questions, found {size}"):
            subset_order(table, "nq", size)
