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
