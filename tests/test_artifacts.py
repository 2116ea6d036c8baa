"""artifacts.py: folders, required inputs, attempts that are continued or started afresh, manifests."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from zerosearch import artifacts, errors, files
from zerosearch.artifacts import open_stage
from zerosearch.errors import ConfigError, MissingInput


def test_folders(outputs: Path) -> None:
    assert artifacts.stage_dir("a", "00") == outputs / "a" / "00_micro_world"
    assert artifacts.stage_dir("a", "03", "search-r1", 2) == outputs / "a" / "03_rl" / "search-r1" / "seed2"
    assert artifacts.REPO.joinpath("lib", "zerosearch", "artifacts.py").is_file()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "latest", "reference", "a b"])
def test_run_names_that_are_no_folder_of_their_own(outputs: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="run: expected a name"):
        artifacts.run_dir(name)


def test_arm_and_seed_belong_to_stage_03_only(outputs: Path) -> None:
    with pytest.raises(ConfigError, match="stage 03: expected an arm and a seed"):
        artifacts.stage_dir("a", "03", "zerosearch")
    with pytest.raises(ConfigError, match="stage 04: expected neither"):
        artifacts.stage_dir("a", "04", "zerosearch", 0)
    with pytest.raises(ConfigError, match="did you mean '03'"):
        artifacts.stage_dir("a", "3")


def test_a_missing_input_says_what_makes_it(outputs: Path) -> None:
    with pytest.raises(MissingInput) as caught:
        artifacts.require("mine", "03", "policy", "zerosearch", 1)
    message = str(caught.value)
    assert str(outputs / "mine/03_rl/zerosearch/seed1/policy") in message
    assert "notebooks/03_curriculum_rl.ipynb" in message
    assert "./run_all.sh --run mine --profile smoke --arms zerosearch --seeds 1 --only 03" in message
    files.write_json(outputs / "mine" / "settings.json", {"profile": "laptop"})
    with pytest.raises(MissingInput, match="--profile laptop --only 00"):
        artifacts.require("mine", "00", "corpus.jsonl")


def test_a_file_that_only_some_runs_have(outputs: Path) -> None:
    first = open_stage("a", "00", {"seed": 0})
    first.write_jsonl([{"id": 1}], "later_questions.jsonl")
    stage = open_stage("a", "04", {})
    assert stage.find("00", "later_corpus.jsonl") is None and stage.inputs == {}
    assert stage.find("00", "later_questions.jsonl") == first.path("later_questions.jsonl")
    assert list(stage.inputs) == ["00_micro_world/later_questions.jsonl"], "what was found is an input"


def test_a_finished_stage(outputs: Path) -> None:
    first = open_stage("a", "00", {"seed": 0})
    first.write_jsonl([{"id": 1}], "corpus.jsonl")
    first.finish()
    stage = open_stage("a", "01", {"n": 2})
    assert files.read_jsonl(stage.require("00", "corpus.jsonl")) == [{"id": 1}]
    stage.write_table(pd.DataFrame({"x": [1]}), "pairs.parquet")
    stage.save_model(lambda folder: (folder / "weights").write_text("w"), "model")
    (stage.figures / "f.png").write_bytes(b"png")
    stage.ledger.event("queries", engine="bm25", fresh=1, cached=0, paid=0)
    stage.progress(1, 2, reward=0.5)
    stage.finish(n_pairs=1)
    manifest = artifacts.read_manifest("a", "01")
    assert manifest["parameters"] == {"n": 2} and manifest["results"] == {"n_pairs": 1}
    assert manifest["inputs"] == {"00_micro_world/corpus.jsonl": files.sha256(first.path("corpus.jsonl"))}
    assert sorted(manifest["outputs"]) == ["figures/f.png", "model/weights", "pairs.parquet"]
    assert manifest["peak_rss_mib"] > 10 and manifest["versions"]["numpy"] and manifest["wall_seconds"] >= 0
    assert artifacts.read_ledgers("a")["fresh"].tolist() == [1]


def test_a_file_from_outside_the_run_is_an_input_with_its_whole_path(outputs: Path, tmp_path: Path) -> None:
    own = files.write_atomic(tmp_path / "nq.jsonl", "questions")
    stage = open_stage("a", "00", {})
    assert stage.reads(own) == own and open_stage("a", "00", {}).resumed
    stage.finish()
    assert artifacts.read_manifest("a", "00")["inputs"] == {str(own): files.sha256(own)}
    assert artifacts.restore("a", "00")
    own.write_text("other questions")
    assert not artifacts.restore("a", "00")


def test_checkpoints_go_when_the_stage_is_finished_and_not_before(outputs: Path) -> None:
    """Killed before the manifest stands, it must still have something to go on from."""
    stage = open_stage("a", "03", {"steps": 3}, "zerosearch", 0)
    stage.write_text("half", "checkpoints/checkpoint-2/weights")
    stage.save_model(lambda folder: (folder / "weights").write_text("w"), "policy")
    assert open_stage("a", "03", {"steps": 3}, "zerosearch", 0).path("checkpoints/checkpoint-2/weights").is_file()
    stage.finish()
    assert not stage.path("checkpoints").exists() and stage.path("policy/weights").is_file()
    assert sorted(artifacts.read_manifest("a", "03", "zerosearch", 0)["outputs"]) == ["policy/weights"]


def test_a_cut_off_attempt_goes_on(outputs: Path) -> None:
    before = open_stage("a", "03", {"steps": 3, "share": 0.5}, "zerosearch", 0)
    before.write_text("half", "checkpoint")
    before.ledger.event("queries", engine="bm25", fresh=1, cached=0, paid=0)
    after = open_stage("a", "03", {"steps": 3, "share": 0.5}, "zerosearch", 0)
    assert not before.resumed and after.resumed and after.path("checkpoint").exists()
    after.ledger.event("queries", engine="bm25", fresh=2, cached=0, paid=0)
    assert artifacts.read_ledgers("a")["fresh"].tolist() == [2]  # the same work is not counted twice


@pytest.mark.parametrize("why", ["finished", "parameters", "input", "outside", "model"])
def test_any_other_attempt_starts_afresh(
    outputs: Path, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MICRO_LM", tmp_path / "micro_lm")
    weights = files.write_atomic(tmp_path / "micro_lm" / "base" / "model.safetensors", "weights")
    world = open_stage("a", "00", {})
    world.write_text("one", "corpus.jsonl")
    old = open_stage("a", "01", {"n": 1, "policy_model": "micro/base"})
    assert old.models == {"micro/base": files.sha256(weights)}
    old.require("00", "corpus.jsonl")
    own = old.reads(files.write_atomic(tmp_path / "nq.jsonl", "questions"))
    old.write_text("x", "result.csv")
    old.write_text("paid answers", "cache.sqlite")
    old.ledger.event("queries", engine="bm25", fresh=1, cached=0, paid=0)
    if why == "finished":
        old.finish()
    if why == "input":
        world.write_text("two", "corpus.jsonl")
    if why == "outside":
        own.write_text("other questions")
    if why == "model":  # the shipped models were built anew
        files.write_atomic(weights, "other weights")
    new = open_stage("a", "01", {"n": 2 if why == "parameters" else 1, "policy_model": "micro/base"})
    assert not new.resumed and not new.path("result.csv").exists() and not new.path("manifest.json").exists()
    assert new.path("cache.sqlite").read_text() == "paid answers"
    assert artifacts.read_ledgers("a").empty and len(list(new.path("superseded").iterdir())) == 1


def test_parameters_are_compared_as_written(outputs: Path) -> None:
    open_stage("a", "00", {"pair": (1, 2), "path": outputs})
    assert open_stage("a", "00", {"path": str(outputs), "pair": [1, 2]}).resumed


def test_an_error_for_users_shows_no_stack_in_a_notebook() -> None:
    error = errors.BadInput("x.jsonl: expected text", ["x.jsonl:3: none"])
    assert error._render_traceback_() == ["BadInput: x.jsonl: expected text\n  x.jsonl:3: none"]


def test_the_nearest_name_is_proposed_only_when_near() -> None:
    assert "did you mean 'laptop'" in str(errors.unknown_name("profile", "labtop", ("smoke", "laptop")))
    assert "did you mean" not in str(errors.unknown_name("profile", "zzz", ("smoke", "laptop")))
