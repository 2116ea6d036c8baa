"""scripts/soak.py and scripts/growth.py: what counts as growth, and a short soak that must show none."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import growth
import pandas as pd
import pytest
import soak
from growth import Figures

FLAT = {"rss_mib": 100.0, "fds": 7, "threads": 3, "children": 0}


def table(**columns: list[float]) -> pd.DataFrame:
    """Return twelve measurements in which nothing grows but what is named."""
    flat = {name: [value] * 12 for name, value in FLAT.items()}
    return pd.DataFrame({"number": range(12), "wall_seconds": range(12), **flat, **columns})


def test_nothing_grew() -> None:
    found = growth.growth(table(), warm_up=3)
    assert found == {"rss_mib": 0.0, "fds": 0, "threads": 0, "children": 0} and growth.too_much(found) == []


def test_memory_may_grow_by_a_twentieth_and_its_outliers_do_not_count() -> None:
    """After a warm-up of three, nine are left: medians of the first and the last three are compared."""
    some = growth.growth(table(rss_mib=[1, 1, 1, 100, 100, 999, 100, 100, 100, 104, 105, 1]), 3)
    assert some["rss_mib"] == pytest.approx(0.04) and growth.too_much(some) == []
    more = growth.growth(table(rss_mib=[1, 1, 1, 100, 100, 100, 100, 100, 100, 106, 106, 106]), 3)
    assert growth.too_much(more) == ["rss_mib grew by 6.0%, more than 5%"]


def test_one_open_file_is_too_many() -> None:
    found = growth.growth(table(fds=[9, 9, 9, 7, 7, 7, 7, 7, 7, 7, 7, 8]), 3)
    assert growth.too_much(found) == ["fds grew by 1"]
    with pytest.raises(ValueError, match="three measurements after the warm-up, found 2"):
        growth.growth(table(), warm_up=10)


def test_figures_see_files_descriptors_and_memory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = Figures.take(tmp_path, tmp_path / "a")
    (tmp_path / "a" / "one").write_text("")
    with (tmp_path / "two").open("w"):
        held = b"x" * 2**26
        after = Figures.take(tmp_path, tmp_path / "a")
    assert (after.files_temporary, after.files_other, after.fds) == (2, 1, before.fds + 1)
    assert after.rss_mib - before.rss_mib > 0.9 * len(held) / 2**20
    assert (before.files_temporary, before.files_other) == (0, 0)


def test_a_verdict_writes_table_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(threads=[3] * 11 + [4]).to_dict("records")
    assert growth.verdict(rows, 3, tmp_path / "r.csv") == 1
    assert "threads grew by 1" in capsys.readouterr().out
    written = pd.read_csv(tmp_path / "r.csv")
    assert len(written) == 12 and {"date", "machine", "versions", "commit", "warm_up"} <= set(written)
    assert (tmp_path / "r.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "expected one of"), (["--cycles", "20", "--chains", "20"], "expected one of"), (["--cycles", "12"], "13 or more")],
)
def test_wrong_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.main(arguments) == 2 and message in capsys.readouterr().err


def test_a_short_soak() -> None:
    before = tempfile.gettempdir(), os.getcwd()
    rows = soak.soak_cycles(12, questions=6)
    assert growth.too_much(growth.growth(pd.DataFrame(rows), warm_up=4)) == [], rows
    assert (tempfile.gettempdir(), os.getcwd()) == before
