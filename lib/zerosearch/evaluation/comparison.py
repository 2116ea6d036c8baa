"""One report on the difference between two methods: size, interval, p, equivalence, what could be seen at all.

Which p is printed (column ``test``):

    mcnemar     both methods count with one run, values are 0 or 1, one set: exact
    sign flip   both count with one run, any other value, or the average over sets
    seed t      a method has several trainings: its seeds are the unit, and the luck of the questions is added
                (``precision``).  ``p_seeds`` beside it is Welch's t over the seeds alone, on these questions.

Which interval (column ``interval``): ``bootstrap`` is the hierarchical one of ``statistics``; ``t`` comes from
``precision`` and is taken where a method has two to nine seeds: the bootstrap cannot leave the range of
three seeds, which is too narrow.

p is corrected by Holm within a family: all pairs on the average are one, all pairs on all single sets
another, for each metric.  Equivalence (two one-sided tests with a margin) likewise.

    better, worse             the interval excludes 0 and Holm's p is below alpha
    matches (within 2 points) neither, and the difference is smaller than the margin for certain
    undecided                 everything else; ``detectable`` says which difference would have been found

Where both methods have one and the same score on every question (nobody is right on any, say), the questions
measure neither of them: that is undecided however many they are, and the note says why.

Called by notebook 04.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import combinations
from typing import Literal, Mapping, Sequence

import numpy as np
import pandas as pd

from zerosearch.errors import ConfigError
from zerosearch.evaluation.blocks import AVERAGE, sizes, value_blocks
from zerosearch.evaluation.paired_tests import holm, is_binary, mcnemar, sign_flips, welch_seeds
from zerosearch.evaluation.precision import Precision, combine, question_term, scaled, seed_term
from zerosearch.evaluation.resampling import differences, hierarchical_draws, percentiles

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
MARGIN = 0.02  # two points
FEW_SEEDS = 10  # below it the bootstrap over seeds is too narrow
_TINY = 1e-12  # differences below this are rounding, not an effect

Key = tuple[str, str, str]  # method a, method b, metric
Interval = Literal["auto", "bootstrap", "t"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a verdict needs.

    confidence: of the intervals; alpha is the rest.  margin: largest difference that counts as none, in
    [0, 1].  power: chance with which ``detectable`` is found.  interval: see the module.
    n_resamples: draws of the bootstrap, and sign patterns.  seed: keys the draws.
    """

    confidence: float = 0.95
    margin: float = MARGIN
    power: float = 0.8
    interval: Interval = "auto"
    n_resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.margin < 1.0:
            raise ConfigError(f"margin: expected a share between 0 and 1 (0.02 is two points), found {self.margin}")
        if self.n_resamples < 1:
            raise ConfigError(f"n_resamples: expected at least 1, found {self.n_resamples}; 10000 is usual")
        if self.interval not in ("auto", "bootstrap", "t"):
            raise ConfigError(f"interval: expected auto, bootstrap or t, found {self.interval!r}")

    @property
    def alpha(self) -> float:
        return 1.0 - self.confidence

    @property
    def matches(self) -> str:
        """The verdict for equivalence, with the margin in points."""
        return f"matches (within {100 * self.margin:g} point{'s' if self.margin != 0.01 else ''})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the report; differences are method_a minus method_b, shares in [-1, 1].

    n: questions.  p, p_seeds, p_equivalence: not corrected; p_holm, p_equivalence_holm: corrected in a family
    of ``family`` comparisons.  detectable: smallest true difference that a single comparison finds.
    """

    method_a: str
    method_b: str
    dataset: str
    metric: str
    seeds_a: int
    seeds_b: int
    n: int
    difference: float
    low: float
    high: float
    interval: str
    test: str
    p: float
    p_holm: float
    p_seeds: float
    p_equivalence: float
    p_equivalence_holm: float
    family: int
    detectable: float
    verdict: str
    note: str
    sentence: str


REPORT_COLUMNS = [field.name for field in fields(Comparison)]


def comparison_report(
    predictions: pd.DataFrame, pairs: Sequence[tuple[str, str]] | None = None, metrics: Sequence[str] = ("em", "f1"),
    rules: Rules = Rules(),
) -> pd.DataFrame:
    """Return REPORT_COLUMNS (see ``Comparison``): one row per pair x set (and ``average``) x metric.

    predictions: rows of ``predictions.parquet``.  pairs: (method_a, method_b); None for all, in the order
    of the predictions.  Raises UnpairedQuestions unless every method x seed has each question exactly
    once, ConfigError for an unknown method.
    """
    known = list(predictions["method"].drop_duplicates())
    chosen = list(combinations(known, 2)) if pairs is None else list(pairs)
    if unknown := {name for pair in chosen for name in pair} - set(known):
        raise ConfigError(f"pairs: expected methods among {', '.join(known)}, found {', '.join(sorted(unknown))}")
    blocks = value_blocks(predictions, metrics)
    keys = [(a, b, metric) for a, b in chosen for metric in metrics]
    table = _corrected(pd.DataFrame(_measured(blocks, keys, rules)))
    table["verdict"] = [_verdict(row, rules) for row in table.to_dict("records")]
    arms = set(predictions.loc[predictions["arm"] != "", "method"]) if "arm" in predictions else set()
    table["note"] = [_note(row, arms, rules) for row in table.to_dict("records")]
    table["sentence"] = [_sentence(row, rules) for row in table.to_dict("records")]
    place = {pair: i for i, pair in enumerate(chosen)}
    order = [place[pair] for pair in zip(table["method_a"], table["method_b"], strict=True)]
    return table[REPORT_COLUMNS].iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


# -- measuring ------------------------------------------------------------------------------------


class _Values:
    """Scores by set and (method, metric): of every training, (seeds, questions), and their mean, (questions,)."""

    def __init__(self, blocks: dict[str, pd.DataFrame]):
        self.sets, self.sizes = sorted(blocks), sizes(blocks)
        self._runs = {name: _by_method(block) for name, block in blocks.items()}
        self._means = {name: {k: v.mean(axis=0) for k, v in runs.items()} for name, runs in self._runs.items()}
        some = self._runs[self.sets[0]]
        self.n_seeds = {method: len(values) for (method, _), values in some.items()}

    def names(self, dataset: str) -> list[str]:
        """Return the sets behind a row of the report: all of them for the average."""
        return self.sets if dataset == AVERAGE else [dataset]

    def scores(self, dataset: str, method: str, metric: str) -> np.ndarray:
        """Return the mean over the trainings of each question, (questions,)."""
        return self._means[dataset][method, metric]

    def differences(self, dataset: str, key: Key) -> np.ndarray:
        """Return a minus b of each question, (questions,)."""
        a, b, metric = key
        return self.scores(dataset, a, metric) - self.scores(dataset, b, metric)

    def constant(self, dataset: str, key: Key) -> float:
        """Return the score that both methods have on every question in every training; NaN where any differs."""
        a, b, metric = key
        runs = [self._runs[name][method, metric] for name in self.names(dataset) for method in (a, b)]
        low, high = min(run.min() for run in runs), max(run.max() for run in runs)
        return float(low) if high - low <= _TINY else float("nan")

    def seed_means(self, dataset: str, method: str, metric: str) -> np.ndarray:
        """Return the mean of each training, (seeds,); for the average the unweighted mean of the sets' means."""
        names = self.names(dataset)
        return sum(self._runs[name][method, metric].mean(axis=1) for name in names) / len(names)


