"""Pricing a run from its ledgers, by hand; break-even as a property."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import small_run
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch import artifacts, costs
from zerosearch.errors import WorkbookError
from zerosearch.prices import PriceBook, Rates

BOOK = PriceBook.load(artifacts.REPO / "data" / "prices.yaml")
CORE = 0.0816 / 2
SEARCH = 275 / 30_000
PLACE = {"stage": "03", "arm": "toy", "seed": 0}


@pytest.fixture()
def ledger(tmp_path, monkeypatch) -> pd.DataFrame:
    """The ledger of a small run, written and read back through the real files."""
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    small_run.write("toy")
    return artifacts.read_ledgers("toy")


def _events(*events: dict) -> pd.DataFrame:
    return pd.DataFrame([{**PLACE, **event} for event in events])


def test_each_kind_of_event_is_priced_by_hand():
    priced = costs.price_ledger(_events(
        {"kind": "queries", "engine": "serpapi", "fresh": 90, "cached": 10, "paid": 90},
        {"kind": "queries", "engine": "serper", "fresh": 50, "cached": 0, "paid": 50},
        {"kind": "queries", "engine": "bm25", "fresh": 500, "cached": 0, "paid": 0},
        {"kind": "tokens", "role": "judge", "model": "qwen-max", "prompt": 1_000_000, "generated": 500_000},
        {"kind": "tokens", "role": "policy", "model": "micro/llama-base", "prompt": 9, "generated": 9},
        {"kind": "busy", "role": "simulator", "device": "cuda", "seconds": 1800.0, "units": 4},
        {"kind": "busy", "role": "policy_training", "device": "cpu", "seconds": 3600.0, "units": 2},
    ), BOOK).set_index(["role", "name"])
    assert priced["usd"].to_dict() == pytest.approx({
        ("queries", "serpapi"): 90 * SEARCH, ("queries", "serper"): 0.05, ("queries", "bm25"): 0.0,
        ("judge", "qwen-max prompt"): 1.6, ("judge", "qwen-max generated"): 3.2,
        ("policy", "micro/llama-base prompt"): 0.0, ("policy", "micro/llama-base generated"): 0.0,
        ("simulator", "cuda"): 2 * 1.475, ("policy_training", "cpu"): 2 * CORE,
    })
    assert priced.loc[("simulator", "cuda"), "kwh"] == pytest.approx(2 * 0.4)
    assert priced.loc[("policy_training", "cpu"), "kwh"] == pytest.approx(2 * 0.01)


def test_an_untuned_simulator_is_not_charged_for_the_tuning(ledger):
    """Its queries are counted under a name of their own: it needs neither collection nor fine-tuning."""
    untuned = ledger[(ledger["arm"] == "zerosearch")].assign(arm="untuned")
    untuned = untuned.assign(engine=untuned["engine"].replace("simulator", "simulator-base"))
    both = pd.concat([ledger, untuned], ignore_index=True)
    names = {"zerosearch": "tuned", "untuned": "base"}
    options = costs.run_options(costs.price_ledger(both, BOOK), costs.usage(both), names)
    items = options.groupby("option")["item"].agg(set)
    assert items["tuned"] - items["base"] == {"collection", "simulator SFT"} and "simulator" in items["base"]
    with pytest.raises(WorkbookError, match="expected simulator queries in stage 03 of arm 'untuned'"):
        costs.run_line(costs.price_ledger(both, BOOK), costs.usage(both), "untuned", BOOK)


def test_an_arm_prompted_with_collected_searches_pays_for_them_and_for_no_tuning(ledger):
    own = ledger[ledger["arm"] == "zerosearch"].assign(arm="prompted")
    own = own.assign(engine=own["engine"].replace("simulator", "simulator-prompted"))
    both = pd.concat([ledger, own], ignore_index=True)
    items = costs.run_options(costs.price_ledger(both, BOOK), costs.usage(both)).groupby("option")["item"].agg(set)
    assert items["zerosearch"] - items["prompted"] == {"simulator SFT"} and "collection" in items["prompted"]


def test_rates_choose_the_prices():
    event = _events({"kind": "busy", "role": "simulator", "device": "cuda:0", "seconds": 3600.0, "units": 1})
    rates = Rates(gpu="h200_capacity_block")
    assert costs.price_ledger(event, BOOK, rates)["usd"].sum() == pytest.approx(43.26 / 8)
    assert costs.price_ledger(event, BOOK, rates)["kwh"].sum() == pytest.approx(0.7)


def test_a_run_is_priced_from_its_ledgers(ledger):
    priced = costs.price_ledger(ledger, BOOK)
    stages = priced.groupby(["stage", "arm"], dropna=False)["usd"].sum()
    assert stages["01"].sum() == pytest.approx(0.01 * CORE)
    assert stages["03", "zerosearch"] == pytest.approx((0.01 + 0.005 + 0.01) * CORE)
    assert stages["03", "search-r1"] == pytest.approx((0.01 + 0.001 + 0.01) * CORE)
    assert list(priced.columns) == costs.COST_COLUMNS and (priced["usd"] >= 0).all()


def test_usage_keeps_cached_apart_from_fresh(ledger):
    used = costs.usage(ledger).set_index(["stage", "arm", "engine"])
    assert used.loc[("03", "search-r1", "bm25"), ["fresh", "cached", "paid"]].tolist() == [30, 10, 0]
    assert used.loc[("03", "zerosearch", "simulator"), "fresh"] == 30


def test_options_add_collection_and_sft_to_the_simulated_arm_only(ledger):
    priced, used = costs.price_ledger(ledger, BOOK), costs.usage(ledger)
    table = costs.run_options(priced, used, {"zerosearch": "ZeroSearch", "search-r1": "Search-R1"})
    options = table.set_index(["option", "item"])["usd"]
    assert options["ZeroSearch", "collection"] == pytest.approx(0.01 * CORE)
    assert options["ZeroSearch", "simulator SFT"] == pytest.approx(0.02 * CORE)
    assert options["ZeroSearch", "simulator"] == pytest.approx(0.005 * CORE)
    assert ("Search-R1", "collection") not in options and ("Search-R1", "local engine") in options
    assert options.groupby("option").sum()["Search-R1"] == pytest.approx(0.021 * CORE)
    assert set(costs.run_options(priced, used)["option"]) == {"zerosearch", "search-r1"}


def test_paid_option_pays_fresh_searches_only(ledger):
    priced, used = costs.price_ledger(ledger, BOOK), costs.usage(ledger)
    paid = costs.paid_option(priced, used, "search-r1", BOOK).set_index("item")
    assert paid.loc["paid searches", "usd"] == pytest.approx(30 * SEARCH)
    assert paid.loc["paid searches", "basis"] == "what if"
    assert "local engine" not in paid.index
    assert paid.drop("paid searches")["usd"].sum() == pytest.approx(0.02 * CORE)


def test_several_seeds_are_averaged(ledger):
    again = ledger[ledger["stage"] == "03"].assign(seed=1)
    both = pd.concat([ledger, again], ignore_index=True)
    one, two = (costs.run_options(costs.price_ledger(events, BOOK), costs.usage(events))
                for events in (ledger, both))
    assert two["usd"].tolist() == pytest.approx(one["usd"].tolist())


def test_run_line_spreads_simulator_time_over_its_queries(ledger):
    line = costs.run_line(costs.price_ledger(ledger, BOOK), costs.usage(ledger), "zerosearch", BOOK).iloc[1]
    assert line["fixed_usd"] == pytest.approx(0.03 * CORE)
    assert line["per_query_usd"] == pytest.approx(0.005 * CORE / 30)
    assert line["break_even"] == pytest.approx(0.03 * CORE / (SEARCH - 0.005 * CORE / 30))
    with pytest.raises(WorkbookError, match="--arms search-r1 --only 03"):
        costs.run_line(costs.price_ledger(ledger, BOOK), costs.usage(ledger), "search-r1", BOOK)


def test_searches_per_trajectory_and_its_fifths():
    searches = [2.0] * 5 + [1.0] * 5
    metrics = pd.DataFrame({"arm": "toy", "seed": 0, "step": range(10, 0, -1), "searches_mean": searches})
    row = costs.searches_per_trajectory(metrics).iloc[0]
    assert (row["searches"], row["first"], row["last"], row["steps"]) == (1.5, 1.0, 2.0, 10)
    with pytest.raises(WorkbookError, match="run stage 03"):
        costs.searches_per_trajectory(pd.DataFrame())


@pytest.mark.parametrize(("events", "message"), [
    (pd.DataFrame(), "found none"),
    (_events({"kind": "coffee"}), "coffee"),
    (_events({"kind": "busy", "role": "judge", "device": "cpu", "seconds": -1.0, "units": 1}), "negative"),
    (_events({"kind": "busy", "role": "judge", "device": "cpu", "seconds": 1.0}), "missing"),
    (_events({"kind": "queries", "engine": "bm25", "fresh": "many", "cached": 0, "paid": 0}), "unreadable"),
])
def test_a_broken_ledger_is_refused(events, message):
    with pytest.raises(WorkbookError, match=message):
        costs.price_ledger(events, BOOK)


def test_saved_share_by_hand_and_its_errors():
    rows = [("a", "x", 80.0), ("a", "y", 20.0), ("b", "x", 25.0)]
    options = pd.DataFrame(rows, columns=["option", "item", "usd"])
    assert costs.saved_share(options, "a", "b") == pytest.approx(0.75)
    assert costs.saved_share(options, "b", "a") == pytest.approx(-3.0)
    with pytest.raises(WorkbookError, match="'c'"):
        costs.saved_share(options, "a", "c")


@given(st.floats(0, 1e6), st.floats(0, 1.0), st.floats(0, 1.0))
def test_the_two_bills_are_equal_at_break_even(fixed, per_query, engine):
    point = costs.break_even_queries(fixed, per_query, engine)
    if per_query >= engine:
        assert math.isinf(point)
    else:
        simulated, paid = fixed + per_query * point, engine * point
        assert math.isclose(simulated, paid, rel_tol=1e-6, abs_tol=1e-9 * max(1.0, point))


def test_negative_amounts_have_no_break_even():
    with pytest.raises(WorkbookError, match="0 or more"):
        costs.break_even_queries(-1.0, 0.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, 64)), min_size=1, max_size=8))
def test_splitting_an_event_does_not_change_the_bill(amounts):
    event = {"kind": "busy", "role": "simulator", "device": "cpu"}
    events = [{**event, "seconds": seconds, "units": units} for seconds, units in amounts]
    halves = [{**event, "seconds": event["seconds"] / 2} for event in events for _ in range(2)]
    whole, split = (costs.price_ledger(_events(*part), BOOK)["usd"].sum() for part in (events, halves))
    assert split == pytest.approx(whole, rel=1e-9, abs=1e-12)
