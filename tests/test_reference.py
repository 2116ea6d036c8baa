"""Publishing a run: what is kept of it, and how the README's marked blocks are rewritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import small_run

from zerosearch import artifacts, reference
from zerosearch.errors import MissingInput


def write_run(root: Path, seeds: tuple[int, ...]) -> None:
    """Write a finished run: tables, a curve per arm and seed, executed notebooks."""
    small_run.write("toy")
    for arm, seed in [("search-r1", 0), *(("zerosearch", seed) for seed in seeds)]:
        stage = artifacts.open_stage("toy", "03", small_run.PARAMETERS, arm, seed)
        stage.write_jsonl([{"step": 1, "reward_mean": 0.5}], "metrics.jsonl")
        (stage.figures / "reward.png").write_bytes(b"png")
        stage.finish()
    (root / "toy" / "notebooks").mkdir()
    (root / "toy" / "notebooks" / "own.csv").write_text("a\n")
    artifacts.open_stage("toy", "05", {"profile": "laptop"}).finish()


def test_a_run_is_published_with_the_curves_of_one_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(reference, "REFERENCE", tmp_path / "reference")
    write_run(tmp_path, (2, 10))
    shutil.rmtree(tmp_path / "toy" / "03_rl" / "zerosearch" / "seed0")
    folder = reference.publish("toy")
    names = {path.name for path in folder.iterdir()}
    assert {"scores.csv", "04_evaluate-averages.csv", "04_evaluate-comparisons.csv", "stages.csv", "made_by.json"} <= names
    assert {name for name in names if "zerosearch" in name} == {"03_rl-zerosearch-seed2-reward.png"}
    assert "03_rl-search-r1-seed0-reward.png" in names and not any("own" in name for name in names)
    metrics = pd.read_csv(folder / "03_rl-metrics.csv")
    assert sorted(metrics.loc[metrics["arm"] == "zerosearch", "seed"]) == [2, 10], "numbers of all seeds are kept"


def test_blocks_are_replaced_between_their_markers_and_nowhere_else() -> None:
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"
    filled = reference.fill(text, {"x": "new"})
    assert filled == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"
    assert reference.fill(filled, {"x": "new"}) == filled


def test_a_missing_marker_is_named() -> None:
    with pytest.raises(MissingInput, match="x:begin"):
        reference.fill("no markers", {"x": "new"})


def test_an_unfinished_run_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    assert reference.main(["nobody"]) == 1
    assert "05_cost" in capsys.readouterr().err


def test_usage() -> None:
    assert reference.main([]) == 2 and reference.main(["--help"]) == 0
