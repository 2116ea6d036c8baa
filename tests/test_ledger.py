"""ledger.py: append-only, checked, readable after a crash."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosearch.errors import ConfigError
from zerosearch.ledger import Ledger, gather, read_events, step_unit


def test_events_are_on_disk_at_once_and_gathered(tmp_path: Path) -> None:
    one = Ledger(tmp_path / "01_collect" / "ledger.jsonl", "01")
    one.event("queries", engine="bm25", fresh=3, cached=1, paid=0)
    assert read_events(one.path)[0]["fresh"] == 3
    two = Ledger(tmp_path / "03_rl" / "zerosearch" / "seed1" / "ledger.jsonl", "03", "zerosearch", 1)
    two.event("tokens", role="policy", model="micro/llama-base", prompt=10, generated=5)
    two.event("busy", role="policy_training", device="cpu", seconds=1.5, units=2)
    table = gather(tmp_path)
    assert table["kind"].tolist() == ["queries", "tokens", "busy"]
    assert table["stage"].tolist() == ["01", "03", "03"] and table["arm"].tolist()[1:] == ["zerosearch"] * 2
    assert table.loc[2, "seconds"] * table.loc[2, "units"] == 3.0


def test_opening_again_appends_also_after_a_half_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path, "01").event("queries", engine="bm25", fresh=1, cached=0, paid=0)
    with path.open("a") as file:
        file.write('{"time": "2026-')  # the process was killed here
    Ledger(path, "01").event("queries", engine="bm25", fresh=2, cached=0, paid=0)
    assert [event["fresh"] for event in read_events(path)] == [1, 2]


def test_superseded_ledgers_do_not_count(tmp_path: Path) -> None:
    Ledger(tmp_path / "01" / "superseded" / "ledger.jsonl", "01").event(
        "busy", role="retriever", device="cpu", seconds=1, units=1
    )
    assert gather(tmp_path).empty


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", "01")
    with pytest.raises(ConfigError, match="did you mean 'queries'"):
        ledger.event("query", engine="bm25", fresh=1, cached=0, paid=0)
    with pytest.raises(ConfigError, match="did you mean 'policy_training'"):
        ledger.event("busy", role="policy_trainin", device="cpu", seconds=1, units=1)
    with pytest.raises(ValueError, match="expected fields"):
        ledger.event("queries", engine="bm25", fresh=1)
    for amount in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            ledger.event("busy", role="simulator", device="cpu", seconds=amount, units=1)
    assert not ledger.path.exists()


def test_work_that_is_done_again_is_set_aside(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", "03")
    for step in (1, 2, 10):
        ledger.event("queries", unit=step_unit(step), engine="bm25", fresh=step, cached=0, paid=0)
    ledger.event("queries", engine="bm25", fresh=7, cached=0, paid=0)
    with ledger.path.open("a") as file:
        file.write('{"time": "2026-\n')  # cut off: counts for nothing
    assert ledger.keep_steps(2) == 1 and [e["fresh"] for e in read_events(ledger.path)] == [1, 2, 7]
    assert ledger.keep(lambda unit: unit is not None) == 2 and [e["fresh"] for e in read_events(ledger.path)] == [1, 2]
    kept = [e["fresh"] for path in sorted((tmp_path / "superseded").iterdir()) for e in read_events(path)]
    assert sorted(kept) == [7, 10] and gather(tmp_path)["fresh"].tolist() == [1, 2]


def test_what_was_paid_stays_on_the_bill(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", "01")
    ledger.event("queries", engine="serpapi", fresh=3, cached=0, paid=3)
    ledger.event("queries", engine="serpapi", fresh=0, cached=5, paid=0)
    assert ledger.keep(lambda unit: False) == 1 and gather(tmp_path)["paid"].tolist() == [3]


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(0, 9))
def test_cutting_back_keeps_exactly_the_steps_before(steps: list[int], last: int) -> None:
    with TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl", "03")
        for step in steps:
            ledger.event("queries", unit=step_unit(step), engine="bm25", fresh=step, cached=0, paid=0)
        assert ledger.keep_steps(last) == sum(step > last for step in steps)
        assert gather(Path(folder))["fresh"].tolist() == [step for step in steps if step <= last]
