"""The same policies under other searches: homonyms, corrupted results, none at all, a later world.

The headline is measured with clean searches on all questions.  Here a draw of the same questions is
answered again under each condition (``conditions.open_condition``), by the trained policies and by the
untrained one that is forced to search.  The clean row beside them is no new measurement: it is the same
questions, taken out of the headline's predictions.  Only ``later`` asks other questions, those whose
answer has changed since training; a policy that answers from a stale source gives the past answer.

One table of predictions (rows as in ``predictions.parquet``, and the two columns ``condition`` and
``past``), one of scores.  Called by notebook 04.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Sequence

import pandas as pd

from zerosearch import scoring
from zerosearch.evaluation import runner, statistics
from zerosearch.evaluation.methods import Method
from zerosearch.questions import load_corpus, read_questions
from zerosearch.schema import Passage, Question

CLEAN, LATER = "clean", "later"
TRIED = ("forced",)  # untrained methods that are tried under the conditions, beside every trained policy
SCORE_COLUMNS = ["method", "arm", "seed", "condition", "metric", "value", "n", "low", "high"]
AVERAGE_COLUMNS = ["method", "arm", "seeds", "condition", "metric", "value", "n", "low", "high"]
Progress = Callable[[str, int, int], None]


def later_part(
    corpus_file: Path | None, questions_file: Path | None, per_set: int, seed: int
) -> tuple[list[Passage], list[Question]]:
    """Return (passages, questions) of the later world, at most per_set of each set (0: all).

    Both are empty where the run has no later world (a reader's own data) or none of its answers changed.
    """
    if corpus_file is None or questions_file is None or not (changed := read_questions(questions_file)):
        return [], []
    return load_corpus(corpus_file), runner.pick(changed, per_set, seed)


@dataclass(frozen=True, slots=True)
class Trial:
    """One condition: its name, who answers (with that condition's engine on the bench), and what is asked."""

    condition: str
    methods: Sequence[Method]
    questions: Sequence[Question]

    @property
    def n_answers(self) -> int:
        """Number of predictions to be made."""
        return len(self.methods) * len(self.questions)


def evaluate_conditions(
    trials: Sequence[Trial], parts: Path, batch_size: int = 256, ledger: runner.EventLog | None = None,
    on_progress: Progress | None = None,
) -> list[pd.DataFrame]:
    """Return one table of predictions for each trial, in order, with ``condition`` and ``past``.

    past: 1 where the prediction is the answer of the past, 0 where it is another one; NaN for questions
    whose answer has not changed.  parts: folder for finished methods, each condition in its own.
    on_progress(label, done, total) counts answers over all trials.
    """
    done, total, tables = 0, sum(t.n_answers for t in trials), []
    for trial in trials:
        report = partial(_report, on_progress, trial.condition, done, total)
        folder = parts / trial.condition
        rows = runner.evaluate_all(trial.methods, trial.questions, folder, batch_size, ledger, report)
        tables.append(rows.assign(condition=trial.condition, past=_past(rows, trial.questions)))
        done += trial.n_answers
    return tables


def _report(
    on_progress: Progress | None, condition: str, before: int, total: int, label: str, done: int, _: int
) -> None:
    if on_progress is not None:
        on_progress(f"{condition}: {label}", before + done, total)


def _past(rows: pd.DataFrame, questions: Sequence[Question]) -> list[float]:
    """Return for each row whether its prediction is the past answer of its question."""
    before = {q.id: q.metadata.get("past_answer") for q in questions}
    pairs = zip(rows["prediction"], rows["question_id"], strict=True)
    return [
        float("nan") if before[key] is None else scoring.em(said if isinstance(said, str) else None, [before[key]])
        for said, key in pairs
    ]


def is_tried(method: Method) -> bool:
    """Say whether a method is tried under the conditions: trained policies are, and the forced base."""
    return bool(method.arm) or method.name in TRIED


def clean_rows(predictions: pd.DataFrame, questions: Sequence[Question]) -> pd.DataFrame:
    """Return the headline's predictions of these questions by the methods that are tried, as condition clean."""
    tried = (predictions["arm"] != "") | predictions["method"].isin(TRIED)
    asked = predictions["question_id"].isin({q.id for q in questions})
    return predictions[tried & asked].assign(condition=CLEAN, past=float("nan"))


def condition_scores(
    predictions: pd.DataFrame, n_resamples: int = 10_000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (SCORE_COLUMNS per training seed, AVERAGE_COLUMNS over the seeds) for rows with ``condition``.

    value: mean over the n questions of a condition, all sets together.  metric: ``em``, and for ``later``
    also ``past``, the share of predictions that are the past answer.  Intervals as in ``statistics``.
    """
    scores, averages = [], []
    for metric, rows in (("em", predictions), ("past", predictions[predictions["past"].notna()])):
        if rows.empty:
            continue
        named = rows.assign(dataset=rows["condition"])
        scores.append(statistics.score_table(named, n_resamples, seed, metrics=(metric,)))
        averages.append(statistics.average_table(named, n_resamples, seed, metrics=(metric,)))
    arms = predictions.drop_duplicates("method").set_index("method")["arm"]
    return _by_condition(scores, arms, SCORE_COLUMNS), _by_condition(averages, arms, AVERAGE_COLUMNS)


def _by_condition(tables: Sequence[pd.DataFrame], arms: pd.Series, columns: list[str]) -> pd.DataFrame:
    """Return score tables whose sets are conditions under the names of this module; their average means nothing."""
    table = pd.concat(tables, ignore_index=True)
    table = table[table["dataset"] != statistics.AVERAGE].rename(columns={"dataset": "condition"})
    return table.assign(arm=table["method"].map(arms))[columns].reset_index(drop=True)


def freshness_table(
    predictions: pd.DataFrame, questions: Sequence[Question], averages: pd.DataFrame
) -> pd.DataFrame:
    """Return one row per method: how it answered the changed questions before (``then``) and now.

    predictions: of the headline, clean searches of the world as it was in training.  questions: those of
    ``later``.  averages: of ``condition_scores``.  Columns: method, n, then (EM of the same questions in
    the past, NaN unless all were asked), now (EM of today's answers, with the later engine), past (share
    of predictions that are the answer of the past).
    """
    asked = predictions[predictions["question_id"].isin({q.id for q in questions})]
    whole = asked["question_id"].nunique() == len(questions)
    later = averages[averages["condition"] == LATER]
    values = later.pivot(index="method", columns="metric", values="value").reindex(later["method"].unique())
    then = asked.groupby("method")["em"].mean().reindex(values.index) if whole else float("nan")
    table = pd.DataFrame({"n": later.groupby("method")["n"].first(), "then": then, "now": values["em"],
                          "past": values["past"]}, index=values.index)
    return table.rename_axis("method").reset_index()
