"""BM25 at scale: an index on the disk is the library's, number for number, and ranks as the one in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch import seeds
from zerosearch.errors import BadInput, MissingInput
from zerosearch.questions import load_corpus, write_corpus
from zerosearch.retrievers import bm25, bm25_build, bm25_index
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.retrievers.bm25_build import build
from zerosearch.retrievers.bm25_index import Index, Words
from zerosearch.retrievers.corpus import PassageFile, digest_of, kinds_of, open_passages, passage_of
from zerosearch.schema import Passage

WORDS = "amber birch cedar dolm elder falk garrow hazel ibsen jasper".split()  # their own stems


def corpus(n: int = 60) -> list[Passage]:
    """Return passages in which some words are everywhere and others rare, with many ties."""
    drawn = seeds.generator(0, "corpus").zipf(1.4, (n, 9)) % 40
    return [Passage(f"p{i}", f"w{row[0]}", " ".join(f"w{w}" for w in row[1:])) for i, row in enumerate(drawn)]


def saved(passages: list[Passage], folder: Path, block_words: int = 50) -> Index:
    folder.mkdir()
    (folder / "blocks").mkdir()
    build((f"{p.title} {p.text}" for p in passages), folder / "blocks", 0.9, 0.4, Words(), block_words).save(folder)
    return Index.load(folder)


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bm25, "SAVED_FROM", 1)


@pytest.mark.parametrize("block_words", [1, 50, 10**6])
def test_built_on_the_disk_it_is_the_librarys_index(
    tmp_path: Path, block_words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bm25_build, "_REMEMBERED", 7)  # words are forgotten and met again
    passages = [*corpus(), Passage("x", "Directing", "directed directs w1"), Passage("y", "", "...")]
    mine, theirs = saved(passages, tmp_path / "index", block_words), BM25Retriever(passages).index
    assert isinstance(mine._made.scores["data"], np.memmap) and mine.vocabulary == theirs.vocabulary
    for name in ("starts", "places", "scores", "highest"):
        here, there = getattr(mine, name), getattr(theirs, name)
        assert here.dtype == there.dtype and np.array_equal(here, there), name
    assert mine.is_whole() and mine.n_passages == theirs.n_passages == 62


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8), min_size=1, max_size=40),
    st.lists(st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=5), min_size=1, max_size=12), st.integers(1, 45),
)
@settings(max_examples=150)
def test_leaving_passages_out_changes_no_ranking(documents, queries, depth) -> None:  # noqa: ANN001
    """The scores of all passages, and only of those that can still be among the best: the same list."""
    index = BM25Retriever([Passage(str(i), "", " ".join(words)) for i, words in enumerate(documents)]).index
    asked = [[index.vocabulary[w] for w in words if w in index.vocabulary] for words in queries]
    assert [index._best_of(ids, depth) for ids in asked] == index._best_of_all(asked, depth)


def test_rare_words_decide_early() -> None:
    """A query with one rare word and frequent ones: the passages with only frequent words are left out."""
    passages = [Passage(str(i), "", "the of in amber" if i % 50 == 0 else "the of in birch") for i in range(500)]
    index = BM25Retriever(passages, 5).index
    ids = np.array([index.vocabulary[w] for w in ("amber", "in", "of", "the")])
    words = np.sort(ids)
    assert set(index._candidates(words, np.ones(4, np.float32), 5)) == set(range(0, 500, 50))
    assert index._best_of(ids, 5) == [0, 50, 100, 150, 200]


def test_real_passages_rank_the_same_on_the_disk(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second real passage and 250 real questions, by the whole table in memory and by a saved index."""
    passages = load_corpus(shared_data / "corpus" / "passages.jsonl")[::2]
    lines = (shared_data / "qa" / "hotpotqa.jsonl").read_text().splitlines() + (
        shared_data / "qa" / "nq.jsonl").read_text().splitlines()[:50]
    asked = [json.loads(line)["question"] for line in lines]
    engine = BM25Retriever.open(passages, 10, cache=tmp_path)
    assert isinstance(engine.index._made.scores["data"], np.memmap)
    found = engine.rank(asked)
    monkeypatch.setattr(bm25_index, "_DENSE", 10**9)
    assert engine.rank(asked) == found and len(found) == 250


