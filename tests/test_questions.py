"""Questions and passages from files: formats, splits, and all problems at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch.errors import BadInput, MissingInput
from zerosearch.question_sets.own import Choice, load_own, load_questions_dir
from zerosearch.questions import (
    answerable_share, draw_training_share, evaluation_questions, load_corpus, read_corpus, read_questions,
    split_counts, training_questions, write_corpus, write_questions,
)
from zerosearch.schema import Passage, Question
from zerosearch.scoring import contains_answer

TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
METADATA = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers() | TEXT, max_size=2)


def put(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(n: int, name: str = "q") -> list[dict[str, Any]]:
    return [{"id": i, "question": f"{name} number {i}?", "golden_answers": [f"answer {i}"]} for i in range(n)]


def test_a_train_file_trains_and_nothing_else_does(tmp_path: Path) -> None:
    put(tmp_path / "nq.jsonl", rows(10, "nq"))
    put(tmp_path / "musique.jsonl", rows(3, "m"))
    put(tmp_path / "musique_train.jsonl", rows(4, "mt"))
    loaded = load_questions_dir(tmp_path)
    assert split_counts(loaded) == {"musique": {"train": 4, "eval": 3}, "nq": {"train": 0, "eval": 10}}
    assert [q.id for q in training_questions(loaded)] == [f"musique_train/{i}" for i in range(4)]
    assert all(q.dataset == "musique" for q in training_questions(loaded))


def test_ids_are_unique_over_all_sets(tmp_path: Path) -> None:
    for name in ("nq", "popqa", "popqa_train"):
        put(tmp_path / f"{name}.jsonl", rows(5, name))
    ids = [q.id for q in load_questions_dir(tmp_path)]
    assert len(set(ids)) == len(ids) == 15 and "popqa/3" in ids


def test_a_share_of_two_sets_trains_without_a_train_file(tmp_path: Path) -> None:
    for name, n in (("nq", 20), ("hotpotqa", 11), ("popqa", 30)):
        put(tmp_path / f"{name}.jsonl", rows(n, name))
    loaded = load_questions_dir(tmp_path, train_fraction=0.2, seed=3)
    assert split_counts(loaded) == {
        "hotpotqa": {"train": 2, "eval": 9}, "nq": {"train": 4, "eval": 16}, "popqa": {"train": 0, "eval": 30},
    }
    assert loaded == load_questions_dir(tmp_path, 0.2, 3) != load_questions_dir(tmp_path, 0.2, 4)
    train, evaluated = training_questions(loaded), evaluation_questions(loaded)
    assert not {q.question for q in train} & {q.question for q in evaluated} and len(train) + len(evaluated) == 61


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), st.floats(0, 1), st.integers(0, 5), st.randoms()
)
@settings(max_examples=60, deadline=None)
def test_the_share_ignores_order_and_trains_on_no_evaluated_text(texts, fraction, seed, random) -> None:  # noqa: ANN001
    names = ["nq", "hotpotqa", "popqa"]
    questions = [Question(f"{names[i % 3]}/{i}", names[i % 3], t, ("x",)) for i, t in enumerate(texts)]
    chosen = {q.id for q in training_questions(draw_training_share(questions, fraction, seed))}
    shuffled = random.sample(questions, len(questions))
    after = draw_training_share(shuffled, fraction, seed)
    assert chosen == {q.id for q in training_questions(after)} and [q.id for q in after] == [q.id for q in shuffled]
    train, evaluated = ({q.question for q in questions if (q.id in chosen) is side} for side in (True, False))
    assert not train & evaluated
    for name in ("nq", "hotpotqa"):
        mine = [q for q in questions if q.dataset == name]
        assert sum(q.id in chosen for q in mine) <= round(fraction * len(mine))
    assert not any(i.startswith("popqa") for i in chosen)


def test_a_training_question_may_not_be_evaluated(tmp_path: Path) -> None:
    put(tmp_path / "nq.jsonl", rows(3))
    put(tmp_path / "triviaqa_train.jsonl", [*rows(1, "other"), {**rows(2)[1], "id": 9, "question": "Q  number 1? "}])
    with pytest.raises(BadInput, match="triviaqa_train/9 asks the same as nq/1") as caught:
        load_questions_dir(tmp_path)
    assert len(caught.value.problems) == 1


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    good = rows(1)[0]
    put(tmp_path / "a.jsonl", [good, good, {**good, "id": "2", "golden_answers": []}, {"id": "3"}, "text"])
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"id": "6", \n{"id": "7", "question": "caf\xe9?"}\n')
    put(tmp_path / "b.jsonl", [{**good, "golden_answers": "Paris"}, {**good, "id": 1, "question": " "}])
    with pytest.raises(BadInput) as caught:
        load_questions_dir(tmp_path)
    found = [problem.removeprefix(str(tmp_path) + "/") for problem in caught.value.problems]
    assert [f.split(" ")[0] for f in found] == [
        "a.jsonl:", "a.jsonl:2:", "a.jsonl:3:", "a.jsonl:4:", "a.jsonl:4:", "a.jsonl:5:", "a.jsonl:6:", "a.jsonl:7:",
        "b.jsonl:1:", "b.jsonl:2:",
    ]
    parts = ("iconv -f LATIN1", "line 1 again", "[]", "question", "golden_answers", "object", "bad JSON", "0xe9",
             '"Paris"', '" "')
    for text, part in zip(found, parts, strict=True):
        assert part in text
    assert '"golden_answers": ["..."]' in str(caught.value)


def test_folders_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="found no such folder"):
        load_questions_dir(tmp_path / "none")
    with pytest.raises(MissingInput, match="found no such file"):
        load_questions_dir(tmp_path)
    put(tmp_path / "popqa.jsonl", rows(3))
    with pytest.raises(BadInput, match="some that train, found none"):
        load_questions_dir(tmp_path)
    (tmp_path / "popqa.jsonl").rename(tmp_path / "popqa_train.jsonl")
    with pytest.raises(BadInput, match="found only training questions"):
        load_questions_dir(tmp_path)
    put(tmp_path / "nq.jsonl", rows(3, "x"))
    (tmp_path / "popqa_train.jsonl").unlink()
    with pytest.raises(BadInput, match=r"a share in \[0, 1\], found 20"):
        load_questions_dir(tmp_path, train_fraction=20)


def test_other_keys_are_passed_over_and_metadata_kept(tmp_path: Path) -> None:
    put(tmp_path / "nq_train.jsonl", [{**rows(1, "t")[0], "metadata": {"level": "hard"}, "note": 1}])
    put(tmp_path / "nq.jsonl", rows(1))
    train = training_questions(load_questions_dir(tmp_path))[0]
    assert train == Question("nq_train/0", "nq", "t number 0?", ("answer 0",), "train", {"level": "hard"})


@given(st.lists(st.tuples(TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3), METADATA, st.booleans()), max_size=5))
@settings(max_examples=60, deadline=None)
def test_questions_round_trip(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple]) -> None:
    questions = [
        Question(f"s/{i}", name, text, tuple(answers), "train" if train else "eval", metadata)
        for i, (name, text, answers, metadata, train) in enumerate(drawn)
    ]
    path = tmp_path_factory.mktemp("round") / "questions.jsonl"
    assert write_questions(path, questions) == path and read_questions(path) == questions


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), TEXT, METADATA), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_passages_round_trip(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple]) -> None:
    passages = [Passage(f"p{i}", title if title.strip() else "", *rest) for i, (title, *rest) in enumerate(drawn)]
    path = tmp_path_factory.mktemp("round") / "corpus.jsonl"
    write_corpus(path, passages)
    assert load_corpus(path) == read_corpus(path) == passages


def test_run_files_name_set_and_split(tmp_path: Path) -> None:
    path = write_questions(tmp_path / "questions.jsonl", [Question("nq/1", "nq", "q", ("a",))])
    row = json.loads(path.read_text())
    assert row == {
        "id": "nq/1", "dataset": "nq", "question": "q", "golden_answers": ["a"], "split": "eval", "metadata": {}
    }
    put(path, [row, {**row, "id": "nq/2", "split": "test"}, {k: v for k, v in row.items() if k != "dataset"}])
    with pytest.raises(BadInput) as caught:
        read_questions(path)
    assert len(caught.value.problems) == 3  # a wrong split; no set, and an id again
    assert read_questions(put(path, [row])) == [replace(Question("nq/1", "nq", "q", ("a",)), split="eval")]


def test_corpus_problems(tmp_path: Path) -> None:
    path = put(tmp_path / "c.jsonl", [{"id": "1", "text": "fine"}, {"id": "1", "text": ""}, {"title": 3, "text": "x"}])
    with pytest.raises(BadInput) as caught:
        load_corpus(path)
    places = [p.removeprefix(f"{path}:").split(":")[0] for p in caught.value.problems]
    assert places == ["2", "2", "3", "3"]
    path.write_text("\n")
    with pytest.raises(BadInput, match="at least one passage, found none"):
        load_corpus(path)
    with pytest.raises(MissingInput, match="--corpus FILE"):
        load_corpus(tmp_path / "none.jsonl")


def test_problems_of_questions_and_passages_come_together(tmp_path: Path) -> None:
    put(tmp_path / "nq.jsonl", [{"id": 1}])
    corpus = put(tmp_path / "corpus.txt", [{"id": 1}])
    with pytest.raises(BadInput) as caught:
        load_own(Choice(str(tmp_path), str(corpus)))
    assert [p.split(": ")[0] for p in caught.value.problems] == [f"{tmp_path}/nq.jsonl:1"] * 2 + [f"{corpus}:1"]


def test_limits_of_a_reader_s_own_files(tmp_path: Path) -> None:
    """At the limit a text is accepted, one character more is refused with its place and size."""
    for more, fine in ((0, True), (1, False)):
        row = {"id": "i" * (200 + more), "question": "q" * (10_000 + more), "golden_answers": ["a" * (1_000 + more)]}
        put(tmp_path / "nq_train.jsonl", [row])
        put(tmp_path / "nq.jsonl", rows(1))
        if fine:
            assert len(load_questions_dir(tmp_path)) == 2
            continue
        with pytest.raises(BadInput, match="1: question: expected at most 10,000 characters, found 10,001") as caught:
            load_questions_dir(tmp_path)
        assert len(caught.value.problems) == 3


def test_a_run_s_own_ids_may_be_longer_than_a_reader_s(tmp_path: Path) -> None:
    """They hold the name of the set too: what was accepted before the run is accepted by every stage."""
    questions = [Question("s" * 100 + "/" + "i" * 200, "s" * 100, "q", ("a",))]
    assert read_questions(write_questions(tmp_path / "questions.jsonl", questions)) == questions


def test_the_share_of_answerable_questions_by_hand() -> None:
    passages = [Passage("1", "The Grey Harp", "Ada Falk wrote it in 1935."), Passage("2", "", "New York City")]
    asked = [Question(str(i), "nq", "q", answers) for i, answers in enumerate(
        [("Ada Falk",), ("grey harp!",), ("Falk Ada",), ("35",), ("nobody", "New York"), ("---",), ("York New",),
         ("harp Ada",)]
    )]
    assert answerable_share(asked, passages) == 4 / 8  # the last runs from a title into the text: one passage, one text
    assert answerable_share([], passages) == 1.0 and answerable_share(asked[:1], []) == 0.0


def test_the_share_agrees_with_the_metric_on_real_data(shared_data: Path) -> None:
    asked = load_questions_dir(shared_data / "qa")[::40]
    passages = load_corpus(shared_data / "corpus" / "passages.jsonl")[::20]
    slow = [any(contains_answer(f"{p.title} {p.text}", q.golden_answers) for p in passages) for q in asked]
    assert 0 < sum(slow) < len(slow) and answerable_share(asked, passages) == sum(slow) / len(slow)
