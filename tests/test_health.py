"""health.py and health_rules.py: each rule by hand, silent on the committed references, and a real collapse."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Sequence

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_toys import FakeStage, ScriptedRetriever, read_rows, toy_question

from zerosearch import artifacts, files, profiles, readme_tables, reference
from zerosearch.comparing import tables
from zerosearch.comparing.tolerances import SAME
from zerosearch.curriculum import constant
from zerosearch.errors import ConfigError
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import NoRetriever
from zerosearch.rollout import RolloutSettings
from zerosearch.training import health, health_rules
from zerosearch.training.arm_training import train_arm
from zerosearch.training.arms import get_arm
from zerosearch.training.health import COLLAPSE, HEALTH, Collapsed, Watcher
from zerosearch.training.health_rules import RULES, Rule, alarm, began, ringing
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.step_metrics import METRICS

NAN, INF = math.nan, math.inf
PRESENT = {"learning_rate": 5e-4, "kl_weight": 0.0, "group_size": 8, "max_observation_tokens": 2048}


def rule_of(metric: str, side: str) -> Rule:
    (found,) = [rule for rule in RULES if (rule.metric, rule.side) == (metric, side)]
    return found


def history(metric: str, values: Sequence[float | None]) -> list[dict[str, Any]]:
    return [{"step": step, metric: value} for step, value in enumerate(values, 1)]


# -- the rules by hand ----------------------------------------------------------------------------

EDGES = [  # metric, side, steps before, the limit by hand, a value beyond it
    ("logprob_gap", "high", [], 0.1, 0.101),
    ("effective_share", "low", [], 0.3, 0.299),
    ("dropped_share", "high", [], 0.5, 0.501),
    ("grad_norm", "high", [], 20.0, 20.01),
    ("kl", "high", [], 5.0, INF),
    ("empty_search_rate", "high", [], 0.5, 0.51),
    ("valid_action_rate", "low", [1.0, 1.0, 0.97], 0.495, 0.49),  # half of the first steps, less than 0.5
    ("valid_action_rate", "low", [0.2, 0.3, 0.4, 0.9], 0.15, 0.149),  # a base that began badly
    ("eos_rate", "low", [1.0], 0.5, 0.4),
    ("policy_tokens_mean", "high", [20.0, 22.0, 24.0, 60.0], 88.0, 88.1),
    ("policy_tokens_mean", "low", [20.0, 22.0, 24.0, 60.0], 4.4, 4.3),
    ("entropy", "low", [], 0.005, 0.0049),
    ("entropy", "high", [0.2, 0.2, 0.2], 1.0, 1.01),  # three times as much would still be little
    ("entropy", "high", [0.5, 0.6, 0.4], 1.5, 1.51),
    ("searches_mean", "low", [1.0, 1.5, 0.5, 2.0], 0.1, 0.099),
    ("reward_mean", "low", [0.1, 0.4, 0.4, 0.4, 0.4, 0.4, 0.2], 0.1, 0.099),  # a quarter of the best five
    ("groups_with_spread", "low", [], 0.005, 0.0),
]


@pytest.mark.parametrize(("metric", "side", "before", "limit", "beyond"), EDGES)
def test_a_rule_rings_beyond_its_limit_and_only_after_its_patience(
    metric: str, side: str, before: list[float], limit: float, beyond: float
) -> None:
    rule = rule_of(metric, side)
    found = alarm(rule, history(metric, [*before, *[beyond] * rule.patience]))
    assert found is not None and found.limit == pytest.approx(limit)
    assert found.steps == tuple(range(len(before) + 1, len(before) + rule.patience + 1))
    assert found.found == (beyond,) * rule.patience
    at_the_limit = found.limit
    assert alarm(rule, history(metric, [*before, *[beyond] * (rule.patience - 1)])) is None
    assert alarm(rule, history(metric, [*before, *[beyond] * (rule.patience - 1), at_the_limit])) is None
    assert alarm(rule, history(metric, [*before, *[at_the_limit] * rule.patience])) is None
    assert alarm(rule, history(metric, [*before, *[beyond] * rule.patience, at_the_limit])) is None  # it recovered


@pytest.mark.parametrize("metric", ["loss", "grad_norm"])
@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_what_is_no_number_rings_at_once(metric: str, broken: float) -> None:
    rule = rule_of(metric, "finite")
    assert alarm(rule, history(metric, [0.1, broken])) is not None
    assert alarm(rule, history(metric, [broken, 0.1])) is None
    assert alarm(rule, history(metric, [0.1, None])) is None and alarm(rule, [{"step": 1}]) is None


def test_every_rule_has_its_edge_and_its_column() -> None:
    assert {(rule.metric, rule.side) for rule in RULES if rule.side != "finite"} == {(m, s) for m, s, *_ in EDGES}
    assert {rule.metric for rule in RULES} <= set(METRICS)


def test_steps_without_a_measurement_neither_count_nor_break_the_row() -> None:
    rule = rule_of("entropy", "low")
    assert alarm(rule, history("entropy", [0.5, 0.0, NAN, 0.0, None, 0.0])).steps == (2, 4, 6)
    assert alarm(rule, history("entropy", [0.5, 0.0, NAN, 0.0, None])) is None
    assert alarm(rule, history("entropy", [0.5, 0.0, 0.0, 0.0, NAN])) is None  # nothing new was seen
    assert alarm(rule, history("entropy", [NAN] * 9)) is None and alarm(rule, []) is None


def test_a_relation_needs_something_to_compare_with() -> None:
    rule = rule_of("searches_mean", "low")
    assert alarm(rule, history("searches_mean", [0.0] * 9)) is None  # an arm that never searches
    assert alarm(rule, history("searches_mean", [1.0] + [0.0] * 5)) is not None
    reward = rule_of("reward_mean", "low")
    assert alarm(reward, history("reward_mean", [0.9] * 4 + [0.0] * 5)) is None  # no five steps before these
    assert alarm(reward, history("reward_mean", [0.9] * 5 + [0.0] * 5)) is not None
    assert alarm(reward, history("reward_mean", [0.0] * 40)) is None  # left to groups_with_spread


def test_an_alarm_that_goes_on_is_told_once_and_again_after_a_recovery() -> None:
    told = began(history("entropy", [0.5] + [0.0] * 6 + [0.3] + [0.0] * 4))
    assert [(a.rule.metric, a.steps[-1]) for a in told] == [("entropy", 4), ("entropy", 11)]


def test_causes_stand_before_their_consequences() -> None:
    row = {"loss": NAN, "kl": 9.0, "entropy": 0.0, "valid_action_rate": 0.0, "reward_mean": 0.0}
    good = {"loss": 0.1, "kl": 0.0, "entropy": 0.4, "valid_action_rate": 1.0, "reward_mean": 0.5}
    found = [a.rule.metric for a in ringing([good] * 5 + [row] * 5)]
    assert found == ["loss", "kl", "valid_action_rate", "entropy", "reward_mean"]


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-3, 3))
ROWS = st.dictionaries(st.sampled_from(sorted(METRICS)), NUMBERS).map(lambda row: {**row, "step": 1})


@given(st.lists(ROWS, max_size=14))
def test_no_row_of_numbers_breaks_a_rule(rows: list[dict[str, Any]]) -> None:
    for one in began(rows):
        assert one.rule.metric in one.text() and len(one.found) == one.rule.patience


# -- the committed references ---------------------------------------------------------------------


def trainings() -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the history of every committed training: eight arms, three seeds, three profiles."""
    found = []
    for profile in reference.SHOWN:
        table = pd.read_csv(reference.REFERENCE / profile / "03_rl-metrics.csv")
        for (arm, seed), own in table.groupby(["arm", "seed"]):
            found.append((f"{profile} {arm} {seed}", own.to_dict("records")))
    return found