def test_built_once_and_used_by_later_processes(tmp_path: Path, always_saved: None) -> None:
    passages = corpus()
    first = BM25Retriever.open(passages, 3, cache=tmp_path)
    (folder,) = tmp_path.glob("bm25-*/")
    made = folder.stat().st_ino
    again = BM25Retriever.open(passages, 5, cache=tmp_path)
    assert folder.stat().st_ino == made and again.rank(["w1 w5"])[0][:3] == first.rank(["w1 w5"])[0]
    code = (
        "import sys; from pathlib import Path; from test_bm25_index import *\n"
        "bm25.SAVED_FROM = 1\n"
        "bm25.build = None\n"  # building again would fail
        "e = BM25Retriever.open(corpus(), 5, cache=Path(sys.argv[1])); print(e.rank(['w1 w5']), e.identity)"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert shown == f"{again.rank(['w1 w5'])} {again.identity}\n"


def test_another_corpus_or_parameter_is_another_index(tmp_path: Path, always_saved: None) -> None:
    for passages, k1, b in ((corpus(), 0.9, 0.4), (corpus(), 1.2, 0.4), (corpus(), 0.9, 0.75), (corpus(50), 0.9, 0.4)):
        engine = BM25Retriever.open(passages, 3, k1, b, cache=tmp_path)
        assert engine.rank(["w1 w5", "w7"]) == BM25Retriever(passages, 3, k1, b).rank(["w1 w5", "w7"])
    assert len(list(tmp_path.glob("bm25-*/"))) == 4
    plain = BM25Retriever.open(corpus(), 3, stem=False, cache=tmp_path)
    assert len(list(tmp_path.glob("bm25-*/"))) == 5 and "unstemmed" in plain.identity


def test_without_stemming_words_are_taken_as_they_stand(tmp_path: Path) -> None:
    passages = [Passage("a", "", "he directed it"), Passage("b", "", "directing")]
    assert BM25Retriever(passages, 2).rank(["DIRECTED"]) == [[1, 0]]
    plain = BM25Retriever(passages, 2, stem=False)
    assert plain.rank(["DIRECTED"]) == BM25Retriever.load(plain.save(tmp_path / "index")).rank(["DIRECTED"]) == [[0]]


@pytest.mark.parametrize(
    "damage", ["data.csc.index.npy", "vocab.index.json", "settings.json", "params.index.json", "highest.npy"]
)
def test_a_damaged_index_is_built_again(tmp_path: Path, always_saved: None, damage: str) -> None:
    passages = corpus()
    expected = BM25Retriever.open(passages, 3, cache=tmp_path).rank(["w1 w5"])
    (folder,) = tmp_path.glob("bm25-*/")
    whole = (folder / damage).read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        (folder / damage).write_bytes(content)
        assert BM25Retriever.open(passages, 3, cache=tmp_path).rank(["w1 w5"]) == expected
        assert (folder / damage).read_bytes() == whole


def test_nothing_stays_of_a_build_that_was_killed(tmp_path: Path, always_saved: None) -> None:
    passages = corpus()
    code = (
        "import os, sys; from pathlib import Path; from test_bm25_index import *\n"
        "bm25.SAVED_FROM = 1\n"
        "def dying(texts, *rest):\n"
        "    list(texts); os._exit(9)\n"
        "bm25.build = dying\n"
        "BM25Retriever.open(corpus(), 5, cache=Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment)
    assert done.returncode == 9 and list(tmp_path.glob(".bm25-*.part"))
    engine = BM25Retriever.open(passages, 3, cache=tmp_path)
    assert engine.rank(["w1 w5"]) == BM25Retriever(passages, 3).rank(["w1 w5"])
    assert not list(tmp_path.glob(".*.part")) and not list(next(tmp_path.glob("bm25-*/")).glob("*/"))


def test_an_index_of_other_passages_is_refused() -> None:
    index = BM25Retriever(corpus()).index
    with pytest.raises(ValueError, match="expected 50 passages, found 60"):
        BM25Retriever(corpus(50), index=index)


def test_a_large_corpus_needs_words(tmp_path: Path, always_saved: None) -> None:
    with pytest.raises(BadInput, match="passages with words"):
        BM25Retriever.open([Passage("1", "", "...")], 3, cache=tmp_path)
    assert not list(tmp_path.glob("bm25-*/")) and not list(tmp_path.glob(".*.part"))


def test_words() -> None:
    words = Words()
    assert words("The directors DIRECTED, directing!") == ["the", "director", "direct", "direct"]
    assert words("It isn't über 8½") == ["it", "isn", "t", "über", "8½"] and words("") == []
    assert Words(stem=False)("The directors DIRECTED") == ["the", "directors", "directed"]


# -- passages on the disk ----------------------------------------------------------------------------


def test_a_file_on_the_disk_is_read_as_one_in_memory(tmp_path: Path) -> None:
    passages = [*corpus(20), Passage("é", "Título", "about \u2028 amber\n birch", {"kind": "fact", "rank": 1})]
    path = write_corpus(tmp_path / "corpus.jsonl", passages)
    path.write_bytes(path.read_bytes()[:-1] + b"\n\n  \n")  # empty lines count for nothing
    there = open_passages(path, tmp_path / "cache", in_memory=0)
    assert isinstance(there, PassageFile) and open_passages(path) == list(there) == passages
    assert there[3:5] == passages[3:5] and there[-1] == passages[-1] and len(there) == 21 and there[0] in there
    assert digest_of(there) == digest_of(passages) and kinds_of(there) == kinds_of(passages) == {"fact"}
    with pytest.raises(IndexError):
        there[21]


def test_the_engine_over_a_file_is_the_engine_over_its_passages(tmp_path: Path, always_saved: None) -> None:
    passages = corpus()
    path = write_corpus(tmp_path / "corpus.jsonl", passages)
    there = open_passages(path, tmp_path / "cache", in_memory=0)
    mapped, loaded = BM25Retriever.open(there, 3, cache=tmp_path / "cache"), BM25Retriever(passages, 3)
    assert mapped.passages is there and mapped.identity == loaded.identity
    assert mapped.rank(["w1 w5", "w9 w9"]) == loaded.rank(["w1 w5", "w9 w9"])


def test_what_was_learnt_about_a_file_is_kept_until_the_file_changes(tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "corpus.jsonl", corpus(20))
    first = PassageFile.open(path, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").glob("passages-*/")
    (folder / "starts.npy").unlink()  # damaged: learnt again
    assert list(PassageFile.open(path, tmp_path / "cache")) == list(first) == corpus(20)
    write_corpus(path, corpus(10))
    assert list(PassageFile.open(path, tmp_path / "cache")) == corpus(20)[:10] == corpus(10)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "7", "contents": '"Silver Harbor"\nA film of 1949.'}, ("7", "Silver Harbor", "A film of 1949.")),
        ({"id": 7, "contents": "Silver Harbor\nA film.\nBy Falk."}, ("7", "Silver Harbor", "A film.\nBy Falk.")),
        ({"id": "7", "contents": "A film of 1949."}, ("7", "", "A film of 1949.")),
        ({"id": "7", "title": "Silver Harbor", "text": "A film."}, ("7", "Silver Harbor", "A film.")),
        ({"id": "7", "text": "A film.", "title": None, "contents": "else"}, ("7", "", "A film.")),
        ({"title": "Silver", "contents": '"Gold"\nA film.'}, ("none", "Silver", "A film.")),
    ],
)
def test_passages_in_every_published_form(row: dict[str, object], expected: tuple[str, str, str]) -> None:
    found = passage_of(row, "none")
    assert (found.id, found.title, found.text) == expected


