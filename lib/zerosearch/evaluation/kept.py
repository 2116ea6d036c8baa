"""Whole trajectories of an evaluation, for reading: a bounded draw of what ``predictions.parquet`` scored.

A row of predictions holds the text alone.  For the questions that are to be kept, the runner adds the
trajectory itself (tokens, log-probabilities, searches with their passages) to the row of its part file,
so that a resumed evaluation has it too; ``split`` takes it out again and makes ``kept_trajectories.parquet``
of it.  It is the very trajectory that was scored; no question is asked twice.  Seconds of a search are
left out, so that equal runs write equal tables.

Size in the micro-world: about 4 kB of a part file, which goes when the stage ends, and 0.5 kB of Parquet
per trajectory.
Called by ``evaluation.runner`` and notebook 04.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any, Collection

import pandas as pd

from zerosearch.evaluation.methods import Prediction
from zerosearch.rollout import to_row
from zerosearch.schema import Trajectory, Turn

COLUMN, TRAJECTORIES = "trajectory", "kept_trajectories.parquet"
_OF_THE_PREDICTION = ("method", "arm", "seed", "policy", "em", "cover_em", "f1")


def cell(prediction: Prediction, kept: Collection[str]) -> dict[str, str | None]:
    """Return the column to be added to a prediction's row: its trajectory as JSON, None if it is not kept.

    kept: ids of the questions to keep; no column at all when it is empty.
    """
    if not kept:
        return {}
    if prediction.trajectory.question.id not in kept:
        return {COLUMN: None}
    row = {**to_row(recorded(prediction)), "given": prediction.given is not None}
    return {COLUMN: json.dumps(row, ensure_ascii=False)}


def recorded(prediction: Prediction) -> Trajectory:
    """Return the trajectory without wall seconds; passages that stood in its prompt (RAG) become a first
    turn without text."""
    turns = prediction.trajectory.turns
    if prediction.given is not None:
        turns = (Turn("", "search", prediction.given.request.query, prediction.given, prediction.shown), *turns)
    return replace(prediction.trajectory, turns=tuple(map(_untimed, turns)))


def _untimed(turn: Turn) -> Turn:
    return turn if turn.retrieval is None else replace(turn, retrieval=replace(turn.retrieval, wall_seconds=0.0))


def mark(kept: Collection[str]) -> str:
    """Return what the name of a part says about the questions that it keeps: nothing if there are none."""
    return "-" + hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()[:8] if kept else ""


def split(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (predictions without the column, kept trajectories with one row each).

    The second has the columns method, arm, seed, policy, em, cover_em, f1, those of ``rollout.to_row``,
    and given: whether the first turn was made before the policy wrote.  It is empty if nothing was kept.
    """
    if COLUMN not in predictions:
        return predictions, pd.DataFrame()
    chosen = predictions[predictions[COLUMN].notna()]
    rows: list[dict[str, Any]] = [
        {**{name: row[name] for name in _OF_THE_PREDICTION}, **json.loads(row[COLUMN])}
        for row in chosen.to_dict("records")
    ]
    return predictions.drop(columns=COLUMN), pd.DataFrame(rows)
