"""pass@k: the chance that one of k sampled answers is right, estimated without bias from n of them.

For n samples of a question with c right ones: 1 - C(n - c, k) / C(n, k) (Chen et al., 2021, arXiv 2107.03374).
Taking 1 - (1 - c / n)^k instead is too low.  Greedy decoding gives one sample; this is for several, at a
temperature above 0.  Called by whoever samples.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd

from zerosearch.errors import ConfigError

PASS_COLUMNS = ["method", "dataset", "seed", "k", "value", "n", "samples"]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the estimate for n samples, c of them right, 1 <= k <= n."""
    if not (0 <= c <= n and 1 <= k <= n):
        raise ConfigError(f"pass@k: expected 0 <= right <= samples and 1 <= k <= samples, found n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0  # fewer wrong ones than draws
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def pass_at_k_table(samples: pd.DataFrame, ks: Sequence[int] = (1, 5), metric: str = "em") -> pd.DataFrame:
    """Return PASS_COLUMNS: one row per method x set x training seed x k; value: mean over the n questions.

    samples: one row per sampled answer, columns method, dataset, seed, question_id and metric (1: right).
    samples (column): least number of samples of a question.  Raises ConfigError where a k is above it.
    """
    runs = ["method", "dataset", "seed"]
    right = samples.assign(right=samples[metric] == 1.0)
    counts = right.groupby([*runs, "question_id"], sort=False)["right"].agg(n="size", c="sum")
    rows = []
    for run, part in counts.groupby(runs, sort=False):
        for k in ks:
            values = [pass_at_k(int(n), int(c), k) for n, c in part.itertuples(index=False, name=None)]
            rows.append((*run, k, float(np.mean(values)), len(part), int(part["n"].min())))
    return pd.DataFrame(rows, columns=PASS_COLUMNS)
