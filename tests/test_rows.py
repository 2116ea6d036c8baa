"""Checked lines: every kind of damage is named with its line, and nothing is lost beside it."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch.errors import MissingInput
from zerosearch.rows import MAX_LINE_BYTES, MAX_SHOWN, Lines, Row

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8,
)


def row(fields: dict[str, object], ids: dict[tuple[str, str], str] | None = None) -> Row:
    return Row(json.loads(json.dumps(fields)), "f.jsonl:7", "line 7", ids)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "bad JSON"), (b"[1]", "expected a JSON object, found [1]"), (b'"x"', 'found "x"'),
        (b'{"a": "\xff"}', "found byte 0xff at column 8"), (b"{'a': 1}", "bad JSON"),
        (rb'{"a": "\ud83d"}', "half of a surrogate pair"), (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_lines_that_are_no_objects(line: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    lines = Lines(path)
    assert [found.fields for found in lines] == [{"a": 1}] and len(lines.problems) == 1
    assert lines.problems[0].startswith(f"{path}:2: ") and complaint in lines.problems[0]


def test_a_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(rb'{"a": "\ud83d\ude00"}')
    assert [found.text("a") for found in Lines(path)] == ["\U0001f600"]


def test_ids_are_texts_or_whole_numbers_and_new() -> None:
    ids: dict[tuple[str, str], str] = {}
    assert row({"id": 12}, ids).key("id") == "12"
    again = row({"id": "12"}, ids)
    again.key("id")
    assert again.faults == ["f.jsonl:7: id: expected an id of its own, found '12' of line 7 again"]
    for wrong in (True, 1.5, "", " ", None, []):
        found = row({"id": wrong})
        found.key("id")
        assert len(found.faults) == 1, wrong


def test_a_missing_key_names_the_nearest_one() -> None:
    found = row({"golden_answer": ["x"]})
    assert found.answers("golden_answers") == ()
    assert found.faults[0].endswith("found no such key; did you mean 'golden_answer'?")


@pytest.mark.parametrize("wrong", ["Paris", [], [""], ["a", " "], ["a", 1], {"a": 1}, None])
def test_answers_are_a_list_of_texts(wrong: object) -> None:
    found = row({"golden_answers": wrong})
    assert found.answers("golden_answers") == () and len(found.faults) == 1


def test_defaults_and_choices() -> None:
    found = row({"title": "", "split": "test", "metadata": [1]})
    assert found.text("title", default="") == "" and found.text("other", default="") == ""
    assert found.faults == []
    assert (found.choice("split", ("train", "eval")), found.mapping("metadata")) == ("", {})
    assert "expected one of train, eval, found \"test\"" in found.faults[0] and "an object" in found.faults[1]
    assert row({}).mapping("metadata") == {}


def test_separators_inside_a_text_do_not_break_the_line(tmp_path: Path) -> None:
    text = "one\u2028two\x85three\x0bfour\x1cfive"
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"id": "1", "text": text}, ensure_ascii=False) + "\r\n\r\n", encoding="utf-8")
    lines = Lines(path)
    assert [r.text("text") for r in lines] == [text] and lines.problems == []


def test_mark_at_the_start_and_missing_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\n\n{"id": 2}')
    assert [(r.key("id"), r.where) for r in Lines(path)] == [("1", "line 1"), ("2", "line 3")]


def test_many_problems_are_counted_not_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("{\n" * (MAX_SHOWN + 5))
    lines = Lines(path)
    assert list(lines) == [] and len(lines.problems) == MAX_SHOWN + 5
    assert len(lines.listing()) == MAX_SHOWN + 1 and lines.listing()[-1].endswith("and 5 more")


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(MissingInput, match="expected a file of JSON lines"):
            list(Lines(path))


@given(ANY_JSON)
@settings(max_examples=150, deadline=None)
def test_any_json_gives_a_value_or_a_complaint(value: object) -> None:
    found = row({"x": value})
    results = found.text("x"), found.answers("x"), found.key("x")
    faulty = sum(not result for result in results)
    assert len(found.faults) == faulty


def test_a_file_of_another_encoding_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"id": 1}\n' * 500, encoding="utf-16")
    lines = Lines(path)
    assert list(lines) == [] and len(lines.listing()) == 1
    assert f"iconv -f UTF-16 -t UTF-8 {path} > {path}.new" in lines.listing()[0]


def test_the_command_against_another_encoding_works(tmp_path: Path) -> None:
    path = tmp_path / "a name with blanks.jsonl"
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"):
        sign = "€" if encoding == "cp1252" else "é"
        path.write_bytes(f'{{"id": "{sign}"}}\n'.encode(encoding))
        lines = Lines(path)
        assert list(lines) == []
        command = lines.listing()[0].split("`")[1]
        subprocess.run(command, shell=True, check=True)
        assert [r.key("id") for r in Lines(tmp_path / f"{path.name}.new")] == [sign], encoding


def test_one_damaged_byte_beside_utf_8_is_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes('{"id": "é"}\n'.encode() + b'{"id": "\xe9"}\n')
    lines = Lines(path)
    assert len(list(lines)) == 1 and lines.listing() == [f"{path}:2: expected UTF-8, found byte 0xe9 at column 9"]


def test_a_line_of_100_mb_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    with path.open("wb") as file:
        file.write(b'{"id": 1}\n{"id": 2, "text": "')
        file.seek(100_000_000)
        file.write(b'"}\n{"id": 3}\n')
    lines = Lines(path)
    tracemalloc.start()
    found = [r.key("id") for r in lines]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == ["1", "3"] and peak < 8 * MAX_LINE_BYTES
    (problem,) = lines.problems
    assert problem.startswith(f"{path}:2: expected lines of at most 1 MiB, found ") and "95.4 MiB" in problem


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_the_limit_of_a_line_is_what_it_says(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f.jsonl"
    around = len('{"id": ""}\n')
    path.write_text(f'{{"id": "{"x" * (MAX_LINE_BYTES + size - around)}"}}\n{{"id": "2"}}\n')
    assert path.stat().st_size == MAX_LINE_BYTES + size + 12
    lines = Lines(path)
    assert len(list(lines)) == (1 if size > 0 else 2) and len(lines.problems) == (1 if size > 0 else 0)


def test_only_the_beginning_of_a_file_may_be_read(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"id": 1}\n' * 10)
    assert len(list(Lines(path, max_bytes=25))) == 3
    assert len(list(Lines(path, max_bytes=100))) == 10
