"""The benchmarks run, and their committed tables are ones that they wrote.  No time is judged here."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pandas as pd
import pytest
import torch

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


# -- the policy loss beside its peers -------------------------------------------------------------


@pytest.fixture
def policy_loss(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("policy_loss")


def test_our_losses_and_trls_are_one_loss(policy_loss: ModuleType) -> None:
    """All contenders of this machine on one case: the same number, and gradients as exact as float32 allows."""
    peers = importlib.import_module("policy_loss_peers")
    inputs = policy_loss.make_inputs(policy_loss.Case("micro", 64, 0.35, "trainable"), torch.device("cpu"))
    assert 0.2 < inputs.mask.float().mean() < 0.6
    wanted = peers.eager(inputs).item()
    for name in ("ours (torch)", "torch eager, compacted", "TRL as shipped", "TRL with the mask in its labels",
                 "TRL asynchronous"):
        loss = peers.CONTENDERS[name]()
        assert loss(inputs).item() == pytest.approx(wanted, rel=1e-4), name
        assert policy_loss.gradient_error(loss, inputs) < 1e-5, name


def test_what_is_missing_is_said(policy_loss: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent():  # noqa: ANN202
        raise ImportError("no such thing", name="liger_kernel")

    monkeypatch.setitem(policy_loss.CONTENDERS, "liger-kernel", absent)
    case, cpu = policy_loss.Case("micro", 32, 1.0, "frozen"), torch.device("cpu")
    assert policy_loss.measure(case, "liger-kernel", cpu, 1e9, 2)["state"] == "not installed: liger_kernel"
    assert policy_loss.measure(case, "ours (triton)", cpu, 1e9, 2)["state"] == "needs a GPU"
    row = policy_loss.measure(case, "ours (torch)", cpu, 1e9, 2)
    assert row["state"] == "measured" and row["median_ms"] > 0 and row["share_of_floor"] > 0


def test_the_floor_by_hand(policy_loss: ModuleType) -> None:
    inputs = policy_loss.make_inputs(policy_loss.Case("micro", 32, 1.0, "trainable"), torch.device("cpu"))
    operations = 2.0 * 32 * 869 * 128
    for head, products in (("trainable", 3), ("frozen", 2)):
        case = policy_loss.Case("micro", 32, 1.0, head)
        assert policy_loss.floor_seconds(case, inputs, 1e9) == pytest.approx(products * operations / 1e9)


def test_the_committed_policy_loss_table_is_whole() -> None:
    table = pd.read_csv(FOLDER / "policy_loss.csv")
    measured = table[table["state"] == "measured"]
    assert set(measured["contender"]) >= {"ours (torch)", "torch eager", "TRL as shipped", "liger-kernel"}
    assert {"device", "torch", "trl", "date", "matmul_tflops"} <= set(table.columns)
    assert (measured["grad_error"] < 1e-4).all() and (measured["p20_ms"] <= measured["p80_ms"]).all()
    assert set(table["state"]) <= {"measured", "needs a GPU"} and 0.35 in set(table["policy_share"])
