"""Training questions that come back: planted ones are found, real ones are what they were when looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zerosearch.evaluation.overlap import OVERLAP_COLUMNS, overlap_counts, overlap_table
from zerosearch.schema import Question


def question(identifier: str, text: str, dataset: str = "nq") -> Question:
    return Question(identifier, dataset, text, ("x",))


def slices(folder: Path, *names: str) -> list[Question]:
    return [
        Question(f"{name}/{row['id']}", name, row["question"], tuple(row["golden_answers"]))
        for name in names
        for row in map(json.loads, (folder / "qa" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    ]


def test_each_kind_by_hand() -> None:
    train = [question("t0", "Who wrote Silver Harbor?"), question("t1", "where was Ada Lund born")]
    asked = [
        question("e0", "Who wrote Silver Harbor?"), question("e1", "who  wrote the silver harbor"),
        question("e2", "who was it that wrote Silver Harbor in the end"), question("e3", "how tall is the tower of Pisa"),
    ]
    table = overlap_table(train, asked)
    assert list(table.columns) == OVERLAP_COLUMNS
    found = list(zip(table["train_id"], table["eval_id"], table["kind"], table["similarity"], strict=True))
    assert found == [("t0", "e0", "exact", 100), ("t0", "e1", "normalised", 100), ("t0", "e2", "near", 100)]


def test_the_threshold_decides() -> None:
    """The shared words, 14 letters and blanks, against all 19 of one text: 2 * 14 / (14 + 19) in 100."""
    train, asked = [question("t", "red green blue gold")], [question("e", "red green blue pink")]
    table = overlap_table(train, asked, threshold=84.8)
    assert table["similarity"].tolist() == pytest.approx([100 * 28 / 33])
    assert overlap_table(train, asked, threshold=84.9).empty


def test_nothing_in_common_gives_an_empty_table_with_its_columns() -> None:
    table = overlap_table([question("t", "red")], [question("e", "blue")])
    assert table.empty and list(table.columns) == OVERLAP_COLUMNS
    assert overlap_counts(table, [question("e", "blue")]).to_dict("records") == [
        {"dataset": "nq", "n": 1, "exact": 0, "normalised": 0, "near": 0}
    ]


@pytest.mark.parametrize("text", ["", "???", "The"])
def test_a_question_without_words_is_near_to_none(text: str) -> None:
    assert overlap_table([question("t", text)], [question("e", "a the")]).empty


def test_chunks_do_not_matter() -> None:
    train = [question(f"t{i}", f"which number follows {i} in the list") for i in range(1_100)]
    table = overlap_table(train, [question("e", "Which number follows 1099 in the list?")], threshold=100)
    assert list(table["train_id"]) == ["t1099"] and list(table["kind"]) == ["normalised"]


def test_an_evaluation_question_counts_once_with_its_strongest_kind() -> None:
    train = [question("t0", "who wrote silver harbor?"), question("t1", "who wrote silver harbor")]
    asked = [question("e0", "who wrote silver harbor", "popqa"), question("e1", "who wrote gold", "nq")]
    counts = overlap_counts(overlap_table(train, asked, 99), asked)
    assert counts.to_dict("records") == [
        {"dataset": "popqa", "n": 1, "exact": 1, "normalised": 0, "near": 0},
        {"dataset": "nq", "n": 1, "exact": 0, "normalised": 0, "near": 0},
    ]


def test_planted_questions_are_found_among_real_ones(shared_data: Path) -> None:
    asked = slices(shared_data, "nq", "hotpotqa", "musique")
    planted = [
        question("copy", asked[3].question), question("shout", f"  {asked[250].question.upper()} !!"),
        question("longer", f"please say {asked[500].question}"),
    ]
    table = overlap_table(planted, asked)
    best = table.drop_duplicates("train_id").set_index("train_id")
    assert best["eval_id"].to_dict() == {"copy": asked[3].id, "shout": asked[250].id, "longer": asked[500].id}
    assert best["kind"].to_dict() == {"copy": "exact", "shout": "normalised", "longer": "near"}


def test_real_training_questions_against_all_seven_sets(shared_data: Path) -> None:
    """MuSiQue's training slice shares no question; three short PopQA ones are near to a long one, by its words."""
    names = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
    asked = slices(shared_data, *names)
    table = overlap_table(slices(shared_data, "musique_train"), asked)
    counts = overlap_counts(table, asked).set_index("dataset")
    assert list(counts.index) == list(names) and counts["n"].sum() == len(asked) == 1275
    assert counts[["exact", "normalised"]].to_numpy().sum() == 0
    assert counts["near"].to_dict() == {name: 3 * (name == "popqa") for name in names}
    assert table["train_question"].unique().tolist() == [
        "Who was in charge of the country where the composer of Aschenbrodel was a citizen?"
    ]
