"""Every table of the README by hand: a few rows in, the Markdown lines out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from zerosearch import readme_tables as tables
from zerosearch.stage_parameters import CONDITIONS
from zerosearch.training.arms import ARMS


def write(folder: Path, name: str, columns: str, rows: list[tuple]) -> None:
    pd.DataFrame(rows, columns=columns.split()).to_csv(folder / name, index=False)


def test_scores_over_all_seeds(tmp_path: Path) -> None:
    rows = [
        ("search", "nq", 1, "em", 0.125, 8, 0.0, 0.5), ("search", "average", 1, "em", 0.25, 8, 0.1, 0.4),
        ("search", "average", 1, "f1", 0.5, 8, 0.4, 0.6), ("direct", "nq", 1, "em", 0.0, 8, 0.0, 0.0),
        ("untuned", "average", 3, "em", 0.3, 8, 0.2, 0.45),
    ]
    write(tmp_path, "04_evaluate-averages.csv", "method dataset seeds metric value n low high", rows)
    lines = tables.scores(tmp_path).splitlines()
    assert lines[2].startswith("| Direct answer | 0.000 | –")
    assert lines[3].startswith("| Untrained policy with search | 0.125 |")
    assert "**0.250** [0.100, 0.400] | 0.500 | – |" in lines[3]
    assert lines[4].startswith("| Untuned arm") and "**0.300** [0.200, 0.450]" in lines[4]


def test_verdicts_of_one_method_whichever_way_the_pair_was_compared(tmp_path: Path) -> None:
    columns = "method_a method_b dataset metric difference low high p p_holm detectable verdict"
    rows = [
        ("zerosearch", "untuned", "average", "em", 0.31, 0.21, 0.4, 0.00001, 0.0001, 0.08, "better"),
        ("search-r1", "zerosearch", "average", "em", 0.05, 0.01, 0.12, 0.02, 0.04, 0.06, "better"),
        ("zerosearch", "rejection", "average", "em", -0.01, -0.05, 0.04, 0.5, 1.0, 0.07, "undecided"),
        ("zerosearch", "rag", "nq", "em", 0.5, 0.4, 0.6, 0.001, 0.001, 0.1, "better"),
        ("search-r1", "untuned", "average", "em", 0.5, 0.4, 0.6, 0.001, 0.001, 0.1, "better"),
    ]
    write(tmp_path, "04_evaluate-verdicts.csv", columns, rows)
    assert tables.verdicts(tmp_path).splitlines()[2:] == [
        "| `rejection` | −0.010 [−0.050, +0.040] | 0.500 | 1.000 | 0.070 | undecided |",
        "| `search-r1` | −0.050 [−0.120, −0.010] | 0.020 | 0.040 | 0.060 | worse |",
        "| `untuned` | +0.310 [+0.210, +0.400] | below 0.001 | below 0.001 | 0.080 | better |",
    ]


def test_conditions_in_their_order_and_the_past_answers_last(tmp_path: Path) -> None:
    values = (("later", "past", 0.1), ("later", "em", 0.5), ("corrupt-0.5", "em", 0.6), ("clean", "em", 0.8))
    rows = [
        ("zerosearch", "zerosearch", 3, name, metric, value, 140, value - 0.1, value + 0.1)
        for name, metric, value in values
    ]
    write(tmp_path, "04_evaluate-condition_averages.csv", "method arm seeds condition metric value n low high", rows)
    head, _, line = tables.conditions(tmp_path).splitlines()
    assert head == "| method | clean | corrupted 0.5 | later | later, past answers |"
    assert line.endswith("| 0.80 [0.70, 0.90] | 0.60 [0.50, 0.70] | 0.50 [0.40, 0.60] | 0.10 [0.00, 0.20] |")


def test_freshness(tmp_path: Path) -> None:
    rows = [("engine, today", "new", 1.0, 20, 0.84, 1.0), ("engine, today", "old", 0.0, 20, 0.0, 0.16)]
    write(tmp_path, "02_simulator-freshness.csv", "source states value n low high", rows)
    line = tables.freshness(tmp_path).splitlines()[2]
    assert line == "| engine, today | 1.00 [0.84, 1.00] | 0.00 [0.00, 0.16] | 20 |"


def test_times_put_the_seeds_of_an_arm_together(tmp_path: Path) -> None:
    rows = [
        ("02_simulator", "", "", 5.2, 700), ("03_rl", "untuned", 0, 61.4, 900), ("03_rl", "zerosearch", 0, 60.0, 900),
        ("03_rl", "zerosearch", 1, 70.0, 950), ("whole run", "", "", 130.0, 950),
    ]
    write(tmp_path, "stages.csv", "stage arm seed wall_seconds peak_rss_mib", rows)
    assert tables.times(tmp_path).splitlines()[2:] == [
        "| 02_simulator | 5 | 700 |", "| 03_rl untuned | 61 | 900 |",
        "| 03_rl zerosearch (each of 2 seeds, mean) | 65 | 950 |", "| whole run | 130 | 950 |",
    ]


MANIFEST = {
    "world_version": 2,
    "card": [{"ability": "valid_query", "value": 0.97, "least": 0.95, "most": 1.0, "passed": True},
             {"ability": "forced_em", "value": 0.3, "least": 0.0, "most": 0.25, "passed": False}],
    "sentinels": [{"sentinel": who, "condition": name, "n": 300, "em": em, "low": em - 0.05, "high": em + 0.05}
                  for who, em in (("notices every miss", 0.8), ("notices no miss", 0.25))
                  for name in ("corrupt-0.5", "clean")],
    "models": {"llama-instruct": {"family": "llama", "chat": True, "parameters": 900000, "tokens": 9500000,
                                  "trajectory_share": 0.35}},
}


def test_the_card_says_what_is_within_its_bounds() -> None:
    lines = tables.card(MANIFEST).splitlines()
    assert lines[0] == "World version 2."
    assert lines[4:] == ["| valid query | 0.97 | 0.95 to 1.00 | yes |", "| forced em | 0.30 | 0.00 to 0.25 | no |"]


def test_sentinels_and_models() -> None:
    assert tables.sentinels(MANIFEST).splitlines()[0] == "| scripted policy | clean | corrupted 0.5 |"
    assert tables.sentinels(MANIFEST).splitlines()[3] == "| notices no miss | 0.25 [0.20, 0.30] | 0.25 [0.20, 0.30] |"
    line = tables.zoo(MANIFEST).splitlines()[2]
    assert line == "| `micro/llama-instruct` | llama, chat template | 900,000 | 9,500,000 | 35 % |"


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    made = {tables.conditions(tmp_path), tables.freshness(tmp_path)}
    assert made | {tables.card({}), tables.sentinels({}), tables.zoo({})} == {tables.NOT_MEASURED}


@pytest.mark.parametrize("name", [*ARMS, *CONDITIONS])
def test_every_arm_and_condition_has_a_label(name: str) -> None:
    assert name in tables.LABELS or name in tables.CONDITIONS


def test_ways_of_a_step(tmp_path: Path) -> None:
    columns = ["way", "model", "kl_weight", "tokens_per_second", "ratio"]
    ways = [*tables.WAYS, "another"]
    rows = [(way, model, kl, 1000.0 * i, i / 2) for i, way in enumerate(ways, 1) for model, kl in (("a", 0.0), ("b", 1e-3))]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "step.csv", index=False)
    lines = tables.policy_step(tmp_path / "step.csv").splitlines()
    assert lines[0] == "| a step by | `a`, no KL | `b`, KL 0.001 |" and len(lines) == 2 + len(tables.WAYS)
    assert lines[2] == "| TRL's trainer as shipped | 1,000 (0.50×) | 1,000 (0.50×) |"
    assert tables.policy_step(tmp_path / "none.csv") == tables.NOT_MEASURED


def test_loops_of_rollouts(tmp_path: Path) -> None:
    columns = ["loop", "median_latency_seconds", "trajectories_per_second", "ratio"]
    rows = [(name, m, 10.0 * i + m, i / 2) for i, name in enumerate(tables.LOOPS, 1) for m in (0.3, 0.0)]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "speed.csv", index=False)
    lines = tables.loops(tmp_path / "speed.csv").splitlines()
    assert lines[0] == "| loop | at once | 0.3 s |" and len(lines) == 6
    assert lines[2] == "| ours, each trajectory by itself | 10.0 (0.50×) | 10.3 (0.50×) |"
    assert tables.loops(tmp_path / "none.csv") == tables.NOT_MEASURED


def test_exactness_of_rollouts(tmp_path: Path) -> None:
    columns = ["engine", "dtype", "trainer", "mean", "p50", "p99", "most", "same_loop", "same_batch"]
    rows = [("vllm", "bfloat16", "float32", 0.0071, 0.0, 0.087, 0.3546, 1.0, 0.9985)]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "gaps.csv", index=False)
    last = tables.exactness(tmp_path / "gaps.csv").splitlines()[2]
    assert last == "| vllm | bfloat16 | float32 | 0.007 | 0 | 0.09 | 0.4 | 100.0 % | 99.9 % |"
    assert tables.exactness(tmp_path / "none.csv") == tables.NOT_MEASURED


def test_algorithms_by_hand(tmp_path: Path) -> None:
    columns = ["algorithm", "seed", "em_before", "em_after", "reward_first_fifth", "reward_last_fifth"]
    rows = [("ppo", 0, 0.1, 0.5, 0.2, 0.6), ("ppo", 1, 0.1, 0.7, 0.2, 0.8), ("grpo", 0, 0.1, 0.8, 0.25, 0.75)]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "a.csv", index=False)
    lines = tables.algorithms(tmp_path / "a.csv").splitlines()
    assert lines[0].startswith("| `03.algorithm` | EM, untrained 0.10 |") and len(lines) == 4
    assert lines[2] == "| `ppo` | 0.60 [0.50, 0.70] | 0.20 [0.20, 0.20] | 0.70 [0.60, 0.80] | 2 |"
    assert lines[3].startswith("| `grpo` | 0.80 [0.80, 0.80] |")
    assert tables.algorithms(tmp_path / "none.csv") == tables.NOT_MEASURED
