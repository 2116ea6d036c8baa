"""The real slices: every file loads, counts are right, BM25 finds what the data set's notes say it finds."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import pytest

from zerosearch.labels import judge_passages, retrieval_recall
from zerosearch.question_sets.own import load_questions_dir
from zerosearch.questions import (
    evaluation_questions, load_corpus, read_questions, split_counts, training_questions, write_questions,
)
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest

SIZES = {
    "2wikimultihopqa": 200, "bamboogle": 75, "hotpotqa": 200, "musique": 200, "nq": 200, "popqa": 200, "triviaqa": 200,
}
# Share of the supported questions with a supporting passage among the top 10, from the notes of the data.
HIT_RATES = {
    "hotpotqa": 0.99, "2wikimultihopqa": 0.98, "triviaqa": 0.97, "popqa": 0.95, "nq": 0.92, "bamboogle": 0.45,
    "musique": 0.42,
}
# What plain BM25, words as they stand, must reach at least.
PROMISED = {"hotpotqa": 0.98, "2wikimultihopqa": 0.97, "triviaqa": 0.96, "popqa": 0.94, "nq": 0.91}


Slices = tuple[list[Question], list[Passage], BM25Retriever, list[Retrieval]]


@lru_cache(maxsize=1)
def read_once(folder: Path) -> Slices:
    """Read and search the slices once for all tests; 10 passages for every evaluated question."""
    loaded, passages = load_questions_dir(folder / "qa"), load_corpus(folder / "corpus" / "passages.jsonl")
    engine = BM25Retriever(passages, k=10, k1=0.9, b=0.4)
    found = engine.search([SearchRequest(q.question, q) for q in evaluation_questions(loaded)])
    return loaded, passages, engine, found


@pytest.fixture
def questions(shared_data: Path) -> list[Question]:
    return read_once(shared_data)[0]


@pytest.fixture
def passages(shared_data: Path) -> list[Passage]:
    return read_once(shared_data)[1]


@pytest.fixture
def engine(shared_data: Path) -> BM25Retriever:
    return read_once(shared_data)[2]


@pytest.fixture
def found(shared_data: Path) -> list[Retrieval]:
    return read_once(shared_data)[3]


def test_counts(questions: list[Question]) -> None:
    counts = split_counts(questions)
    assert {name: count["eval"] for name, count in counts.items()} == SIZES and sum(SIZES.values()) == 1275
    assert {name: count["train"] for name, count in counts.items() if count["train"]} == {"musique": 100}
    assert len({q.id for q in questions}) == 1375
    assert {q.id.split("/")[0] for q in training_questions(questions)} == {"musique_train"}


def test_without_a_train_file_a_fifth_of_two_sets_trains(shared_data: Path, tmp_path: Path) -> None:
    for path in (shared_data / "qa").glob("*.jsonl"):
        if not path.stem.endswith("_train"):
            (tmp_path / path.name).symlink_to(path)
    loaded = load_questions_dir(tmp_path, train_fraction=0.2, seed=0)
    counts = split_counts(loaded)
    assert {name: count["train"] for name, count in counts.items() if count["train"]} == {"hotpotqa": 40, "nq": 40}
    assert len(evaluation_questions(loaded)) == 1195


def test_every_row_arrives_unchanged(shared_data: Path, questions: list[Question]) -> None:
    by_id = {q.id: q for q in questions}
    for path in (shared_data / "qa").glob("*.jsonl"):
        for line in path.read_bytes().split(b"\n"):
            if line:
                row = json.loads(line)
                mine = by_id[f"{path.stem}/{row['id']}"]
                assert (mine.question, list(mine.golden_answers)) == (row["question"], row["golden_answers"])
                assert mine.metadata == row.get("metadata", {}) and mine.dataset == path.stem.removesuffix("_train")


def test_documented_quirks_survive(questions: list[Question]) -> None:
    by_id = {q.id: q for q in questions}
    assert by_id["nq/nq_open_dev_290"].golden_answers == ("---",)
    assert len(by_id["triviaqa/test_1053"].golden_answers) == 92
    assert by_id["bamboogle/test_27"].golden_answers == ("l",)
    texts = [q.question for q in questions]
    assert any(t != t.strip() for t in texts) and any("  " in t for t in texts)


def test_questions_round_trip(questions: list[Question], tmp_path: Path) -> None:
    assert read_questions(write_questions(tmp_path / "questions.jsonl", questions)) == questions


def test_the_whole_corpus_loads(passages: list[Passage]) -> None:
    assert len(passages) == len({p.id for p in passages}) == 20_411
    assert min(len(p.text) for p in passages) >= 1 and len({p.title for p in passages}) < 20_411


def supporting(shared_data: Path) -> dict[str, set[str]]:
    """Return the ids of the supporting passages of every question."""
    marks = (shared_data / "corpus" / "answerability.jsonl").read_text("utf-8").splitlines()
    return {f"{m['dataset']}/{m['id']}": set(m["supporting_passage_ids"]) for m in map(json.loads, marks)}


def test_bm25_finds_what_it_should(shared_data: Path, found: list[Retrieval]) -> None:
    support = supporting(shared_data)
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for retrieval in found:
        question, ids = retrieval.request.question, {p.id for p in retrieval.passages}
        if support[question.id]:
            hits[question.dataset].append(bool(ids & support[question.id]))
    rates = {name: sum(h) / len(h) for name, h in hits.items()}
    assert rates == pytest.approx(HIT_RATES, abs=0.04)


def test_plain_bm25_keeps_its_promise(shared_data: Path, passages: list[Passage], questions: list[Question]) -> None:
    support = supporting(shared_data)
    asked = [q for q in evaluation_questions(questions) if q.dataset in PROMISED and support[q.id]]
    ranked = BM25Retriever(passages, k=10, k1=0.9, b=0.4, stem=False).rank([q.question for q in asked])
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for question, best in zip(asked, ranked, strict=True):
        hits[question.dataset].append(bool({passages[i].id for i in best} & support[question.id]))
    rates = {name: sum(h) / len(h) for name, h in hits.items()}
    assert set(rates) == set(PROMISED) and all(rates[name] >= least for name, least in PROMISED.items()), rates


def test_recall_and_the_stand_in_judge_agree(
    questions: list[Question], engine: BM25Retriever, found: list[Retrieval]
) -> None:
    """A golden answer stands in the top k if and only if the judge calls one of these passages useful."""
    recall = retrieval_recall(evaluation_questions(questions), engine, depths=(1, 5, 10))
    deepest = recall[recall["k"] == 10].set_index("dataset")
    assert deepest["n"].to_dict() == SIZES
    useful: defaultdict[str, int] = defaultdict(int)
    for r in found:
        question = r.request.question
        useful[question.dataset] += "useful" in judge_passages(r.request.query, question, r.passages)
    assert {name: useful[name] / n for name, n in SIZES.items()} == pytest.approx(deepest["recall"].to_dict())
    for _, of_set in recall.groupby("dataset"):
        assert of_set.sort_values("k")["recall"].is_monotonic_increasing
    assert deepest["recall"]["hotpotqa"] > 0.6
