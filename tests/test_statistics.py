"""Intervals by hand where they can be had by hand, coverage by simulation, and refusals."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from zerosearch.evaluation import statistics
from zerosearch.evaluation.statistics import (
    AVERAGE_COLUMNS, COMPARISON_COLUMNS, SCORE_COLUMNS, UnpairedQuestions, arms_against_the_rest, average_table,
    comparison_table, score_table, seed_spread,
)


def predictions(
    values: dict[tuple[str, int], dict[str, list[float]]], arms: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Return prediction rows from (method, seed) -> set -> EM per question; cover EM and F1 likewise."""
    rows = [
        (method, method if method in arms else "", seed, dataset, f"{dataset}/{i}", value, value, value)
        for (method, seed), sets in values.items()
        for dataset, scores in sets.items()
        for i, value in enumerate(scores)
    ]
    return pd.DataFrame(
        rows, columns=["method", "arm", "seed", "dataset", "question_id", "em", "cover_em", "f1"]
    )


def one(table: pd.DataFrame, **where: object) -> pd.Series:
    """Return the only row of a table with these values."""
    chosen = table[np.logical_and.reduce([table[key] == value for key, value in where.items()])]
    assert len(chosen) == 1, f"{len(chosen)} rows with {where}"
    return chosen.iloc[0]


def coin(n: int, share: float) -> list[float]:
    """Return n zeros and ones, this share of them ones."""
    return [1.0] * round(n * share) + [0.0] * (n - round(n * share))


def test_score_table_has_every_row_once() -> None:
    values = {
        ("search", 0): {"nq": coin(10, 0.2), "musique": coin(5, 0.4)},
        ("a", 1): {"nq": coin(10, 1.0), "musique": coin(5, 0)},
    }
    table = score_table(predictions(values), n_resamples=50)
    assert list(table.columns) == SCORE_COLUMNS
    assert len(table) == 2 * 3 * 3
    assert not table.isna().any().any()
    assert list(table["method"].drop_duplicates()) == ["search", "a"]
    assert list(table["dataset"].drop_duplicates()) == ["nq", "musique", "average"]
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()


def test_average_is_the_unweighted_mean_of_the_sets() -> None:
    values = {("a", 0): {"nq": coin(100, 0.2), "bamboogle": coin(10, 0.6)}}
    table = score_table(predictions(values), n_resamples=50)
    row = one(table, dataset="average", metric="em")
    assert row["value"] == pytest.approx(0.4)  # not 0.236, the mean over questions
    assert row["n"] == 110
    assert one(table, dataset="nq", metric="em")["n"] == 100


@pytest.mark.parametrize("interval", ["percentile", "BCa"])
def test_interval_of_a_share_is_close_to_the_normal_one(interval: str) -> None:
    table = score_table(predictions({("a", 0): {"nq": coin(400, 0.3)}}), 4_000, interval=interval)
    row = one(table, dataset="nq", metric="em")
    half = norm.ppf(0.975) * np.sqrt(0.3 * 0.7 / 400)
    assert row["low"] == pytest.approx(0.3 - half, abs=0.008)
    assert row["high"] == pytest.approx(0.3 + half, abs=0.008)


def test_average_interval_is_stratified() -> None:
    """Sets of 400 and 100 questions: variances of the two means add up, divided by four."""
    table = score_table(predictions({("a", 0): {"nq": coin(400, 0.5), "musique": coin(100, 0.1)}}), 4_000)
    row = one(table, dataset="average", metric="em")
    half = norm.ppf(0.975) * np.sqrt(0.25 / 400 + 0.09 / 100) / 2
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.06)


