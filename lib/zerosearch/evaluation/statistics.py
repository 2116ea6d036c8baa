"""From predictions to scores with error bars, and to comparisons that name a winner only when they may.

``score_table`` has one row per training seed; its intervals are bootstrap intervals over *questions*
(``scipy.stats.bootstrap``): they say how much a value would move with other questions of the same kind.
``average_table`` and ``comparison_table`` speak about a method, whatever the seed: where it was trained
with several seeds, the bootstrap is hierarchical and draws the seeds too, so that the intervals hold both
kinds of luck.  All seeds answered the same questions, hence seeds and questions are drawn crosswise: one
draw of questions for all seeds, one draw of seeds for all questions and sets.  (With three seeds the part
that comes from them is still rough, and about a fifth too narrow; ``seed_spread`` shows them singly, and
``comparison.comparison_report`` uses a t quantile there.)

The average over the sets is unweighted and its resampling is stratified: every resample keeps each set at
its own size.  Two methods are compared on the same questions, so what is resampled is the difference
per question; their seeds are drawn independently of each other, since a training is nobody's pair.

All metrics, methods and pairs of a set are resampled together, with the same draws.  Same seed, same
questions, same numbers; the order of the rows does not matter.  Called by notebook 04 and the report.
"""

from __future__ import annotations

from itertools import combinations
from typing import Sequence

import numpy as np
import pandas as pd

from zerosearch.evaluation.blocks import AVERAGE, UnpairedQuestions, sizes, value_blocks
from zerosearch.evaluation.resampling import (
    IntervalMethod, differences, estimates, hierarchical_draws, means_over_seeds, percentiles,
)

__all__ = [
    "AVERAGE", "AVERAGE_COLUMNS", "COMPARISON_COLUMNS", "METRICS", "NO_WINNER", "SCORE_COLUMNS", "UnpairedQuestions",
    "arms_against_the_rest", "average_table", "comparison_table", "score_table", "seed_spread",
]

METRICS = ("em", "cover_em", "f1")
SCORE_COLUMNS = ["method", "dataset", "seed", "metric", "value", "n", "low", "high"]
AVERAGE_COLUMNS = ["method", "dataset", "seeds", "metric", "value", "n", "low", "high"]
COMPARISON_COLUMNS = [
    "method_a", "method_b", "dataset", "metric", "seeds_a", "seeds_b", "n", "difference", "low", "high",
    "winner",
]
NO_WINNER = ""
_TINY = 1e-12  # differences below this are rounding, not an effect


def score_table(
    predictions: pd.DataFrame, n_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95,
    interval: IntervalMethod = "percentile", metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Return SCORE_COLUMNS: one row per method x seed x dataset (and ``average``) x metric.

    predictions: rows of ``predictions.parquet``; its columns ``metrics`` are in [0, 1].  value: mean over the n
    questions, or for ``average`` the unweighted mean of the sets (n: all questions together).
    low, high: bounds of the bootstrap interval; NaN where a set has one question only, or n_resamples is 0.
    Raises UnpairedQuestions unless every method x seed has each question exactly once.
    """
    blocks = value_blocks(predictions, metrics)
    columns = list(next(iter(blocks.values())).columns)
    rows = []
    for dataset, estimate in estimates(blocks, n_resamples, seed, confidence, interval).items():
        for (method, run_seed, metric), value, low, high in zip(columns, *estimate.bounds, strict=True):
            rows.append((method, dataset, int(run_seed), metric, value, estimate.n, low, high))
    return _ordered(pd.DataFrame(rows, columns=SCORE_COLUMNS), predictions, ["method", "seed"])


def average_table(
    predictions: pd.DataFrame, n_resamples: int = 10_000, seed: int = 0, confidence: float = 0.95,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Return AVERAGE_COLUMNS: one row per method x dataset (and ``average``) x metric, over all seeds.

    value: mean over the training seeds (``seeds``: how many) of what ``score_table`` gives for each.
    low, high: percentiles of the hierarchical bootstrap, see the module; NaN as in ``score_table``.
    """
    n_seeds = predictions.groupby("method")["seed"].nunique()
    blocks = value_blocks(predictions, metrics)
    values, n = means_over_seeds(blocks), sizes(blocks)
    rows = []
    for dataset, draws in hierarchical_draws(blocks, n_resamples, seed).items():
        low, high = percentiles(draws, confidence)
        for (method, metric), value in values[dataset].items():
            key = (method, metric)
            rows.append((method, dataset, n_seeds[method], metric, value, n[dataset], low[key], high[key]))
    return _ordered(pd.DataFrame(rows, columns=AVERAGE_COLUMNS), predictions, ["method"])


def comparison_table(
    predictions: pd.DataFrame, pairs: Sequence[tuple[str, str]] | None = None, n_resamples: int = 10_000,
    seed: int = 0, confidence: float = 0.95,
) -> pd.DataFrame:
    """Return COMPARISON_COLUMNS: method_a minus method_b on the same questions, per dataset and metric.

    pairs: (method_a, method_b), all pairs in the order of the predictions if None.  A method with
    several seeds counts with its mean over them (seeds_a, seeds_b: how many), and the interval holds
    their spread.  winner: the better method where the interval excludes 0, else the empty string.
    """
    n_seeds = predictions.groupby("method")["seed"].nunique()
    blocks = value_blocks(predictions, METRICS)
    values, n = means_over_seeds(blocks), sizes(blocks)
    known = list(predictions["method"].drop_duplicates())
    chosen = list(combinations(known, 2)) if pairs is None else list(pairs)
    keys = [(a, b, metric) for a, b in chosen for metric in METRICS]
    rows = []
    for dataset, draws in hierarchical_draws(blocks, n_resamples, seed).items():
        low, high = percentiles(differences(draws, keys), confidence)
        for (a, b, metric), down, up in zip(keys, low, high, strict=True):
            value = values[dataset][a, metric] - values[dataset][b, metric]
            winner = a if down > _TINY else b if up < -_TINY else NO_WINNER
            rows.append((a, b, dataset, metric, n_seeds[a], n_seeds[b], n[dataset], value, down, up, winner))
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    place = {pair: i for i, pair in enumerate(chosen)}
    order = [place[pair] for pair in zip(table["method_a"], table["method_b"], strict=True)]
    return table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def arms_against_the_rest(predictions: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the pairs that answer the workbook's question: every trained arm against every other method.

    predictions: column ``arm`` is the arm's name, or empty for a method of the untrained policy.
    Two arms are compared once.
    """
    named = predictions[["method", "arm"]].drop_duplicates()
    arms = list(named.loc[named["arm"] != "", "method"].drop_duplicates())
    rest = [method for method in named["method"].drop_duplicates() if method not in arms]
    return list(combinations(arms, 2)) + [(arm, other) for arm in arms for other in rest]


def seed_spread(scores: pd.DataFrame) -> pd.DataFrame:
    """Return method, dataset, metric, value (mean over seeds), seeds, lowest, highest, sd (over seeds).

    sd is the sample standard deviation, NaN for a single seed: one run has no spread to report.
    """
    grouped = scores.groupby(["method", "dataset", "metric"], sort=False)["value"]
    table = grouped.agg(value="mean", seeds="size", lowest="min", highest="max", sd="std")
    return table.reset_index()


def _ordered(table: pd.DataFrame, predictions: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the table with methods in the order of the predictions, sets and metrics kept as they are."""
    known = predictions[keys].drop_duplicates().itertuples(index=False, name=None)
    place = {pair: i for i, pair in enumerate(known)}
    order = [place[pair] for pair in table[keys].itertuples(index=False, name=None)]
    return table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
