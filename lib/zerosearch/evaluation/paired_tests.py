"""Tests of one difference between two methods, and what is left of many of them after correction.

    mcnemar       exact, for values 0 and 1 of the same questions: a coin for each question on which
                  just one of the two is right
    sign_flips    for any values of the same questions: under "no difference" each question's difference
                  might as well have the other sign (all sign patterns where they are few, else draws)
    welch_seeds   the training seed is the unit: Welch's t over the means of the seeds
    holm          adjusts the p values of a family so that any false claim in it stays below alpha

The first two speak about other questions and about these very policies.  ``welch_seeds`` speaks about
other trainings and about these very questions.  ``comparison`` says which p it prints when.
"""

from __future__ import annotations

from itertools import product
from typing import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest, ttest_1samp, ttest_ind

from zerosearch import seeds
from zerosearch.evaluation.blocks import AVERAGE

_BATCH = 500  # sign patterns held in memory at once
_TINY = 1e-12  # sums that differ by less are equal: rounding is no evidence


def is_binary(*values: np.ndarray) -> bool:
    """Say whether all values are 0 or 1, so that McNemar's test applies."""
    return all(bool(np.isin(v, (0.0, 1.0)).all()) for v in values)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Return the two-sided exact p of McNemar's test; a, b (questions,), values 0 or 1.

    1.0 where the two are right on the same questions.
    """
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def sign_flips(
    differences: Mapping[str, np.ndarray], n_resamples: int = 10_000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the two-sided p (columns,) of the mean difference of each set, and of the unweighted average.

    differences: for each set (questions, columns).  A set of n questions has 2**n sign patterns: all are
    tried if they are no more than n_resamples, else so many are drawn, and the observed one counts as
    one more.  Where no drawn pattern is as far from 0 as what was observed, Hoeffding's bound on the p of all
    patterns, 2 exp(-z^2 / 2), is taken if it is smaller: else few draws would hide a clear effect from ``holm``.
    All columns of a set share its patterns; the average is exact only for a single set.
    """
    values = {name: np.asarray(differences[name], dtype=float) for name in sorted(differences)}
    observed = {name: v.mean(axis=0) for name, v in values.items()}
    variances = {name: (v**2).sum(axis=0) / len(v) ** 2 for name, v in values.items()}  # over all sign patterns
    flipped, made = {}, {}
    for name, value in values.items():
        exact, rng = 2 ** len(value) <= n_resamples, seeds.generator(seed, "sign flips", name)
        signs = _all_signs(len(value)) if exact else _drawn_signs(len(value), n_resamples, rng)
        flipped[name] = np.concatenate([s @ value for s in signs]) / len(value)
        share = _exact_share if exact else _drawn_share
        made[name] = share(flipped[name], observed[name], variances[name])
    if len(values) == 1:
        return {**made, AVERAGE: next(iter(made.values()))}
    total = _sum_of_draws(flipped, n_resamples, seed)
    return {**made, AVERAGE: _drawn_share(total, sum(observed.values()), sum(variances.values()))}


def _sum_of_draws(flipped: Mapping[str, np.ndarray], n_resamples: int, seed: int) -> np.ndarray:
    """Return the sums over the sets (n_resamples, columns) of one drawn pattern of each set."""
    total = np.zeros((n_resamples, next(iter(flipped.values())).shape[1]))
    for name, means in flipped.items():
        rng = seeds.generator(seed, "sign flips of the average", name)
        total += means if len(means) == n_resamples else means[rng.integers(0, len(means), n_resamples)]
    return total


def _exact_share(flipped: np.ndarray, observed: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the share of all patterns that are as far from 0 as what was observed."""
    return (np.abs(flipped) >= np.abs(observed) - _TINY).mean(axis=0)


def _drawn_share(flipped: np.ndarray, observed: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the same for drawn patterns, the observed one included; see ``sign_flips`` for the bound."""
    as_far = (np.abs(flipped) >= np.abs(observed) - _TINY).sum(axis=0)
    share = (as_far + 1) / (len(flipped) + 1)
    bound = 2.0 * np.exp(-(observed**2) / (2.0 * np.maximum(variance, _TINY**2)))
    return np.where(as_far == 0, np.minimum(share, bound), share)


def _all_signs(n: int) -> list[np.ndarray]:
    return [np.array(list(product((1.0, -1.0), repeat=n)))]


def _drawn_signs(n: int, n_resamples: int, rng: np.random.Generator) -> list[np.ndarray]:
    sizes = [min(_BATCH, n_resamples - start) for start in range(0, n_resamples, _BATCH)]
    return [rng.integers(0, 2, (size, n), dtype=np.int8) * 2.0 - 1.0 for size in sizes]


def welch_seeds(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p of Welch's t test over the seeds' means of two methods.

    A method with one value was not trained several times: it is taken as a fixed number, and the other's
    seeds are tested against it (one-sample t).  NaN where neither has two seeds, or no seed differs.
    """
    first, second = _with_spread(a), _with_spread(b)
    if max(len(first), len(second)) < 2:
        return float("nan")  # no spread to measure a difference by
    if min(len(first), len(second)) > 1:
        return float(ttest_ind(first, second, equal_var=False).pvalue)
    many, fixed = (first, second[0]) if len(first) > 1 else (second, first[0])
    return float(ttest_1samp(many, fixed).pvalue)


def _with_spread(values: Sequence[float]) -> Sequence[float]:
    """Return the values, or one of them if all are equal: a term without variance adds none."""
    return values if np.ptp(values) > _TINY else values[:1]


def holm(p: Sequence[float]) -> np.ndarray:
    """Return Holm's adjusted p values, in the given order; NaN stays NaN and is no member of the family."""
    values = np.asarray(p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else []
    return adjusted