@pytest.mark.parametrize("interval", ["percentile", "BCa"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_questions_alike_leave_no_width(interval: str, share: float) -> None:
    table = score_table(predictions({("a", 0): {"nq": coin(20, share)}}), 100, interval=interval)
    assert (table[["value", "low", "high"]] == share).all().all()


def test_one_question_has_no_interval_and_no_winner() -> None:
    table = predictions({("a", 0): {"nq": [1.0]}, ("b", 0): {"nq": [0.0]}})
    assert score_table(table, 100)[["low", "high"]].isna().all().all()
    assert (comparison_table(table, n_resamples=100)["winner"] == "").all()
    assert score_table(table, 0)["value"].tolist()[:1] == [1.0]


def test_same_seed_same_numbers_whatever_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    values = {(m, 0): {s: rng.integers(0, 2, 30).tolist() for s in ("nq", "popqa")} for m in ("a", "b")}
    table = predictions(values)
    shuffled = table.sample(frac=1.0, random_state=3)
    keys = ["method", "dataset", "seed", "metric"]
    first, again, other = (
        score_table(t, 200).sort_values(keys, ignore_index=True) for t in (table, table, shuffled)
    )
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first, other)
    assert not score_table(table, 200, seed=1).sort_values(keys, ignore_index=True).equals(first)


def test_paired_difference_is_sharper_than_two_intervals() -> None:
    """b answers what a answers and 5 % more: overlapping intervals, and still a clear difference."""
    base = coin(400, 0.5)
    better = [1.0] * 220 + [0.0] * 180
    table = predictions({("a", 0): {"nq": base}, ("b", 0): {"nq": better}})
    scores = score_table(table, 2_000)
    assert one(scores, method="a", dataset="nq", metric="em")["high"] > one(
        scores, method="b", dataset="nq", metric="em"
    )["low"]
    row = one(comparison_table(table, [("b", "a")], 2_000), dataset="nq", metric="em")
    assert row["difference"] == pytest.approx(0.05)
    half = norm.ppf(0.975) * np.sqrt(0.05 * 0.95 / 400)
    assert row["low"] == pytest.approx(0.05 - half, abs=0.006)
    assert row["winner"] == "b"


def test_winner_is_withheld_when_the_interval_spans_zero() -> None:
    values = {("a", 0): {"nq": coin(40, 0.5)}, ("b", 0): {"nq": coin(40, 0.5)[::-1]}}
    table = comparison_table(predictions(values), n_resamples=500)
    assert list(table.columns) == COMPARISON_COLUMNS
    assert (table["winner"] == "").all()
    assert ((table["low"] < 0) & (table["high"] > 0)).all()


def test_winner_is_the_better_one_on_either_side() -> None:
    values = {("a", 0): {"nq": coin(40, 0.9)}, ("b", 0): {"nq": coin(40, 0.1)}}
    table = comparison_table(predictions(values), [("a", "b"), ("b", "a")], 500)
    assert set(table["winner"]) == {"a"}
    assert table["difference"].round(6).drop_duplicates().tolist() == [0.8, -0.8]


def test_identical_methods_have_no_winner_even_after_rounding() -> None:
    values = {run: {"nq": [0.1, 0.2, 0.3]} for run in (("a", 0), ("b", 0), ("b", 1), ("b", 2))}
    assert (comparison_table(predictions(values), n_resamples=100)["winner"] == "").all()


def test_seeds_are_averaged_per_question_before_comparing() -> None:
    values = {("a", 0): {"nq": [1, 1, 0, 0]}, ("a", 1): {"nq": [1, 0, 0, 0]}, ("b", 0): {"nq": [0, 0, 0, 0]}}
    row = one(comparison_table(predictions(values), n_resamples=100), dataset="nq", metric="em")
    assert row["difference"] == pytest.approx(3 / 8)
    assert (row["seeds_a"], row["seeds_b"], row["n"]) == (2, 1, 4)


def spread_out(levels: tuple[float, ...], sets: int = 1, n: int = 50) -> dict[tuple[str, int], dict[str, list[float]]]:
    """Return one method "a" whose training seeds answer every question with the same score each."""
    return {("a", seed): {f"s{i}": [level] * n for i in range(sets)} for seed, level in enumerate(levels)}


def test_one_seed_is_the_bootstrap_over_questions() -> None:
    table = predictions({("a", 0): {"nq": coin(400, 0.3), "musique": coin(100, 0.1)}})
    scores, averages = score_table(table, 4_000), average_table(table, 4_000)
    assert list(averages.columns) == AVERAGE_COLUMNS and set(averages["seeds"]) == {1}
    for name in ("nq", "musique", "average"):
        one_run, all_runs = (one(t, dataset=name, metric="em") for t in (scores, averages))
        assert (all_runs["value"], all_runs["n"]) == (pytest.approx(one_run["value"]), one_run["n"])
        assert all_runs[["low", "high"]].tolist() == pytest.approx(one_run[["low", "high"]].tolist(), abs=0.008)


def test_average_over_seeds_and_sets_by_hand() -> None:
    values = {
        ("a", 0): {"nq": coin(10, 0.2), "popqa": coin(5, 0.6)}, ("a", 3): {"nq": coin(10, 0.4), "popqa": coin(5, 1)},
    }
    table = average_table(predictions(values), 50)
    assert one(table, dataset="nq", metric="em")["value"] == pytest.approx(0.3)
    row = one(table, dataset="average", metric="f1")
    assert (row["value"], row["seeds"], row["n"]) == (pytest.approx((0.3 + 0.8) / 2), 2, 15)


def test_the_interval_holds_the_spread_over_seeds() -> None:
    """All questions alike: whatever width there is comes from the seeds; three draws of three by hand."""
    row = one(average_table(predictions(spread_out((0.2, 0.5, 0.8))), 4_000), dataset="s0", metric="em")
    assert row["value"] == pytest.approx(0.5)
    assert row[["low", "high"]].tolist() == pytest.approx([0.2, 0.8])  # three times the same: 1 draw in 27, above 2.5 %
    same = one(average_table(predictions(spread_out((0.5, 0.5, 0.5))), 100), dataset="s0", metric="em")
    assert same["low"] == pytest.approx(0.5) and same["high"] == pytest.approx(0.5)


def test_a_seed_is_drawn_once_for_all_sets() -> None:
    """A lucky training is lucky everywhere: with draws of its own in each set, the average would hide it."""
    row = one(average_table(predictions(spread_out((0.0, 1.0), sets=6)), 2_000), dataset="average", metric="em")
    assert row[["low", "high"]].tolist() == pytest.approx([0.0, 1.0])


def test_variance_of_seeds_and_questions_adds_up() -> None:
    """Crossed draws: the variance of the levels over S and that of the questions over n, both added."""
    rng = np.random.default_rng(5)
    n, levels = 300, np.array([-0.06, -0.02, 0.0, 0.02, 0.06])
    questions = rng.normal(0.5, 0.2, n)
    values = {("a", s): {"nq": (questions + level).tolist()} for s, level in enumerate(levels)}
    row = one(average_table(predictions(values), 10_000), dataset="nq", metric="em")
    expected = norm.ppf(0.975) * np.sqrt(levels.var() / 5 + questions.var() / n)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(expected, rel=0.06)


def test_a_winner_of_one_lucky_training_is_withheld() -> None:
    """Over questions alone a is far ahead; one of its three trainings did nothing, so it is undecided."""
    values = {("a", seed): {"nq": coin(200, share)} for seed, share in enumerate((0.9, 0.9, 0.1))}
    table = predictions(values | {("b", 0): {"nq": coin(200, 0.4)}})
    row = one(comparison_table(table, [("a", "b")], 2_000), dataset="nq", metric="em")
    assert row["difference"] == pytest.approx(1.9 / 3 - 0.4) and row["low"] < 0 < row["high"] and row["winner"] == ""
    steady = table[~((table["method"] == "a") & (table["seed"] == 2))]
    assert one(comparison_table(steady, [("a", "b")], 2_000), dataset="nq", metric="em")["winner"] == "a"


def test_seeds_of_two_methods_are_drawn_independently() -> None:
    """Equal trainings on both sides: with one draw of seeds for both the difference would have no width."""
    values = {(m, s): {"nq": [level] * 20} for m in "ab" for s, level in enumerate((0.2, 0.8))}
    row = one(comparison_table(predictions(values), n_resamples=2_000), dataset="nq", metric="em")
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.0, -0.6, 0.6])


