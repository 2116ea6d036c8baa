"""A small finished run of all six stages with hand-made numbers, for the tests that compare runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable, Sequence

import pandas as pd

from zerosearch import artifacts, files
from zerosearch.rollout import trajectories_to_table
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, Trajectory, Turn

TOKENIZER = artifacts.REPO / "data" / "micro_lm" / "llama-base" / "tokenizer" / "tokenizer.json"
PARAMETERS: dict[str, Any] = {"profile": "smoke", "seed": 0, "policy_model": "micro/llama-base", "steps": 5}
TRAINING = "03_rl/zerosearch/seed0"
PROMPT, QUERY, OBSERVED, ANSWER = (857, 844), (861, 481), (267, 268, 269), (425, 868)


def trajectory(
    step: int, sample: int, own: Sequence[int] = ANSWER, observed: Sequence[int] = OBSERVED,
    passage: str = "A fact.", noisy: bool = False, seconds: float = 0.5, logprob: float = -0.25,
) -> Trajectory:
    """Return two turns: a search whose observation is ``observed``, then the answer ``own``."""
    question = Question("nq/1", "nq", "who wrote it", ("Grey Harp",), "train")
    request = SearchRequest("it", question, step, sample, 0, 0.1)
    found = Retrieval(request, (Passage("1", "it", passage),), "simulator", noisy, wall_seconds=seconds)
    mask = (True,) * len(QUERY) + (False,) * len(observed) + (True,) * len(own)
    turns = (Turn("<search> it</search>", "search", "it", found, passage), Turn("<answer> x</answer>", "answer", "x"))
    log_probs = tuple(logprob if mine else 0.0 for mine in mask)
    ids = (*QUERY, *observed, *own)
    return Trajectory(question, PROMPT, ids, mask, log_probs, turns, "answer", "x", step, sample)


def trajectories(seconds: float = 0.5) -> list[Trajectory]:
    """Return two samples of each of five steps."""
    return [trajectory(step, sample, seconds=seconds) for step in range(1, 6) for sample in (0, 1)]


def metrics(seconds: float = 1.0) -> list[dict[str, float]]:
    """Return five steps whose reward rises by a tenth; the last fifth is the fifth step, 0.5."""
    return [
        {"step": step, "reward_mean": step / 10, "em": step / 20, "noise_planned": step / 100, "kl": 0.01 * step,
         "seconds_total": seconds} for step in range(1, 6)
    ]


def averages() -> pd.DataFrame:
    """Return EM of two methods, half-width 0.02 (untrained) and 0.10 (trained)."""
    rows = [("forced", name, 1, "em", 0.04, 100, 0.02, 0.06) for name in ("nq", "average")]
    rows += [("zerosearch", name, 1, "em", 0.70, 100, 0.60, 0.80) for name in ("nq", "average")]
    return pd.DataFrame(rows, columns=["method", "dataset", "seeds", "metric", "value", "n", "low", "high"])


def comparisons() -> pd.DataFrame:
    """Return the difference of the two methods of ``averages``."""
    row = ("zerosearch", "forced", "average", "em", 1, 1, 100, 0.66, 0.55, 0.77, "zerosearch")
    columns = "method_a method_b dataset metric seeds_a seeds_b n difference low high winner".split()
    return pd.DataFrame([row], columns=columns)


def sentinels() -> pd.DataFrame:
    """Return two scripted policies under one condition: a gap of 0.5."""
    named = {"notices every miss": (0.8, 0.7, 0.9), "notices no miss": (0.3, 0.2, 0.4)}
    rows = [(name, "corrupt-0.5", 100, *values) for name, values in named.items()]
    return pd.DataFrame(rows, columns=["sentinel", "condition", "n", "em", "low", "high"])


def write(run: str, steps: int = 5, seconds: float = 0.5) -> Path:
    """Write a finished run through the calls of the notebooks; return its folder.

    steps: a parameter of the training, which changes nothing in the files.  seconds: what it claims to have taken.
    """
    stage = artifacts.open_stage(run, "00", PARAMETERS)
    stage.write_jsonl([{"id": "1", "text": "A fact."}], "corpus.jsonl")
    stage.write_jsonl([{"id": "nq/1"}], "questions.jsonl")
    stage.write_table(sentinels(), "sentinels.csv")
    card = {"model": "llama-base", "ability": "valid_query", "value": 0.9, "n": 100, "meaning": "asks"}
    stage.write_table(pd.DataFrame([card]), "ability_card.csv")
    stage.finish()
    stage = artifacts.open_stage(run, "01", PARAMETERS)
    stage.write_table(trajectories_to_table([trajectory(0, 0, seconds=seconds)]), "trajectories.parquet")
    labels = {"label_kind": "judge", "label": "useful", "n": 9, "share": 0.5}
    stage.write_table(pd.DataFrame([labels]), "label_stats.csv")
    stage.finish()
    stage = artifacts.open_stage(run, "02", PARAMETERS)
    quality = {"when": "after", "kind": "useful", "metric": "answer_present"}
    quality |= {"value": 0.8, "n": 50, "low": 0.7, "high": 0.9}
    stage.write_table(pd.DataFrame([quality]), "quality.csv")
    stage.finish()
    _train(run, steps, seconds)
    stage = artifacts.open_stage(run, "04", {**PARAMETERS, "arms": "zerosearch", "seeds": "0"})
    scores = averages().rename(columns={"seeds": "seed"}).assign(seed=0)
    stage.write_table(scores, "scores.parquet")
    stage.write_table(averages(), "averages.csv")
    stage.write_table(comparisons(), "comparisons.csv")
    stage.finish()
    stage = artifacts.open_stage(run, "05", {"profile": "smoke"})
    bill = {"option": "ZeroSearch", "item": "training", "usd": seconds, "basis": "x"}
    stage.write_table(pd.DataFrame([bill]), "options.csv")
    stage.write_table(pd.DataFrame([{"kind": "busy", "quantity": seconds, "kwh": seconds}]), "costs.parquet")
    stage.finish()
    return artifacts.run_dir(run)


def _train(run: str, steps: int, seconds: float) -> None:
    stage = artifacts.open_stage(run, "03", {**PARAMETERS, "steps": steps}, "zerosearch", 0)
    stage.write_jsonl(metrics(seconds), "metrics.jsonl")
    stage.write_table(trajectories_to_table(trajectories(seconds)), "trajectories.parquet")
    tokenizer = stage.path("policy") / "tokenizer"
    tokenizer.mkdir(parents=True)
    shutil.copyfile(TOKENIZER, tokenizer / "tokenizer.json")
    (stage.path("policy") / "model.safetensors").write_bytes(b"weights")
    stage.finish()


def change_table(run: str, stage: str, name: str, change: Callable[[pd.DataFrame], object]) -> None:
    """Change a table of a finished run in place, and its hash in the manifest."""
    path = artifacts.run_dir(run) / stage / name
    table = files.read_table(path)
    change(table)
    files.write_table(path, table)
    record_hash(run, stage, name)


def put_trajectories(run: str, records: Sequence[Trajectory]) -> None:
    """Replace the stored trajectories of the training."""
    files.write_table(artifacts.run_dir(run) / TRAINING / "trajectories.parquet", trajectories_to_table(records))
    record_hash(run, TRAINING, "trajectories.parquet")


def put_metrics(run: str, rows: Sequence[dict[str, float]]) -> None:
    """Replace the metrics of the training."""
    files.write_jsonl(artifacts.run_dir(run) / TRAINING / "metrics.jsonl", rows)
    record_hash(run, TRAINING, "metrics.jsonl")


def record_hash(run: str, stage: str, name: str) -> None:
    """Write a file's hash into the manifest of its stage, as its stage would have."""
    folder = artifacts.run_dir(run) / stage
    edit_manifest(run, stage, lambda m: m["outputs"].update({name: files.sha256(folder / name)}))


def edit_manifest(run: str, stage: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest of a finished run."""
    path = artifacts.run_dir(run) / stage / artifacts.MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    edit(manifest)
    files.write_json(path, manifest)
