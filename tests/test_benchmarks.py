"""The benchmark of the statistics runs, and its committed table is one that it wrote.  No time is judged here."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from zerosearch import artifacts

FOLDER = artifacts.REPO / "benchmarks"
PROGRAMS = [path for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text("utf-8")]
MACHINE = {"cpu", "date", "commit"}
STEPS = [
    "scoring", "score_table", "average_table", "comparison_table", "comparison_report", "subset_order", "all"
]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def benchmark() -> ModuleType:
    return load("statistics_speed")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_benchmark_finds_what_it_imports_and_stands_in_the_list(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    assert callable(importlib.import_module(path.stem).main) and f"benchmarks/{path.name}" in (FOLDER / "README.md").read_text("utf-8")


def test_every_step_is_measured(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SIZES", {"nq": 6, "bamboogle": 73})
    monkeypatch.setattr(benchmark, "METHODS", ("method-0", "arm-a"))
    table = benchmark.measure(20, 2)
    assert list(table["step"]) == STEPS and set(table["rows"]) == {79 * 2 * 3}
    assert (table["lowest"] <= table["cpu_seconds"]).all() and (table["cpu_seconds"] <= table["highest"]).all()
    assert not table.isna().any().any()


def test_answers_are_of_every_kind(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SIZES", {"nq": 50})
    scores = benchmark.scored(benchmark.synthetic_answers())
    assert 0.1 < scores["em"].mean() < scores["f1"].mean() < 0.9 and set(scores["em"]) == {0.0, 1.0}


def test_the_committed_table_is_whole() -> None:
    table = pd.read_csv(FOLDER / "statistics_speed.csv")
    assert list(table["step"]) == STEPS
    assert set(table["rows"]) == {3_125 * 12 * 3} and set(table["resamples"]) == {10_000}
    assert {"cpu", "python", "numpy", "scipy", "pandas", "date"} <= set(table.columns) and not table.isna().any().any()


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("rollout_throughput")


def test_throughput_takes_the_median_repeat_and_its_ratio_to_the_published_loop(throughput: ModuleType) -> None:
    walls = {"asynchronous": (1.0, 4.0, 2.0), throughput.BASELINE: (9.0, 8.0, 5.0)}
    rows = [(name, 0.3, wall, 16 / wall) for name, own in walls.items() for wall in own]
    columns = ["loop", "median_latency_seconds", "wall_seconds", "trajectories_per_second"]
    table = throughput.with_ratios(pd.DataFrame(rows, columns=columns)).set_index("loop")
    assert table["wall_seconds"].to_dict() == {"asynchronous": 2.0, throughput.BASELINE: 8.0}
    assert table["ratio"].to_dict() == {"asynchronous": 4.0, throughput.BASELINE: 1.0}


def test_throughput_runs_all_loops_on_the_same_questions(throughput: ModuleType) -> None:
    """With the transformers engine in vLLM's place: every loop makes the same trajectories."""
    from conftest_models import TOKENIZER, tiny_model

    from zerosearch.engines.transformers_engine import TransformersEngine
    from zerosearch.prompts import Prompts

    engine, prompts = TransformersEngine(tiny_model(), TOKENIZER), Prompts.load("micro", TOKENIZER)
    made = {name: loop(throughput.requests_of(8), engine, prompts, 0.001) for name, loop in throughput.LOOPS.items()}
    theirs = made.pop(throughput.TRL)  # other seeds, since a tool does not know its trajectory
    ids = [own.ids for own in made.values()]
    assert len(ids) == 3 and ids[0] == ids[1] == ids[2] and len(ids[0]) == 8
    assert len(theirs.ids) == 8 and 0 < theirs.useful <= sum(map(len, theirs.ids))
    row = throughput.measured("asynchronous", engine, prompts, 8, 0.0)
    assert row["trajectories"] == 8 and row["decoded_per_useful"] == 1.0 and 0 <= row["idle_share"] <= 1