def test_averages_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    values = {(m, k): {s: rng.integers(0, 2, 30).tolist() for s in ("nq", "popqa")} for m in ("a", "b") for k in (0, 1)}
    table, keys = predictions(values), ["method", "dataset", "metric"]
    shuffled = table.sample(frac=1.0, random_state=3)
    first, other = (average_table(t, 300).sort_values(keys, ignore_index=True) for t in (table, shuffled))
    pd.testing.assert_frame_equal(first, other)
    assert not average_table(table, 300, seed=1).sort_values(keys, ignore_index=True).equals(first)
    assert list(average_table(table, 300)["method"].drop_duplicates()) == ["a", "b"]


def test_one_question_has_no_average_interval() -> None:
    table = predictions({("a", 0): {"nq": [1.0]}, ("a", 1): {"nq": [0.0]}})
    assert average_table(table, 100)[["low", "high"]].isna().all().all()
    assert average_table(predictions(spread_out((0.2, 0.4))), 0)[["low", "high"]].isna().all().all()


def test_other_columns_can_be_scored() -> None:
    table = predictions({("a", 0): {"nq": [0, 1, 1, 1]}}).assign(past=0.25)
    for made in (average_table(table, 20, metrics=("past",)), score_table(table, 20, metrics=("past",))):
        assert set(made["metric"]) == {"past"} and made["value"].tolist() == [0.25, 0.25]


