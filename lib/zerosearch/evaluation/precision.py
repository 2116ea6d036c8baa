"""How sure one difference is, in closed form: standard error, degrees of freedom, t interval, equivalence.

Two kinds of luck add up.  Questions: the variance of the difference per question over their number, with
two pseudo-questions added (half a question won by each side, one tied: Agresti and Min, 2005), so that
two methods that agree on ten questions are not called equal for certain.  Trainings: the sample variance
of the seeds' means over their number, for each method with several seeds.  What belongs to a seed and a
question at once is in both terms: the sum is a little too large, never too small.

The degrees of freedom are Welch and Satterthwaite's, so a term of three seeds counts as rough as it is.
Without luck of the questions this is Welch's t test over the seeds.  Called by ``comparison``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import nct, norm, t

_LARGE = 300.0  # degrees of freedom from which on t is the normal distribution to three digits


@dataclass(frozen=True, slots=True)
class Term:
    """One independent part of the variance of a difference, and its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True, slots=True)
class Precision:
    """Standard error of a difference and its degrees of freedom; NaN where there is too little to tell."""

    error: float
    df: float

    def interval(self, difference: float, confidence: float = 0.95) -> tuple[float, float]:
        """Return the bounds of the t interval."""
        half = float(t.ppf((1.0 + confidence) / 2.0, self.df)) * self.error
        return difference - half, difference + half

    def p(self, difference: float) -> float:
        """Return the two-sided p of "no difference"."""
        return float(2.0 * t.sf(abs(difference) / self.error, self.df))

    def p_equivalence(self, difference: float, margin: float) -> float:
        """Return the p of two one-sided tests of "at least margin apart", the larger of the two.

        Below alpha: the interval of confidence 1 - 2 alpha lies within -margin and margin.
        """
        return float(t.sf((margin - abs(difference)) / self.error, self.df))

    def detectable(self, power: float = 0.8, alpha: float = 0.05) -> float:
        """Return the smallest true difference that a two-sided test at alpha finds with this power.

        For a single comparison: after Holm's correction over many, it is larger.
        """
        if np.isnan(self.error):
            return float("nan")
        return _reach(round(self.df, 1) if self.df < _LARGE else np.inf, power, alpha) * self.error


def question_term(differences: np.ndarray) -> Term:
    """Return the term of the questions; differences (questions,), each in [-1, 1]."""
    n = len(differences)
    if n < 2:
        return Term(float("nan"), float("nan"))
    mean = differences.sum() / (n + 2)
    variance = ((differences**2).sum() + 1.0) / (n + 2) - mean**2
    return Term(float(variance / (n + 2)), n - 1)


def seed_term(means: np.ndarray) -> Term | None:
    """Return the term of one method's trainings; means (seeds,).  None for a single one."""
    return Term(float(np.var(means, ddof=1) / len(means)), len(means) - 1) if len(means) > 1 else None


def scaled(term: Term, factor: float) -> Term:
    """Return the term of a value multiplied by the factor."""
    return Term(term.variance * factor**2, term.df)


def combine(terms: Sequence[Term]) -> Precision:
    """Return the precision of a sum of independent parts (Welch and Satterthwaite)."""
    total = sum(term.variance for term in terms)
    weight = sum(term.variance**2 / term.df for term in terms)
    return Precision(float(np.sqrt(total)), float(total**2 / weight))


@lru_cache(maxsize=4096)
def _reach(df: float, power: float, alpha: float) -> float:
    """Return the true difference in standard errors that is found with this power (noncentral t)."""
    if np.isinf(df):
        return float(norm.isf(alpha / 2.0) + norm.ppf(power))
    limit = float(t.isf(alpha / 2.0, df))
    return float(brentq(lambda shift: nct.sf(limit, df, shift) - power, 0.0, 10.0 * (1.0 + limit)))
