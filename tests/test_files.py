"""files.py: nobody ever meets half a file; tables and hashes come back as they went in."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import files
from zerosearch.errors import BadInput, ConfigError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = files.write_atomic(tmp_path / "a.txt", "old")

    def fail_half_way(temporary: Path) -> None:
        temporary.write_text("hal")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write_via(target, fail_half_way)
    assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def fail(temporary: Path) -> None:
        (temporary / "weights").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        files.save_folder(folder, fail)
    assert names(tmp_path) == []
    files.save_folder(folder, lambda temporary: (temporary / "weights").write_text("one"))
    files.save_folder(folder, lambda temporary: (temporary / "other").write_text("two"))
    assert names(folder) == ["other"] and names(tmp_path) == ["model"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_tables_come_back(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"method": ["a", "b"], "value": [0.1, 1 / 3], "n": [1, 2]})
    files.write_table(tmp_path / name, table)
    pd.testing.assert_frame_equal(files.read_table(tmp_path / name), table)
    assert names(tmp_path) == [name]


def test_other_table_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.parquet or \.csv"):
        files.write_table(tmp_path / "t.xlsx", pd.DataFrame())


@given(st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.none()))))
def test_jsonl_comes_back(rows: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert files.read_jsonl(files.write_jsonl(Path(folder) / "rows.jsonl", rows)) == rows


def test_every_broken_line_is_named(tmp_path: Path) -> None:
    path = files.write_atomic(tmp_path / "x.jsonl", '{"a": 1}\n{oops\n\n{"b": 2}\n]\n')
    with pytest.raises(BadInput) as caught:
        files.read_jsonl(path)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [f"{path}:2", f"{path}:5"]


def test_known_hashes(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "m" / "a", "abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # the FIPS 180 example
    assert files.sha256(tmp_path / "m" / "a") == abc
    folder_hash = files.sha256(tmp_path / "m")
    files.write_atomic(tmp_path / "m" / "b", "")
    assert files.sha256(tmp_path / "m") != folder_hash


def test_numpy_becomes_plain(tmp_path: Path) -> None:
    path = files.write_json(
        tmp_path / "n.json", {"a": np.float64(0.5), "b": np.arange(2), "c": tmp_path, "d": {2, 1}}
    )
    assert files.read_json(path) == {"a": 0.5, "b": [0, 1], "c": str(tmp_path), "d": [1, 2]}
    with pytest.raises(TypeError, match="found object"):
        files.write_json(tmp_path / "n.json", object())