def nearer(rule: Rule) -> Rule:
    """Return a rule whose limit lies 1.4 times nearer to the healthy side."""
    by = 1.4 if rule.side == "low" else 1 / 1.4
    return replace(rule, bound=rule.bound * by, share=rule.share * by)


def test_healthy_references_raise_no_alarm_and_have_a_margin() -> None:
    runs = trainings()
    assert len(runs) == 1 + 9 + 24
    tighter = [nearer(rule) for rule in RULES]
    assert {name: [a.text() for a in began(rows)] for name, rows in runs if began(rows)} == {}
    assert {name: [a.text() for a in began(rows, tighter)] for name, rows in runs if began(rows, tighter)} == {}


def test_the_evidence_is_what_the_references_say() -> None:
    runs = [pd.DataFrame(rows) for _, rows in trainings()]
    table = pd.concat(runs)
    rl = table[~table["arm"].isin(["sft", "rejection"])]
    related = ["entropy", "policy_tokens_mean"]
    ratios = pd.concat([own[related] / own[related].head(3).mean() for own in runs])
    found = [  # rule, number in its evidence, the same number from the tables
        ("kl", "high", "0.86", table["kl"].max()), ("entropy", "low", "0.043", table["entropy"].min()),
        ("grad_norm", "high", "0.37", rl["grad_norm"].max()), ("grad_norm", "high", "2.65", table["grad_norm"].max()),
        ("groups_with_spread", "low", "0.09", rl["groups_with_spread"].min()),
        ("entropy", "high", "1.6", ratios["entropy"].max()),
        ("policy_tokens_mean", "high", "2.0", ratios["policy_tokens_mean"].max()),
        ("policy_tokens_mean", "low", "0.55", ratios["policy_tokens_mean"].min()),
    ]
    for metric, side, said, number in found:
        assert said in rule_of(metric, side).evidence and number == pytest.approx(float(said), rel=0.05), metric
    assert table["logprob_gap"].max() < 4e-7


