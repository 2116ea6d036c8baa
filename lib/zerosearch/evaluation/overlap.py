"""Do training questions come back in the evaluation?  Pairs that are equal, nearly equal, or suspiciously close.

    exact        the same text
    normalised   the same words after scoring's normalisation (case, punctuation, articles, blanks)
    near         ``rapidfuzz.fuzz.token_set_ratio`` of the normalised texts at or above a threshold (0 to 100)

The ratio is 100 where all words of one question stand in the other, so a very short question is near to
many: read the pairs before counting them.  Called by notebook 04.
"""

from __future__ import annotations

from typing import Iterator, Sequence

import numpy as np
import pandas as pd
from rapidfuzz import fuzz, process

from zerosearch.schema import Question
from zerosearch.scoring import normalize

OVERLAP_COLUMNS = ["train_id", "eval_id", "dataset", "kind", "similarity", "train_question", "eval_question"]
KINDS = ("exact", "normalised", "near")
_CHUNK = 512  # training questions compared at a time


def overlap_table(
    train: Sequence[Question], evaluated: Sequence[Question], threshold: float = 90.0, workers: int = 1
) -> pd.DataFrame:
    """Return OVERLAP_COLUMNS: one row per pair with the strongest kind that holds, strongest first.

    dataset: of the evaluation question.  similarity: token set ratio, 0 to 100; 100 for the first two kinds.
    threshold: least ratio of a near pair.  workers: threads.  Time grows with len(train) * len(evaluated).
    """
    rows = []
    words = [normalize(q.question) for q in evaluated]
    for first, similarity in _similarities([normalize(q.question) for q in train], words, threshold, workers):
        for row, column in zip(*np.nonzero(similarity), strict=True):
            asked, other = train[first + row], evaluated[column]
            ratio, kind = float(similarity[row, column]), _kind(asked.question, other.question)
            rows.append((asked.id, other.id, other.dataset, kind, ratio, asked.question, other.question))
    table = pd.DataFrame(rows, columns=OVERLAP_COLUMNS)
    order = table["kind"].map(KINDS.index).astype(int)
    by = table.assign(order=order, near=-table["similarity"]).sort_values(["order", "near"], kind="stable").index
    return table.loc[by].reset_index(drop=True)


def overlap_counts(table: pd.DataFrame, evaluated: Sequence[Question]) -> pd.DataFrame:
    """Return per set how many evaluation questions have a training question of each kind: dataset, n, KINDS.

    Each evaluation question counts once, with its strongest kind.
    """
    strongest = table.drop_duplicates("eval_id")  # the table is sorted, strongest first
    n = pd.Series([q.dataset for q in evaluated], dtype=object).value_counts(sort=False)
    found = pd.crosstab(strongest["dataset"], strongest["kind"])
    found = found.reindex(index=n.index, columns=list(KINDS), fill_value=0)
    return found.assign(n=n).rename_axis(columns=None).rename_axis("dataset").reset_index()[["dataset", "n", *KINDS]]


def _similarities(
    train: Sequence[str], evaluated: Sequence[str], threshold: float, workers: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, ratios (rows, evaluated)), 0 below the threshold, a chunk of training rows at a time.

    A text that normalises to nothing is close to none.
    """
    for first in range(0, len(train), _CHUNK):
        yield first, process.cdist(
            train[first : first + _CHUNK], evaluated, scorer=fuzz.token_set_ratio, score_cutoff=threshold,
            dtype=np.float32, workers=workers,
        )


def _kind(train: str, evaluated: str) -> str:
    if train == evaluated:
        return "exact"
    return "normalised" if normalize(train) == normalize(evaluated) else "near"
