"""From predictions to scores with error bars, and to comparisons that name a winner only when they may.

``score_table`` has one row per training seed; its intervals are bootstrap intervals over *questions*
(``scipy.stats.bootstrap``): they say how much a value would move with other questions of the same kind.
``average_table`` and ``comparison_table`` speak about a method, whatever the seed: where it was trained
with several seeds, the bootstrap is hierarchical and draws the seeds too, so that the intervals hold both
kinds of luck.  All seeds answered the same questions, hence seeds and questions are drawn crosswise: one
draw of questions for all seeds, one draw of seeds for all questions and sets.  (With three seeds the part
that comes from them is still rough, and about a fifth too narrow; ``seed_spread`` shows them singly.)

The average over the sets is unweighted and its resampling is stratified: every resample keeps each set at
its own size.  Two methods are compared on the same questions, so what is resampled is the difference
per question; their seeds are drawn independently of each other, since a training is nobody's pair.

All metrics, methods and pairs of a set are resampled together, with the same draws.  Same seed, same
questions, same numbers; the order of the rows does not matter.  Called by notebook 04 and the report.
"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import Iterator, Literal, Sequence

import numpy as np
import pandas as pd
from scipy.stats import DegenerateDataWarning, bootstrap

from zerosearch import seeds
from zerosearch.errors import WorkbookError

METRICS = ("em", "cover_em", "f1")
AVERAGE = "average"
SCORE_COLUMNS = ["method", "dataset", "seed", "metric", "value", "n", "low", "high"]
AVERAGE_COLUMNS = ["method", "dataset", "seeds", "metric", "value", "n", "low", "high"]
COMPARISON_COLUMNS = [
    "method_a", "method_b", "dataset", "metric", "seeds_a", "seeds_b", "n", "difference", "low", "high",
    "winner",
]
NO_WINNER = ""
_BATCH = 250  # resamples held in memory at once
_TINY = 1e-12  # differences below this are rounding, not an effect

IntervalMethod = Literal["percentile", "BCa"]


class UnpairedQuestions(WorkbookError):
    """Methods to be compared were not evaluated on the same questions."""


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
    blocks = _value_blocks(predictions, metrics)
    columns = list(next(iter(blocks.values())).columns)
    rows = []
    for dataset, estimate in _estimates(blocks, n_resamples, seed, confidence, interval).items():
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
    blocks = _value_blocks(predictions, metrics)
    values, sizes = _means_over_seeds(blocks), _sizes(blocks)
    rows = []
    for dataset, draws in _hierarchical_draws(blocks, n_resamples, seed).items():
        low, high = _percentiles(draws, confidence)
        for (method, metric), value in values[dataset].items():
            key = (method, metric)
            rows.append((method, dataset, n_seeds[method], metric, value, sizes[dataset], low[key], high[key]))
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
    blocks = _value_blocks(predictions, METRICS)
    values, sizes = _means_over_seeds(blocks), _sizes(blocks)
    known = list(predictions["method"].drop_duplicates())
    chosen = list(combinations(known, 2)) if pairs is None else list(pairs)
    keys = [(a, b, metric) for a, b in chosen for metric in METRICS]
    rows = []
    for dataset, draws in _hierarchical_draws(blocks, n_resamples, seed).items():
        low, high = _percentiles(_differences(draws, keys), confidence)
        for (a, b, metric), down, up in zip(keys, low, high, strict=True):
            value = values[dataset][a, metric] - values[dataset][b, metric]
            winner = a if down > _TINY else b if up < -_TINY else NO_WINNER
            rows.append((a, b, dataset, metric, n_seeds[a], n_seeds[b], sizes[dataset], value, down, up, winner))
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


# -- resampling -----------------------------------------------------------------------------------


class _Estimate:
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
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        made = bootstrap(
            samples, _mean_of_means, n_resamples=n_resamples, batch=_BATCH, vectorized=True, axis=-1,
            confidence_level=confidence, method=interval, rng=rng,
        )
    low, high = made.confidence_interval
    tail = (1.0 - confidence) / 2.0  # BCa is undefined where all questions agree: use the percentiles there
    percentiles = np.quantile(made.bootstrap_distribution, [tail, 1.0 - tail], axis=-1)
    return np.where(np.isnan(low), percentiles[0], low), np.where(np.isnan(high), percentiles[1], high)


def _estimates(
    blocks: dict[str, pd.DataFrame], n_resamples: int, seed: int, confidence: float, interval: IntervalMethod
) -> dict[str, _Estimate]:
    """Return one estimate per set and one for the average; blocks: (questions, columns) for each set."""
    samples = {name: np.ascontiguousarray(block.to_numpy(dtype=float).T) for name, block in blocks.items()}
    made = {
        name: _Estimate([values], seeds.generator(seed, "bootstrap", name), n_resamples, confidence, interval)
        for name, values in samples.items()
    }
    rng = seeds.generator(seed, "bootstrap", AVERAGE)
    in_one_order = [samples[name] for name in sorted(samples)]  # same draws whatever the order of rows
    made[AVERAGE] = _Estimate(in_one_order, rng, n_resamples, confidence, interval)
    return made


def _means_over_seeds(blocks: dict[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """Return for each set, and for the average, the mean of every (method, metric) over questions and seeds."""
    made = {name: block.mean().groupby(level=["method", "metric"]).mean() for name, block in blocks.items()}
    return {**made, AVERAGE: sum(made[name] for name in sorted(made)) / len(made)}


def _sizes(blocks: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Return the number of questions of each set, and of all sets together for the average."""
    sizes = {name: len(block) for name, block in blocks.items()}
    return {**sizes, AVERAGE: sum(sizes.values())}