def test_exactness_is_measured_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transformers engine in float32 on the shipped policy; a trainer that is another model is seen."""
    monkeypatch.syspath_prepend(str(FOLDER))
    exactness = importlib.import_module("rollout_exactness")
    (row,) = exactness.measure("transformers", "float32", 8)
    assert row["trajectories"] == 8 and row["same_loop"] == row["same_batch"] == 1.0 and row["most"] < 1e-4
    assert 0 < row["searching"] <= 8 and row["tokens"] > 40 and row["trainer"] == "float32"
    model, tokenizer = exactness.models.load(exactness.MODEL)
    engine, prompts = exactness.open_text_engine("transformers", model, tokenizer, "x"), exactness.Prompts.load("micro", tokenizer)
    made = exactness.rollout(exactness.requests_of(4), engine, exactness.Canned(), prompts, exactness.SETTINGS)
    with torch.no_grad():
        model.get_output_embeddings().weight[:] *= 1.1
    found = exactness.gaps(model, made)
    assert len(found) == sum(sum(t.loss_mask) for t in made) and found.max() > 1e-3


def test_exactness_was_measured_for_every_engine_and_type() -> None:
    table = pd.read_csv(FOLDER / "rollout_exactness.csv")
    exact = table.query("dtype == 'float32'")
    assert set(exact["engine"]) == {"vllm", "transformers"} and (table["trajectories"] == 1000).all()
    assert (exact["most"] < 1e-4).all() and (exact[["same_loop", "same_batch"]] >= 0.99).all(axis=None)
    assert len(table) == 6 and MACHINE | {"vllm", "torch", "device"} <= set(table.columns)


def test_in_the_soak_of_rollouts_none_was_lost_and_memory_stayed() -> None:
    table = pd.read_csv(FOLDER / "soak-rollouts.csv")
    assert table["trajectories"].sum() == 20_000 and table["lost"].sum() == 0 and table["stop_retriever_error"].sum() > 0
    assert set(table["piece"]) == {1} and {"machine", "versions", "commit", "vllm"} <= set(table.columns)
    for name in ("own_mib", "server_mib"):
        assert table[name].tail(4).median() < 1.05 * table[name].iloc[4:8].median()


def test_bm25_was_measured_at_every_size_and_beside_its_peer() -> None:
    table = pd.read_csv(FOLDER / "bm25_scale.csv")
    sizes = table.query("corpus == 'synthetic'").groupby("n_passages")["work"].agg(list).to_dict()
    assert sizes == {n: ["build", "open"] for n in (20_000, 200_000, 1_000_000)} and MACHINE <= set(table.columns)
    real = table.query("corpus == 'real'").set_index("engine")
    assert set(real["n_passages"]) == {20_411} and list(real.index) == ["bm25", "rank_bm25"]
    assert (table["queries_per_cpu_second"] > 0).all() and table["peak_mib"].notna().sum() == 6


def test_readme_shows_the_measured_recall() -> None:
    table = pd.read_csv(FOLDER / "bm25_recall.csv").set_index(["engine", "dataset"])["recall"]
    readme = (FOLDER.parent / "README.md").read_text("utf-8")
    for engine in ("bm25", "bm25_plain"):
        shares = (table[engine, name] for name in ("hotpotqa", "2wikimultihopqa", "triviaqa", "popqa", "nq"))
        assert f"| `{engine}` | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |" in readme


def test_in_the_fault_run_bill_record_and_ledger_agree() -> None:
    table = pd.read_csv(FOLDER / "fault_run.csv")
    assert set(table["rate"]) == {0.0, 0.1, 0.25, 0.5} and set(table["kills"]) == {0, 5}
    assert MACHINE <= set(table.columns)
    assert (table["answered"] + table["failed"] == table["questions"]).all()
    assert (table["billed"] == table["recorded"]).all() and (table["answered"] == table["recorded"]).all()
    paid = table.query("engine == 'serpapi'")
    assert (paid["ledger_paid"] == paid["billed"]).all()
    left_alone = table.query("kills == 0")
    assert (left_alone["sent_twice"] == 0).all()
    assert (left_alone["longest_seconds"] <= left_alone["deadline_seconds"]).all()
    kinds = ["busy", "server", "timeout", "deadline", "connection", "malformed"]
    assert (left_alone[kinds].sum(axis=1) == left_alone["failed"]).all()
