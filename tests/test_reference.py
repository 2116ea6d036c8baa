"""Publishing a run: the README's tables are made from the committed CSV files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from zerosearch import reference
from zerosearch.errors import MissingInput


def scores(folder: Path) -> None:
    rows = [
        ("search", "nq", 0, "em", 0.125, 8, 0.0, 0.5), ("search", "average", 0, "em", 0.25, 8, 0.1, 0.4),
        ("search", "average", 0, "f1", 0.5, 8, 0.4, 0.6), ("direct", "nq", 0, "em", 0.0, 8, 0.0, 0.0),
    ]
    pd.DataFrame(rows, columns=reference.SCORE_COLUMNS).to_csv(folder / "scores.csv", index=False)


def test_score_block_by_hand(tmp_path: Path) -> None:
    scores(tmp_path)
    lines = reference.score_block(tmp_path).splitlines()
    assert lines[2].startswith("| Direct answer | 0.000 | –")
    assert lines[3].startswith("| Untrained policy with search | 0.125 |")
    assert "**0.250** [0.100, 0.400] | 0.500 | – |" in lines[3]


def test_time_block_by_hand(tmp_path: Path) -> None:
    rows = [("03_rl", "zerosearch", 0, 61.4, 900), ("whole run", "", "", 130.0, 900)]
    pd.DataFrame(rows, columns=["stage", "arm", "seed", "wall_seconds", "peak_rss_mib"]).to_csv(tmp_path / "stages.csv", index=False)
    assert reference.time_block(tmp_path).splitlines()[2:] == ["| 03_rl zerosearch | 61 | 900 |", "| whole run | 130 | 900 |"]


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
