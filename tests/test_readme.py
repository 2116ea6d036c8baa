"""The README: its commands run, its paths exist, its numbers are those of the committed reference."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from zerosearch import artifacts, cli, reference
from zerosearch.stage_parameters import METHODS
from zerosearch.training.arms import ARMS

README = (artifacts.REPO / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines() if line.split("#")[0].strip()
]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(((?!https?:)[^)#]+)\)", README))))
def test_linked_paths_exist(path: str) -> None:
    assert (artifacts.REPO / path).exists(), f"README links {path}, which does not exist"


def test_the_tree_names_what_is_there() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    names = [line.split()[0] for line in tree.strip().splitlines()]
    missing = [name for name in names if not (artifacts.REPO / name).exists()]
    assert not missing, f"the README's tree names {missing}"


def test_every_block_comes_from_the_committed_reference() -> None:
    assert reference.fill(README, reference.blocks()) == README, (
        "README.md: expected the tables of outputs/reference; rewrite them with "
        "`python -m zerosearch.reference laptop` after a run"
    )


def test_reference_keeps_what_the_readme_promises() -> None:
    scores = pd.read_csv(reference.REFERENCE / "laptop" / "scores.csv")
    assert {"method", "dataset", "seed", "metric", "value", "n"} <= set(scores.columns)
    per_set = scores[(scores["metric"] == "em") & (scores["dataset"] != "average")]
    assert (per_set.loc[per_set["dataset"] != "bamboogle", "n"] >= 150).all()
    assert (per_set.loc[per_set["dataset"] == "bamboogle", "n"] == 125).all()
    assert set(per_set.loc[per_set["method"].isin(["zerosearch", "search-r1", "untuned"]), "seed"]) == {0, 1, 2}
    averages = pd.read_csv(reference.REFERENCE / "laptop" / "04_evaluate-averages.csv")
    average = averages[(averages["metric"] == "em") & (averages["dataset"] == "average")].set_index("method")["value"]
    assert average["search"] <= 0.15, "untrained policy: README claims poor habits"
    assert average["zerosearch"] >= 0.60 and average["search-r1"] >= 0.60


def test_the_full_table_has_every_row_and_the_laptop_s_numbers() -> None:
    """What the two profiles share they share number for number: the README says that one makes rows of the other."""
    keys = ["method", "dataset", "seed", "metric"]
    full, laptop = (pd.read_csv(reference.REFERENCE / name / "scores.csv").set_index(keys) for name in ("full_table", "laptop"))
    assert set(full.reset_index()["method"]) == {*METHODS, *ARMS}
    assert full.loc[laptop.index, ["value", "n"]].equals(laptop[["value", "n"]])
    seeds = full.reset_index().groupby("method")["seed"].unique()
    assert all(sorted(seeds[arm]) == [0, 1, 2] for arm in ARMS)


def test_the_tuning_of_the_simulator_is_worth_its_row() -> None:
    table = pd.read_csv(reference.REFERENCE / "laptop" / "04_evaluate-comparisons.csv")
    pair = (table["method_a"] == "zerosearch") & (table["method_b"] == "untuned")
    row = table[pair & (table["dataset"] == "average") & (table["metric"] == "em")].iloc[0]
    assert (row["seeds_a"], row["seeds_b"]) == (3, 3)
    assert row["difference"] >= 0.20 and row["low"] > 0


def test_the_simulator_follows_altered_answers() -> None:
    """Memorisation excluded: a golden answer that is altered in the prompt is the one that the passages state."""
    table = pd.read_csv(reference.REFERENCE / "laptop" / "02_simulator-quality.csv").set_index(["when", "kind", "metric"])
    followed = table.loc[("after", "altered", "answer_present")]
    assert followed["value"] >= 0.90 and followed["n"] >= 50


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("./run_all.sh")])
def test_run_commands_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each quoted command, as a dry run: the options exist and the plan can be made."""
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "nq_train.jsonl").write_text('{"id": "1", "question": "a", "golden_answers": ["b"]}\n')
    (tmp_path / "q" / "nq.jsonl").write_text('{"id": "1", "question": "c", "golden_answers": ["b"]}\n')
    (tmp_path / "c.jsonl").write_text('{"id": "1", "title": "t", "text": "b"}\n')
    words = command.split()[1:]
    words = [{"DIR": str(tmp_path / "q"), "FILE": str(tmp_path / "c.jsonl")}.get(w, w) for w in words]
    if "--list" not in words and "--dry-run" not in words:
        words.append("--dry-run")
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path / "outputs"))
    code = cli.main(words)
    said = "".join(capfd.readouterr())
    wanted = (0, 1, 2) if "--clean" in words or "--only" in words or "--from" in words else (0,)
    assert code in wanted, said
    assert "Traceback" not in said


def test_tests_and_modules_named_in_the_readme_exist() -> None:
    for module in re.findall(r"python -m (zerosearch(?:\.\w+)*)", README):
        parts = module.split(".")
        assert (artifacts.REPO / "lib" / Path(*parts)).with_suffix(".py").is_file(), module
    for name in re.findall(r"`(tests/\w+\.py)`", README):
        assert (artifacts.REPO / name).is_file(), name


def test_every_logged_metric_has_its_line() -> None:
    from zerosearch.training.step_metrics import METRICS

    missing = [name for name, line in METRICS.items() if f"| `{name}` | {line} |" not in README]
    assert not missing, f"README, how to read the figures: expected a line for {missing}"
