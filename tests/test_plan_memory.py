"""planning/memory.py and phases.py: bytes by hand, sharding and adapters, and the peaks that runs really had."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from live_memory import LiveMemory
from test_plan_activations import SIZES, config_of, held, make, one_pass

from zerosearch import artifacts, profiles
from zerosearch.kernels import chunked
from zerosearch.layouts import Layout
from zerosearch.planning import activations, limits, machines, memory, phases, shapes, workload
from zerosearch.planning.memory import Conversations

TINY = shapes.Shape(8, 6, 1, 2, 1, 4, 10, True)  # 384 parameters: see test_plan_shapes
P = TINY.parameters
OURS: dict[str, Any] = {"03__rollout_engine": "transformers", "03__simulator_replicas": "0"} | {
    f"{stage}__engine": "transformers" for stage in ("01", "02", "04")
}
LAYOUTS = st.builds(
    Layout, precision=st.sampled_from(["float32", "bf16"]), lora_rank=st.sampled_from([0, 4, 64]),
    gradient_checkpointing=st.booleans(), micro_batch_tokens=st.sampled_from([1024, 8192]),
    policy_gpus=st.sampled_from([1, 2, 4]), sharding=st.sampled_from(["none", "zero1", "zero2", "zero3", "fsdp"]),
    simulator_gpus=st.sampled_from([0, 1, 4]), sleep=st.booleans(), overlap=st.booleans(),
)


def phases_of(name: str, **overrides: Any) -> dict[str, memory.Phase]:
    """Return the phases of a profile by name."""
    options = {key.replace("__", "."): value for key, value in overrides.items()}
    return {phase.name: phase for phase in limits.phases_of(profiles.load(name, options))}


@pytest.mark.parametrize(
    ("layout", "gpus", "expected"),
    [
        (Layout(), 1, (4 * P, 4 * P, 8 * P)),
        (Layout(precision="bf16"), 1, (4 * P, 4 * P, 8 * P)),
        (Layout(sharding="zero1"), 4, (4 * P, 4 * P, 2 * P)),
        (Layout(sharding="zero2"), 4, (4 * P, P, 2 * P)),
        (Layout(sharding="fsdp"), 4, (P, P, 2 * P)),
        (Layout(precision="bf16", sharding="zero1"), 4, (2 * P, 2 * P, 3 * P)),
        (Layout(precision="bf16", sharding="zero2"), 4, (2 * P, P // 2, 3 * P)),
        (Layout(precision="bf16", sharding="zero3"), 4, (P, P, 2 * P)),
        (Layout(sharding="fsdp"), 1, (4 * P, 4 * P, 8 * P)),
    ],
)
def test_a_model_in_training_by_hand(layout: Layout, gpus: int, expected: tuple[int, int, int]) -> None:
    assert tuple(memory.trained(TINY, layout, gpus).values()) == expected


def test_adapters_by_hand() -> None:
    """Rank 3 has 3 * 98 numbers; weights are frozen, in two bytes each, and spread only where weights are."""
    own = 3 * 98
    layout = Layout(precision="bf16", lora_rank=3)
    assert memory.trained(TINY, layout, 1) == {"weights": 2 * P + 4 * own, "gradients": 4 * own, "optimiser": 8 * own}
    spread = Layout(precision="bf16", lora_rank=3, sharding="fsdp")
    assert memory.trained(TINY, spread, 2)["weights"] == P + 2 * own


def test_caches_by_hand() -> None:
    """Three rows of 10 tokens on average, 25 at most, 6 read and 5 written at once; a token's keys and values: 32 B."""
    talk, layout = Conversations(3, 10, 25, 6, 5), Layout()
    own = memory.own_cache(TINY, talk, layout)
    assert own["KV cache"] == 3 * (10 + 10 + 5) * 32
    assert own["activations"] == 3 * 6 * 10 * (2 * 12 + 4) + 3 * 10 * 24
    needed, wanted = memory.paged_cache(TINY, talk, layout)
    assert needed["KV cache"] == 25 * 32 and wanted == 3 * 10 * 32


