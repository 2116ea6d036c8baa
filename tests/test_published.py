"""The published tables: shares, averages and question counts are what the paper prints."""

from __future__ import annotations

import math

import pytest

from zerosearch import published
from zerosearch.errors import MissingInput


def test_main_results_are_shares_and_their_averages_are_the_printed_ones():
    table = published.main_results()
    assert table["value"].between(0, 1).all() and set(table["dataset"]) == {*published.DATASETS, "average"}
    wide = table.pivot(index=["policy", "method"], columns="dataset", values="value")
    assert len(wide) == 33
    assert ((wide[list(published.DATASETS)].mean(axis=1) - wide["average"]).abs() < 6e-5).all()
    assert wide.loc[("Qwen2.5-3B", "ZeroSearch-base"), "average"] == pytest.approx(0.3447)


def test_trained_bamboogle_rows_are_multiples_of_1_72_and_prompt_rows_of_1_125():
    table = published.main_results().query("dataset == 'bamboogle'").set_index(["policy", "method"])["value"]
    trained = table[[name[1].startswith(("R1", "Search-R1", "ZeroSearch")) for name in table.index]]
    prompted = table.drop(trained.index)
    assert all(math.isclose(value * 72, round(value * 72), abs_tol=0.004) for value in trained)
    assert all(math.isclose(value * 125, round(value * 125), abs_tol=1e-6) for value in prompted)


def test_simulators_and_ablations_agree_with_the_main_table():
    table = published.simulators().query("version == 'v2' and dataset == 'average'")
    simulators = table.set_index("engine")["value"]
    assert simulators["SFT-14B"] == pytest.approx(0.3447) and simulators["Google"] == pytest.approx(0.3281)
    assert set(published.ablations()["ablation"]) == {"algorithm", "curriculum", "document loss mask"}


def test_a_missing_table_names_the_command_that_restores_it(tmp_path):
    with pytest.raises(MissingInput, match="git checkout data/published/cost.csv"):
        published.cost_table(tmp_path)
