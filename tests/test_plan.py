"""planning: hours, dollars and disk by hand, the machine, the nearest run that fits, and what the command prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from zerosearch import artifacts, cli, profiles, published, published_rows
from zerosearch.errors import ConfigError
from zerosearch.layouts import Layout
from zerosearch.planning import effort, fit, limits, machines, money, plan, remedies, shapes, storage, table, workload
from zerosearch.planning.machines import Card, Machine
from zerosearch.prices import PriceBook
from zerosearch.profiles import Needs

STAGES = tuple(artifacts.STAGES)
TINY = shapes.Shape(8, 6, 1, 2, 1, 4, 10, True)  # 416 numbers multiply a token
ROUND = Card("round", 80.0, 1.0, 0.5, 1.0)  # 1e12 operations, 1e9 bytes a second
GPU = [("NVIDIA A100-SXM4-80GB", 80.0)]


def load(name: str = "single_gpu", **overrides: Any) -> profiles.Settings:
    return profiles.load(name, {key.replace("__", "."): value for key, value in overrides.items()})


# --- hours, dollars, disk ----------------------------------------------------------------------------


def test_operations_by_hand() -> None:
    """Forward 2 x 416 and, with 10 tokens seen, 2 x 1 x 8 x 10; training three times that, adapters twice."""
    assert effort.forward(TINY, 10) == 2 * 416 + 160
    seconds = 1_000_000 * 992 / (0.5e12 * effort.TRAINING_SHARE)
    times = {(0, False): 3, (0, True): 4, (8, False): 2, (8, True): 3}
    for (rank, again), count in times.items():
        layout = Layout(lora_rank=rank, gradient_checkpointing=again)
        assert effort.training_seconds(TINY, layout, ROUND, 1, 1e6, 10) == pytest.approx(count * seconds)
    fast = effort.training_seconds(TINY, Layout(precision="bf16"), ROUND, 2, 1e6, 10)
    assert fast == pytest.approx(3 * seconds / 4)  # twice the operations a second, on two cards


def test_writing_is_bound_by_memory_until_it_is_not() -> None:
    """One row: 416 weights of 4 bytes and 10 x 32 bytes of keys and values are read for every token."""
    alone = effort.Writer(TINY, Layout(), ROUND, rows=1)
    assert alone.seconds(0, 1000, 10) == pytest.approx(1000 * (416 * 4 + 320) / (1e9 * effort.WRITING_SHARE))
    many = effort.Writer(TINY, Layout(), ROUND, rows=8)
    assert many.seconds(0, 1000, 10) == pytest.approx(1000 * (416 * 4 / 8 + 320) / (1e9 * effort.WRITING_SHARE))
    slow = Card("slow", 80.0, 1e-6, 1e-6, 1e6)
    computed = 1000 * 992 / (1e6 * effort.READING_SHARE)
    assert effort.Writer(TINY, Layout(), slow, 1).seconds(0, 1000, 10) == pytest.approx(computed)
    read = 1000 * 992 / (0.5e12 * effort.READING_SHARE)
    assert effort.Writer(TINY, Layout(), ROUND, 1).seconds(1000, 0, 10) == pytest.approx(read)


def test_twice_the_steps_take_twice_the_time() -> None:
    def hours(**overrides: Any) -> dict[str, float]:
        settings = load("a100_node", **overrides)
        sizes = limits.phases.models(settings).shapes
        return effort.hours(settings, sizes, workload.workload(settings), machines.card("A100-80GB"))

    once, twice = hours(), hours(**{"03__steps": "400"})
    assert twice["03"] == pytest.approx(2 * once["03"]) and twice["02"] == once["02"]
    assert set(once) == {"01", "02", "03", "04"} and 1 < once["03"] < 48  # the paper says about 12 for one arm


def test_dollars_by_hand() -> None:
    book = PriceBook.load(artifacts.REPO / "data" / "prices.yaml")
    judge = {"01__judge_url": "http://judge/v1", "01__judge_prompt_usd": "2", "01__judge_generated_usd": "8"}
    settings = load("a100_node", **judge)
    machine = Machine(machines.card("A100-80GB"), 8, False)
    work = workload.workload(settings)
    found = list(money.dollars(settings, {"03": 10.0}, work, machine, book).values())
    assert found[0] == pytest.approx(10 * 8 * 1.475)
    assert found[1] == pytest.approx(24_000 * 275 / 30_000)
    assert found[3] == pytest.approx(24_000 * ((150 + 5 * 150) * 2 + 50 * 8) / 1e6)
    unknown = Machine(machines.card("L4-24GB"), 1, False)
    assert list(money.dollars(load(), {"03": 1.0}, workload.workload(load()), unknown, book).values()) == [None]


def test_the_published_bill_of_serving() -> None:
    """12 hours on 1, 2 and 4 cards at the book's price are the published 17.7, 35.4 and 70.8 USD."""
    each = PriceBook.load(artifacts.REPO / "data" / "prices.yaml").each("a100_published", "USD/GPU-hour")
    costs = published.cost_table().set_index("engine")["total_usd"]
    for name, row in (("SFT-3B", "qwen2.5-3b-sft-3b"), ("SFT-7B", "qwen2.5-3b-sft-7b"), ("SFT-14B", "qwen2.5-3b")):
        assert 12 * each * published_rows.rows()[row]["gpus"] == pytest.approx(costs[name])


