"""Every question exactly once per method and seed: one row each, with its decoding settings (rule 9).

The rows hold what was answered, the three metrics of that one answer, what was retrieved, and under
which settings; whoever reads ``predictions.parquet`` needs no other file to judge a number.  Counts are
asserted against the list of questions, never assumed.

A finished batch of a method is kept as a part file until all are finished, so that a cut-off evaluation
goes on where it stopped.  A part is used again only if its questions, settings, weights and corpus are the
same: their digest stands in its name.  Called by notebook 04.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Callable, Collection, Iterable, Sequence

import pandas as pd
import torch

from zerosearch import scoring, seeds
from zerosearch.errors import WorkbookError
from zerosearch.evaluation import kept as keeping
from zerosearch.evaluation.methods import Method, Prediction
from zerosearch.evaluation.row_facts import row_facts
from zerosearch.interrupts import StopRequest
from zerosearch.parts import EventLog, Parts
from zerosearch.questions import evaluation_questions
from zerosearch.retrievers.base import count_queries
from zerosearch.schema import Question

Progress = Callable[[str, int, int], None]


class IncompleteEvaluation(WorkbookError):
    """A question was left out, or scored more than once."""


def evaluate_all(
    methods: Sequence[Method], questions: Sequence[Question], parts: Path, batch_size: int = 256,
    ledger: EventLog | None = None, on_progress: Progress | None = None, kept: Collection[str] = (),
) -> pd.DataFrame:
    """Return the predictions of all methods on all questions, in this order, one row each.

    parts: folder for finished batches, a stage's ``checkpoints``.
    batch_size: conversations under way at once.  on_progress(label, done, total) counts answered
    questions over all methods.  kept: ids of questions whose trajectories are wanted as well, in a column
    that ``kept.split`` takes out.
    Raises IncompleteEvaluation unless every question is scored exactly once per method and seed, Stopped
    after the batch under way when it was asked to stop.
    """
    tables: list[pd.DataFrame] = []
    store = Parts(parts, ledger)
    with StopRequest() as stop:
        for number, method in enumerate(methods):
            report = partial(_report, on_progress, number * len(questions), len(methods) * len(questions))
            table = pd.DataFrame(_rows(method, questions, batch_size, store, ledger, report, stop, kept))
            check_counts(table, questions)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _rows(
    method: Method, questions: Sequence[Question], batch_size: int, store: Parts, ledger: EventLog | None,
    report: Progress, stop: StopRequest, kept: Collection[str],
) -> list[dict[str, Any]]:
    """Return one row per question for one method, from its parts where they are finished."""
    name = f"{method.label}-seed{method.seed}-{fingerprint(method, questions, batch_size)}{keeping.mark(kept)}"
    rows: list[dict[str, Any]] = []
    for start in range(0, len(questions), batch_size):
        chunk = questions[start : start + batch_size]
        rows += store.rows(f"{name}-{start:06d}", partial(answer_batch, method, chunk, ledger, kept=kept))
        report(f"{method.label}, seed {method.seed}", len(rows), len(questions))
        stop.check(f"the answers of every finished batch, {len(rows)} of {len(questions)} of {method.label}")
    return rows


def answer_batch(
    method: Method, questions: Sequence[Question], ledger: EventLog | None = None, unit: str | None = None,
    kept: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return one row per question, all under way at once; what it took goes to the ledger under ``unit``."""
    started = time.perf_counter()
    predictions = method.run(questions)
    if ledger is not None:
        meter(ledger, method, predictions, time.perf_counter() - started, unit)
    return [prediction_row(method, p) | keeping.cell(p, kept) for p in predictions]


def _report(on_progress: Progress | None, before: int, total: int, label: str, done: int, _: int) -> None:
    if on_progress is not None:
        on_progress(label, before + done, total)


def prediction_row(method: Method, prediction: Prediction) -> dict[str, Any]:
    """Return one row of ``predictions.parquet``.

    prediction: the answer the policy wrote, None without one.  em, cover_em, f1 in [0, 1].
    n_tokens: tokens that the policy wrote.  answer_in_passages: the prediction stands in a retrieved
    passage; gold_in_passages: a golden answer does; gold_shown: also after the cut to the token budget.
    valid_actions, searches_needed, outcome: see ``row_facts``.
    The remaining columns are the decoding settings that were in force.
    """
    trajectory, question = prediction.trajectory, prediction.trajectory.question
    texts = [p.text for r in prediction.retrievals for p in r.passages]
    answer, golden = trajectory.answer, question.golden_answers
    return {
        "method": method.label, "arm": method.arm, "seed": method.seed, "dataset": question.dataset,
        "question_id": question.id, "question": question.question, "golden_answers": list(golden),
        "prediction": answer, **asdict(scoring.score(answer, golden)),
        "n_searches": len(prediction.retrievals), "n_turns": len(trajectory.turns),
        "n_tokens": sum(trajectory.loss_mask), "stop_reason": trajectory.stop_reason,
        "error": trajectory.error,
        "answer_in_passages": answer is not None and any(scoring.contains_answer(t, [answer]) for t in texts),
        "gold_in_passages": any(scoring.contains_answer(t, golden) for t in texts),
        "gold_shown": scoring.contains_answer(prediction.shown, golden),
        "transcript": "".join(turn.text + turn.observation for turn in trajectory.turns),
        **row_facts(prediction), **decoding(method),
    }


