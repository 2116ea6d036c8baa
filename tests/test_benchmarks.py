"""The benchmark of the statistics runs, and its committed table is one that it wrote.  No time is judged here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from zerosearch import artifacts

FOLDER = artifacts.REPO / "benchmarks"
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


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_finds_what_it_imports_and_stands_in_the_list(path: Path) -> None:
    assert callable(load(path.stem).main) and f"benchmarks/{path.name}" in (FOLDER / "README.md").read_text("utf-8")


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
