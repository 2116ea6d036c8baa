"""The published cost table rebuilt from prices and counts, to the cent, and what it leaves out."""

from __future__ import annotations

import dataclasses

import pytest

from zerosearch.artifacts import REPO
from zerosearch.costs import GOOGLE, saved_share
from zerosearch.prices import PriceBook
from zerosearch.published_costs import (
    LeftOut, PublishedSetup, as_options, full_costs, published_costs, published_lines,
)

BOOK = PriceBook.load(REPO / "data" / "prices.yaml")


def test_the_cost_table_is_rebuilt_to_the_cent():
    table = published_costs(BOOK).set_index("engine")
    assert table["total_usd"].round(2).tolist() == [586.67, 17.70, 35.40, 70.80]
    assert table["rebuilt_usd"].to_dict() == {GOOGLE: 586.7, "SFT-3B": 17.7, "SFT-7B": 35.4, "SFT-14B": 70.8}
    assert (table["rebuilt_usd"] == table["published_usd"]).all()
    assert round(table.loc["SFT-14B", "saved_share"], 3) == 0.879
    assert round(1 - table.loc["SFT-14B", "published_usd"] / table.loc[GOOGLE, "published_usd"], 3) == 0.879
    assert (table["queries"] == 64_000).all()
    assert table.loc[GOOGLE, "formula"] == "64,000 searches x $275/30,000"


def test_two_searches_double_the_engine_and_leave_the_simulator():
    table = published_costs(BOOK, PublishedSetup(searches_per_trajectory=2.0)).set_index("engine")
    assert table.loc[GOOGLE, "total_usd"] == pytest.approx(2 * 64_000 * 275 / 30_000)
    assert table.loc["SFT-14B", "total_usd"] == pytest.approx(70.8)
    assert table["published_usd"].isna().all(), "another setup has no published numbers"


def test_the_full_bill_by_hand():
    bill = full_costs(BOOK).set_index(["option", "item"])["usd"]
    assert bill[GOOGLE, "searches in training"] == pytest.approx(128_000 * 275 / 30_000)
    assert bill[GOOGLE, "policy GPUs"] == bill["SFT-14B", "policy GPUs"] == pytest.approx(4 * 12 * 1.475)
    assert bill["SFT-14B", "simulator SFT"] == pytest.approx(4 * 0.5 * 1.475)
    assert bill["SFT-14B", "evaluation searches"] == pytest.approx(3_125 * 2 * 275 / 30_000)
    judge = 20_000 * (300 * 1.6 + 5 * 6.4) / 1e6
    assert bill["SFT-14B", "collection and judge"] == pytest.approx(4_000 * 275 / 30_000 + judge)
    assert saved_share(full_costs(BOOK), GOOGLE, "SFT-14B") == pytest.approx(1 - 248.76 / 1301.43, abs=1e-3)


def test_nothing_left_out_gives_the_published_saving():
    bare = full_costs(BOOK, PublishedSetup(), dataclasses.replace(
        LeftOut(), policy_gpus=0, sft_hours=0.0, judged_passages=0, evaluation_questions=0))
    assert round(saved_share(bare, GOOGLE, "SFT-14B"), 3) == 0.879


def test_published_options_and_lines():
    options = as_options(published_costs(BOOK))
    assert options.groupby("option")["usd"].sum().round(1).to_dict()["SFT-7B"] == 35.4
    lines = published_lines(BOOK).set_index("option")
    assert lines["break_even"].round(0).to_dict() == pytest.approx(
        {GOOGLE: float("nan"), "SFT-3B": 1931, "SFT-7B": 3862, "SFT-14B": 7724}, nan_ok=True)
