"""Does a policy search when it must?  How often it searched, by whether the question needs a search at all.

What a policy knows without searching is read from ``direct``: a question that ``direct`` answers exactly is
known.  Where ``direct`` was run with the same policy, its own answers are used; else those of the untrained
policy, from which the trained one began (column ``known_from`` says which).  A well-calibrated policy
searches for all unknown questions and saves the search for known ones; one that always searches has a
``gap`` of 0, like one that never does.

Intervals speak about the method.  Where it was trained with several seeds they come from the hierarchical
bootstrap of ``resampling``, as in ``statistics.average_table``: a draw of the seeds, crossed with a draw of
the questions; a share is then drawn searches over drawn questions.  With one seed only the questions are
luck: Wilson's interval for a share, Newcombe's for the gap.  These keep a width where a method always did the
same, and so they stand in there for several seeds too, over the questions and not over the rows: a bootstrap
of equal rows would claim to be certain.  Called by notebook 04.
"""

from __future__ import annotations

from typing import Iterator

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from zerosearch.errors import MissingInput
from zerosearch.evaluation.blocks import value_blocks
from zerosearch.evaluation.resampling import hierarchical_draws

DIRECT = "direct"
CALIBRATION_COLUMNS = [
    "method", "dataset", "known_from", "n_known", "n_unknown", "searched_known", "searched_unknown", "gap",
    "searches_known", "searches_unknown", "em_known", "em_unknown", "seeds", "interval", "known_low", "known_high",
    "unknown_low", "unknown_high", "gap_low", "gap_high",
]
ALL = "all"  # all sets together, in the place of a set's name
WILSON, BOOTSTRAP = "wilson", "bootstrap"
_COUNTED = ("known", "unknown", "searched_known", "searched_unknown")  # 0 or 1 for each row

Bounds = tuple[float, float]


