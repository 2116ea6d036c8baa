"""Seconds of a training step with and without overlapping rollouts (``layout.overlap``), and the reward at the end.

    PYTHONPATH=lib .venv/bin/python benchmarks/overlap.py --simulator outputs/smoke/02_simulator/simulator

The same policy, questions, steps, importance correction and seeds of the micro-world, on and off by turns, with two
retrievers.  web: BM25, whose every answer comes as late as a web engine's (log-normal, the same draws on and off), all
searches of a turn at once.  simulator: the model of --simulator in the same process, which computes and does not wait.
One row per retriever, switch and seed: median wall seconds of a step and of its parts (the first step is left out:
nothing overlaps it), ``ratio`` of the seconds without overlap to these, mean reward of the first and of the last two
steps (with overlap those of a policy one update younger) and of the trained policy on evaluation questions, sampled and
without noise, and how far sampler and learner are apart.  ``load`` is the machine's before the training, this program
included.  Writes benchmarks/overlap.csv.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Sequence

import pandas as pd
import torch

from zerosearch import artifacts, environment, files, layouts
from zerosearch.engines.opening import open_text_engine
from zerosearch.layouts import Layout
from zerosearch.microworld import models, world
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.training import arm_setup, arm_training, arms
from zerosearch.training.correction import Correction
from zerosearch.training.policy_rl import score_trajectories
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.waiting import DelayedRetriever

TABLE = Path(__file__).with_suffix(".csv")
POLICY, SIMULATOR = "micro/llama-base", "micro/simulator-medium"
GROUP = 8  # trajectories per question
ARMS = {"web": "search-r1", "simulator": "zerosearch"}
LIMITS = RolloutSettings(max_searches=5, max_turn_tokens=48, max_observation_tokens=160, max_total_tokens=1640)
PARTS = ("rollout", "simulator", "training", "total")


def main() -> None:
    """Train on and off by turns and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--retrievers", nargs="+", choices=tuple(ARMS), default=tuple(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--questions", type=int, default=8, help="per step, eight trajectories each")
    parser.add_argument("--median", type=float, default=0.2, help="seconds of a web search")
    parser.add_argument("--simulator", default=SIMULATOR, help="folder of a tuned one, or its base")
    parser.add_argument("--out", type=Path, default=TABLE, help="the CSV to write")
    options = parser.parse_args()
    torch.set_num_threads(1)  # one core for the update, one for the rollouts beside it
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZEROSEARCH_OUTPUTS"] = folder
        for retriever in options.retrievers:
            for seed in options.seeds:
                rows += [trained(retriever, overlap, seed, options) for overlap in (False, True)]
                files.write_table(options.out, with_ratios(rows))
                print(with_ratios(rows).tail(2).iloc[:, :12].to_string(index=False), flush=True)


def trained(retriever: str, overlap: bool, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one training."""
    load, arm = os.getloadavg()[0], arms.get_arm(ARMS[retriever])
    settings = RLSettings(
        options.steps, options.questions, GROUP, seed=seed, save_every=options.steps, correction=Correction("token")
    )
    stage = artifacts.open_stage(f"{retriever}-{overlap}", "03", {}, arm=arm.name, seed=seed)
    policy, tokenizer = models.load(POLICY)
    prompts, made = Prompts.load(models.prompt_template(tokenizer), tokenizer), world.build_world()
    questions, limits = world.build_questions(made, 20, 400), replace(LIMITS, run_seed=seed)
    at_once = arm_setup.open_retriever(arm, k=5, seed=seed, passages=made.passages(), simulator=options.simulator)
    late = at_once
    if retriever == "web":
        late = DelayedRetriever(at_once, options.median, seed, options.questions * GROUP)
    with layouts.using(Layout(overlap=overlap)):
        history = arm_training.train_arm(
            arm, [q for q in questions if q.split == "train"], policy, tokenizer, late, prompts, settings, stage,
            curriculum=arm_setup.open_curriculum(arm, options.steps, 0.0, 0.5, 4.0), rollout_settings=limits,
        )
    stage.release()
    requests = [RolloutRequest(q, step=options.steps + 1) for q in questions if q.split == "eval"]
    engine = open_text_engine("transformers", policy, tokenizer, "trained")
    after = score_trajectories(rollout(requests, engine, at_once, prompts, limits))
    setting = {"retriever": retriever, "overlap": overlap, "seed": seed, "steps": options.steps}
    batch = {"trajectories": options.questions * GROUP, "median_latency": options.median * (retriever == "web")}
    reached = {"reward_trained": sum(s.reward for s in after) / len(after), "load": round(load, 1)}
    return setting | batch | measured(history) | reached | about()


def measured(history: pd.DataFrame) -> dict[str, float]:
    """Return what a history says of speed, reward and distance between sampler and learner."""
    later = history.iloc[1:]
    seconds = {f"seconds_{part}": later[f"seconds_{part}"].median() for part in PARTS}
    reward = history["reward_mean"]
    rewards = {"reward_first": reward.head(2).mean(), "reward_last": reward.tail(2).mean()}
    apart = {"logprob_gap": later["logprob_gap"].mean(), "effective_share": later["effective_share"].mean()}
    return seconds | rewards | apart


def with_ratios(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows with seconds of the same retriever and seed without overlap over their own."""
    table = pd.DataFrame(rows)
    plain = table[~table["overlap"]].set_index(["retriever", "seed"])["seconds_total"]
    base = [plain[key] for key in zip(table["retriever"], table["seed"])]
    place = list(table).index("seconds_total") + 1
    table.insert(place, "ratio", base / table["seconds_total"])
    return table.round(4)


def about() -> dict[str, Any]:
    """Return what made the numbers: machine, versions, date, commit."""
    versions = {name: environment.installed_version(name) for name in ("torch", "transformers", "trl")}
    return {
        "cpu": environment.processor(), **versions, "date": datetime.now(UTC).date().isoformat(),
        "commit": environment.source_version(artifacts.REPO)["commit"],
    }


if __name__ == "__main__":
    main()
