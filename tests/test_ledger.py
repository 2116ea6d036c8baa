"""ledger.py: append-only, checked, readable after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerosearch.errors import ConfigError
from zerosearch.ledger import Ledger, gather, read_events


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