def test_disk_by_hand() -> None:
    """Qwen2.5-3B: 12 bytes a parameter in a checkpoint, two kept and one being written; float32 models."""
    settings = load("a100_node", **{"02__simulator_model": "Qwen/Qwen2.5-0.5B-Instruct"})
    found = storage.disk(settings, limits.phases.models(settings).shapes)
    assert found["checkpoints while training"] == pytest.approx(3 * 12 * 3_085_938_688 / 2**30)
    assert found["models of stage 03"] == pytest.approx(2 * 4 * 3_085_938_688 / 2**30)
    assert found["models of stage 02"] == pytest.approx(4 * 494_032_768 / 2**30)
    fetched = storage.downloads(settings, limits.phases.models(settings))
    assert fetched["Qwen/Qwen2.5-3B"] == pytest.approx(2 * 3_085_938_688 / 2**30)
    assert storage.downloads(load("smoke"), limits.phases.models(load("smoke"))) == {}


def test_profiles_ask_for_the_disk_that_they_need(tmp_path: Path) -> None:
    for name in profiles.names():
        made = plan.make(profiles.load(name), tmp_path, 64.0)
        assert sum(made.disk.values()) + sum(made.downloads.values()) <= profiles.read_profile(name).needs.disk_gib


# --- the machine ----------------------------------------------------------------------------------------


def test_machines() -> None:
    needs = Needs(1, 1, 8, 1, "A100-80GB")
    stated = machines.machine_for(needs, [])
    assert (stated.card, stated.count, stated.here) == (machines.card("A100-80GB"), 8, False)
    assert "as the profile states" in stated.words
    small = machines.machine_for(needs, [("NVIDIA A100-SXM4-80GB", 80.0), ("NVIDIA L4", 22.5)])
    assert small.card is not None and (small.card.gib, small.card.tflops, small.count) == (22.5, 121, 2)
    odd = machines.machine_for(needs, [("Some Card", 10.0)])
    assert odd.card is not None and (odd.card.gib, odd.card.tflops, odd.card.price) == (10.0, 312, "")
    assert machines.machine_for(Needs(1, 1, 0, 1), GPU).card is None
    with pytest.raises(ConfigError, match="did you mean 'A100-80GB'"):
        machines.card("A100-80")