@given(LAYOUTS)
def test_more_cards_never_need_more_of_each(layout: Layout) -> None:
    shape = shapes.shape_of("Qwen/Qwen2.5-3B")
    assert shape is not None
    totals = [sum(memory.trained(shape, layout, gpus).values()) for gpus in (1, 2, 4, 8)]
    assert totals == sorted(totals, reverse=True) or layout.sharding == "none"
    assert all(part >= 0 for part in memory.trained(shape, layout, 2).values())


@given(LAYOUTS)
def test_every_layout_has_a_plan(layout: Layout) -> None:
    options = {f"layout.{field.name}": getattr(layout, field.name) for field in fields(Layout)}
    found = limits.phases_of(profiles.load("a100_node", options))
    assert [phase.name for phase in found if phase.name != "simulator"] == [
        "collect", "simulator SFT", "rollout", "update", "evaluation"
    ]
    assert all(size >= 0 for phase in found for size in phase.parts.values())
    assert ("simulator" in [phase.name for phase in found]) == (layout.simulator_gpus > 0)


def test_shares_of_a_card() -> None:
    """Of 80 GiB vLLM takes 32 for the engine of a notebook and 24 for the simulator's servers, whatever they need."""
    found, ours = phases_of("single_gpu"), phases_of("single_gpu", **OURS)
    taken = {name: round(sum(phase.engines.values()) / memory.GIB, 6) for name, phase in found.items()}
    assert taken == {"collect": 32.0, "simulator SFT": 32.0, "rollout": 56.0, "update": 24.0, "evaluation": 32.0}
    assert all(phase.has_room and phase.room == sum(phase.engines.values()) for phase in found.values())
    policy, simulator = (2 * shapes.shape_of(f"Qwen/Qwen2.5-{size}-Instruct").parameters for size in ("1.5B", "3B"))
    assert found["rollout"].engines["weights"] == policy + simulator and "simulator" not in found["rollout"].parts
    assert found["collect"].parts["weights"] == policy and found["collect"].engines["weights"] == policy
    assert not any(phase.engines or phase.room for phase in ours.values()) and "simulator" in ours["rollout"].parts
    twice = phases_of("single_gpu", **{"03__simulator_replicas": "2"})["rollout"]
    assert twice.room == found["rollout"].room and twice.engines["weights"] == policy + 2 * simulator


def test_a_share_without_room_is_refused() -> None:
    """Of the 22.5 GiB of an L4 the servers have 6.75, less than the 3B simulator and its cache."""
    settings = profiles.load("single_gpu")
    machine = machines.machine_for(settings.source.needs, [("NVIDIA L4", 22.5)])
    found = {phase.name: phase for phase in limits.phases_of(settings, machine=machine)}
    assert not found["rollout"].has_room and found["collect"].has_room
    problems = limits.not_held(list(found.values()), machine, 64.0)
    assert any("for vLLM in update (stage 03), found 6.8, its share of a card" in problem for problem in problems)


def test_the_plan_knows_the_chunks_of_the_kernels() -> None:
    assert activations.CHUNK_BYTES == chunked.BUDGET_BYTES and chunked.FROZEN_SHARE == 4