def test_a_reference_with_a_broken_end_does_ring() -> None:
    """The margin is not silence: the same trainings with their last five steps spoilt."""
    spoilt = {"entropy": 0.0, "reward_mean": 0.0, "groups_with_spread": 0.0, "kl": 20.0}
    for name, rows in trainings():
        rows[-5:] = [row | spoilt for row in rows[-5:]]
        assert {"kl", "entropy", "groups_with_spread"} <= {a.rule.metric for a in ringing(rows)}, name


def test_a_reference_without_the_new_columns_still_compares() -> None:
    old = pd.DataFrame({"arm": ["zerosearch"], "seed": ["0"], "step": ["1"], "reward_mean": ["0.5"]})
    new = old.assign(valid_action_rate="1.0", eos_rate="1.0", empty_search_rate="")
    assert [check.status for check in tables.compare(tables.CURVES, old, new, SAME)] == [tables.PASS]


# -- what a user is told --------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.metric}-{rule.side}")
def test_every_remedy_is_an_option_that_stage_03_takes(rule: Rule) -> None:
    present = {**PRESENT, "group_size": 5}
    option, value = rule.remedy.command(present).removeprefix("--set 03.").split("=")
    taken = profiles.load("smoke", {f"03.{option}": value}).stages["03"][option]
    assert str(taken) == value or taken == pytest.approx(float(value))
    assert taken != present.get(option), "it changes something"


def test_remedies_in_numbers() -> None:
    assert rule_of("kl", "high").remedy.command(PRESENT) == "--set 03.learning_rate=5e-05"
    assert rule_of("entropy", "low").remedy.command(PRESENT) == "--set 03.kl_weight=0.01"
    assert rule_of("entropy", "low").remedy.command({"kl_weight": 0.02}) == "--set 03.kl_weight=0.2"
    assert rule_of("groups_with_spread", "low").remedy.command(PRESENT) == "--set 03.group_size=16"
    assert rule_of("empty_search_rate", "high").remedy.command(PRESENT) == "--set 03.max_observation_tokens=4096"
    assert rule_of("effective_share", "low").remedy.command(PRESENT) == "--set 03.correction=token"


