"""Collecting trajectories: the base policy asks a real engine, and everything that happens is kept.

Some trajectories are made to begin with a search, because an untrained policy seldom does so by itself
and a simulator needs queries to learn from; which ones is a draw keyed by (seed, question, sample).
Every batch writes down at once what it used.  Called by notebook 01.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from typing import Any, Sequence

import pandas as pd
import torch

from zerosearch import seeds
from zerosearch.artifacts import Stage
from zerosearch.engines.base import Engine
from zerosearch.errors import BadInput
from zerosearch.interrupts import StopRequest
from zerosearch.parts import Parts
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever, count_queries
from zerosearch.rollout import RolloutRequest, RolloutSettings, from_row, rollout, to_row, trajectories_to_table
from zerosearch.schema import STOP_REASONS, Question, Trajectory
from zerosearch.scoring import em
from zerosearch.spending import BudgetReached, Spending


def draw_questions(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """Return up to ``count`` training questions in an order drawn by (seed, question id).

    A larger count extends a smaller one.  Raises BadInput when no question trains.
    """
    training = [q for q in questions if q.split == "train"]
    if not training:
        raise BadInput(
            f"questions: expected some that train, found {len(questions)} that are evaluated; add a <set>_train.jsonl "
            "to your questions, or raise --set 00.train_fraction"
        )
    training.sort(key=lambda q: seeds.uniform(seed, "collected questions", q.id))
    return training[:count]


def plan(
    questions: Sequence[Question], samples_per_question: int, force_search_share: float, forced_prefix: str, seed: int
) -> list[RolloutRequest]:
    """Return the trajectories to collect: every question so many times, a share of them forced to search.

    force_search_share: chance in [0, 1] of each trajectory.  forced_prefix: text put at the start of the
    first message of a forced one.
    """
    return [
        RolloutRequest(q, sample=sample, forced_prefix=forced_prefix if forced else "")
        for q in questions
        for sample in range(samples_per_question)
        for forced in [seeds.uniform(seed, "forced search", q.id, sample) < force_search_share]
    ]


def collect(
    requests: Sequence[RolloutRequest], engine: Engine, retriever: Retriever, prompts: Prompts,
    settings: RolloutSettings, batch_size: int, stage: Stage, spending: Spending | None = None,
) -> list[Trajectory]:
    """Return one trajectory per request, in order, made batch_size at a time.

    The stage's ledger gets tokens, queries and seconds of each batch; progress says how far it is, and what
    was spent.  A finished batch is kept in the stage's checkpoints: a collection that is cut off, asked to
    stop (raises Stopped) or at the end of its money (BudgetReached) goes on after it.
    """
    made: list[Trajectory] = []
    parts = Parts(stage.path("checkpoints"), stage.ledger)
    stage.progress(0, len(requests), "first batch")
    with StopRequest() as stop:
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            make = partial(_roll_out, batch, engine, retriever, prompts, settings, stage)
            name = f"batch-{start:06d}-{_fingerprint(batch, engine, retriever, settings)}"
            try:
                made += map(from_row, parts.rows(name, make))
            except BudgetReached as reached:
                raise BudgetReached(f"{len(made)} of {len(requests)} trajectories saved; {reached}") from None
            _say(made, len(requests), stage, spending)
            stop.check(f"{len(made)} of {len(requests)} trajectories")
    return made


def _say(made: Sequence[Trajectory], total: int, stage: Stage, spending: Spending | None) -> None:
    """Say how far a collection is: searches per trajectory, right answers, and the cost where there is any."""
    right = sum(em(t.answer, t.question.golden_answers) for t in made)
    cost = {"usd": spending.usd} if spending is not None and (spending.usd or spending.max_usd) else {}
    n_searches = sum(t.n_searches for t in made)
    stage.progress(len(made), total, searches=n_searches / len(made), em=right / len(made), **cost)


def _roll_out(
    batch: Sequence[RolloutRequest], engine: Engine, retriever: Retriever, prompts: Prompts,
    settings: RolloutSettings, stage: Stage, unit: str,
) -> list[dict[str, Any]]:
    trajectories = rollout(batch, engine, retriever, prompts, settings)
    meter(trajectories, engine, stage, unit)
    return [to_row(t) for t in trajectories]


def _fingerprint(
    requests: Sequence[RolloutRequest], engine: Engine, retriever: Retriever, settings: RolloutSettings
) -> str:
    """Return 12 hex digits that change with what is asked, of whom, and how."""
    asked = [(r.question.id, r.question.question, r.sample, r.forced_prefix) for r in requests]
    parts = [asked, engine.name, retriever.name, asdict(settings)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def meter(trajectories: Sequence[Trajectory], engine: Engine, stage: Stage, unit: str | None = None) -> None:
    """Write into the ledger what a batch used: the policy's tokens, searches by engine, wall seconds."""
    counts, retrievals = engine.counts.take(), [t.retrieval for r in trajectories for t in r.turns if t.retrieval]
    on_gpu = torch.cuda.is_available()
    device, units = ("cuda", 1) if on_gpu else ("cpu", torch.get_num_threads())
    event = partial(stage.ledger.event, unit=unit)
    event("tokens", role="policy", model=engine.name, prompt=counts.prompt, generated=counts.generated)
    event("busy", role="policy_rollout", device=device, seconds=round(counts.seconds, 4), units=units)
    for fields in count_queries(retrievals):
        event("queries", **fields)
    if retrievals:
        seconds = sum(r.wall_seconds for r in retrievals)
        event("busy", role="retriever", device="cpu", seconds=round(seconds, 4), units=1)


def collected_table(requests: Sequence[RolloutRequest], trajectories: Sequence[Trajectory]) -> pd.DataFrame:
    """Return ``trajectories_to_table`` with two columns more: forced (bool) and em (0.0 or 1.0)."""
    table = trajectories_to_table(trajectories)
    table["forced"] = [bool(request.forced_prefix) for request in requests]
    table["em"] = [em(t.answer, t.question.golden_answers) for t in trajectories]
    return table


def behaviour(table: pd.DataFrame) -> pd.DataFrame:
    """Return how free and forced trajectories went, one row each.

    Columns: trajectories, searches (mean), answered (share), em (share of right answers), and the share
    of every stop reason that occurred.
    """
    names = table["forced"].map({False: "free", True: "forced to search"})
    rows = {}
    for name, part in table.groupby(names, sort=True):
        reasons = part["stop_reason"].value_counts(normalize=True)
        rows[name] = {
            "trajectories": len(part), "searches": part["n_searches"].mean(),
            "answered": float(part["answer"].notna().mean()), "em": part["em"].mean(),
            **{f"stop_{reason}": float(reasons.get(reason, 0.0)) for reason in STOP_REASONS},
        }
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("start")
    seen = [c for c in found.columns if not c.startswith("stop_") or (found[c] > 0).any()]
    return found[seen]
