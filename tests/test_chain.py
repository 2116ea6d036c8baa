"""The whole chain under profile smoke, as a user runs it; learning, counts and files are checked.

These are slow tests (minutes): the chain itself, and a small one over the real slices.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pandas as pd
import pytest
from test_judge import SECRET

from zerosearch import artifacts

SMALL = (  # enough to touch everything twice, too little to learn
    "01.n_questions=24", "01.samples_per_question=1", "02.steps=3", "02.n_quality_requests=8", "03.steps=2",
    "03.questions_per_step=8", "03.group_size=4", "00.n_eval_questions=4", "00.n_train_questions=40",
)


KEYS = ("SERPAPI_API_KEY", "JUDGE_API_KEY", "SIMULATOR_API_KEY", "OPENAI_API_KEY", "HF_TOKEN")


def chain(outputs: Path, *options: str) -> Path:
    """Run the command with its outputs in a folder of the test; return the run's folder."""
    words = [sys.executable, "-m", "zerosearch.cli", "--profile", "smoke", "--run", "chain", *options]
    environment = {**os.environ, "ZEROSEARCH_OUTPUTS": str(outputs)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500, env=environment, cwd=artifacts.REPO)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return outputs / "chain"


def overrides(settings: tuple[str, ...]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS:  # a user who has keys runs the chain, too
            patch.setenv(name, SECRET)
        yield chain(tmp_path_factory.mktemp("smoke"))


def test_the_policy_learns_to_search(smoke: Path) -> None:
    """EM above the untrained policy by more than two standard errors, on over 200 fresh questions."""
    rows = pd.read_parquet(smoke / "04_evaluate" / "predictions.parquet")
    wide = rows[rows["method"].isin(["search", "zerosearch"])].pivot(index="question_id", columns="method", values="em")
    assert len(wide) >= 200
    difference = wide["zerosearch"] - wide["search"]
    assert difference.mean() > 2 * difference.std() / math.sqrt(len(difference)), difference.describe()
    trained = {q["id"] for q in map(json.loads, (smoke / "00_micro_world/questions.jsonl").open()) if q["split"] == "train"}
    assert not trained & set(wide.index)


def test_the_reward_rises(smoke: Path) -> None:
    history = pd.read_json(smoke / "03_rl/zerosearch/seed0/metrics.jsonl", lines=True)
    fifth = max(1, len(history) // 5)
    assert history["reward_mean"].tail(fifth).mean() > history["reward_mean"].head(fifth).mean()
    assert history["searches_mean"].tail(fifth).mean() > history["searches_mean"].head(fifth).mean()


def test_every_question_once_per_method(smoke: Path) -> None:
    rows = pd.read_parquet(smoke / "04_evaluate" / "predictions.parquet")
    questions = [json.loads(line) for line in (smoke / "00_micro_world" / "questions.jsonl").open()]
    evaluated = {q["id"] for q in questions if q["split"] == "eval"}
    for _, mine in rows.groupby(["method", "seed"]):
        assert sorted(mine["question_id"]) == sorted(evaluated)


def test_every_stage_left_what_it_promises(smoke: Path) -> None:
    promised = {
        "00_micro_world": ("corpus.jsonl", "questions.jsonl"),
        "01_collect": ("trajectories.parquet", "pairs.parquet", "label_stats.csv"),
        "02_simulator": ("simulator/config.json", "quality.csv"),
        "03_rl/zerosearch/seed0": ("policy/config.json", "metrics.jsonl", "trajectories.parquet"),
        "04_evaluate": (
            "predictions.parquet", "scores.parquet", "scores.csv", "averages.csv", "comparisons.csv",
            "kept_trajectories.parquet", "condition_predictions.parquet", "condition_scores.csv", "condition_averages.csv", "freshness.csv",
        ),
        "05_cost": ("costs.parquet",),
    }
    for folder, names in promised.items():
        for name in (*names, "manifest.json"):
            assert (smoke / folder / name).is_file(), f"{folder}/{name}"
    assert (smoke / "report.html").stat().st_size > 100_000
    assert 'href="trajectories.html"' in (smoke / "report.html").read_text()
    assert 50_000 < (smoke / "trajectories.html").stat().st_size < 2_000_000
    assert len(list((smoke / "notebooks").glob("*.ipynb"))) == 6
    assert len(list(smoke.rglob("figures/*.png"))) >= 10


def test_every_condition_asks_its_questions_once_per_method(smoke: Path) -> None:
    rows = pd.read_parquet(smoke / "04_evaluate" / "condition_predictions.parquet")
    assert list(rows["condition"].unique()) == ["clean", "homonyms", "corrupt-0.5", "later"]
    same = rows[rows["condition"] != "later"]
    drawn = set(same["question_id"])
    assert same.drop_duplicates("question_id").groupby("dataset").size().eq(6).all() and len(drawn) == 42
    for _, mine in same.groupby(["condition", "method", "seed"]):
        assert sorted(mine["question_id"]) == sorted(drawn)
    assert set(rows["method"]) == {"forced", "zerosearch"} and rows["past"].notna().equals(rows["condition"] == "later")
    assert rows.groupby("condition")["retriever"].unique().map(list).to_dict()["corrupt-0.5"] == ["corrupt-0.5"]


def test_corrupted_searches_cost_answers(smoke: Path) -> None:
    table = pd.read_csv(smoke / "04_evaluate" / "condition_averages.csv")
    value = table[table["metric"] == "em"].set_index(["method", "condition"])["value"]
    assert value["zerosearch", "corrupt-0.5"] < value["zerosearch", "clean"]


def test_the_tuned_simulator_follows_its_prompt(smoke: Path) -> None:
    quality = pd.read_csv(smoke / "02_simulator" / "quality.csv")
    present = quality[quality["metric"] == "answer_present"].set_index(["when", "kind"])["value"]
    assert present["after", "useful"] > present["before", "useful"]
    assert present["after", "useful"] > present["after", "misleading"]


def test_ledger_counts_agree_with_the_metrics(smoke: Path) -> None:
    stage = smoke / "03_rl/zerosearch/seed0"
    events = [json.loads(line) for line in (stage / "ledger.jsonl").open()]
    history = pd.read_json(stage / "metrics.jsonl", lines=True)
    asked = sum(e["fresh"] + e["cached"] for e in events if e["kind"] == "queries")
    parameters = json.loads((stage / "manifest.json").read_text())["parameters"]
    per_step = parameters["questions_per_step"] * parameters["group_size"]
    assert asked >= round(history["searches_mean"].sum() * per_step) - 1


def test_no_machine_path_in_the_report_and_no_key_anywhere(smoke: Path) -> None:
    assert str(Path.home()) + "/" not in (smoke / "report.html").read_text(encoding="utf-8")
    written = [path for path in smoke.parent.rglob("*") if path.is_file()]
    assert len(written) > 50 and not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_a_finished_run_is_not_repeated(smoke: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in smoke.rglob("manifest.json")}
    chain(smoke.parent)
    assert {p: p.stat().st_mtime_ns for p in smoke.rglob("manifest.json")} == before


def test_your_own_questions(shared_data: Path, tmp_path: Path) -> None:
    """The real slices through the whole chain: counts, recall and files are right, scores are what they are."""
    small = [s for s in SMALL if not s.startswith("00.")]
    options = ["--questions", str(shared_data / "qa"), "--corpus", str(shared_data / "corpus" / "passages.jsonl")]
    less = ("04.questions_per_set=10", "04.methods=rag,search", "04.conditions=corrupt-0.5")
    run = chain(tmp_path, *options, *overrides((*small, *less)))
    questions = [json.loads(line) for line in (run / "00_micro_world" / "questions.jsonl").open()]
    assert sum(q["split"] == "train" for q in questions) == 100  # musique_train.jsonl, and nothing else
    assert sum(q["split"] == "eval" for q in questions) == 1275
    assert sum(1 for _ in (run / "00_micro_world" / "corpus.jsonl").open()) == 20_411
    manifest = json.loads((run / "00_micro_world" / "manifest.json").read_text())
    loaded = {source["place"]: source["sha256"] for source in manifest["results"]["sources"]}
    assert len(loaded) == 8 and len(manifest["inputs"]) == 9 and loaded.items() <= manifest["inputs"].items()
    rows = pd.read_parquet(run / "04_evaluate" / "predictions.parquet")
    assert (rows.groupby(["method", "dataset"]).size() == 10).all() and rows["dataset"].nunique() == 7
    recall = pd.read_csv(run / "00_micro_world" / "retrieval_recall.csv").set_index("dataset")["recall"]
    assert recall["triviaqa"] > recall["bamboogle"] and recall["hotpotqa"] > 0.5
    tried = pd.read_csv(run / "04_evaluate" / "condition_scores.csv")
    assert set(tried["condition"]) == {"clean", "corrupt-0.5"}  # these passages have no tags and no later edition
    assert not (run / "02_simulator" / "freshness.csv").exists()
    assert (run / "report.html").is_file()