def _by_method(block: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Return (method, metric) -> (seeds, questions) of a table (questions, method x seed x metric)."""
    made: dict[tuple[str, str], list[np.ndarray]] = {}
    for (method, _, metric), column in zip(block.columns, block.to_numpy(dtype=float).T, strict=True):
        made.setdefault((method, metric), []).append(column)
    return {key: np.stack(columns) for key, columns in made.items()}


def _measured(blocks: dict[str, pd.DataFrame], keys: list[Key], rules: Rules) -> list[dict[str, object]]:
    """Return the rows without what needs the whole table (correction, verdict, words)."""
    values, rows = _Values(blocks), []
    flips = _flip_p(values, keys, rules)
    for dataset, draws in hierarchical_draws(blocks, rules.n_resamples, rules.seed).items():
        low, high = (bound.to_numpy() for bound in percentiles(differences(draws, keys), rules.confidence))
        for place, key in enumerate(keys):
            bounds = low[place], high[place]
            rows.append(_one(values, dataset, key, bounds, flips.get((dataset, key)), rules))
    return rows


def _one(
    values: _Values, dataset: str, key: Key, bootstrap: tuple[float, float], flip_p: float | None, rules: Rules
) -> dict[str, object]:
    a, b, metric = key
    seeds = values.n_seeds[a], values.n_seeds[b]
    precision = _precision(values, dataset, key)
    means = [values.seed_means(dataset, method, metric) for method in (a, b)]
    difference = float(means[0].mean() - means[1].mean())
    few = any(1 < s < FEW_SEEDS for s in seeds)
    use_t = rules.interval == "t" or (rules.interval == "auto" and few)
    low, high = precision.interval(difference, rules.confidence) if use_t else bootstrap
    test, p = _test(values, dataset, key, precision, difference, flip_p)
    return {
        "method_a": a, "method_b": b, "dataset": dataset, "metric": metric, "seeds_a": seeds[0], "seeds_b": seeds[1],
        "n": values.sizes[dataset], "difference": difference, "low": low, "high": high,
        "interval": "t" if use_t else "bootstrap", "test": test, "p": p, "p_seeds": welch_seeds(*means),
        "p_equivalence": precision.p_equivalence(difference, rules.margin),
        "detectable": precision.detectable(rules.power, rules.alpha), "constant": values.constant(dataset, key),
    }


def _test(
    values: _Values, dataset: str, key: Key, precision: Precision, difference: float, flip_p: float | None
) -> tuple[str, float]:
    """Return the name of the test that decides, and its p."""
    a, b, metric = key
    if flip_p is None:
        return "seed t", precision.p(difference)
    if dataset != AVERAGE:
        columns = values.scores(dataset, a, metric), values.scores(dataset, b, metric)
        if is_binary(*columns):
            return "mcnemar", mcnemar(*columns)
    return "sign flip", flip_p


def _precision(values: _Values, dataset: str, key: Key) -> Precision:
    """Return the precision of the difference; sets count equally in the average, and share their trainings."""
    a, b, metric = key
    names = values.names(dataset)
    terms = [scaled(question_term(values.differences(name, key)), 1.0 / len(names)) for name in names]
    trainings = (seed_term(values.seed_means(dataset, method, metric)) for method in (a, b))
    return combine([*terms, *(term for term in trainings if term is not None)])


def _flip_p(values: _Values, keys: list[Key], rules: Rules) -> dict[tuple[str, Key], float]:
    """Return the p of the sign flips by set and key, where both methods count with one run."""
    single = [key for key in keys if max(values.n_seeds[key[0]], values.n_seeds[key[1]]) == 1]
    if not single:
        return {}
    stacked = {name: np.column_stack([values.differences(name, key) for key in single]) for name in values.sets}
    found = sign_flips(stacked, rules.n_resamples, rules.seed)
    return {(name, key): float(p) for name, row in found.items() for key, p in zip(single, row, strict=True)}


# -- judging --------------------------------------------------------------------------------------


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with Holm's p values; the average is a family of its own."""
    family = [table["metric"], table["dataset"] == AVERAGE]
    for column in ("p", "p_equivalence"):
        table[f"{column}_holm"] = table.groupby(family)[column].transform(lambda p: holm(p.to_numpy()))
    table["family"] = table.groupby(family)["p"].transform("size")
    return table


def _verdict(row: Mapping[str, float], rules: Rules) -> str:
    if row["p_holm"] < rules.alpha and row["low"] > _TINY:
        return BETTER
    if row["p_holm"] < rules.alpha and row["high"] < -_TINY:
        return WORSE
    return rules.matches if _equivalent(row, rules) and np.isnan(row["constant"]) else UNDECIDED


def _equivalent(row: Mapping[str, float], rules: Rules) -> bool:
    return row["p_equivalence_holm"] < rules.alpha


def _unmeasured(row: Mapping[str, float], rules: Rules) -> str:
    """Return why the row is undecided although its two one-sided tests would call it a match; else nothing."""
    if np.isnan(row["constant"]) or not _equivalent(row, rules):
        return ""
    return f"both score {row['constant']:g} on every question: such questions cannot tell methods apart"


def _note(row: Mapping[str, int], arms: set[str], rules: Rules) -> str:
    """Say what the row cannot tell: too few trainings, too few questions, or questions that measure nothing."""
    if row["n"] < 2:
        return "one question: no interval"
    unmeasured = _unmeasured(row, rules)
    sides = ((row["method_a"], row["seeds_a"]), (row["method_b"], row["seeds_b"]))
    once = [name for name, seeds in sides if name in arms and seeds == 1]
    few = [f"{name} has {seeds} seeds" for name, seeds in sides if 1 < seeds < FEW_SEEDS]
    notes = [f"{name} was trained once: nothing is said about its other trainings" for name in once] + few
    return "; ".join([unmeasured, *notes] if unmeasured else notes)


def _sentence(row: Mapping[str, object], rules: Rules) -> str:
    """Return the verdict in plain words, in points."""
    a, b, where = row["method_a"], row["method_b"], f"on {row['dataset']}"
    size = f"{row['metric']} {_points(row['difference'])} points ({_points(row['low'])} to {_points(row['high'])})"
    corrected = f"p {_p(row['p_holm'])} after Holm over {row['family']}"
    if row["verdict"] in (BETTER, WORSE):
        return f"{a} is {row['verdict']} than {b} {where}: {size}, {corrected}."
    if row["verdict"] == rules.matches:
        return f"{a} {rules.matches.replace('matches', f'matches {b}')} {where}: {size}."
    if why := _unmeasured(row, rules):
        return f"{a} and {b} are undecided {where}: {why}."
    seen = f"a difference of {100 * row['detectable']:.1f} points would be found {100 * rules.power:.0f} times in 100"
    return f"{a} and {b} are undecided {where}: {size}, {corrected}; {seen}."


def _points(share: object) -> str:
    return f"{100 * float(share):+.1f}"  # type: ignore[arg-type]


def _p(value: object) -> str:
    return "below 0.001" if float(value) < 0.001 else f"{float(value):.3f}"  # type: ignore[arg-type]