@pytest.mark.parametrize(
    ("listed", "found"),
    [("NVIDIA L4, 23034\nNVIDIA H200, 143771\n", [("NVIDIA L4", 22.49), ("NVIDIA H200", 140.4)]), ("No devices\n", [])],
)
def test_cards_are_read_from_the_driver(
    listed: str, found: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machines.found_cards() == [(name, pytest.approx(gib, abs=0.01)) for name, gib in found]


def test_every_card_of_the_table_is_known_by_its_name() -> None:
    names = {"A100-80GB": "NVIDIA A100-SXM4-80GB", "A100-40GB": "NVIDIA A100-SXM4-40GB",
             "H100-80GB": "NVIDIA H100 80GB HBM3", "H200-141GB": "NVIDIA H200", "H20-96GB": "NVIDIA H20", "L4-24GB": "NVIDIA L4",
             "RTX4090-24GB": "NVIDIA GeForce RTX 4090", "L40S-48GB": "NVIDIA L40S"}
    assert set(names) == set(machines.table())
    for key, name in names.items():
        gib = machines.table()[key]["gib"]
        found = machines.machine_for(Needs(1, 1, 1, 1), [(name, gib)]).card
        assert found is not None and found.tflops == machines.table()[key]["tflops"], key
        assert found.price == machines.table()[key]["price"]


# --- the nearest that fits -----------------------------------------------------------------------------


CARDS = [("NVIDIA L4", 22.5), ("NVIDIA A100-SXM4-40GB", 40.0), ("NVIDIA A100-SXM4-80GB", 80.0)]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card[0])
@pytest.mark.parametrize("settings", [
    load(), load("a100_node"),
    load("a100_node", **{"03__policy_model": "Qwen/Qwen2.5-7B", "04__policy_model": "Qwen/Qwen2.5-7B"}),
    load(layout__lora_rank="0", layout__precision="float32", layout__gradient_checkpointing="false"),
], ids=["single", "node", "node 7B", "plain"])
def test_what_is_proposed_fits_and_nothing_of_it_is_idle(
    settings: profiles.Settings, card: tuple[str, float], count: int
) -> None:
    machine = machines.machine_for(settings.source.needs, [card] * count)

    def fits(other: profiles.Settings) -> bool:
        return not limits.not_held(limits.phases_of(other, machine=machine), machine, 64.0)

    if fits(settings):
        return
    found = remedies.nearest(settings, fits, count)
    assert found, f"nothing fits on {machine.words}"
    assert fits(remedies.changed(settings, found))
    for name in (name for name in found if name not in remedies.FOLLOWS):
        fewer = {key: value for key, value in found.items() if name not in (key, remedies.FOLLOWS.get(key))}
        assert not fits(remedies.changed(settings, fewer)), f"{name} is not needed"
    typed = {name: remedies.shown(value) for name, value in found.items()}
    assert fits(profiles.load(settings.profile, {**_given(settings), **typed}))  # as a reader would type it


def _given(settings: profiles.Settings) -> dict[str, Any]:
    """Return what a settings object has otherwise than its profile, as overrides."""
    own = profiles.load(settings.profile)
    stages = {f"{stage}.{name}": value for stage, values in settings.stages.items() for name, value in values.items()
              if own.stages[stage].get(name) != value}
    layout = {f"layout.{name}": getattr(settings.layout, name) for name in Layout.__dataclass_fields__
              if getattr(settings.layout, name) != getattr(own.layout, name)}
    return stages | layout


def test_refusals_say_what_was_expected_found_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "found_cards", lambda: [("NVIDIA A100-SXM4-40GB", 40.0)])
    settings = load(layout__lora_rank="0")
    problem = fit.problems(settings, STAGES, 64.0)[0]
    assert "expected" in problem and "found 40.0" in problem and "the nearest that fits: --set" in problem
    assert "layout.lora_rank=16" in problem
    monkeypatch.setattr(machines, "found_cards", lambda: [("tiny", 1.0)])
    assert "nothing smaller that was tried fits" in fit.problems(settings, STAGES, 64.0)[0]
    assert fit.problems(load("laptop"), STAGES, 4.0) == []
    assert "found 1.1" in (small := fit.problems(load("laptop"), STAGES, 1.1)[0]) and "03.questions_per_step" in small
    assert "layout" not in small and "nothing smaller" in fit.problems(load("laptop"), STAGES, 0.5)[0]
    assert fit.problems(load("laptop"), ("00", "05"), 0.1) == []  # stages without models


def test_smaller_models_are_of_the_same_kind() -> None:
    smaller = ["Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct"]
    assert remedies.smaller_than("Qwen/Qwen2.5-3B-Instruct") == smaller
    assert remedies.smaller_than("meta-llama/Llama-3.2-3B") == ["meta-llama/Llama-3.2-1B"]
    assert remedies.smaller_than("nobody/nothing") == []


def test_a_run_does_not_pass_over_its_layout() -> None:
    assert fit.layout_problems(Layout()) == []
    assert fit.layout_problems(load("single_gpu").layout) == []
    assert fit.layout_problems(Layout(precision="bf16", policy_gpus=4, sharding="fsdp")) == []
    problem = fit.layout_problems(Layout(precision="bf16", policy_gpus=4, sharding="zero2", simulator_gpus=1))[0]
    assert "found sharding=zero2;" in problem and "--set layout.sharding=none" in problem


# --- published rows -------------------------------------------------------------------------------------


