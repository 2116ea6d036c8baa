"""GRPO, REINFORCE and PPO on the micro-world: the same arm, questions, steps and rates, three seeds each.

    PYTHONPATH=lib .venv/bin/python benchmarks/algorithms.py [--algorithms grpo ppo] [--seeds 0 1 2] [--set 03.steps=24]

Every algorithm is a run of its own, ``algo-<name>``, of the whole chain as a reader starts it; a run that is there is
gone on with, and what the table says of other algorithms and seeds stays.  One row per algorithm and seed: average EM of the untrained policy and of the trained one (real engine,
greedy, all evaluation questions), mean training reward of the first and of the last fifth of the steps, seconds of all
steps.  ``settings`` are the options beside profile and algorithm.  Writes benchmarks/algorithms.csv.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Sequence

import pandas as pd

from zerosearch import artifacts, environment, files
from zerosearch.training.algorithms import ALGORITHMS

TABLE = Path(__file__).with_suffix(".csv")
ARM, PROFILE = "zerosearch", "smoke"
BEFORE = "search"  # the untrained policy, asked as the trained one is
EVALUATION = (f"04.methods={BEFORE}", "04.conditions=")  # nothing else is looked at


def main() -> None:
    """Run every algorithm and write the table, after each of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--algorithms", nargs="+", choices=tuple(ALGORITHMS), default=tuple(ALGORITHMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="STAGE.NAME=VALUE, for every algorithm alike")
    parser.add_argument("--out", type=Path, default=TABLE, help="the CSV to write")
    options = parser.parse_args()
    for name in options.algorithms:
        train(name, options.seeds, options.set)
        made = pd.DataFrame([row(name, seed, options.set) | about() for seed in options.seeds]).round(4)
        files.write_table(options.out, joined(options.out, made))
        print(made.iloc[:, :8].to_string(index=False), flush=True)


def joined(path: Path, made: pd.DataFrame) -> pd.DataFrame:
    """Return the table at path, if there is one, with these rows in the place of older ones of their algorithm and seed."""
    keys = ["algorithm", "seed"]
    table = pd.concat([pd.read_csv(path), made] if path.is_file() else [made]).drop_duplicates(keys, keep="last")
    order = table["algorithm"].map(list(ALGORITHMS).index)
    return table.assign(order=order).sort_values(["order", "seed"], ignore_index=True).drop(columns="order")


def train(name: str, seeds: Sequence[int], changes: Sequence[str]) -> None:
    """Run the chain with one algorithm; raises CalledProcessError when it does not finish."""
    sets = [part for value in (f"03.algorithm={name}", *EVALUATION, *changes) for part in ("--set", value)]
    call = ["--profile", PROFILE, "--run", run_of(name), "--arms", ARM, "--seeds", ",".join(map(str, seeds)), *sets]
    subprocess.run([sys.executable, "-m", "zerosearch.cli", *call], check=True)


def run_of(name: str) -> str:
    """Return the name of an algorithm's run."""
    return f"algo-{name}"


def row(name: str, seed: int, changes: Sequence[str]) -> dict[str, Any]:
    """Return what a finished run says about one seed."""
    scores = files.read_table(artifacts.require(run_of(name), "04", "scores.parquet"))
    em = scores[(scores["dataset"] == "average") & (scores["metric"] == "em")].set_index(["method", "seed"])["value"]
    folder = artifacts.run_dir(run_of(name)) / artifacts.STAGES["03"] / ARM / f"seed{seed}"
    steps = pd.DataFrame(files.read_jsonl(folder / "metrics.jsonl"))
    fifth = max(1, len(steps) // 5)
    return {
        "algorithm": name, "seed": seed, "steps": len(steps), "em_before": em[BEFORE].iloc[0], "em_after": em[ARM, seed],
        "reward_first_fifth": steps["reward_mean"].head(fifth).mean(),
        "reward_last_fifth": steps["reward_mean"].tail(fifth).mean(),
        "searches_last_fifth": steps["searches_mean"].tail(fifth).mean(), "seconds": steps["seconds_total"].sum(),
        "settings": " ".join([f"--profile {PROFILE}", *(f"--set {change}" for change in changes)]),
    }


def about() -> dict[str, Any]:
    """Return what made the numbers: machine, versions, date, commit."""
    versions = {name: environment.installed_version(name) for name in ("torch", "transformers", "trl")}
    return {
        "cpu": environment.processor(), **versions, "date": datetime.now(UTC).date().isoformat(),
        "commit": environment.source_version(artifacts.REPO)["commit"],
    }


if __name__ == "__main__":
    main()
