"""The report on pairs of methods: its precision against closed forms and simulation, its verdicts by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t, ttest_ind
from test_statistics import coin, one, predictions, spread_out

from zerosearch.errors import ConfigError
from zerosearch.evaluation.blocks import UnpairedQuestions, value_blocks
from zerosearch.evaluation.comparison import REPORT_COLUMNS, Rules, comparison_report
from zerosearch.evaluation.precision import Precision, Term, combine, question_term, scaled, seed_term
from zerosearch.evaluation.resampling import hierarchical_draws
from zerosearch.evaluation.statistics import comparison_table

QUICK = Rules(n_resamples=400)


def report(values: dict, rules: Rules = QUICK, **options) -> pd.DataFrame:  # noqa: ANN003
    return comparison_report(predictions(values), metrics=("em",), rules=rules, **options)


def crossed(rng: np.random.Generator, seeds: int, n: int, of_seed: float, of_cell: float) -> np.ndarray:
    """Return values (seeds, n): luck of the question (0.2), of the seed, and of both at once."""
    return 0.5 + rng.normal(0, 0.2, n) + rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_cell, (seeds, n))


# -- draws over seeds and questions ---------------------------------------------------------------


def test_hierarchical_draws_of_two_by_two_by_enumeration() -> None:
    """Two seeds, two questions: the 4 x 4 equally likely draws, one by one."""
    cells = np.array([[0.0, 0.2], [0.6, 1.0]])  # (seeds, questions)
    values = {("a", s): {"nq": list(row)} for s, row in enumerate(cells)}
    draws = hierarchical_draws(value_blocks(predictions(values), ("em",)), 20_000, 0)["nq"]["a", "em"]
    expected: dict[float, float] = {}
    for seeds, questions in product(product((0, 1), repeat=2), repeat=2):
        mean = round(cells[np.ix_(seeds, questions)].mean(), 9)
        expected[mean] = expected.get(mean, 0.0) + 1 / 16
    found = draws.round(9).value_counts(normalize=True)
    assert set(found.index) == set(expected)
    assert all(found[value] == pytest.approx(share, abs=0.015) for value, share in expected.items())


def test_variance_of_hierarchical_draws_in_closed_form() -> None:
    """Variances of seed means over S, of question means over n, and what is left of both over S n."""
    cells = crossed(np.random.default_rng(1), 4, 60, 0.1, 0.3)
    values = {("a", s): {"nq": list(row)} for s, row in enumerate(cells)}
    draws = hierarchical_draws(value_blocks(predictions(values), ("em",)), 20_000, 0)["nq"]["a", "em"]
    seeds, questions = cells.mean(axis=1, keepdims=True), cells.mean(axis=0, keepdims=True)
    rest = cells - seeds - questions + cells.mean()
    assert draws.var() == pytest.approx(seeds.var() / 4 + questions.var() / 60 + rest.var() / 240, rel=0.03)


def test_three_seeds_hold_the_truth_three_times_in_four() -> None:
    """All luck is the seed's: the bootstrap's interval is lowest to highest, the t interval is wide enough."""
    rng, held = np.random.default_rng(2), {"bootstrap": 0, "t": 0}
    levels = rng.normal(0.5, 0.05, (400, 3))
    for row in levels:
        precision = combine([seed_term(row)])  # type: ignore[list-item]
        low, high = precision.interval(row.mean())
        held["t"] += low <= 0.5 <= high
        held["bootstrap"] += row.min() <= 0.5 <= row.max()
    assert held["bootstrap"] / 400 == pytest.approx(0.75, abs=0.07)
    assert held["t"] / 400 == pytest.approx(0.95, abs=0.035)
    values = spread_out(tuple(levels[0])) | {("b", 0): {"s0": [0.0] * 50}}
    row = one(report(values, Rules(interval="bootstrap")), dataset="s0")
    assert row[["low", "high"]].tolist() == pytest.approx([levels[0].min(), levels[0].max()])


@pytest.mark.parametrize(("of_seed", "of_cell"), [(0.0, 0.0), (0.03, 0.0), (0.0, 0.4), (0.03, 0.4)])
def test_the_t_interval_of_seeds_and_questions_is_never_too_narrow(of_seed: float, of_cell: float) -> None:
    rng, held = np.random.default_rng(3), 0
    for _ in range(400):
        cells = crossed(rng, 3, 100, of_seed, of_cell)
        trainings = seed_term(cells.mean(axis=1))
        assert trainings is not None
        precision = combine([question_term(cells.mean(axis=0) - 0.5), trainings])
        low, high = precision.interval(float(cells.mean()))
        held += low <= 0.5 <= high
    assert held / 400 > 0.95 - 2.5 * np.sqrt(0.95 * 0.05 / 400)


# -- precision ------------------------------------------------------------------------------------


def test_question_term_adds_two_pseudo_questions() -> None:
    """Six won, two lost, twelve tied: with the pseudo-questions 6.5 won and 2.5 lost of 22."""
    term = question_term(np.array([1.0] * 6 + [-1.0] * 2 + [0.0] * 12))
    assert term.variance == pytest.approx((9 / 22 - (4 / 22) ** 2) / 22) and term.df == 19
    assert np.isnan(question_term(np.array([1.0])).variance)


def test_seed_term_by_hand() -> None:
    assert seed_term(np.array([0.4, 0.5, 0.6])) == Term(pytest.approx(0.01 / 3), 2)  # type: ignore[arg-type]
    assert seed_term(np.array([0.4])) is None
    assert scaled(Term(0.04, 3), 0.5) == Term(pytest.approx(0.01), 3)  # type: ignore[arg-type]


def test_without_questions_it_is_welch() -> None:
    a, b = np.array([0.41, 0.5, 0.63]), np.array([0.1, 0.2, 0.45, 0.2])
    precision = combine([seed_term(a), seed_term(b)])  # type: ignore[list-item]
    assert precision.p(a.mean() - b.mean()) == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue)


def test_two_one_sided_tests_agree_with_the_90_percent_interval() -> None:
    precision, bound = Precision(0.01, 400.0), t.ppf(0.95, 400) * 0.01
    for difference in (0.0, 0.003, -0.0035, 0.004, 0.03):
        inside = -0.02 < difference - bound and difference + bound < 0.02
        assert (precision.p_equivalence(difference, 0.02) < 0.05) == inside
    assert precision.p_equivalence(0.0, 0.02) == pytest.approx(t.sf(2.0, 400))


def test_detectable_by_hand_and_by_simulation() -> None:
    assert Precision(0.01, 1e9).detectable() == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * 0.01, rel=1e-3)
    assert Precision(0.01, 1e9).detectable(power=0.9) > Precision(0.01, 1e9).detectable()
    rng, truth = np.random.default_rng(4), Precision(1.0 / np.sqrt(3), 2.0).detectable()
    samples = rng.normal(truth, 1.0, (4_000, 3))  # three seeds, no luck of questions: a t test with 2 df
    statistic = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / np.sqrt(3))
    assert (np.abs(statistic) > t.ppf(0.975, 2)).mean() == pytest.approx(0.8, abs=0.02)
    assert np.isnan(Precision(float("nan"), 5.0).detectable())


def test_a_detectable_difference_is_found_four_times_in_five() -> None:
    """200 evaluations of 300 questions whose true difference is the one that the report names."""
    rng, n = np.random.default_rng(5), 300
    shares = np.array([0.2, 0.2])  # won and lost in the first look, from which the size is read
    first = rng.choice([1.0, -1.0, 0.0], n, p=[*shares, 0.6])
    wanted = combine([question_term(first - first.mean())]).detectable()
    drawn = rng.choice([1.0, -1.0, 0.0], (200, n), p=[0.2 + wanted / 2, 0.2 - wanted / 2, 0.6])
    found = [combine([question_term(d)]).p(d.mean()) < 0.05 for d in drawn]
    assert np.mean(found) == pytest.approx(0.8, abs=0.09)


# -- the report -----------------------------------------------------------------------------------


def test_columns_rows_and_order() -> None:
    values = {(m, 0): {"nq": coin(20, 0.5), "popqa": coin(10, 0.3)} for m in ("b", "a", "c")}
    table = comparison_report(predictions(values), rules=QUICK)
    assert list(table.columns) == REPORT_COLUMNS and len(table) == 3 * 3 * 2
    assert list(zip(table["method_a"], table["method_b"], strict=True))[::6] == [("b", "a"), ("b", "c"), ("a", "c")]
    assert list(table["dataset"].drop_duplicates()) == ["nq", "popqa", "average"]
    assert not table.drop(columns="p_seeds").isna().any().any()


def test_single_runs_are_tested_by_mcnemar_in_sets_and_by_sign_flips_elsewhere() -> None:
    a, b = coin(20, 0.5), [1.0] * 3 + [0.0] * 17
    values = {("a", 0): {"nq": a, "popqa": a}, ("b", 0): {"nq": b, "popqa": b}}
    table = report(values)
    row = one(table, dataset="nq")
    assert (row["test"], row["p"]) == ("mcnemar", pytest.approx(2 / 2**7)) and np.isnan(row["p_seeds"])
    assert one(table, dataset="average")["test"] == "sign flip"
    halves = predictions({run: {"nq": [v * 0.5 for v in sets["nq"]]} for run, sets in values.items()})
    graded = comparison_report(halves, rules=QUICK)
    assert set(graded["test"]) == {"sign flip"}


def test_intervals_of_single_runs_are_those_of_the_comparison_table() -> None:
    values = {("a", 0): {"nq": coin(40, 0.7)}, ("b", 0): {"nq": coin(40, 0.3)}}
    old = comparison_table(predictions(values), n_resamples=400)
    new = one(report(values), dataset="nq")
    assert new["interval"] == "bootstrap"
    bounds = one(old, dataset="nq", metric="em")[["difference", "low", "high"]].tolist()
    assert new[["difference", "low", "high"]].tolist() == pytest.approx(bounds)


def test_trained_methods_are_tested_by_their_seeds() -> None:
    """All questions of a seed alike: error and df are those of Welch, but for the two pseudo-questions."""
    values = spread_out((0.4, 0.5, 0.6)) | {("b", s): {"s0": [v] * 50} for s, v in enumerate((0.1, 0.2, 0.3))}
    row = one(report(values), dataset="s0")
    assert (row["test"], row["interval"]) == ("seed t", "t")
    assert row["p_seeds"] == pytest.approx(ttest_ind([0.4, 0.5, 0.6], [0.1, 0.2, 0.3], equal_var=False).pvalue)
    precision = combine([question_term(np.full(50, 0.3)), Term(0.01 / 3, 2), Term(0.01 / 3, 2)])
    assert row["p"] == pytest.approx(precision.p(0.3))
    assert row[["low", "high"]].tolist() == pytest.approx(list(precision.interval(0.3)))
    assert row["note"] == "a has 3 seeds; b has 3 seeds"


def test_trainings_are_shared_by_the_sets_of_the_average() -> None:
    """Six sets, the same lucky seed in all: the average is no surer than one set."""
    values = spread_out((0.2, 0.4, 0.6), sets=6) | {("b", 0): {f"s{i}": [0.0] * 50 for i in range(6)}}
    table = report(values)
    single, average = one(table, dataset="s0"), one(table, dataset="average")
    assert average["p_seeds"] == pytest.approx(single["p_seeds"])
    assert average["detectable"] == pytest.approx(single["detectable"], rel=0.05)


def test_many_seeds_are_left_to_the_bootstrap() -> None:
    values = {("a", s): {"nq": coin(30, 0.5)} for s in range(10)} | {("b", 0): {"nq": coin(30, 0.2)}}
    assert one(report(values), dataset="nq")["interval"] == "bootstrap"
    assert one(report(values, Rules(interval="t", n_resamples=50)), dataset="nq")["interval"] == "t"


def test_the_four_verdicts() -> None:
    high, low, half = coin(400, 0.9), coin(400, 0.1), coin(400, 0.5)
    values = {("a", 0): {"nq": high}, ("b", 0): {"nq": low}, ("c", 0): {"nq": half}, ("d", 0): {"nq": half}}
    values |= {("e", 0): {"nq": half[:196] + [0.0] * 4 + half[200:396] + [1.0] * 4}, ("f", 0): {"nq": half[::-1]}}
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("c", "f"), ("c", "e")]
    rows = report(values, pairs=pairs).query("dataset == 'nq'")["verdict"].tolist()
    assert rows == ["better", "worse", "matches (within 2 points)", "undecided", "matches (within 2 points)"]
    wide = report(values, Rules(n_resamples=400, margin=0.01), pairs=[("c", "e")])
    assert set(wide["verdict"]) == {"undecided"}


def test_agreeing_on_a_few_questions_is_no_match() -> None:
    values = {(m, 0): {"nq": coin(20, 0.5)} for m in "ab"}
    assert set(report(values)["verdict"]) == {"undecided"}
    many = {(m, 0): {"nq": coin(2_000, 0.5)} for m in "ab"}
    assert set(report(many, Rules(n_resamples=50))["verdict"]) == {"matches (within 2 points)"}


@pytest.mark.parametrize(("score", "told"), [(0.0, "0"), (1.0, "1")])
def test_questions_that_nobody_or_everybody_answers_are_no_match(score: float, told: str) -> None:
    """The two one-sided tests alone would call 2,000 ties a match; here they come from no variation at all."""
    values = {(m, 0): {"nq": [score] * 2_000, "popqa": [score] * 2_000} for m in "ab"}
    table = report(values, Rules(n_resamples=50))
    assert set(table["verdict"]) == {"undecided"} and (table["p_equivalence_holm"] < 0.05).all()
    why = f"both score {told} on every question: such questions cannot tell methods apart"
    assert set(table["note"]) == {why} and table["sentence"].str.endswith(f": {why}.").all()
    values["a", 0]["popqa"] = values["b", 0]["popqa"] = coin(2_000, 0.5)
    table = report(values, Rules(n_resamples=50)).set_index("dataset")
    said = table[table["metric"] == "em"]["verdict"].to_dict()
    assert said == {"nq": "undecided", "popqa": "matches (within 2 points)", "average": "matches (within 2 points)"}


def test_a_set_too_small_for_a_match_keeps_its_words() -> None:
    row = one(report({(m, 0): {"nq": [0.0] * 20} for m in "ab"}), dataset="nq")
    assert row["note"] == "" and "would be found 80 times in 100" in row["sentence"]


def test_a_winner_needs_the_corrected_p_too() -> None:
    """b is beaten by nine questions to one: p 0.021 alone, and no winner among many pairs."""
    a, b = [1.0] * 9 + [0.0] * 31, [0.0] * 9 + [1.0] + [0.0] * 30
    values = {("a", 0): {"nq": a}, ("b", 0): {"nq": b}}
    alone = one(report(values, pairs=[("a", "b")]), dataset="nq")
    assert alone["p"] == alone["p_holm"] == pytest.approx(2 * 11 / 2**10) and alone["verdict"] == "better"
    others = {(m, 0): {"nq": coin(40, 0.5)} for m in "cdef"}
    crowded = one(report(values | others), method_a="a", method_b="b", dataset="nq")
    assert crowded["low"] > 0 and crowded["p_holm"] > 0.05 and crowded["verdict"] == "undecided"
    assert crowded["family"] == 15


def test_the_average_is_a_family_of_its_own() -> None:
    values = {(m, 0): {s: coin(20, 0.5) for s in ("nq", "popqa")} for m in "abc"}
    table = report(values)
    assert set(table.query("dataset == 'average'")["family"]) == {3}
    assert set(table.query("dataset != 'average'")["family"]) == {6}


def test_false_winners_are_rare() -> None:
    """20 evaluations of four equal methods, 18 comparisons each: without correction one in six has a winner."""
    rng, rules, named = np.random.default_rng(6), Rules(n_resamples=99), 0
    for _ in range(20):
        values = {(m, 0): {s: rng.integers(0, 2, 40).tolist() for s in ("nq", "popqa")} for m in "abcd"}
        named += int(report(values, rules)["verdict"].isin(["better", "worse"]).any())
    assert named <= 5  # two families, 10 in 100 at most: P(more than 5 of 20) is 0.011


def test_one_question_decides_nothing() -> None:
    table = report({("a", 0): {"nq": [1.0]}, ("b", 0): {"nq": [0.0]}})
    assert set(table["verdict"]) == {"undecided"} and set(table["note"]) == {"one question: no interval"}
    assert table[["low", "high", "detectable"]].isna().all().all()


def test_sentences_name_size_interval_and_correction() -> None:
    values = {("a", 0): {"nq": coin(400, 0.9)}, ("b", 0): {"nq": coin(400, 0.1)}, ("c", 0): {"nq": coin(400, 0.9)}}
    table = report(values, pairs=[("a", "b"), ("a", "c")])
    first, second = table.query("dataset == 'nq'")["sentence"]
    assert first.startswith("a is better than b on nq: em +80.0 points (+7") and first.endswith(
        "p below 0.001 after Holm over 2."
    )
    assert second == "a matches c (within 2 points) on nq: em +0.0 points (+0.0 to +0.0)."
    undecided = report({("a", 0): {"nq": coin(40, 0.5)}, ("b", 0): {"nq": coin(40, 0.5)[::-1]}})["sentence"][0]
    assert "are undecided on nq" in undecided and "would be found 80 times in 100" in undecided


def test_an_arm_trained_once_is_noted() -> None:
    table = predictions({("a", 0): {"nq": coin(20, 0.5)}, ("b", 0): {"nq": coin(20, 0.2)}}, arms=("a",))
    assert set(comparison_report(table, rules=QUICK)["note"]) == {
        "a was trained once: nothing is said about its other trainings"
    }


def test_same_seed_same_report_whatever_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    values = {(m, k): {s: rng.integers(0, 2, 30).tolist() for s in ("nq", "popqa")} for m in "ab" for k in (0, 1)}
    table = predictions(values)
    shuffled = table.sample(frac=1.0, random_state=3)
    first, other = (
        comparison_report(x, [("a", "b")], rules=QUICK).sort_values(["dataset", "metric"], ignore_index=True)
        for x in (table, shuffled)
    )
    pd.testing.assert_frame_equal(first, other)


def test_refusals() -> None:
    values = {("a", 0): {"nq": [0, 1]}, ("b", 0): {"nq": [0, 1]}}
    with pytest.raises(ConfigError, match="expected methods among a, b, found x"):
        report(values, pairs=[("a", "x")])
    with pytest.raises(UnpairedQuestions, match="same 2 questions"):
        comparison_report(predictions(values).iloc[:-1])
    for wrong in ({"margin": 2.0}, {"n_resamples": 0}, {"interval": "BCa"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Rules(**wrong)
