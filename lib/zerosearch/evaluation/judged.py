"""A judge's verdicts beside the metrics: which answers it calls right, and how often it agrees with EM.

Called by notebook 04 where an endpoint is given.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from zerosearch.evaluation.judge import Judge, JudgeSettings, agreement_table, cases_of

JUDGED_COLUMNS = ["method", "seed", "dataset", "question_id", "prediction", "em", "judge", "judge_error", "judged_by"]


def judge_predictions(
    predictions: pd.DataFrame, settings: JudgeSettings, verdicts: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (JUDGED_COLUMNS, one row per prediction; ``judge.agreement_table`` with EM).

    judge: whether it calls the answer right, None after a failure, which judge_error names.  judged_by: model and
    digest of its instruction.  verdicts: file of its verdicts, on the disk before they are used.
    Raises JudgeFailed as ``Judge.ask`` does.
    """
    judge = Judge(settings, verdicts)
    said = judge.ask(cases_of(predictions))
    judged = predictions[["method", "seed", "dataset", "question_id", "prediction", "em"]].assign(
        judge=pd.array([verdict.right for verdict in said], dtype="boolean"),
        judge_error=[verdict.error for verdict in said], judged_by=judge.identity,
    )
    return judged[JUDGED_COLUMNS], agreement_table(predictions, said)
