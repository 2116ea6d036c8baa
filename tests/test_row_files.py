"""Rows from JSON lists, objects of titles, tables and Parquet: the same rows whatever the form, in little memory."""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from zerosearch.errors import MissingInput
from zerosearch.json_documents import JsonList, TitledLists
from zerosearch.row_files import ParquetRows, TabbedRows, open_rows
from zerosearch.rows import Lines

ROWS = [{"id": str(i), "question": f"wer schrieb „Buch {i}“?", "answer": [f"a{i}", "b"]} for i in range(3)]
TEXT = st.text(st.characters(codec="utf-8"), min_size=1)
VALUES = TEXT | st.lists(TEXT, max_size=2) | st.booleans() | st.none()
OBJECTS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=5)


def fields(path: Path, max_bytes: int | None = None) -> list[Any]:
    rows = open_rows(path, "questions", max_bytes)
    found = [row.fields for row in rows]
    assert rows.problems == [] and rows.n_rows == len(found)
    return found


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_same_rows_in_every_form(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    contents: dict[str, bytes] = {
        "lines": lines.encode(), "list": json.dumps(ROWS).encode(), "spread": json.dumps(ROWS, indent=4).encode(),
        "marked": lines.encode("utf-8-sig"), "marked list": json.dumps(ROWS).encode("utf-8-sig"),
        "wrapped": json.dumps({"Data": ROWS, "Domain": "web", "Version": 1.0}, indent=1).encode(),
        "packed": gzip.compress(lines.encode()), "packed list": gzip.compress(json.dumps(ROWS, indent=1).encode()),
    }
    for name, content in contents.items():
        assert fields(put(tmp_path / f"{name}.anything", content)) == ROWS, name
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "table")
    assert fields(tmp_path / "table") == ROWS
    kinds = {"list.anything": JsonList, "lines.anything": Lines, "table": ParquetRows}
    assert {name: type(open_rows(tmp_path / name, "questions")) for name in kinds} == kinds


@given(OBJECTS)
def test_a_list_is_read_as_python_reads_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    texts = (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False), f"\n{json.dumps(rows)}\t")
    for number, text in enumerate(texts):
        assert fields(put(folder / str(number), text)) == rows


def test_a_list_of_many_pieces_keeps_rows_and_line_numbers(tmp_path: Path) -> None:
    """Five MiB of three-byte characters: pieces end within characters, and the text held is cut many times."""
    rows = [{"id": i, "text": "語" * 400} for i in range(4000)] + [{"id": "0"}]
    path = put(tmp_path / "long.json", json.dumps(rows, indent=1, ensure_ascii=False))
    assert path.stat().st_size > 4 << 20
    found = open_rows(path, "questions")
    places = [row.place for row in found if row.key("id")]
    assert places[:2] == [f"{path}:2 (row 1)", f"{path}:6 (row 2)"] and len(places) == 4001
    complaint = "id: expected an id of its own, found '0' of line 2 (row 1) again"
    assert found.problems == [f"{path}:16002 (row 4001): {complaint}"]


def test_reading_stops_where_no_more_is_wanted(tmp_path: Path) -> None:
    path = put(tmp_path / "list.json", json.dumps([{"id": i, "text": "x" * 1000} for i in range(50)]))
    found = fields(path, max_bytes=10_500)
    assert [row["id"] for row in found] == list(range(10)) and len(fields(path, max_bytes=10**9)) == 50
    table = put(tmp_path / "table.tsv", "id\ttext\n" + "".join(f"{i}\t{'x' * 97}\n" for i in range(50)))
    assert len(fields(table, max_bytes=1008)) == 10
    titles = put(tmp_path / "titles.json", json.dumps({f"T{i}": ["x" * 1000] for i in range(50)}))
    rows = open_rows(titles, "passages", 10_500)
    assert len(list(rows)) == 10 and rows.problems == []


def test_an_object_of_titles_is_passages_and_nothing_else(tmp_path: Path) -> None:
    path = put(tmp_path / "titles.json", '{"A \\"b\\"": ["one.", " two."],\n "C": [], "A \\"b\\"": ["again"]}')
    rows = open_rows(path, "passages")
    assert isinstance(rows, TitledLists)
    assert [row.fields for row in rows] == [
        {"title": 'A "b"', "sentences": ["one.", " two."]}, {"title": "C", "sentences": []},
        {"title": 'A "b"', "sentences": ["again"]},  # a title twice is two passages: nothing is lost
    ]
    assert isinstance(open_rows(path, "questions"), Lines)
    line = put(tmp_path / "lines.jsonl", '{"tags": ["x"], "id": 1, "text": "t"}\n')
    assert isinstance(open_rows(line, "passages"), Lines)


def test_a_table_is_read_the_csv_way(tmp_path: Path) -> None:
    text = 'id\tquestion\tnote\r\n1\t"He said ""no""\tand left"\t\r\n\r\n2\t"two\nlines"\tä\r\n'
    rows = open_rows(put(tmp_path / "t.tsv", text), "questions")
    assert isinstance(rows, TabbedRows)
    found = list(rows)
    assert [row.fields for row in found] == [
        {"id": "1", "question": 'He said "no"\tand left', "note": ""},
        {"id": "2", "question": "two\nlines", "note": "ä"},
    ]
    assert [row.place for row in found] == [f"{rows.path}:2", f"{rows.path}:4"]


def test_damaged_rows_of_a_table_are_told_and_the_others_read(tmp_path: Path) -> None:
    lines = [b"id\tq", b"1\tfine", b"2\tcaf\xe9", b"3", b'4\t"x"y', b"5\tfine too", b""]
    rows = open_rows(put(tmp_path / "t.tsv", b"\n".join(lines)), "questions")
    assert [row.fields for row in rows] == [{"id": "1", "q": "fine"}, {"id": "5", "q": "fine too"}]
    assert [p.removeprefix(f"{rows.path}:")[:24] for p in rows.problems] == [
        "3: expected UTF-8, found", "4: expected 2 cells (id,", "5: expected cells quoted",
    ]


def test_a_quotation_mark_that_is_never_closed_swallows_no_whole_file(tmp_path: Path) -> None:
    content = 'id\ttext\n1\t"open\n' + "".join(f"{i}\t{'x' * 500}\n" for i in range(2, 1000))
    rows = open_rows(put(tmp_path / "t.tsv", content), "passages")
    n_read = len(list(rows))
    assert f"{rows.path}:2: expected cells quoted the csv way" in rows.problems[0] and n_read > 500


def test_parquet_comes_as_json_has_it(tmp_path: Path) -> None:
    rows = [
        {"a": {"x": 1, "y": None}, "b": [None, "t"], "day": date(2020, 1, 2), "n": float("nan"), "f": 2.5, "ok": True},
        {"a": {"x": None, "y": "z"}, "b": [], "day": None, "n": 1.0, "f": None, "ok": None},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t")
    assert fields(tmp_path / "t") == [
        {"a": {"x": 1}, "b": [None, "t"], "day": "2020-01-02", "n": None, "f": 2.5, "ok": True},
        {"a": {"y": "z"}, "b": [], "n": 1.0},
    ]
    assert [row.place for row in open_rows(tmp_path / "t", "questions")][1] == f"{tmp_path / 't'}: row 2"


def test_what_is_not_there_or_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="found none; check the paths"):
        open_rows(tmp_path / "none.json", "questions")
    with pytest.raises(MissingInput, match="found none; check the paths"):
        open_rows(tmp_path, "passages")