def _hierarchical_draws(blocks: dict[str, pd.DataFrame], n_resamples: int, seed: int) -> dict[str, pd.DataFrame]:
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


def _percentiles(draws: pd.DataFrame, confidence: float) -> tuple[pd.Series, pd.Series]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws.to_numpy(), [tail, 1.0 - tail], axis=0)
    return pd.Series(low, index=draws.columns), pd.Series(high, index=draws.columns)


def _differences(draws: pd.DataFrame, keys: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame({(a, b, metric): draws[a, metric] - draws[b, metric] for a, b, metric in keys})


# -- tables ---------------------------------------------------------------------------------------


def _value_blocks(predictions: pd.DataFrame, metrics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return for each set a table (questions, method x seed x metric), both sorted by name, equal columns."""
    if predictions.empty:
        raise UnpairedQuestions("predictions: expected at least one row, found none; run notebook 04 first")
    keys = ["dataset", "question_id", "method", "seed"]
    if (repeated := predictions.duplicated(keys)).any():
        raise UnpairedQuestions(
            f"predictions: expected every question once per method and seed, found {int(repeated.sum())} "
            "repeated rows; delete predictions.parquet and run notebook 04 again"
        )
    long = predictions.melt(id_vars=keys, value_vars=list(metrics), var_name="metric", value_name="score")
    blocks = {}
    for dataset in predictions["dataset"].drop_duplicates():
        part = long[long["dataset"] == dataset]
        block = part.pivot(index="question_id", columns=["method", "seed", "metric"], values="score")
        block = block.sort_index(axis=0).sort_index(axis=1)
        if len(block.columns) * len(block) != len(part):
            raise _unpaired(str(dataset), block)
        blocks[str(dataset)] = block
    if len({tuple(block.columns) for block in blocks.values()}) > 1:
        runs = {name: len(block.columns) // len(metrics) for name, block in blocks.items()}
        raise UnpairedQuestions(
            f"predictions: expected the same methods and seeds in every set, found {runs} methods x seeds; "
            "run notebook 04 again for the missing ones"
        )
    return blocks


def _unpaired(dataset: str, block: pd.DataFrame) -> UnpairedQuestions:
    counts = block.notna().sum().groupby(level=["method", "seed"]).max()
    found = ", ".join(f"{method}/seed{seed}: {n}" for (method, seed), n in counts.items())
    return UnpairedQuestions(
        f"predictions of {dataset}: expected the same {len(block)} questions for every method and seed, "
        f"found {found}; run notebook 04 again for the shorter ones"
    )


def _ordered(table: pd.DataFrame, predictions: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the table with methods in the order of the predictions, sets and metrics kept as they are."""
    known = predictions[keys].drop_duplicates().itertuples(index=False, name=None)
    place = {pair: i for i, pair in enumerate(known)}
    order = [place[pair] for pair in table[keys].itertuples(index=False, name=None)]
    return table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