def test_what_changes_a_phase() -> None:
    plain = phases_of("single_gpu", layout__lora_rank="0", layout__sleep="false", **OURS)
    adapters = phases_of("single_gpu", layout__sleep="false", **OURS)
    asleep = phases_of("single_gpu", **OURS)
    assert adapters["update"].gib < plain["update"].gib and "reference" in plain["update"].parts
    assert adapters["update"].parts["reference"] == 0  # the adapters switched off are the reference
    assert "simulator" in adapters["update"].parts and "simulator" not in asleep["update"].parts
    assert asleep["rollout"].parts == adapters["rollout"].parts
    beside = phases_of("single_gpu", layout__overlap="true", **OURS)  # nothing sleeps, the adapters are there twice
    twice = beside["rollout"].parts["weights"] - asleep["rollout"].parts["weights"]
    learned = shapes.shape_of(profiles.load("single_gpu").stage("03")["policy_model"]).lora(16)
    assert twice == 4 * learned and beside["update"].parts["KV cache"] == beside["rollout"].parts["KV cache"]
    assert beside["update"].parts["simulator"] == asleep["rollout"].parts["simulator"] > 0
    served = phases_of("single_gpu", layout__overlap="true")
    assert served["update"].room == served["rollout"].room > phases_of("single_gpu")["update"].room
    without = phases_of("single_gpu", layout__lora_rank="0", **{"03__kl_weight": "0"})
    assert without["update"].parts["reference"] == 0
    longer = phases_of("single_gpu", **OURS, **{"03__questions_per_step": "16"})
    assert longer["rollout"].parts["KV cache"] < asleep["rollout"].parts["KV cache"]
    served = phases_of("single_gpu", **{"03__simulator_url": "http://x/v1", "03__simulator_name": "m"})
    assert "simulator" not in served["rollout"].parts


def test_a_whole_step_with_its_optimiser() -> None:
    """Weights, gradients, Adam's moments and a pass, measured together over the second of two steps: within 5 %."""
    size = SIZES[1]
    config, (rows, length, trained) = config_of(*size[:8]), size[8:]
    shape = shapes.from_config(config.to_dict())
    work = activations.Pass(rows * length, trained)
    lived = LiveMemory()
    with lived:
        model = make(config, "float32")
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
        go = one_pass(model, rows, length, trained, work)
        for _ in range(2):
            go()
            optimiser.step()
    buffers = sum(t.untyped_storage().nbytes() for t in model.buffers())
    expected = sum(memory.training_pass(shape, work, Layout(), 1).values())
    assert expected == pytest.approx(lived.peak - buffers, rel=0.05)
    assert sum(t.numel() for t in held(model)) >= 2 * shape.parameters


def test_the_peaks_that_the_reference_run_had() -> None:
    """Profile laptop: what each notebook really needed is within a quarter of what the plan expects."""
    table = pd.read_csv(artifacts.REPO / "outputs" / "reference" / "laptop" / "stages.csv")
    measured = table.groupby(table["stage"].str[:2])["peak_rss_mib"].agg(["mean", "max"]) / 1024
    found = phases_of("laptop")
    parts = {"01": ["collect"], "02": ["simulator SFT"], "03": ["rollout", "update"], "04": ["evaluation"]}
    for stage, names in parts.items():
        expected = max(found[name].gib for name in names)
        assert expected == pytest.approx(measured.loc[stage, "mean"], rel=0.25), stage


def test_counts_of_a_run() -> None:
    work = workload.workload(profiles.load("a100_node"))
    assert (work.trained, work.collected, work.lessons, work.jobs, work.simulated) == (64_000, 12_000, 32_000, 2, 1)
    assert work.evaluated == (8 + 2) * (3_125 + 6 * 100 * 7)
    assert work.paid == {"01": 24_000, "04": 2 * work.evaluated} and work.judged == 0
    assert work.train.longest == 150 + 5 * (750 + 120) + 500 and work.train.mean == 150 + 2 * 750 + 3 * 120
    simulated = workload.workload(profiles.load("a100_node", arms=["zerosearch"]))
    assert simulated.train.observation == 250


def test_a_model_of_unknown_size_is_left_out_and_named() -> None:
    settings = profiles.load("single_gpu", {"03.policy_model": "nobody/nothing"})
    found = phases.models(settings)
    assert found.unknown == ("nobody/nothing",)
    names = [phase.name for phase in phases.phases(settings, found.shapes, workload.workload(settings))]
    assert names == ["collect", "simulator SFT", "evaluation"]
