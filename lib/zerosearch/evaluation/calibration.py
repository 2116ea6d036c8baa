"""Does a policy search when it must?  How often it searched, by whether the question needs a search at all.

What a policy knows without searching is read from ``direct``: a question that ``direct`` answers exactly is
known.  Where ``direct`` was run with the same policy, its own answers are used; else those of the untrained
policy, from which the trained one began (column ``known_from`` says which).  A well-calibrated policy
searches for all unknown questions and saves the search for known ones; one that always searches has a
``gap`` of 0, like one that never does.  Called by notebook 04.
"""

from __future__ import annotations

from typing import Iterator

import numpy as np
import pandas as pd

from zerosearch.errors import MissingInput

DIRECT = "direct"
CALIBRATION_COLUMNS = [
    "method", "dataset", "known_from", "n_known", "n_unknown", "searched_known", "searched_unknown", "gap",
    "searches_known", "searches_unknown", "em_known", "em_unknown",
]
ALL = "all"  # all sets together, in the place of a set's name


def search_calibration(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return CALIBRATION_COLUMNS: one row per method that may search, and set (``all``: every question once).

    n_known, n_unknown: rows, over all training seeds.  searched_*: share of them with a search; gap:
    unknown minus known, in [-1, 1].  searches_*: mean number.  em_*: mean EM.  NaN where there is no such row.
    Raises MissingInput without rows of ``direct``.
    """
    direct = predictions[predictions["method"] == DIRECT]
    if direct.empty:
        raise MissingInput(
            "calibration of searching: expected predictions of the method 'direct', found none; add it with "
            "`./run_all.sh --set 04.methods=direct,search`"
        )
    searching = predictions[predictions["max_searches"] > 0]
    rows = [row for method, part in searching.groupby("method", sort=False) for row in _rows(str(method), part, direct)]
    return pd.DataFrame(rows, columns=CALIBRATION_COLUMNS)


def _rows(method: str, part: pd.DataFrame, direct: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one method: its sets, then all of them."""
    known, source = _known(part, direct)
    for dataset in [*part["dataset"].drop_duplicates(), ALL]:
        chosen = np.ones(len(part), dtype=bool) if dataset == ALL else (part["dataset"] == dataset).to_numpy()
        both = part[chosen & known], part[chosen & ~known]
        searched, searches, right = (
            [_mean(values(rows)) for rows in both]
            for values in (lambda t: t["n_searches"] > 0, lambda t: t["n_searches"], lambda t: t["em"])
        )
        gap = searched[1] - searched[0]
        yield method, dataset, source, len(both[0]), len(both[1]), *searched, gap, *searches, *right


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
