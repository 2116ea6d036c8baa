"""The explorer of a whole run: what it draws, which tokenizer it uses, and what it says of gaps."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest_models import TOKENIZER
from test_explorer import data_of

from zerosearch import artifacts, explorer, rollout
from zerosearch.errors import BadInput, MissingInput
from zerosearch.evaluation.kept import TRAJECTORIES as KEPT
from zerosearch.schema import Question, Trajectory, Turn

SETS = ("nq", "musique")


def made(question_id: str, step: int = 0, sample: int = 0, text: str = "<answer> Ada</answer>") -> dict:
    """Return a row as ``rollout.to_row`` makes it."""
    question = Question(question_id, question_id.split("/")[0], f"who wrote {question_id}", ("Ada",))
    ids = tuple(TOKENIZER(text, add_special_tokens=False).input_ids)
    prompt = tuple(TOKENIZER("Question: who").input_ids)
    turns = (Turn(text, "answer", "Ada"),)
    return rollout.to_row(Trajectory(
        question, prompt, ids, (True,) * len(ids), (-0.5,) * len(ids), turns, "answer", "Ada", step, sample))


def training(run: str, arm: str, seed: int, steps: int) -> None:
    """Write what stage 03 leaves: groups of two samples, one question a step, and a tokenizer."""
    stage = artifacts.open_stage(run, "03", {"steps": steps}, arm, seed)
    table = pd.DataFrame([made(f"nq/{step}", step, sample) for step in range(steps) for sample in (0, 1)])
    stage.write_table(table.assign(reward=1.0, em=1.0, f1=1.0, advantage=0.0, noise_planned=0.0), "trajectories.parquet")
    TOKENIZER.save_pretrained(stage.path("policy/tokenizer"))
    stage.finish()


def evaluation(run: str, whole: bool, policy_model: str, per_set: int = 4) -> None:
    """Write what stage 04 leaves: the untrained ``search`` and an arm, the same questions."""
    stage = artifacts.open_stage(run, "04", {"policy_model": policy_model})
    rows = [
        {**made(f"{name}/{i}"), "method": arm or "search", "arm": arm, "seed": 0, "policy": "", "given": False,
         "prediction": "Ada", "transcript": "I say Ada"}
        for arm in ("", "zerosearch") for name in SETS for i in range(per_set)
    ]
    stage.write_table(pd.DataFrame(rows), "predictions.parquet")
    if whole:
        stage.write_table(pd.DataFrame(rows).drop(columns=["prediction", "transcript"]), KEPT)
    stage.finish()


@pytest.fixture
def base(tmp_path: Path) -> str:
    """A folder with the untrained policy's tokenizer."""
    TOKENIZER.save_pretrained(tmp_path / "base" / "tokenizer")
    return str(tmp_path / "base")


def shown(path: Path) -> pd.DataFrame:
    data = data_of(path.read_text(encoding="utf-8"))
    table = pd.DataFrame(data["records"])
    for name in ("method", "dataset", "group", "question"):
        table[name] = [data["texts"][place] for place in table[name]]
    table["written"] = [
        "".join(data["texts"][data["tokens"][p][0]] for source, places, *_ in segments if source in ("policy", "text")
                for p in places) for segments in table["segments"]]
    return table.assign(notes=json.dumps(data["notes"]))


def test_a_finished_run_becomes_one_page(outputs, base):
    training("toy", "zerosearch", 0, steps=3)
    evaluation("toy", True, base)
    path = explorer.build("toy", groups_per_seed=0, per_set=0)
    table = shown(path)
    assert path == outputs / "toy" / "trajectories.html"
    assert table.groupby(["stage", "method"]).size().to_dict() == {
        ("03", "zerosearch"): 6, ("04", "search"): 8, ("04", "zerosearch"): 8}
    assert set(table["written"]) == {"<answer> Ada</answer>"}
    assert table["key"].is_unique and set(table["em"]) == {1.0}
    assert "6 of the 6 trajectories" in table["notes"][0] and "16 of the 16 answers" in table["notes"][0]


def test_draws_are_bounded_seeded_nested_and_the_same_for_all_methods(outputs, base):
    training("toy", "zerosearch", 0, steps=9)
    evaluation("toy", True, base, per_set=9)
    small, same, large, other = (
        shown(explorer.build("toy", groups, questions, seed))
        for groups, questions, seed in ((2, 3, 0), (2, 3, 0), (5, 6, 0), (2, 3, 1)))
    assert (small["stage"] == "03").sum() == 4, "two whole groups of two"
    assert small[small["stage"] == "03"].groupby("group").size().tolist() == [2, 2]
    asked = small[small["stage"] == "04"].groupby("method")["question"].agg(list)
    assert asked["search"] == asked["zerosearch"] and len(asked["search"]) == 3 * len(SETS)
    assert set(small["key"]) == set(same["key"]) != set(other["key"])
    assert set(small["key"]) < set(large["key"])


def test_a_run_that_kept_no_tokens_of_its_evaluation_shows_the_text(outputs, base):
    evaluation("toy", False, base)
    table = shown(explorer.build("toy"))
    assert set(table["written"]) == {"I say Ada"} and len(table) == 16
    assert "text only" in table["notes"][0]


def test_an_empty_run_says_how_to_fill_it(outputs):
    with pytest.raises(MissingInput, match="run `./run_all.sh --run toy"):
        explorer.build("toy")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text('{"model": ')], ids=["lost", "cut"])
def test_a_damaged_tokenizer_is_named(outputs, base, damage):
    training("toy", "zerosearch", 0, steps=1)
    folder = artifacts.stage_dir("toy", "03", "zerosearch", 0) / "policy" / "tokenizer"
    for path in folder.iterdir():
        damage(path)
    with pytest.raises(BadInput, match=r"policy.*expected a tokenizer, found: .*03_curriculum_rl"):
        explorer.build("toy")
    assert not (outputs / "toy" / "trajectories.html").exists()
