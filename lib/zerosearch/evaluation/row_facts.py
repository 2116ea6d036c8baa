"""Facts of one answered question that no score shows: did it act validly, search enough, and where did it fail?

``row_facts`` gives the columns, a pure function of one ``Prediction``:

    valid_actions    share of the policy's messages that hold a complete search or answer; None without a message
    searches_needed  gold facts of the question, None where they are unknown (``n_searches``: those made)
    outcome          one of OUTCOMES, the first that holds:

        right                EM 1
        engine failed        a search failed for good: not the policy's fault
        format               no answer that can be read: none written, or one without words
        misread              a golden answer stood in what the policy was shown; it answered something else
        no search            nothing was retrieved
        wrong query          nothing that it asked could have led to the answer, see below
        missed in passages   it asked for the right thing, and no golden answer was shown

A query leads to the answer if it asks for a gold fact that states it (for any gold fact, where none does).
Where gold facts are unknown this is judged by words alone: a query leads nowhere if it shares no word, apart
from function words, with the question or with a passage retrieved before it.  A golden answer that was
retrieved but cut off before the policy saw it counts as missed.  Called by ``runner`` and notebook 04.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from bm25s.stopwords import STOPWORDS_EN

from zerosearch.errors import MissingInput
from zerosearch.evaluation.methods import Prediction
from zerosearch.labels import asks_for, gold_hops
from zerosearch.schema import Question, Retrieval
from zerosearch.scoring import contains_answer, em, normalize

OUTCOMES = ("right", "engine failed", "format", "misread", "no search", "wrong query", "missed in passages")
OUTCOME_COLUMNS = ["method", "dataset", "outcome", "n", "share"]
NEED_COLUMNS = ["method", "needed", "n", "made", "enough", "em"]
_FUNCTION_WORDS = {
    *STOPWORDS_EN,
    *"who whom whose what which when where why how did do does has had have his her its were from".split(),
}


def row_facts(prediction: Prediction) -> dict[str, Any]:
    """Return the columns valid_actions, searches_needed and outcome of one row; see the module."""
    turns = prediction.trajectory.turns
    needed = len(gold_hops(prediction.trajectory.question))
    return {
        "valid_actions": sum(turn.action != "none" for turn in turns) / len(turns) if turns else None,
        "searches_needed": needed or None,
        "outcome": outcome(prediction),
    }


def outcome(prediction: Prediction) -> str:
    """Return the one of OUTCOMES that holds first."""
    trajectory, question = prediction.trajectory, prediction.trajectory.question
    if em(trajectory.answer, question.golden_answers) == 1.0:
        return "right"
    if trajectory.stop_reason == "retriever_error":
        return "engine failed"
    if not normalize(trajectory.answer or ""):
        return "format"
    if contains_answer(prediction.shown, question.golden_answers):
        return "misread"
    if not prediction.retrievals:
        return "no search"
    return "missed in passages" if _leads_to_the_answer(question, prediction.retrievals) else "wrong query"


def _leads_to_the_answer(question: Question, retrievals: tuple[Retrieval, ...]) -> bool:
    """Say whether a query asks for what states the answer; by shared words where gold facts are unknown."""
    hops = gold_hops(question)
    if hops:
        stating = [hop for hop in hops if contains_answer(hop.object, question.golden_answers)] or hops
        return any(asks_for(r.request.query, hop.subject, hop.relation) for r in retrievals for hop in stating)
    known = _words(question.question)
    for retrieval in retrievals:
        if _words(retrieval.request.query) & known:
            return True
        known |= {word for p in retrieval.passages for word in _words(f"{p.title} {p.text}")}
    return False


def _words(text: str) -> set[str]:
    """Return the words that say something."""
    return set(normalize(text).split()) - _FUNCTION_WORDS


# -- tables ---------------------------------------------------------------------------------------


def outcome_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return OUTCOME_COLUMNS: how many questions of a method and set end in each of OUTCOMES, all seven listed.

    share: of all its questions and training seeds; the shares of a method and set add up to 1.
    """
    _require(predictions, "outcome")
    counts = pd.crosstab([predictions["method"], predictions["dataset"]], predictions["outcome"])
    known = predictions[["method", "dataset"]].drop_duplicates()
    counts = counts.reindex(index=pd.MultiIndex.from_frame(known), columns=list(OUTCOMES), fill_value=0)
    table = counts.rename_axis(columns="outcome").stack().rename("n").reset_index()
    total = table.groupby(["method", "dataset"])["n"].transform("sum")
    return table.assign(share=table["n"] / total)[OUTCOME_COLUMNS]


def search_need_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return NEED_COLUMNS: searches made, by searches needed; one row per method and number of gold facts.

    made: mean.  enough: share of questions with at least as many searches as gold facts.  Methods that may
    not search and questions without known gold facts are left out.
    """
    _require(predictions, "searches_needed")
    used = predictions[(predictions["max_searches"] > 0) & predictions["searches_needed"].notna()]
    needed = used["searches_needed"].astype(int)
    used = used.assign(needed=needed, enough=used["n_searches"] >= needed)
    grouped = used.groupby(["method", "needed"], sort=False)
    table = grouped.agg(n=("em", "size"), made=("n_searches", "mean"), enough=("enough", "mean"), em=("em", "mean"))
    order = {method: i for i, method in enumerate(used["method"].drop_duplicates())}
    table = table.reset_index().assign(order=lambda t: t["method"].map(order))
    return table.sort_values(["order", "needed"], ignore_index=True)[NEED_COLUMNS]


def _require(predictions: pd.DataFrame, column: str) -> None:
    if column not in predictions:
        raise MissingInput(
            f"predictions: expected the column {column!r}, found none; they were made by an earlier version, delete "
            "predictions.parquet and run `./run_all.sh --only 04` again"
        )