@pytest.mark.parametrize(
    "row", [{}, {"id": "1"}, {"id": "1", "text": 3}, {"id": True, "text": "x"}, {"id": [1], "text": "x"},
            {"id": "1", "text": "x", "title": 3}, {"contents": None}],
)
def test_what_is_no_passage_is_refused(row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no passage"):
        passage_of(row)


def test_lines_that_are_no_passages_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "1", "text": "x"}\n{"id": "2"}\n[3]\n{oops\n')
    with pytest.raises(BadInput, match="found 3 that are not") as caught:
        open_passages(path, tmp_path / "cache", in_memory=0)
    assert [p.split(": ")[1] for p in caught.value.problems] == ["passage 2", "passage 3", "passage 4"]
    assert not list((tmp_path / "cache").glob("passages-*/"))
    path.write_text("\n")
    with pytest.raises(BadInput, match="found no line"):
        open_passages(path, tmp_path / "cache", in_memory=0)
    with pytest.raises(MissingInput, match="found none at"):
        open_passages(tmp_path / "none")


def test_a_published_wikipedia_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wiki.jsonl"
    rows = [{"id": "0", "contents": '"Amber"\nAmber is resin.'}, {"id": "1", "contents": '"B"\nb'}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [Passage("0", "Amber", "Amber is resin."), Passage("1", "B", "b")]
    assert open_passages(path) == list(open_passages(path, tmp_path / "cache", in_memory=0)) == expected
