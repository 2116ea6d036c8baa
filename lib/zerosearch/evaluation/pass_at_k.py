"""pass@k: the chance that one of k sampled answers is right, estimated without bias from n of them.

For n samples of a question with c right ones: 1 - C(n - c, k) / C(n, k) (Chen et al., 2021, arXiv 2107.03374).
Taking 1 - (1 - c / n)^k instead is too low.  The samples come from ``sampling``; intervals from
``statistics.average_table``, over the estimates of the questions.  Called by notebook 04.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd

from zerosearch.errors import ConfigError
from zerosearch.evaluation import statistics

PASS_COLUMNS = ["method", "dataset", "seeds", "k", "value", "n", "low", "high", "samples"]
_METRIC = "pass@"


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the estimate for n samples, c of them right, 1 <= k <= n."""
    if not (0 <= c <= n and 1 <= k <= n):
        raise ConfigError(f"pass@k: expected 0 <= right <= samples and 1 <= k <= samples, found n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0  # fewer wrong ones than draws
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def pass_at_k_table(
    samples: pd.DataFrame, ks: Sequence[int] | None = None, metric: str = "em", n_resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return PASS_COLUMNS: one row per method x set (and ``average``) x k.

    samples: one row per sampled answer, columns method, seed, dataset, question_id and metric (1: right).  ks:
    every k up to the number of samples if None.  value: mean over the n questions and the training seeds
    (``seeds``: how many); low, high: 95 % hierarchical bootstrap.  samples (column): of each question.
    Raises ConfigError where the questions have different numbers of samples, or a k is above it.
    """
    keys = ["method", "seed", "dataset", "question_id"]
    counts = samples.assign(right=samples[metric] == 1.0).groupby(keys, sort=False)["right"].agg(n="size", c="sum")
    if counts["n"].nunique() != 1:
        raise ConfigError(
            f"pass@k: expected equally many samples of every question, found {counts['n'].min()} to "
            f"{counts['n'].max()}; delete samples.parquet of this run and run notebook 04 again"
        )
    n = int(counts["n"].iloc[0])
    ks = range(1, n + 1) if ks is None else ks
    estimates = counts.assign(**{f"{_METRIC}{k}": [pass_at_k(n, int(c), k) for c in counts["c"]] for k in ks})
    table = statistics.average_table(estimates.reset_index(), n_resamples, seed, metrics=[f"{_METRIC}{k}" for k in ks])
    k_of = table["metric"].str.removeprefix(_METRIC).astype(int)
    table = table.assign(k=k_of, samples=n, order=pd.factorize(table["method"])[0], at=pd.factorize(table["dataset"])[0])
    return table.sort_values(["order", "at", "k"], ignore_index=True)[PASS_COLUMNS]