def test_the_table_of_the_readme_has_a_line_for_every_rule() -> None:
    lines = readme_tables.health().splitlines()
    assert len(lines) == 2 + len(RULES) and len({line.count(" | ") for line in lines[::2]}) == 1
    (line,) = [one for one in lines if one.startswith("| `valid_action_rate`")]
    assert "| at least 0.5, or 0.5 × its first steps where that is less | 3 |" in line
    assert "`--set 03.learning_rate=`: a tenth of it" in line


def watcher(folder: Path, kind: str) -> Watcher:
    folder.mkdir(exist_ok=True)
    return Watcher(FakeStage(folder), kind, 12, PRESENT)  # type: ignore[arg-type]


def test_an_unknown_way_to_watch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="watch: expected one of stop, warn, off, found 'stpo'; did you mean 'stop'"):
        watcher(tmp_path, "stpo")


def test_patience_survives_a_resumed_run(tmp_path: Path) -> None:
    """Two of three steps before the interruption, the third after it."""
    rows = history("entropy", [0.5, 0.0, 0.0, 0.0])
    before, after = watcher(tmp_path, "stop"), watcher(tmp_path, "stop")
    assert [len(before.look(rows[:end])) for end in (1, 2, 3)] == [0, 0, 0]
    after.start(rows[:3])
    assert [a.steps for a in after.look(rows)] == [(2, 3, 4)]
    with pytest.raises(Collapsed, match=r"(?s)collapsed at step 4 of 12.*found 0, 0, 0 at steps 2 to 4"):
        after.check()


def test_a_collapsed_run_that_is_started_again_says_so_before_another_step(tmp_path: Path) -> None:
    rows = history("entropy", [0.5, 0.0, 0.0, 0.0])
    with pytest.raises(Collapsed, match="likely cause: the policy always writes the same"):
        watcher(tmp_path, "stop").start(rows)
    watcher(tmp_path, "warn").start(rows)  # goes on
    assert health.manifest_results(FakeStage(tmp_path))["health_warnings"].startswith("entropy: expected at least 0.005")


def test_steps_that_are_trained_again_are_forgotten(tmp_path: Path) -> None:
    rows = history("entropy", [0.5, 0.0, 0.0, 0.0, 0.5])
    watcher(tmp_path, "warn").start(rows)
    assert files.read_json(tmp_path / HEALTH)["alarms"][0]["step"] == 4
    (tmp_path / COLLAPSE).write_text("of a step that is gone")
    watcher(tmp_path, "stop").start(rows[:2])
    assert not list(tmp_path.glob("health*")) and not (tmp_path / COLLAPSE).exists()
    assert health.manifest_results(FakeStage(tmp_path)) == {}


def test_off_looks_away(tmp_path: Path) -> None:
    off, rows = watcher(tmp_path, "off"), history("loss", [NAN])
    off.start(rows)
    assert off.look(rows) == [] and not (tmp_path / HEALTH).exists()
    off.check()


# -- real trainings on the shipped micro policy ---------------------------------------------------

ANSWERS = ("Silver Harbor", "1903", "Port Amber", "Anka Falk")
SETTINGS = RLSettings(steps=12, questions_per_step=4, group_size=4, learning_rate=1.0, watch="stop", save_every=100)
LIMITS = RolloutSettings(max_searches=2, max_turn_tokens=24, max_observation_tokens=60, max_total_tokens=512)


def train(folder: Path, settings: RLSettings = SETTINGS, arm: str = "search-r1") -> tuple[FakeStage, pd.DataFrame]:
    torch.set_num_threads(1)
    policy, tokenizer = models.load("micro/llama-base")
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    stage, chosen = FakeStage(folder), get_arm(arm)
    made = train_arm(
        chosen, [toy_question(i, answer) for i, answer in enumerate(ANSWERS)], policy, tokenizer,
        ScriptedRetriever() if chosen.searches else NoRetriever(), prompts, settings, stage,  # type: ignore[arg-type]
        curriculum=constant(0.0, settings.steps), rollout_settings=LIMITS,
    )
    return stage, made


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Collapsed]:
    """A training with an absurd learning rate, and how it ended."""
    folder = tmp_path_factory.mktemp("collapsed")
    with pytest.raises(Collapsed) as told:
        train(folder)
    return folder, told.value


