"""One small chain with real vLLM in the notebooks' own processes: collect, simulate, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from test_chain import SMALL, chain, overrides

STAGES = ("01", "02", "04")
CHANGED = (*(f"{stage}.engine=vllm" for stage in STAGES), "04.methods=direct,search", "04.conditions=")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain(tmp_path_factory.mktemp("vllm"), *overrides((*SMALL, *CHANGED)))


def test_vllm_collected_simulated_and_evaluated(run: Path) -> None:
    folders = {"01": "01_collect", "02": "02_simulator", "04": "04_evaluate"}
    for stage, folder in folders.items():
        manifest = json.loads((run / folder / "manifest.json").read_text())
        assert manifest["parameters"]["engine"] == "vllm", stage
    rows = pd.read_parquet(run / "01_collect" / "trajectories.parquet")
    assert len(rows) == 24 and rows["n_searches"].sum() > 0
    quality = pd.read_csv(run / "02_simulator" / "quality.csv")
    assert set(quality["when"]) == {"before", "after"}
    questions = [json.loads(line) for line in (run / "00_micro_world" / "questions.jsonl").open()]
    evaluated = sorted(q["id"] for q in questions if q["split"] == "eval")
    predictions = pd.read_parquet(run / "04_evaluate" / "predictions.parquet")
    assert predictions["method"].nunique() == 3
    for _, mine in predictions.groupby(["method", "seed"]):
        assert sorted(mine["question_id"]) == evaluated


def test_the_tuned_simulator_was_asked_and_not_its_base(run: Path) -> None:
    """vLLM holds a copy of the weights: after the tuning it must have been opened again."""
    quality = pd.read_csv(run / "02_simulator" / "quality.csv")
    wide = quality.pivot_table(index=["kind", "metric"], columns="when", values="value")
    assert (wide["before"] != wide["after"]).any()


def test_tokens_and_seconds_are_in_the_ledgers(run: Path) -> None:
    for folder, role in (("01_collect", "policy"), ("02_simulator", "simulator"), ("04_evaluate", "policy")):
        events = [json.loads(line) for line in (run / folder / "ledger.jsonl").open()]
        spent = [e for e in events if e["kind"] == "tokens" and e["role"] == role]
        assert sum(e["generated"] for e in spent) > 0, folder