def search_calibration(
    predictions: pd.DataFrame, n_resamples: int = 2_000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return CALIBRATION_COLUMNS: one row per method that may search, and set (``all``: every question once).

    n_known, n_unknown: rows, over all training seeds.  searched_*: share of them with a search; gap:
    unknown minus known, in [-1, 1].  searches_*: mean number.  em_*: mean EM.  NaN where there is no such row.
    seeds: trainings of the method; interval: ``bootstrap`` where they are several, else ``wilson``, see the
    module (also for shares of 0 and 1).  known_*, unknown_*, gap_*: bounds of searched_known, searched_unknown, gap.
    Raises MissingInput without rows of ``direct``, UnpairedQuestions where seeds answered different questions.
    """
    direct = predictions[predictions["method"] == DIRECT]
    if direct.empty:
        raise MissingInput(
            "calibration of searching: expected predictions of the method 'direct', found none; add it with "
            "`./run_all.sh --set 04.methods=direct,search`"
        )
    searching = predictions[predictions["max_searches"] > 0]
    rows = []
    for _, part in searching.groupby("method", sort=False):
        marked, source = _marked(part, direct)
        draws = _draws(marked, n_resamples, seed) if marked["seed"].nunique() > 1 else None
        rows.extend(_rows(marked, source, draws, confidence))
    return pd.DataFrame(rows, columns=CALIBRATION_COLUMNS)


def _marked(part: pd.DataFrame, direct: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows of one method with the columns _COUNTED, and who was asked what is known."""
    known, source = _known(part, direct)
    searched = (part["n_searches"] > 0).to_numpy()
    counted = dict(zip(_COUNTED, (known, ~known, known & searched, ~known & searched), strict=True))
    return part.assign(**counted), source


def _rows(
    marked: pd.DataFrame, source: str, draws: dict[str, pd.DataFrame] | None, confidence: float
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one method: its sets, then all of them."""
    for dataset in [*marked["dataset"].drop_duplicates(), ALL]:
        rows = marked if dataset == ALL else marked[marked["dataset"] == dataset]
        both = rows[rows["known"]], rows[rows["unknown"]]
        searched, searches, right = (
            [_mean(values(part)) for part in both]
            for values in (lambda t: t["n_searches"] > 0, lambda t: t["n_searches"], lambda t: t["em"])
        )
        gap = searched[1] - searched[0]
        bounds = _of_questions(rows, confidence)
        if draws is not None:
            bounds = _of_draws(draws[dataset], confidence, [share in (0.0, 1.0) for share in searched], bounds)
        kind = WILSON if draws is None else BOOTSTRAP
        yield (marked["method"].iloc[0], dataset, source, len(both[0]), len(both[1]), *searched, gap, *searches, *right,
               marked["seed"].nunique(), kind, *(bound for pair in bounds for bound in pair))


# -- intervals ------------------------------------------------------------------------------------


def _draws(marked: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, pd.DataFrame]:
    """Return for each set, and ALL, the resampled values (resamples, 3): known, unknown, gap.

    NaN where a draw has no question of the kind.
    """
    blocks = value_blocks(marked, _COUNTED)
    blocks[ALL] = pd.concat([blocks[name] for name in sorted(blocks)])
    method, made = marked["method"].iloc[0], {}
    for dataset, means in hierarchical_draws(blocks, n_resamples, seed).items():
        drawn = means[method]
        shares = pd.DataFrame({kind: drawn[f"searched_{kind}"] / drawn[kind] for kind in ("known", "unknown")})
        made[dataset] = shares.assign(gap=shares["unknown"] - shares["known"])
    return made


def _of_draws(draws: pd.DataFrame, confidence: float, alike: list[bool], of_questions: list[Bounds]) -> list[Bounds]:
    """Return the percentiles of known, unknown and gap, over the draws that have such questions.

    alike: whether all rows of known, of unknown are the same; of_questions: the bounds to take there, and for the
    gap where both are.
    """
    tail = (1.0 - confidence) / 2.0
    drawn = [(float(low), float(high)) for low, high in draws.quantile([tail, 1.0 - tail]).to_numpy().T]
    choices = zip([*alike, all(alike)], of_questions, drawn, strict=True)
    return [own if same else percentiles for same, own, percentiles in choices]


def _of_questions(rows: pd.DataFrame, confidence: float) -> list[Bounds]:
    """Return Wilson's bounds of known and unknown, and Newcombe's of the gap: their distances, squared and added.

    Every question counts once, with its share of trainings that searched for it.
    """
    parts = [rows[rows[kind]] for kind in ("known", "unknown")]
    known, unknown = (_mean(part["n_searches"] > 0) for part in parts)
    sizes = [len(part[["dataset", "question_id"]].drop_duplicates()) for part in parts]
    bounds = [_wilson(share, n, confidence) for share, n in zip((known, unknown), sizes, strict=True)]
    (known_low, known_high), (unknown_low, unknown_high) = bounds
    down = float(np.hypot(unknown - unknown_low, known_high - known))
    up = float(np.hypot(unknown_high - unknown, known - known_low))
    return [*bounds, (unknown - known - down, unknown - known + up)]


def _wilson(share: float, n: int, confidence: float) -> Bounds:
    """Return Wilson's bounds of a share of n questions; NaN without any."""
    if not n:
        return float("nan"), float("nan")
    bounds = binomtest(round(share * n), n).proportion_ci(confidence, method="wilson")
    return float(bounds.low), float(bounds.high)


# -- what is known --------------------------------------------------------------------------------


def _known(part: pd.DataFrame, direct: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Return whether each row's question is known, (rows,), and who was asked."""
    same = direct[direct["policy"].isin(part["policy"])]
    if set(part["policy"]) <= set(same["policy"]):
        right = same.groupby(["policy", "question_id"])["em"].max()
        keys = pd.MultiIndex.from_arrays([part["policy"], part["question_id"]])
        return _right(right, keys), "direct, same policy"
    right = direct.groupby("question_id")["em"].max()
    return _right(right, pd.Index(part["question_id"])), "direct, untrained policy"


def _right(right: pd.Series, keys: pd.Index) -> np.ndarray:
    """Return right[keys] == 1; every question must have been asked."""
    if not keys.isin(right.index).all():
        missing = int((~keys.isin(right.index)).sum())
        raise MissingInput(
            f"calibration of searching: expected 'direct' to have answered every question, found {missing} that it "
            "has not; delete predictions.parquet and run `./run_all.sh --only 04` again"
        )
    return (right.reindex(keys) == 1.0).to_numpy()


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")