def test_an_absurd_learning_rate_ends_the_training_with_its_cause(collapsed: tuple[Path, Collapsed]) -> None:
    folder, error = collapsed
    rows = read_rows(folder / "metrics.jsonl")
    last = rows[-1]["step"]
    assert last < 8 and f"collapsed at step {last} of 12" in str(error)
    assert "--set 03.learning_rate=0.1 (a tenth of it)" in str(error) and "--set 03.watch=warn" in str(error)
    assert error._render_traceback_() == [f"Collapsed: {error}"]  # what a notebook shows: no stack
    assert {a.rule.metric for a in ringing(rows)} >= {"kl"} and not ringing(rows[:-1])
    assert rows[0]["valid_action_rate"] > 0.8 and rows[0]["eos_rate"] > 0.8  # the base was well


def test_a_collapse_leaves_a_checkpoint_and_its_trajectories(collapsed: tuple[Path, Collapsed]) -> None:
    folder, error = collapsed
    last = read_rows(folder / "metrics.jsonl")[-1]["step"]
    assert (folder / "checkpoints" / f"checkpoint-{last}" / "COMPLETE.json").is_file()  # save_every is 100
    kept = pd.read_parquet(folder / COLLAPSE)
    assert len(kept) == 16 and set(kept["step"]) == {last}
    first_answer = (kept["stop_reason"] == "answer").to_numpy()
    assert (first_answer == sorted(first_answer)).all()  # those without an answer stand first
    shown = error.trajectories
    assert len(shown) == 8 and shown["question"].str.startswith("who directed film").all()
    assert shown["the policy wrote"].str.len().gt(0).all()
    noted = json.loads((folder / HEALTH).read_text())
    assert noted["watch"] == "stop" and noted["alarms"][0]["step"] == last and noted["alarms"][0]["try"] in str(error)


def test_started_again_it_collapses_at_once_and_warn_goes_on_from_there(collapsed: tuple[Path, Collapsed]) -> None:
    folder, error = collapsed
    before = (folder / "metrics.jsonl").read_text()
    with pytest.raises(Collapsed) as again:
        train(folder)
    assert str(again.value) == str(error) and again.value.trajectories.equals(error.trajectories)
    assert (folder / "metrics.jsonl").read_text() == before  # not one more step
    last = read_rows(folder / "metrics.jsonl")[-1]["step"]
    stage, made = train(folder, replace(SETTINGS, watch="warn"))
    assert stage.progressed[0] == (last, 12) and made["step"].tolist() == [*range(1, 13)]
    assert health.manifest_results(stage)["health_warnings"].startswith("kl: expected at most 5")


def test_watching_changes_no_number(tmp_path: Path) -> None:
    gentle = replace(SETTINGS, steps=3, learning_rate=1e-4)
    runs = [train(tmp_path / kind, replace(gentle, watch=kind)) for kind in ("stop", "off")]
    timeless = [c for c in runs[0][1] if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(runs[0][1][timeless], runs[1][1][timeless], check_exact=True)
    assert not (tmp_path / "stop" / HEALTH).exists() and not (tmp_path / "stop" / COLLAPSE).exists()


def test_an_arm_without_rewards_is_watched_too(tmp_path: Path) -> None:
    """Supervised on golden answers, with updates that destroy the policy."""
    with pytest.raises(Collapsed):
        train(tmp_path, arm="sft")
    assert (tmp_path / COLLAPSE).is_file() and read_rows(tmp_path / "metrics.jsonl")[-1]["step"] < 12


def test_watch_is_a_parameter_that_changes_no_result() -> None:
    assert "watch" in artifacts.FREE_PARAMETERS
    assert {profiles.read_profile(name).stages["03"]["watch"] for name in ("smoke", "laptop", "full_table")} == {"stop"}
