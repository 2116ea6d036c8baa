"""The benchmark of the statistics runs, and its committed table is one that it wrote.  No time is judged here."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pandas as pd
import pytest

from zerosearch import artifacts

FOLDER = artifacts.REPO / "benchmarks"
STEPS = [
    "scoring", "score_table", "average_table", "comparison_table", "comparison_report", "subset_order", "all"
]


@pytest.fixture
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("statistics_speed", FOLDER / "statistics_speed.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
def throughput() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rollout_throughput", FOLDER / "rollout_throughput.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    ids = [[t.token_ids for t in own] for own in made.values()]
    assert len(ids) == 3 and ids[0] == ids[1] == ids[2] and len(ids[0]) == 8
    row = throughput.measured("asynchronous", engine, prompts, 8, 0.0)
    assert row["trajectories"] == 8 and row["decoded_per_useful"] == 1.0 and 0 <= row["idle_share"] <= 1