def decoding(method: Method) -> dict[str, Any]:
    """Return the settings under which a method answers, as stored in each of its rows."""
    bench, settings = method.bench, method.bench.settings
    return {
        "policy": bench.policy, "retriever": method.searched if method.max_searches else "",
        "temperature": float(settings.temperature), "sampling_seed": settings.run_seed,
        "max_searches": method.max_searches,
        "passages_per_query": bench.passages_per_query if method.max_searches else 0,
        "max_turn_tokens": settings.max_turn_tokens,
        "max_observation_tokens": settings.max_observation_tokens,
        "max_total_tokens": settings.max_total_tokens,
    }


def meter(
    ledger: EventLog, method: Method, predictions: Sequence[Prediction], seconds: float, unit: str | None = None
) -> None:
    """Write what a batch used: the policy's tokens, the searches by engine, wall seconds."""
    engine, _ = method.bench.open()
    counts = engine.counts.take()
    event = partial(ledger.event, unit=unit)
    event("tokens", role="policy", model=engine.name, prompt=counts.prompt, generated=counts.generated)
    searches = [r for p in predictions for r in p.retrievals]
    for fields in count_queries(searches):
        event("queries", **fields)
    gpu = torch.cuda.is_available()
    units = 1 if gpu else torch.get_num_threads()
    event("busy", role="evaluation", device="cuda" if gpu else "cpu", seconds=round(seconds, 4), units=units)


# -- counts ---------------------------------------------------------------------------------------


def check_counts(predictions: pd.DataFrame, questions: Sequence[Question]) -> None:
    """Raise IncompleteEvaluation unless every method and seed has each question exactly once."""
    expected = Counter(q.id for q in questions)
    for (method, seed), part in predictions.groupby(["method", "seed"], sort=False):
        found = Counter(part["question_id"])
        if found == expected:
            continue
        missing, extra = expected - found, found - expected
        raise IncompleteEvaluation(
            f"{method}, seed {seed}: expected each of {len(questions)} questions once, found {len(part)} "
            f"rows, {missing.total()} missing {sorted(missing)[:3]} and {extra.total()} too many "
            f"{sorted(extra)[:3]}; delete the folder 04_evaluate of this run and run notebook 04 again"
        )


def count_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the number of questions scored: one row per method and seed, one column per set, and total."""
    counts = predictions.pivot_table(
        index=["method", "seed"], columns="dataset", values="question_id", aggfunc="nunique", sort=False,
        fill_value=0,
    )
    return counts.assign(total=counts.sum(axis=1)).rename_axis(columns=None)


def retrieval_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return, per method and set, what searching brought: columns searches (mean per question), recall
    (share of questions whose golden answer stands in a retrieved passage), shown (still there after the
    cut) and unsupported (share of given answers that stand in no retrieved passage; NaN if none given)."""
    used = predictions[predictions["max_searches"] > 0]
    answered = used["prediction"].notna()
    used = used.assign(unsupported=(~used["answer_in_passages"].astype(bool)).astype(float).where(answered))
    grouped = used.groupby(["method", "dataset"], sort=False)
    return grouped.agg(
        searches=("n_searches", "mean"), recall=("gold_in_passages", "mean"), shown=("gold_shown", "mean"),
        unsupported=("unsupported", "mean"), n=("question_id", "nunique"),
    ).reset_index()


def pick(questions: Iterable[Question], per_set: int = 0, seed: int = 0) -> list[Question]:
    """Return the evaluation questions in the given order, at most per_set of each set (0: all).

    A smaller number is a seeded draw, nested: the questions of a smaller draw are in every larger one.
    Training questions are never returned; IncompleteEvaluation when there are no others.
    """
    candidates = evaluation_questions(questions)
    drawn: Counter[str] = Counter()
    chosen: set[str] = set()
    for question in sorted(candidates, key=lambda q: seeds.uniform(seed, "evaluation", q.id)):
        drawn[question.dataset] += 1
        if per_set == 0 or drawn[question.dataset] <= per_set:
            chosen.add(question.id)
    if not chosen:
        raise IncompleteEvaluation(
            "questions: expected at least one of split 'eval', found none; check the files given by "
            "--questions and run `./run_all.sh --only 00` again"
        )
    return [q for q in candidates if q.id in chosen]


# -- resuming -------------------------------------------------------------------------------------


def fingerprint(method: Method, questions: Sequence[Question], batch_size: int) -> str:
    """Return 12 hex digits that change with the questions, the settings, the weights or the corpus."""
    parts = [
        method.label, method.seed, method.bench.identity, batch_size, decoding(method),
        [(q.id, q.question, q.golden_answers) for q in questions],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