def test_arms_against_the_rest() -> None:
    values = {(m, 0): {"nq": [0, 1]} for m in ("direct", "search", "search-r1", "zerosearch")}
    pairs = arms_against_the_rest(predictions(values, arms=("search-r1", "zerosearch")))
    assert pairs == [
        ("search-r1", "zerosearch"), ("search-r1", "direct"), ("search-r1", "search"),
        ("zerosearch", "direct"), ("zerosearch", "search"),
    ]


def test_seed_spread() -> None:
    shares = {("a", 0): 0.4, ("a", 1): 0.6, ("b", 0): 0.5}
    values = {run: {"nq": coin(10, share)} for run, share in shares.items()}
    table = seed_spread(score_table(predictions(values), 20))
    row = one(table, method="a", dataset="nq", metric="em")
    assert (row["value"], row["seeds"], row["lowest"], row["highest"]) == (pytest.approx(0.5), 2, 0.4, 0.6)
    assert row["sd"] == pytest.approx(0.1 * np.sqrt(2))
    assert np.isnan(one(table, method="b", dataset="nq", metric="em")["sd"])


def test_repeated_question_is_refused() -> None:
    table = predictions({("a", 0): {"nq": [0, 1]}})
    with pytest.raises(UnpairedQuestions, match="once per method and seed, found 1 repeated"):
        score_table(pd.concat([table, table.head(1)]), 20)


def test_missing_question_is_refused_with_counts() -> None:
    table = predictions({("a", 0): {"nq": [0, 1, 1]}, ("b", 0): {"nq": [0, 1, 1]}})
    with pytest.raises(UnpairedQuestions, match="same 3 questions.*b/seed0: 2"):
        score_table(table.iloc[:-1], 20)


def test_missing_set_is_refused() -> None:
    table = predictions({("a", 0): {"nq": [0, 1], "popqa": [1, 1]}, ("b", 0): {"nq": [0, 1]}})
    with pytest.raises(UnpairedQuestions, match="same methods and seeds in every set.*'nq': 2, 'popqa': 1"):
        score_table(table, 20)


def test_empty_predictions_are_refused() -> None:
    with pytest.raises(UnpairedQuestions, match="at least one row"):
        score_table(predictions({}), 20)


def test_coverage_of_the_interval() -> None:
    """About 95 of 100 intervals contain the truth (binomial bounds, 300 draws: 0.92 to 0.98)."""
    rng, truth, hits = np.random.default_rng(1), 0.4, 0
    values = {(f"m{i}", 0): {"nq": (rng.random(150) < truth).astype(float).tolist()} for i in range(300)}
    table = score_table(predictions(values), 1_000)
    rows = table[(table["metric"] == "em") & (table["dataset"] == "nq")]
    hits = ((rows["low"] <= truth) & (truth <= rows["high"])).mean()
    assert 0.91 <= hits <= 0.985


def test_a_whole_evaluation_takes_seconds() -> None:
    rng = np.random.default_rng(2)
    large = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique")
    sizes = {name: 150 for name in large} | {"bamboogle": 125}
    methods = [f"m{i}" for i in range(6)] + ["x", "y"]
    values = {(m, 0): {s: rng.integers(0, 2, n).tolist() for s, n in sizes.items()} for m in methods}
    table = predictions(values, arms=("x", "y"))
    started = time.process_time()
    score_table(table, 1_000)
    comparison_table(table, arms_against_the_rest(table), 1_000)
    assert time.process_time() - started < 10.0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=8), min_size=1, max_size=4), st.integers(0, 5))
def test_bounds_enclose_no_more_than_the_scores(sets: list[list[float]], seed: int) -> None:
    table = score_table(predictions({("a", 0): {f"s{i}": s for i, s in enumerate(sets)}}), 40, seed)
    for i, scores in enumerate(sets):
        row = one(table, dataset=f"s{i}", metric="f1")
        assert row["value"] == pytest.approx(np.mean(scores))
        assert min(scores) - 1e-9 <= row["low"] <= row["high"] <= max(scores) + 1e-9
    average = one(table, dataset="average", metric="f1")["value"]
    assert average == pytest.approx(np.mean([np.mean(s) for s in sets]))


def test_metric_names_match_the_predictions() -> None:
    assert statistics.METRICS == ("em", "cover_em", "f1")
