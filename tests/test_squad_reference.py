"""Our normalisation, EM and F1 against SQuAD's, written down here from its definition, on every real row.

The one wanted difference: a text that normalises to nothing matches nothing with us, where SQuAD calls
two empty strings equal.  Then the traps of the real slices that bear on scoring, one by one.
"""

from __future__ import annotations

import csv
import json
import re
import string
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any, Iterator

import pandas as pd
import pytest
from test_real_answers import SETS, WITHOUT_WORDS, row_of, rows_of

from zerosearch.question_sets.own import load_questions_dir
from zerosearch.questions import read_questions, write_questions
from zerosearch.scoring import Scores, contains_answer, em, f1, normalize, score

PERFECT = Scores(1.0, 1.0, 1.0)


def squad_normalize(text: str) -> str:
    """SQuAD v1.1: lower case, then punctuation out, then articles out, then white space mended."""
    without_punctuation = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split())


def squad_em(prediction: str, golden: list[str]) -> float:
    return max(float(squad_normalize(prediction) == squad_normalize(answer)) for answer in golden)


def squad_f1(prediction: str, golden: list[str]) -> float:
    return max(_f1(squad_normalize(prediction).split(), squad_normalize(answer).split()) for answer in golden)


def _f1(words: list[str], golden: list[str]) -> float:
    same = sum((Counter(words) & Counter(golden)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(words), same / len(golden)
    return 2 * precision * recall / (precision + recall)


def texts_of(value: Any) -> Iterator[str]:
    """Yield every string inside a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts_of(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from texts_of(part)


def raw_values(file: Path) -> list[Any]:
    """Return the rows of a file of ``raw/`` in whatever format it is."""
    if file.suffix == ".parquet":
        return json.loads(pd.read_parquet(file).to_json(orient="records"))
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines(), delimiter="\t")) if file.suffix == ".tsv" else json.loads(text)


def test_normalisation_is_squads_on_every_question_and_answer(shared_data: Path) -> None:
    texts = {text for name in SETS for row in rows_of(shared_data, name) for text in texts_of(row)}
    assert len(texts) > 4_000
    assert [text for text in texts if normalize(text) != squad_normalize(text)] == []


def test_normalisation_is_squads_on_every_raw_text(shared_data: Path) -> None:
    """Passages, recorded runs and all: every string of every file in every upstream format."""
    files = [file for file in sorted((shared_data / "raw").rglob("*")) if file.is_file()]
    texts = {file.name + str(file.parent): set(texts_of(raw_values(file))) for file in files}
    assert len(files) == 29 and min(map(len, texts.values())) >= 20
    every = set().union(*texts.values())
    assert len(every) > 5_000
    assert [text for text in every if normalize(text) != squad_normalize(text)] == []


@pytest.mark.parametrize("name", SETS)
def test_em_and_f1_are_squads_but_for_texts_without_words(shared_data: Path, name: str) -> None:
    """Each row's answers, the next row's first answer, and wrapped answers as predictions."""
    rows = rows_of(shared_data, name)
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        golden = row["golden_answers"]
        for prediction in {golden[0], golden[-1], other["golden_answers"][0], f"It is the {golden[0]}, I think", ""}:
            if row["id"] in WITHOUT_WORDS and not normalize(prediction):
                assert (em(prediction, golden), squad_em(prediction, golden)) == (0.0, 1.0)
                continue
            assert em(prediction, golden) == squad_em(prediction, golden)
            assert f1(prediction, golden) == pytest.approx(squad_f1(prediction, golden), abs=1e-12)


# -- the traps of the slices ----------------------------------------------------------------------


def test_aliases_that_are_equal_after_normalisation_change_nothing(shared_data: Path) -> None:
    """119 triviaqa rows repeat an answer but for case and punctuation: the score is that of one of each."""
    rows = rows_of(shared_data, "triviaqa")
    repeating = [row for row in rows if len({*map(words_of, row["golden_answers"])}) < len(row["golden_answers"])]
    assert len(repeating) == 119
    for row in repeating:
        once = list({normalize(a): a for a in row["golden_answers"]}.values())
        for prediction in (row["golden_answers"][0], f"maybe {row['golden_answers'][-1]}", "nothing like it"):
            assert score(prediction, once) == score(prediction, row["golden_answers"])


def words_of(text: str) -> str:
    """Return lower-cased words, punctuation being a blank: the way in which the slices' notes count."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def test_a_hyphen_is_no_blank(shared_data: Path) -> None:
    """SQuAD removes punctuation and puts no blank in its place: some aliases differ in just that, and both count."""
    pairs = [
        (row["golden_answers"], one, other)
        for row in rows_of(shared_data, "triviaqa") for one, other in combinations(row["golden_answers"], 2)
        if words_of(one) == words_of(other) and normalize(one) != normalize(other)
    ]
    assert pairs
    for golden, one, other in pairs:
        assert em(one, [other]) == 0.0 and em(one, golden) == em(other, golden) == 1.0


@pytest.mark.parametrize(("name", "n"), [("hotpotqa", 11), ("2wikimultihopqa", 15)])
def test_yes_and_no_are_words_like_others(shared_data: Path, name: str, n: int) -> None:
    rows = [r for r in rows_of(shared_data, name) if normalize(r["golden_answers"][0]) in ("yes", "no")]
    assert len(rows) == n
    for row in rows:
        golden = row["golden_answers"]
        other = "no" if normalize(golden[0]) == "yes" else "yes"
        assert score(golden[0].upper() + ".", golden) == PERFECT and score(other, golden).f1 == 0.0
        assert score(f"{golden[0]}, they are", golden).f1 == pytest.approx(0.5)  # SQuAD: no rule of its own for yes


@pytest.mark.parametrize(("name", "n"), [("nq", 25), ("musique", 25), ("hotpotqa", 12), ("bamboogle", 9)])
def test_numbers_match_as_whole_words_only(shared_data: Path, name: str, n: int) -> None:
    numeric = [r for r in rows_of(shared_data, name) if re.fullmatch(r"[\d.,\s]+", r["golden_answers"][0])]
    assert len(numeric) == n
    for row in numeric:
        for answer in (a for a in row["golden_answers"] if a.isdigit()):
            assert score(f"in {answer}", [answer]).cover_em == 1.0
            assert score(f"1{answer}", [answer]) == Scores(0.0, 0.0, 0.0)


def test_commas_inside_answers_split_nothing(shared_data: Path) -> None:
    """A part of ``March 4, 1797`` is not the answer, and a list in one string is one answer."""
    answers = [a for r in rows_of(shared_data, "nq") for a in r["golden_answers"] if ", " in a]
    assert len(answers) == 25
    for answer in answers:
        head = answer.split(", ")[0]
        assert score(answer, [answer]) == PERFECT
        assert em(head, [answer]) == 0.0 or normalize(head) == normalize(answer)
    joined = next(
        r for r in raw_values(shared_data / "raw" / "nq" / "verl_test.sample.jsonl")
        if len(r["extra_info"]["answer"]) > 1
    )
    assert em(joined["extra_info"]["answer"][0], [joined["reward_model"]["ground_truth"]]) == 0.0
    assert em(joined["extra_info"]["answer"][0], joined["extra_info"]["answer"]) == 1.0


def test_answers_that_are_sometimes_a_string_are_never_taken_letter_by_letter(shared_data: Path) -> None:
    rows = raw_values(shared_data / "raw" / "2wikimultihopqa" / "dev_with_aliases.sample.json")
    strings = [row["answer"] for row in rows if isinstance(row["answer"], str)]
    assert strings and any(isinstance(row["answer"], list) for row in rows)
    for answer in strings:
        with pytest.raises(TypeError, match="list of strings"):
            em(answer, answer)


def test_accents_count(shared_data: Path) -> None:
    rows = rows_of(shared_data, "2wikimultihopqa")
    accented = [a for row in rows for a in row["golden_answers"] if re.search("[à-ÿ]", a.lower())]
    assert accented
    for answer in accented:
        plain = re.sub("[à-ÿ]", "?", answer.lower())
        assert em(answer.upper(), [answer]) == 1.0 and em(plain, [answer]) == 0.0


def test_odd_questions_arrive_as_they_are(shared_data: Path, tmp_path: Path) -> None:
    """Blanks at both ends and doubled, CSV quoting left in, title case, no question mark: read, written, read."""
    names = ("nq", "hotpotqa", "2wikimultihopqa", "triviaqa")
    texts = {f"{n}/{r['id']}": r["question"] for n in names for r in rows_of(shared_data, n)}
    questions = load_questions_dir(shared_data / "qa")
    found = {q.id: q.question for q in questions}
    assert all(found[key] == text for key, text in texts.items())
    odd = [
        texts["hotpotqa/5a760faa5542994ccc9186a8"], texts["2wikimultihopqa/dev_11777"], texts["triviaqa/test_2551"],
        texts["triviaqa/test_2633"],
    ]
    assert all("  " in text or text != text.strip() for text in odd[:2]) and all('""' in text for text in odd[2:])
    assert not any("?" in text for key, text in texts.items() if key.startswith("nq/"))
    write_questions(tmp_path / "questions.jsonl", questions)
    assert {q.id: q.question for q in read_questions(tmp_path / "questions.jsonl")} == found


def test_lists_inside_cells_are_no_answers(shared_data: Path) -> None:
    """PopQA keeps its answers as JSON inside a TSV cell: the cell is one odd answer, the list in it is right."""
    row = raw_values(shared_data / "raw" / "popqa" / "popQA.sample.tsv")[0]
    answers = json.loads(row["possible_answers"])
    assert score(answers[0], answers) == PERFECT
    assert em(answers[0], [row["possible_answers"]]) == float(len(answers) == 1)


def test_passages_cut_inside_a_word_hold_only_what_they_hold() -> None:
    """Pieces of 100 words end where they end: an answer that is cut off there is not found."""
    golden = ["Port Amber"]
    assert contains_answer("( born 1950) in Port Amber", golden) and not contains_answer("born in Port Amb", golden)


def test_one_letter_of_bamboogle(shared_data: Path) -> None:
    golden = row_of(shared_data, "bamboogle", "test_27")["golden_answers"]
    assert (em("l", golden), em("i", golden), em("1", golden)) == (1.0, 0.0, 0.0)