def test_every_published_row_can_be_planned_on_its_node(tmp_path: Path) -> None:
    node = profiles.read_profile("a100_node")
    for name, row in published_rows.rows().items():
        settings = profiles.load("a100_node", published_rows.overrides(name, node), arms=["zerosearch"])
        three = settings.stage("03")
        assert three["policy_model"] == row["policy"] == settings.stage("04")["policy_model"]
        assert (three["noise_start"], three["noise_end"]) == tuple(row["noise"])
        assert settings.stage("02")["simulator_model"] == row["simulator"] == three["simulator_model"]
        assert settings.layout.simulator_gpus == row["gpus"]
        assert (three["questions_per_step"], three["group_size"], three["steps"]) == (64, 5, 200)
        machine = Machine(machines.card("A100-80GB"), 8, False)
        assert limits.not_held(limits.phases_of(settings), machine, 256.0) == [], name


def test_the_rows_are_those_of_the_published_tables() -> None:
    models = {row["policy"].split("/")[1].removesuffix("-Instruct") for row in published_rows.rows().values()}
    assert models == set(published.main_results()["policy"])
    noise = {name: tuple(row["noise"]) for name, row in published_rows.rows().items()}
    assert (noise["qwen2.5-7b"], noise["qwen2.5-3b"], noise["llama-3.2-3b"]) == ((0.0, 0.75), (0.0, 0.25), (0.25, 0.5))


def test_rows_that_do_not_exist_or_have_no_gpu() -> None:
    with pytest.raises(ConfigError, match="did you mean 'qwen2.5-7b'"):
        published_rows.overrides("qwen-7b", profiles.read_profile("a100_node"))
    with pytest.raises(ConfigError, match="found 'laptop'; add --profile a100_node"):
        published_rows.overrides("qwen2.5-7b", profiles.read_profile("laptop"))
    shared = published_rows.overrides("qwen2.5-7b", profiles.read_profile("single_gpu"))
    assert "layout.simulator_gpus" not in shared


def test_set_has_the_last_word(outputs: Path) -> None:
    options = cli.parse(["--profile", "a100_node", "--row", "qwen2.5-7b", "--set", "03.noise_end=0.5"])
    settings = cli._settings(options)
    assert settings.stage("03")["noise_end"] == 0.5 and settings.stage("03")["policy_model"] == "Qwen/Qwen2.5-7B"
    assert settings.run == "a100_node-qwen2.5-7b"


# --- what is printed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["smoke", "laptop", "single_gpu", "a100_node"])
def test_the_table_is_short_and_aligned(name: str, tmp_path: Path) -> None:
    shown = table.lines(plan.make(profiles.load(name), tmp_path, 64.0))
    assert len(shown) < 40 and all(len(line) < 160 for line in shown if not line.startswith("assumed"))
    rows = [line for line in shown if line.startswith("  0")]
    assert [row.split()[0] for row in rows][:5] == ["01", "02", "03", "03", "04" if name != "a100_node" else "03"]
    assert len({row.index("fits") for row in rows}) == 1 and all("fits" in row for row in rows)
    assert any("cost in all" in line for line in shown) and any("disk in all" in line for line in shown)
    assert any(line.startswith("assumed: 2 searches") for line in shown)


def test_a_model_of_unknown_size_is_named_with_the_command(tmp_path: Path) -> None:
    shown = table.lines(plan.make(load(**{"03__policy_model": "nobody/nothing"}), tmp_path, 64.0))
    assert "not planned: the sizes of nobody/nothing are not known here" in shown[-1]
    assert "`hf download nobody/nothing config.json`" in shown[-1]


def test_a_dry_run_prints_the_plan(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--profile", "smoke", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("dry run: nothing was started") < shown.index("plan of memory") < shown.index("cost in all")
    assert not (outputs / "smoke").exists()


def test_a_run_that_cannot_fit_is_refused(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machines, "found_cards", lambda: [("NVIDIA A100-SXM4-40GB", 40.0)])
    (tmp_path / "c.jsonl").write_text('{"id": 1, "text": "x"}\n')
    arguments = ["--profile", "single_gpu", "--run", "never", "--corpus", str(tmp_path / "c.jsonl")]
    arguments += ["--set", "layout.lora_rank=0"]
    assert cli.main(arguments) == 3
    error = capsys.readouterr().err
    assert "expected 46.3 GiB for update (stage 03), found 40.0; the nearest that fits: --set layout.lora_rank=16" in error
    assert "Traceback" not in error and not (outputs / "never").exists()
