"""Passages: every form of a corpus gives the same passages, with ids, titles and texts as they are published."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from zerosearch import passages
from zerosearch.errors import BadInput
from zerosearch.passages import load_corpus
from zerosearch.schema import Passage

WANTED = [Passage("0", "Aaron", "Aaron was a prophet."), Passage("1", 'The "Grey" Harp', "Ada Falk\nwrote it.")]


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_one_corpus_in_every_form(tmp_path: Path) -> None:
    plain = [{"id": p.id, "title": p.title, "text": p.text} for p in WANTED]
    contents = [{"id": p.id, "contents": f'"{p.title}"\n{p.text}'} for p in WANTED]
    table = 'id\ttext\ttitle\n0\tAaron was a prophet.\tAaron\n1\t"Ada Falk\nwrote it."\t"The ""Grey"" Harp"\n'
    forms: dict[str, str | bytes] = {
        "plain.jsonl": lines(plain), "contents.jsonl": lines(contents), "psgs.tsv": table,
        "list.json": json.dumps([{"title": p.title, "text": p.text} for p in WANTED]),
        "numbered.json": json.dumps([{"id": int(p.id), "title": p.title, "text": p.text} for p in WANTED], indent=1),
        "beir.jsonl": lines([{"_id": p.id, "title": p.title, "text": p.text} for p in WANTED]),
        "titles.json": json.dumps({WANTED[0].title: [WANTED[0].text], WANTED[1].title: ["Ada Falk", "\nwrote it."]}),
    }
    for name, content in forms.items():
        assert load_corpus(put(tmp_path / name, content)) == WANTED, name
        packed = gzip.compress(content.encode() if isinstance(content, str) else content)
        assert load_corpus(put(tmp_path / f"{name}.gz", packed)) == WANTED, name


@pytest.mark.parametrize(
    ("contents", "title", "text"),
    [
        ('"Title"\nText', "Title", "Text"),
        ('"A ""B"" C"\nx\ny', 'A ""B"" C', "x\ny"),
        ("Title\nText", "Title", "Text"),
        ('"', "", '"'),
        ('"Only a quotation"', "", '"Only a quotation"'),
        ("one line", "", "one line"),
        ('""\nText', "", "Text"),
        ('"Title"\n \n', "", '"Title"\n \n'),
    ],
)
def test_title_and_text_of_contents(tmp_path: Path, contents: str, title: str, text: str) -> None:
    path = put(tmp_path / "c.jsonl", lines([{"id": 7, "contents": contents}]))
    assert load_corpus(path) == [Passage("7", title, text)]


def test_sentences_are_joined_with_one_space(tmp_path: Path) -> None:
    document = {"A": ["One.", " Two.", "Three.", "", "\u00a0Four. "], "B": ["x"]}
    assert load_corpus(put(tmp_path / "t.json", json.dumps(document))) == [
        Passage("0", "A", "One. Two. Three.\u00a0Four."), Passage("1", "B", "x"),
    ]


def test_titles_may_repeat_and_ids_may_not(tmp_path: Path) -> None:
    rows = [{"title": "A", "text": "x"}, {"title": "A", "text": "y"}]
    assert [p.id for p in load_corpus(put(tmp_path / "c.json", json.dumps(rows)))] == ["0", "1"]
    path = put(tmp_path / "d.json", json.dumps([{"id": 1, **rows[0]}, {"id": "1", **rows[1]}, {"title": "B"}]))
    with pytest.raises(BadInput) as caught:
        load_corpus(path)
    found = [p.removeprefix(f"{path}:") for p in caught.value.problems]
    assert [f[:20] for f in found] == ["1 (row 2): id: expec", "1 (row 3): text: exp"]


def test_metadata_of_the_world_are_checked(tmp_path: Path) -> None:
    row = {"id": 1, "text": "x", "metadata": {"kind": "fact", "subject": "S"}}
    assert load_corpus(put(tmp_path / "c.jsonl", lines([row])))[0].metadata == {"kind": "fact", "subject": "S"}
    with pytest.raises(BadInput, match="metadata.subject: expected a text"):
        load_corpus(put(tmp_path / "c.jsonl", lines([{**row, "metadata": {"subject": 3}}])))


def test_a_corpus_that_is_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "c.jsonl", lines([{"id": 1, "text": "x" * 100}]))
    size = path.stat().st_size
    monkeypatch.setattr(passages, "MAX_BYTES", size)
    assert len(load_corpus(path)) == 1
    monkeypatch.setattr(passages, "MAX_BYTES", size - 1)
    with pytest.raises(BadInput, match="since they are kept in memory.*01.retriever=NAME"):
        load_corpus(path)


def test_published_samples(shared_data: Path) -> None:
    folder = shared_data / "raw" / "corpus_formats"
    listed = load_corpus(folder / "list_of_title_text.sample.json")
    raw = json.loads((folder / "list_of_title_text.sample.json").read_text("utf-8"))
    assert [(p.id, p.title, p.text) for p in listed] == [(str(i), r["title"], r["text"]) for i, r in enumerate(raw)]
    titled = load_corpus(folder / "title_to_sentences.sample.json")
    raw = json.loads((folder / "title_to_sentences.sample.json").read_text("utf-8"))
    assert [(p.title, p.text) for p in titled] == [(title, "".join(found).strip()) for title, found in raw.items()]
    assert len(listed) == len(titled) == 20
