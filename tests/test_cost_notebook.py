"""Notebook 05 on a small finished run, in this process; and its exercises."""

from __future__ import annotations

import pytest
import small_run
from solutions import check_05_1, check_05_2, solution_05_1, solution_05_2

from zerosearch import artifacts, files
from zerosearch.errors import MissingInput
from zerosearch.notebook_files import code_cells

NOTEBOOK = artifacts.REPO / "notebooks" / "05_cost_comparison.ipynb"


def _run(arms: str) -> dict:
    """Execute the notebook's code cells in order, with the run's name and arms injected."""
    space: dict = {}
    for tags, source in code_cells(NOTEBOOK):
        exec(compile(source, str(NOTEBOOK), "exec"), space)
        if "parameters" in tags:
            space |= {"run": "toy", "arms": arms}
    return space


@pytest.fixture()
def run_folder(tmp_path, monkeypatch):
    """A finished small run up to stage 04."""
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    small_run.write("toy")
    return artifacts.run_dir("toy")


def test_the_notebook_writes_its_tables_figures_and_the_report(run_folder, capsys):
    space = _run("zerosearch,search-r1")
    folder = run_folder / "05_cost"
    costs = files.read_table(folder / "costs.parquet")
    assert costs["usd"].sum() == pytest.approx(0.001224 + 0.00102 + 0.0008568 + 0.000816)
    names = {"published_bill", "full_bill", "this_run", "break_even_published", "break_even_run", "headline"}
    assert {path.stem for path in (folder / "figures").glob("*.png")} == names
    manifest = artifacts.read_manifest("toy", "05")
    assert manifest["results"]["saved_published"] == 0.8793
    assert manifest["results"]["searches_per_trajectory"] == {"search-r1": 2.0, "zerosearch": 1.5}
    assert "stage-05" in (run_folder / "report.html").read_text(encoding="utf-8")
    assert "ledger 30 searches in 20 trajectories = 1.500 each, metrics 1.500" in capsys.readouterr().out
    assert set(space["options"]["option"]) == {"ZeroSearch", "Search-R1", "Same searches, paid"}


@pytest.mark.parametrize("arm", ["zerosearch", "search-r1"])
def test_one_arm_is_enough(run_folder, arm):
    _run(arm)
    assert (run_folder / "05_cost" / "figures" / "break_even_run.png").exists() == (arm == "zerosearch")


def test_a_missing_arm_names_the_command_that_makes_it(run_folder):
    (run_folder / "03_rl" / "search-r1" / "seed0" / "metrics.jsonl").unlink()
    with pytest.raises(MissingInput, match="--arms search-r1 --seeds 0 --only 03"):
        _run("zerosearch,search-r1")


@pytest.mark.parametrize(("check", "solution"), [(check_05_1, solution_05_1), (check_05_2, solution_05_2)])
def test_solutions_pass_and_untried_exercises_do_not_fail(check, solution, capsys):
    check(solution())
    check(None)
    out = capsys.readouterr().out
    assert "right" in out and "not tried yet" in out


@pytest.mark.parametrize(("check", "wrong", "advice"), [
    (check_05_1, 7724, "SerpAPI"), (check_05_1, 64_000, "solve"),
    (check_05_2, 825, "one search"), (check_05_2, 1173.33, "whole"), (check_05_2, 1100, "round up"),
])
def test_wrong_answers_are_explained(check, wrong, advice):
    with pytest.raises(AssertionError, match=advice):
        check(wrong)
