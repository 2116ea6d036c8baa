"""Predictions as tables of paired values: for each set, one row per question, one column per run and metric.

Every comparison starts here, so that no method is ever judged on other questions than its rival: a
repeated, missing or extra question is refused with counts.  Called by the modules of statistics.
"""

from __future__ import annotations

from typing import Sequence

import pandas as pd

from zerosearch.errors import WorkbookError

AVERAGE = "average"  # the unweighted mean of the sets, in the place of a set's name


class UnpairedQuestions(WorkbookError):
    """Methods to be compared were not evaluated on the same questions."""


def value_blocks(predictions: pd.DataFrame, metrics: Sequence[str]) -> dict[str, pd.DataFrame]:
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


def sizes(blocks: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Return the number of questions of each set, and of all sets together for the average."""
    own = {name: len(block) for name, block in blocks.items()}
    return {**own, AVERAGE: sum(own.values())}


def _unpaired(dataset: str, block: pd.DataFrame) -> UnpairedQuestions:
    counts = block.notna().sum().groupby(level=["method", "seed"]).max()
    found = ", ".join(f"{method}/seed{seed}: {n}" for (method, seed), n in counts.items())
    return UnpairedQuestions(
        f"predictions of {dataset}: expected the same {len(block)} questions for every method and seed, "
        f"found {found}; run notebook 04 again for the shorter ones"
    )
