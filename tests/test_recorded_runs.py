"""Recorded runs of others: parsed whole, scored by us, and every difference to their scores has a reason."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from zerosearch.errors import BadInput, MissingInput
from zerosearch.evaluation.recorded_runs import (
    DIFFERENCE_COLUMNS, REASONS, UNKNOWN, difference_counts, explain_differences, parse_documents, parse_response,
    read_recorded_runs,
)
from zerosearch.prompts import parse_action
from zerosearch.schema import Question

PROMPT = "Answer the question. For example, <answer> Beijing </answer>. Question: who?"
QUESTION = Question("nq/1", "nq", "who?", ("Paris",))


def row(response: str, pred: str | None, golden: list[str], em: float, acc: float, f1: float) -> dict:
    output = {
        "query": PROMPT, "final_response": response, "pred": pred, "metric_score": {"em": em, "acc": acc, "f1": f1}
    }
    return {"id": "1", "question": "who?", "golden_answers": golden, "output": output}


def saved(folder: Path, *rows: dict) -> Path:
    path = folder / "nq.sample.json"
    path.write_text(json.dumps(list(rows)), encoding="utf-8")
    return path


# -- parsing --------------------------------------------------------------------------------------


def test_policy_and_retrieved_text_are_told_apart() -> None:
    response = (
        '<think>hm</think><search> capital  of France</search>\n<information>'
        'Doc 1(Title: "Paris") <answer>Rome</answer>'
        "\nDoc 2(Title: Lyon (city)) big</information>\n\n<answer> Paris </answer> and <answer>Lyon</answer>"
    )
    turns, answer = parse_response(response, QUESTION)
    assert [(t.action, t.content) for t in turns] == [("search", "capital of France"), ("answer", "Paris")]
    assert answer == "Paris"
    retrieval = turns[0].retrieval
    assert retrieval is not None and retrieval.request.query == "capital of France"
    passages = [(p.title, p.text) for p in retrieval.passages]
    assert passages == [("Paris", "<answer>Rome</answer>"), ("Lyon (city)", "big")]
    assert turns[1].retrieval is None


@pytest.mark.parametrize(
    "response", ["", "I do not know", "<information><answer>Rome</answer></information>", "<answer>x"]
)
def test_without_an_answer_of_the_policy_there_is_none(response: str) -> None:
    assert parse_response(response, QUESTION)[1] is None


def test_documents_are_split_at_their_own_numbers() -> None:
    block = 'Doc 1(Title: "A "b" c") one\nDoc 7(Title: x) is quoted here\nDoc 2(Title: "D (film)") two\nDoc 3(Title: ) '
    assert [(p.title, p.text) for p in parse_documents(block)] == [
        ('A "b" c', "one\nDoc 7(Title: x) is quoted here"), ("D (film)", "two"), ("", ""),
    ]
    assert parse_documents("no documents") == ()


# -- reasons by hand ------------------------------------------------------------------------------

BLOCK = '<search>q</search><information>Doc 1(Title: "x") <answer>Rome</answer></information>'
CASES = [
    (row("<answer>Paris</answer>", "Paris", ["paris"], 1, 1, 1), {}),
    (row("I stop.", "Beijing", ["Beijing"], 1, 1, 1), dict.fromkeys(("em", "cover_em", "f1"), "answer of the prompt")),
    (row(f"{BLOCK}so", "Rome", ["Rome"], 1, 1, 1), dict.fromkeys(("em", "cover_em", "f1"), "answer in retrieved text")),
    (row("<answer>Rome</answer><answer>Paris</answer>", "Paris", ["Paris"], 1, 1, 1),
     dict.fromkeys(("em", "cover_em", "f1"), "another answer tag")),
    (row("It is Paris.", "It is Paris.", ["Paris"], 0, 1, 0.5),
     dict.fromkeys(("cover_em", "f1"), "text without a tag")),
    (row("<answer>---</answer>", "---", ["---"], 1, 1, 0),
     dict.fromkeys(("em", "cover_em"), "nothing after normalisation")),
    (row("<answer>1935</answer>", "1935", ["35"], 0, 1, 0), {"cover_em": "letters, not words"}),
    (row("<answer>yes sir</answer>", "yes sir", ["yes"], 0, 1, 0), {"f1": "yes and no apart"}),
    (row("<answer>Lyon</answer>", "Lyon", ["Paris", "Lyon"], 0, 0, 0),
     dict.fromkeys(("em", "cover_em", "f1"), "first golden answer only")),
    (row("<answer>The Paris</answer>", "The Paris", ["paris"], 0, 0, 1),
     dict.fromkeys(("em", "cover_em"), "no normalisation")),
    (row("<answer>Paris</answer>", "London", ["Paris"], 0, 0, 0), dict.fromkeys(("em", "cover_em", "f1"), UNKNOWN)),
    (row("<answer>Paris</answer>", "Paris", ["Paris"], 1, 1, 0.25), {"f1": UNKNOWN}),
]


@pytest.mark.parametrize(("recorded", "reasons"), CASES)
def test_reasons_by_hand(tmp_path: Path, recorded: dict, reasons: dict[str, str]) -> None:
    table = explain_differences(read_recorded_runs(saved(tmp_path, recorded)))
    assert list(table.columns) == DIFFERENCE_COLUMNS and list(table["metric"]) == ["em", "cover_em", "f1"]
    found = table[table["differs"]]
    assert dict(zip(found["metric"], found["reason"], strict=True)) == reasons
    assert (table["reason"] != "").equals(table["differs"])


def test_every_reason_has_a_case() -> None:
    assert {reason for _, reasons in CASES for reason in reasons.values()} == set(REASONS)


def test_counts_list_every_reason(tmp_path: Path) -> None:
    counts = difference_counts(explain_differences(read_recorded_runs(saved(tmp_path, *(r for r, _ in CASES)))))
    assert list(counts["reason"]) == list(REASONS)
    expected = Counter((reason, metric) for _, reasons in CASES for metric, reason in reasons.items())
    for line in counts.itertuples(index=False):
        assert (line.em, line.cover_em, line.f1) == tuple(expected[line.reason, m] for m in ("em", "cover_em", "f1"))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="expected a JSON file"):
        read_recorded_runs(tmp_path / "none.json")
    with pytest.raises(MissingInput, match="found none"):
        read_recorded_runs(tmp_path)
    good = CASES[0][0]
    with pytest.raises(BadInput) as bad:
        read_recorded_runs(saved(tmp_path, good, {"id": "2"}, {**good, "golden_answers": []}, {**good, "output": []}))
    assert len(bad.value.problems) == 3 and "row 1: KeyError" in bad.value.problems[0]
    for text, found in (("{", "bad JSON"), ("{}", "found dict")):
        (tmp_path / "nq.sample.json").write_text(text)
        with pytest.raises(BadInput, match=found):
            read_recorded_runs(tmp_path)


# -- the real ones --------------------------------------------------------------------------------


def test_every_recorded_run_is_read_whole(shared_data: Path) -> None:
    """50 runs of two sets: an answer each, as recorded; three passages with a title for every search."""
    runs = read_recorded_runs(shared_data / "raw" / "search_r1_runs")
    assert Counter(run.question.dataset for run in runs) == {"nq": 25, "bamboogle": 25}
    assert [run.answer for run in runs] == [run.recorded_answer for run in runs]
    retrievals = [turn.retrieval for run in runs for turn in run.turns if turn.retrieval]
    assert len(retrievals) == sum(run.response.count("<information>") for run in runs) == 75
    assert all(r.request.query for r in retrievals)
    assert {len(r.passages) for r in retrievals} == {3}
    assert all(p.title and p.text and "Doc " not in p.text[:4] for r in retrievals for p in r.passages)
    assert all([t.action for t in run.turns] == ["search"] * (len(run.turns) - 1) + ["answer"] for run in runs)


def test_recorded_scores_are_ours_on_every_row(shared_data: Path) -> None:
    """150 scores, none of which differs: each run ends in one answer tag of its own, and no golden answer is odd."""
    table = explain_differences(read_recorded_runs(shared_data / "raw" / "search_r1_runs"))
    assert len(table) == 150
    counts = difference_counts(table).set_index("reason")
    assert counts.sum(axis=1).to_dict() == dict.fromkeys(REASONS, 0)
    means = table.groupby("metric")["recorded"].sum()
    assert means[["em", "cover_em"]].tolist() == [23.0, 25.0]


def test_a_search_for_tags_would_find_those_of_their_prompt(shared_data: Path) -> None:
    """Why only the policy's text is parsed: all 50 prompts hold a complete search and two complete answers."""
    runs = read_recorded_runs(shared_data / "raw" / "search_r1_runs")
    assert {parse_action(run.prompt) for run in runs} == {("search", "query")}
    found = {tuple(text.strip() for text in re.findall("<answer>(.*?)</answer>", run.prompt)) for run in runs}
    assert found == {("and", "Beijing")}
