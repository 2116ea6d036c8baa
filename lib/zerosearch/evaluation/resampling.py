"""Bootstrap draws over questions and over training seeds, for many columns at once.

``estimates`` draws questions (``scipy.stats.bootstrap``).  ``hierarchical_draws`` draws seeds too,
crosswise: one draw of questions for all seeds of all methods, one draw of seeds for all questions and
sets, seeds of different methods independently.  Same seed, same draws, whatever the order of the rows.

What such a draw can say about seeds is limited by their number S.  The variance that it gives them is
(S - 1) / S of the sample variance, and its percentiles cannot leave the range of the seeds seen: where
all luck is the seed's, the 95 % interval of three seeds is their lowest to their highest value, which
holds the truth 3 times in 4.  ``comparison`` uses a t quantile there.  Called by ``statistics`` and
``comparison``.
"""

from __future__ import annotations

import warnings
from typing import Iterator, Literal

import numpy as np
import pandas as pd
from scipy.stats import DegenerateDataWarning, bootstrap

from zerosearch import seeds
from zerosearch.evaluation.blocks import AVERAGE

_BATCH = 250  # resamples held in memory at once

IntervalMethod = Literal["percentile", "BCa"]


class Estimate:
    """Values and interval bounds of many columns over the same questions, each an array (columns,)."""

    def __init__(
        self, samples: list[np.ndarray], rng: np.random.Generator, n_resamples: int, confidence: float,
        interval: IntervalMethod,
    ):
        self.n = sum(s.shape[-1] for s in samples)
        self.value = _mean_of_means(*samples)
        self.low = self.high = np.full_like(self.value, np.nan)
        if n_resamples and min(s.shape[-1] for s in samples) > 1:
            self.low, self.high = _interval(samples, rng, n_resamples, confidence, interval)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.value, self.low, self.high


def _mean_of_means(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the unweighted mean over the sets of each set's mean; samples (..., questions of the set)."""
    return sum(sample.mean(axis=axis) for sample in samples) / len(samples)


def _interval(
    samples: list[np.ndarray], rng: np.random.Generator, n_resamples: int, confidence: float,
    interval: IntervalMethod,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds (columns,), (columns,) for samples (columns, questions), one for each set."""

    def mean_of_drawn(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return sum(_drawn_means(s, places) for s, places in zip(samples, drawn, strict=True)) / len(samples)

    questions = [np.arange(s.shape[-1]) for s in samples]  # drawing places once serves all columns
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        made = bootstrap(
            questions, mean_of_drawn, n_resamples=n_resamples, batch=_BATCH, vectorized=True, axis=-1,
            confidence_level=confidence, method=interval, rng=rng,
        )
    low, high = made.confidence_interval
    tail = (1.0 - confidence) / 2.0  # BCa is undefined where all questions agree: use the percentiles there
    bounds = np.quantile(made.bootstrap_distribution, [tail, 1.0 - tail], axis=-1)
    return np.where(np.isnan(low), bounds[0], low), np.where(np.isnan(high), bounds[1], high)


def _drawn_means(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the means (columns, ...) of values (columns, n) at the places (..., drawn), each in [0, n)."""
    n, rows = values.shape[-1], places.reshape(-1, places.shape[-1])
    cells = rows + n * np.arange(len(rows))[:, None]
    counts = np.bincount(cells.ravel(), minlength=n * len(rows)).reshape(len(rows), n)
    return (values @ counts.T / rows.shape[-1]).reshape(len(values), *places.shape[:-1])


def estimates(
    blocks: dict[str, pd.DataFrame], n_resamples: int, seed: int, confidence: float, interval: IntervalMethod
) -> dict[str, Estimate]:
    """Return one estimate per set and one for the average; blocks: (questions, columns) for each set."""
    samples = {name: np.ascontiguousarray(block.to_numpy(dtype=float).T) for name, block in blocks.items()}
    made = {
        name: Estimate([values], seeds.generator(seed, "bootstrap", name), n_resamples, confidence, interval)
        for name, values in samples.items()
    }
    rng = seeds.generator(seed, "bootstrap", AVERAGE)
    in_one_order = [samples[name] for name in sorted(samples)]  # same draws whatever the order of rows
    made[AVERAGE] = Estimate(in_one_order, rng, n_resamples, confidence, interval)
    return made


def means_over_seeds(blocks: dict[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """Return for each set, and for the average, the mean of every (method, metric) over questions and seeds."""
    made = {name: block.mean().groupby(level=["method", "metric"]).mean() for name, block in blocks.items()}
    return {**made, AVERAGE: sum(made[name] for name in sorted(made)) / len(made)}


def hierarchical_draws(blocks: dict[str, pd.DataFrame], n_resamples: int, seed: int) -> dict[str, pd.DataFrame]:
    """Return for each set and the average the resampled means (resamples, method x metric).

    blocks: (questions, method x seed x metric) for each set.  The draws are keyed by set and by method, so
    they do not depend on the order of the rows; the seeds of a method are the same draw in every set.
    """
    made = {}
    for name, block in blocks.items():
        rng, values = seeds.generator(seed, "bootstrap questions", name), block.to_numpy(dtype=float)
        drawn = [weights @ values for weights in _draws(len(block), n_resamples, rng)]
        means = pd.DataFrame(np.concatenate(drawn), columns=block.columns)
        made[name] = _over_seeds(means if len(block) > 1 and n_resamples else means * np.nan, seed)
    return {**made, AVERAGE: sum(made[name] for name in sorted(made)) / len(made)}


def _over_seeds(means: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the resampled means with the seeds of each method drawn too; columns method x metric."""
    columns = {}
    for method in means.columns.unique("method"):
        own = means[method]
        rng, n_seeds = seeds.generator(seed, "bootstrap seeds", method), len(own.columns.unique("seed"))
        weights = np.concatenate(list(_draws(n_seeds, len(means), rng)))
        for metric in own.columns.unique("metric"):
            columns[method, metric] = (own.xs(metric, axis=1, level="metric").to_numpy() * weights).sum(axis=1)
    return pd.DataFrame(columns).rename_axis(columns=["method", "metric"])


def _draws(n: int, n_resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the weights of n things in each resample with replacement, a batch of rows at a time; rows sum to 1."""
    for start in range(0, max(1, n_resamples), _BATCH):
        rows = min(_BATCH, max(1, n_resamples) - start)
        yield rng.multinomial(n, np.full(n, 1.0 / n), size=rows) / n


def percentiles(draws: pd.DataFrame, confidence: float) -> tuple[pd.Series, pd.Series]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws.to_numpy(), [tail, 1.0 - tail], axis=0)
    return pd.Series(low, index=draws.columns), pd.Series(high, index=draws.columns)


def differences(draws: pd.DataFrame, keys: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame({(a, b, metric): draws[a, metric] - draws[b, metric] for a, b, metric in keys})
