"""What a smaller set of questions would have said: seeded draws of some of the questions, without replacement.

The published table scores Bamboogle on 125 questions in some rows and on 72 of them in others.  How far a
score moves, and how often two methods change places, by leaving 53 questions out is measured here.
The same draws serve all methods.  Called by notebook 04.
"""

from __future__ import annotations

from itertools import combinations
from typing import Sequence

import numpy as np
import pandas as pd

from zerosearch import seeds
from zerosearch.errors import ConfigError
from zerosearch.evaluation.blocks import value_blocks

SUBSET_COLUMNS = ["method", "dataset", "metric", "size", "of", "value", "mean", "sd", "low", "high"]
ORDER_COLUMNS = [
    "method_a", "method_b", "dataset", "metric", "size", "of", "difference", "mean", "low", "high", "flips", "ties",
]
_TINY = 1e-12  # differences below this are ties


def subset_draws(
    predictions: pd.DataFrame, dataset: str, size: int, n_draws: int = 1_000, seed: int = 0, metric: str = "em",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return SUBSET_COLUMNS: one row per method, its score over all draws of ``size`` questions.

    value: on all ``of`` questions, mean over the training seeds.  mean, sd, low, high: of the draws.
    Raises ConfigError for an unknown set or a size that is not between 1 and the number of questions.
    """
    full, drawn = _scores(predictions, dataset, size, n_draws, seed, metric)
    low, high = _bounds(drawn, confidence)
    rows = [
        (method, dataset, metric, size, len(full), full[method].mean(), *numbers)
        for method, *numbers in zip(full.columns, drawn.mean(axis=0), drawn.std(axis=0), low, high, strict=True)
    ]
    return pd.DataFrame(rows, columns=SUBSET_COLUMNS)


def subset_order(
    predictions: pd.DataFrame, dataset: str, size: int, n_draws: int = 1_000, seed: int = 0, metric: str = "em",
    confidence: float = 0.95, pairs: Sequence[tuple[str, str]] | None = None,
) -> pd.DataFrame:
    """Return ORDER_COLUMNS: one row per pair, how often the order of two methods is another in a draw.

    difference: a minus b on all questions.  flips: share of draws in which the other one leads; ties: in
    which neither does.  Both are NaN where all questions together already are a tie.
    """
    full, drawn = _scores(predictions, dataset, size, n_draws, seed, metric)
    place = {method: i for i, method in enumerate(full.columns)}
    rows = []
    for a, b in combinations(full.columns, 2) if pairs is None else pairs:
        whole, parts = full[a].mean() - full[b].mean(), drawn[:, place[a]] - drawn[:, place[b]]
        flips, ties = (parts * np.sign(whole) < -_TINY).mean(), (np.abs(parts) <= _TINY).mean()
        shares = (flips, ties) if abs(whole) > _TINY else (np.nan, np.nan)
        rows.append((a, b, dataset, metric, size, len(full), whole, parts.mean(), *_bounds(parts, confidence), *shares))
    return pd.DataFrame(rows, columns=ORDER_COLUMNS)


def _scores(
    predictions: pd.DataFrame, dataset: str, size: int, n_draws: int, seed: int, metric: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the scores (questions, methods) and their means in each draw, (draws, methods)."""
    known = list(predictions["dataset"].drop_duplicates())
    if dataset not in known:
        raise ConfigError(f"subset of a set: expected one of {', '.join(known)}, found {dataset!r}")
    block = value_blocks(predictions[predictions["dataset"] == dataset], (metric,))[dataset]
    if not 1 <= size <= len(block):
        raise ConfigError(f"subset of {dataset}: expected 1 to {len(block)} questions, found {size}")
    order = list(predictions["method"].drop_duplicates())
    full = block.T.groupby(level="method").mean().T[order]
    rng = seeds.generator(seed, "subsets", dataset, size)
    ranks = rng.random((n_draws, len(full)))
    chosen = np.argpartition(ranks, size - 1, axis=1)[:, :size]  # the questions of the lowest numbers
    weights = np.zeros(ranks.shape)
    np.put_along_axis(weights, chosen, 1.0 / size, axis=1)
    return full, weights @ full.to_numpy()


def _bounds(values: np.ndarray, confidence: float) -> np.ndarray:
    tail = (1.0 - confidence) / 2.0
    return np.quantile(values, [tail, 1.0 - tail], axis=0)
