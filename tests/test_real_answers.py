"""Golden answers score 1.0 on every row of the real slices and of the micro-world's families; the
documented traps score as documented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zerosearch.microworld.world import build_questions, build_world
from zerosearch.scoring import Scores, contains_answer, normalize, score

SETS = {
    "nq": 200, "triviaqa": 200, "popqa": 200, "hotpotqa": 200, "2wikimultihopqa": 200, "musique": 200,
    "bamboogle": 75, "musique_train": 100,
}
PERFECT, ZERO = Scores(1.0, 1.0, 1.0), Scores(0.0, 0.0, 0.0)
WITHOUT_WORDS = {"nq_open_dev_290": "---", "nq_open_dev_363": ")"}


def rows_of(shared_data: Path, name: str) -> list[dict]:
    lines = (shared_data / "qa" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def row_of(shared_data: Path, name: str, identifier: str) -> dict:
    return next(row for row in rows_of(shared_data, name) if row["id"] == identifier)


@pytest.mark.parametrize("name", SETS)
def test_golden_answers_score_one(shared_data: Path, name: str) -> None:
    rows = rows_of(shared_data, name)
    assert len(rows) == SETS[name]
    wrong = [
        (row["id"], answer)
        for row in rows
        for answer in row["golden_answers"]
        if score(answer, row["golden_answers"]) != PERFECT and row["id"] not in WITHOUT_WORDS
    ]
    assert wrong == []


@pytest.mark.parametrize("seed", [0, 7])
def test_golden_answers_of_every_micro_family_score_one(seed: int) -> None:
    questions = build_questions(build_world(seed), 20, 20)
    assert {q.dataset for q in questions} == set(SETS) - {"musique_train"}
    assert [q.id for q in questions for a in q.golden_answers if score(a, q.golden_answers) != PERFECT] == []


def test_every_set_is_covered(shared_data: Path) -> None:
    assert {path.stem for path in (shared_data / "qa").glob("*.jsonl")} == set(SETS)


@pytest.mark.parametrize(("identifier", "answer"), WITHOUT_WORDS.items())
def test_answers_that_normalise_to_nothing(shared_data: Path, identifier: str, answer: str) -> None:
    row = row_of(shared_data, "nq", identifier)
    assert row["golden_answers"] == [answer] and normalize(answer) == ""
    for prediction in (answer, "", None, "The", "any other words"):
        assert score(prediction, row["golden_answers"]) == ZERO


def test_they_are_the_only_ones(shared_data: Path) -> None:
    found = {
        row["id"]
        for name in SETS
        for row in rows_of(shared_data, name)
        if any(not normalize(answer) for answer in row["golden_answers"])
    }
    assert found == set(WITHOUT_WORDS)


@pytest.mark.parametrize(
    ("name", "identifier"), [("popqa", "test_3445"), ("2wikimultihopqa", "dev_41"), ("triviaqa", "test_1110")]
)
def test_signs_beyond_ascii_survive(shared_data: Path, name: str, identifier: str) -> None:
    golden = row_of(shared_data, name, identifier)["golden_answers"]
    signs = [answer for answer in golden if not answer.isascii()]
    assert signs
    for sign in signs:
        assert score(sign, golden) == PERFECT
        assert score(sign, ["another answer"]) == ZERO


def test_non_breaking_spaces_are_blanks(shared_data: Path) -> None:
    golden = row_of(shared_data, "nq", "nq_open_dev_1449")["golden_answers"]
    assert "420\u00a0mg" in golden
    assert score("420 mg", golden) == PERFECT


def test_a_one_letter_answer_is_a_word_not_a_letter(shared_data: Path) -> None:
    golden = row_of(shared_data, "bamboogle", "test_27")["golden_answers"]
    assert golden == ["l"]
    assert score("L", golden) == PERFECT
    assert score("helium", golden) == ZERO


def test_every_alias_of_a_long_list_counts(shared_data: Path) -> None:
    golden = row_of(shared_data, "triviaqa", "test_1053")["golden_answers"]
    assert len(golden) == 92
    assert all(score(f"It was {answer}", golden).cover_em == 1.0 for answer in golden)


def test_title_case_of_2wiki_does_not_matter(shared_data: Path) -> None:
    rows = rows_of(shared_data, "2wikimultihopqa")
    assert all(score(a.lower(), r["golden_answers"]) == PERFECT for r in rows for a in r["golden_answers"])


def test_recorded_runs_gold_answers_are_found_in_supporting_passages(shared_data: Path) -> None:
    """Where a passage is marked as holding the answer string, ``contains_answer`` finds it in most."""
    passages = {}
    with open(shared_data / "corpus" / "passages.jsonl", encoding="utf-8") as lines:
        for line in lines:
            passage = json.loads(line)
            passages[passage["id"]] = f"{passage['title']} {passage['text']}"
    golden = {row["id"]: row["golden_answers"] for row in rows_of(shared_data, "nq")}
    lines = (shared_data / "corpus" / "answerability.jsonl").read_text(encoding="utf-8").splitlines()
    marks = [json.loads(line) for line in lines]
    supported = [m for m in marks if m["dataset"] == "nq" and m["supporting_passage_ids"]]
    found = [
        any(contains_answer(passages[p], golden[m["id"]]) for p in m["supporting_passage_ids"])
        for m in supported
    ]
    assert len(found) == 130
    assert sum(found) / len(found) > 0.9
