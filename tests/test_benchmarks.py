"""The benchmarks run, and their committed tables are ones that they wrote.  No time is judged here."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
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


# -- rollout loops ----------------------------------------------------------------------------------


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


# -- one optimiser step beside TRL's trainer --------------------------------------------------------


@pytest.fixture
def policy_step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("policy_step")


@pytest.mark.parametrize("lengths", ["recorded", "log-normal"])
def test_all_ways_of_a_step_have_the_same_gradient(
    policy_step: ModuleType, lengths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our switches, one by one, and TRL's trainer: with a KL and without."""
    sizes = importlib.import_module("policy_step_batches").SMALL
    tiny = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 900}
    for name, value in tiny.items():
        monkeypatch.setitem(sizes, name, value)
    chosen = argparse.Namespace(
        device="cpu", median=20, max_tokens=300, kl_weights=[0.0, 0.1], repeats=1
    )
    table = policy_step.measure(chosen, "random:small", lengths, 16)
    measured = table[table["state"] == "measured"]
    assert list(measured["way"]) == 2 * list(policy_step.ways()) and (measured["median_seconds"] > 0).all()
    assert (measured["gradient_gap"] < 1e-4).all() and (measured["gradient_gap"] > 0).sum() > 8
    assert list(table.loc[table["state"] != "measured", "way"]) == 2 * ["TRL with liger-kernel"]
    assert set(measured["tokens"]) == {measured["tokens"].iloc[0]} and 0 < measured["padding_share"].iloc[0] < 1


def test_the_drawn_trajectories_are_as_they_are_said_to_be(policy_step: ModuleType) -> None:
    batches = importlib.import_module("policy_step_batches")
    batch = batches.log_normal(64, 200, 900)
    assert 0.3 < batch.policy_share < 0.4 and batch.idle_share == 0.0
    completions = batch.lengths - batches.PROMPT
    assert 140 < np.median(completions) < 280 and completions.max() > 2 * np.median(completions)
    assert max(max(t.token_ids) for t in batch.trajectories) < 900
    sized = batches.open_model("random:small", torch.device("cpu"))
    assert 2e6 < sized.num_parameters() < 5e6 and sized.dtype == torch.float32


def test_ratios_are_taken_against_trl(policy_step: ModuleType) -> None:
    seconds = {policy_step.TRL: 6.0, policy_step.TRL_KEPT: 4.5, "+ packed": 1.5}
    rows = pd.DataFrame({"way": list(seconds), "median_seconds": list(seconds.values())})
    table = policy_step.with_ratios(rows).set_index("way")
    assert table["ratio"].tolist() == [1.0, 1.33, 4.0] and table["ratio_kept"].tolist() == [0.75, 1.0, 3.0]


def test_the_committed_policy_step_table_is_whole(policy_step: ModuleType) -> None:
    table = pd.read_csv(FOLDER / "policy_step.csv")
    assert {"cpu", "device", "torch", "transformers", "trl", "commit", "date"} <= set(table.columns)
    measured = table[table["state"] == "measured"]
    assert set(table["way"]) == {*policy_step.ways(), policy_step.TRL_LIGER}
    assert (measured["gradient_gap"] < 1e-3).all() and (measured["lowest"] <= measured["highest"]).all()
    assert set(measured["model"]) == {"micro/llama-base", "random:small"} and set(measured["kl_weight"]) == {0.0, 1e-3}


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


# -- algorithms ---------------------------------------------------------------------------------------


def test_rows_of_an_algorithm_replace_older_ones(tmp_path: Path) -> None:
    benchmark, path = load("algorithms"), tmp_path / "a.csv"
    rows = [("ppo", 1, 0.3), ("grpo", 0, 0.5), ("ppo", 0, 0.2)]
    benchmark.joined(path, pd.DataFrame(rows, columns=["algorithm", "seed", "em_after"])).to_csv(path, index=False)
    again = benchmark.joined(path, pd.DataFrame([("ppo", 0, 0.9)], columns=["algorithm", "seed", "em_after"]))
    assert again.to_numpy().tolist() == [["grpo", 0, 0.5], ["ppo", 0, 0.9], ["ppo", 1, 0.3]]


def test_every_measured_algorithm_learned_in_the_micro_world() -> None:
    table = pd.read_csv(FOLDER / "algorithms.csv")
    assert {"algorithm", "seed", "seconds"} | MACHINE <= set(table.columns) and not table.duplicated(["algorithm", "seed"]).any()
    assert (table["reward_last_fifth"] > table["reward_first_fifth"]).all() and table["settings"].nunique() == 1
    assert (table["em_after"] > table["em_before"]).all() and table["em_before"].nunique() == 1
