"""The traps of the published question files, each on the real rows, and one question through every file it stands in.

The traps are listed in the notes of the shared data; one that no stored row shows is tested on a row written by hand in
``test_question_sets.py``.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from zerosearch.question_sets import names
from zerosearch.question_sets.own import Choice, load_own
from zerosearch.question_sets.reading import ReadFile, read_rows
from zerosearch.questions import draw_training_share, same_text
from zerosearch.row_files import open_rows
from zerosearch.schema import Question
from zerosearch.scoring import normalize, score

# Raw file: format, rows, rows whose question stands in qa/ as well, of these rows with other golden answers there.
FILES: dict[str, tuple[str, int, int, int]] = {
    "2wikimultihopqa/dev_with_aliases.sample.json": ("answer", 50, 50, 9),
    "2wikimultihopqa/questions_and_answers.sample.json": ("answer", 50, 50, 30),
    "2wikimultihopqa/simpledeepsearcher.sample.json": ("simpledeepsearcher", 30, 0, 0),
    "bamboogle/flashrag_test.sample.jsonl": ("plain", 40, 40, 0),
    "bamboogle/simpledeepsearcher.sample.json": ("simpledeepsearcher", 30, 29, 0),
    "bamboogle/verl_test.sample.jsonl": ("verl", 30, 29, 0),
    "hotpotqa/hf_distractor_validation.sample.jsonl": ("hotpotqa_hub", 20, 20, 0),
    "hotpotqa/hotpot_dev_distractor_v1.sample.json": ("hotpotqa", 30, 0, 0),
    "hotpotqa/hotpot_dev_v1_simplified.sample.json": ("answer", 50, 2, 0),
    "hotpotqa/hotpot_train_v1.1.sample.json": ("hotpotqa", 20, 0, 0),
    "hotpotqa/verl_test.sample.jsonl": ("verl", 30, 1, 0),
    "hotpotqa/verl_test.sample.parquet": ("verl", 30, 1, 0),
    "musique/musique_ans_v1.0_train.sample.jsonl": ("musique", 40, 40, 0),
    "musique/questions_and_answers.sample.json": ("answer", 50, 50, 0),
    "musique/simpledeepsearcher.sample.json": ("simpledeepsearcher", 30, 4, 0),
    "musique/verl_test.sample.jsonl": ("verl", 30, 5, 0),
    "nq/NQ-open.dev.sample.jsonl": ("answer", 50, 50, 0),
    "nq/NQ-open.efficientqa.test.1.1.sample.jsonl": ("efficientqa", 20, 0, 0),
    "nq/flashrag_test.sample.jsonl": ("plain", 40, 40, 0),
    "nq/verl_test.sample.jsonl": ("verl", 30, 2, 0),
    "nq/verl_test.sample.parquet": ("verl", 30, 2, 0),
    "popqa/flashrag_test.sample.jsonl": ("plain", 40, 40, 0),
    "popqa/popQA.sample.tsv": ("popqa", 40, 1, 0),
    "popqa/popqa_with_paragraphs.sample.json": ("popqa", 20, 0, 0),
    "triviaqa/flashrag_test.sample.jsonl": ("plain", 40, 40, 0),
}


@lru_cache(maxsize=None)
def load(path: Path) -> ReadFile:
    """Read a file as a folder with its name would be read."""
    folder = path.parent.name if path.parent.name in names.SETS else ""
    stem = path.name.partition(".sample")[0].removesuffix(".jsonl")
    return read_rows(open_rows(path, "questions"), names.of_file(stem, folder))


def raw(shared_data: Path, name: str) -> list[Question]:
    made = load(shared_data / "raw" / name)
    assert made.problems == []
    return made.questions


def qa(shared_data: Path, name: str) -> list[Question]:
    made = load(shared_data / "qa" / f"{name}.jsonl")
    assert made.problems == []
    return made.questions


def by_id(questions: list[Question]) -> dict[str, Question]:
    return {q.id: q for q in questions}


def upstream(shared_data: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a raw JSON file by plain ``json``."""
    text = (shared_data / "raw" / name).read_text("utf-8")
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.split("\n") if line]


@lru_cache(maxsize=1)
def everything(shared_data: Path) -> dict[tuple[str, str], list[Question]]:
    """Return the questions of qa/ by set and text."""
    found: defaultdict[tuple[str, str], list[Question]] = defaultdict(list)
    for path in sorted((shared_data / "qa").glob("*.jsonl")):
        for q in load(path).questions:
            found[q.dataset, same_text(q.question)].append(q)
    return found


# -- every file -----------------------------------------------------------------------------------


def test_every_raw_file_is_tried(shared_data: Path) -> None:
    folders = [p for p in (shared_data / "raw").iterdir() if p.name not in ("corpus_formats", "search_r1_runs")]
    assert {f"{p.parent.name}/{p.name}" for folder in folders for p in folder.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_question_has_the_same_answers_in_every_file(shared_data: Path, name: str) -> None:
    """Exceptions are 2WikiMultiHopQA's alone: one file has no aliases, the other not always the canonical answer."""
    format, n_rows, n_shared, n_other = FILES[name]
    made = load(shared_data / "raw" / name)
    assert (made.format, len(made.questions), made.problems) == (format, n_rows, [])
    assert {q.dataset for q in made.questions} == {name.partition("/")[0]}
    shared = [(q, everything(shared_data).get((q.dataset, same_text(q.question)), [])) for q in made.questions]
    assert sum(bool(same) for _, same in shared) == n_shared
    other = [q for q, same in shared if same and set(q.golden_answers) not in [set(s.golden_answers) for s in same]]
    assert len(other) == n_other
    if not name.startswith("2wiki"):
        assert all(q.golden_answers == s.golden_answers for q, same in shared for s in same)  # and the same first one


def test_the_two_files_of_2wiki_together_give_all_answers(shared_data: Path) -> None:
    canonical = raw(shared_data, "2wikimultihopqa/questions_and_answers.sample.json")
    aliases = {q.question: q for q in raw(shared_data, "2wikimultihopqa/dev_with_aliases.sample.json")}
    both = [q for q in canonical if q.question in aliases]
    assert len(both) == 47
    for q in both:
        (whole,) = everything(shared_data)[q.dataset, same_text(q.question)]
        assert whole.golden_answers[0] == q.golden_answers[0] and len(q.golden_answers) == 1
        assert set(whole.golden_answers) == {*q.golden_answers, *aliases[q.question].golden_answers}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_trimmed_or_added(shared_data: Path, name: str) -> None:
    """Questions and answers are texts of the file, letter by letter; read here without the library."""
    if name.endswith((".parquet", ".tsv")):
        twin = name.replace(".parquet", ".jsonl").replace("popQA.sample.tsv", "popqa_with_paragraphs.sample.json")
        twins = {q.question: q.golden_answers for q in raw(shared_data, twin)}
        assert sum(twins.get(q.question) == q.golden_answers for q in raw(shared_data, name)) == len(twins)
        return
    for q, row in zip(raw(shared_data, name), upstream(shared_data, name), strict=True):
        extra = row.get("extra_info", {})
        asked = row.get("question", row.get("Question", extra.get("question")))
        value = row.get("golden_answers", row.get("answer", extra.get("answer", row.get("possible_answers"))))
        if name.startswith("popqa/popqa"):
            value = json.loads(value)
        listed = [value] if isinstance(value, str) else value
        more = row.get("answer_aliases", []) + row.get("answer_and_def_correct_predictions", [])
        assert (q.question, list(q.golden_answers)) == (asked, list(dict.fromkeys(listed + more)))


# -- answers --------------------------------------------------------------------------------------


def test_answers_that_normalise_to_nothing_are_kept_and_never_match_an_empty_prediction(shared_data: Path) -> None:
    found = by_id(qa(shared_data, "nq"))
    for key, answer in (("nq/nq_open_dev_290", "---"), ("nq/nq_open_dev_363", ")")):
        assert found[key].golden_answers == (answer,) and normalize(answer) == ""
        assert score("", found[key].golden_answers).em == score(None, found[key].golden_answers).em == 0.0


def test_signs_that_are_no_ascii_punctuation_survive(shared_data: Path) -> None:
    for name, key, sign in (
        ("popqa", "popqa/test_3445", None), ("2wikimultihopqa", "2wikimultihopqa/dev_41", None),
        ("triviaqa", "triviaqa/test_1110", "🄺"),
    ):
        answers = by_id(qa(shared_data, name))[key].golden_answers
        signs = [a for a in answers if a == sign or (sign is None and any(ord(c) > 0x1F000 for c in a))]
        assert signs and all(normalize(a) for a in signs)
    wiki = raw(shared_data, "2wikimultihopqa/dev_with_aliases.sample.json")
    german = next(q for q in wiki if "🇩🇪" in q.golden_answers)
    assert score("🇩🇪", german.golden_answers).em == 1.0


def test_many_answers_are_all_kept(shared_data: Path) -> None:
    wanted = {"triviaqa": 92, "popqa": 46, "2wikimultihopqa": 13, "nq": 10}
    assert {name: max(len(q.golden_answers) for q in qa(shared_data, name)) for name in wanted} == wanted
    trivia = [q.golden_answers for q in qa(shared_data, "triviaqa")]
    alike = [answers for answers in trivia if len(set(map(normalize, answers))) < len(answers)]
    assert len(alike) >= 119  # spellings that differ in case and punctuation alone
    assert max(len(q.golden_answers) for q in raw(shared_data, "triviaqa/flashrag_test.sample.jsonl")) > 15


def test_numbers_letters_and_yes_are_texts(shared_data: Path) -> None:
    numeric = {
        name: sum(re.fullmatch(r"[\d,.]+", q.golden_answers[0]) is not None for q in qa(shared_data, name))
        for name in ("nq", "musique", "hotpotqa", "bamboogle")
    }
    assert numeric == {"nq": 25, "musique": 25, "hotpotqa": 12, "bamboogle": 9}
    assert sum(q.golden_answers[0] in ("yes", "no") for q in qa(shared_data, "hotpotqa")) == 11
    assert by_id(qa(shared_data, "bamboogle"))["bamboogle/test_27"].golden_answers == ("l",)
    assert raw(shared_data, "bamboogle/flashrag_test.sample.jsonl")[0].golden_answers == ("james madison",)
    judged = raw(shared_data, "nq/NQ-open.efficientqa.test.1.1.sample.jsonl")
    assert [q.golden_answers for q in judged].count(("759", "527")) == 1


def test_joined_answers_come_from_the_list_beside_them(shared_data: Path) -> None:
    for name in ("nq/verl_test.sample.jsonl", "nq/verl_test.sample.parquet"):
        questions = raw(shared_data, name)
        assert questions[0].golden_answers == ("14 December 1972 UTC", "December 1972")
        assert load(shared_data / "raw" / name).notes == []
    joined = [r["reward_model"]["ground_truth"] for r in upstream(shared_data, "nq/verl_test.sample.jsonl")]
    assert [", ".join(q.golden_answers) for q in questions] == joined


def test_one_text_for_all_answers_is_kept_whole_and_told(shared_data: Path, tmp_path: Path) -> None:
    """The other sets have one answer, and some hold a comma themselves: splitting would break them."""
    for name, n in (("bamboogle", 8), ("hotpotqa", 2), ("musique", 1)):
        path = shared_data / "raw" / name / "verl_test.sample.jsonl"
        commas = [q for q in load(path).questions if ", " in q.golden_answers[0]]
        assert len(commas) == n and all(len(q.golden_answers) == 1 for q in commas)
        assert len(load(path).notes) == 1 and f"the answers of {n} of its rows" in load(path).notes[0]
    rows = upstream(shared_data, "nq/verl_test.sample.jsonl")
    without = [{**r, "extra_info": {k: v for k, v in r["extra_info"].items() if k != "answer"}} for r in rows]
    (tmp_path / "nq.jsonl").write_text("".join(json.dumps(r) + "\n" for r in without))
    whole = load(tmp_path / "nq.jsonl")
    assert whole.questions[0].golden_answers == ("14 December 1972 UTC, December 1972",) and len(whole.notes) == 1


def test_parquet_and_lines_agree(shared_data: Path) -> None:
    for name in ("nq", "hotpotqa"):
        lines, table = (raw(shared_data, f"{name}/verl_test.sample.{kind}") for kind in ("jsonl", "parquet"))
        assert lines == table


def test_a_list_without_the_spelling_of_the_question(shared_data: Path) -> None:
    """2WikiMultiHopQA's questions are in title case; case folding finds the answer all the same, mostly."""
    canonical = raw(shared_data, "2wikimultihopqa/questions_and_answers.sample.json")
    aliases = {q.question: q.golden_answers for q in raw(shared_data, "2wikimultihopqa/dev_with_aliases.sample.json")}
    lacking = [q for q in canonical if q.golden_answers[0] not in aliases.get(q.question, q.golden_answers)]
    assert len(lacking) == 8
    missed = [q.golden_answers[0] for q in lacking if score(q.golden_answers[0], aliases[q.question]).em == 0.0]
    assert missed == ["German", "British"]


def test_an_answer_may_be_a_text_or_a_list(shared_data: Path) -> None:
    name = "2wikimultihopqa/dev_with_aliases.sample.json"
    kinds = Counter(type(row["answer"]).__name__ for row in upstream(shared_data, name))
    assert kinds == {"list": 45, "str": 5}
    lengths = Counter(len(q.golden_answers) for q in raw(shared_data, name))
    assert lengths.total() == 50 and max(lengths) > 4 and lengths[1] >= 5


def test_judged_answers_of_efficientqa_follow_the_original_ones(shared_data: Path) -> None:
    questions = raw(shared_data, "nq/NQ-open.efficientqa.test.1.1.sample.jsonl")
    assert questions[0].golden_answers == ("6 geese a-laying", "maids a-milking", "six geese a-laying")
    longer = [q for q in questions if len(q.golden_answers) > q.metadata["n_original_answers"]]
    assert len(longer) == 7
    wrong = upstream(shared_data, "nq/NQ-open.efficientqa.test.1.1.sample.jsonl")[0]["poss_correct_predictions"]
    assert not set(wrong) & set(questions[0].golden_answers)


def test_aliases_of_musique_follow_the_answer(shared_data: Path) -> None:
    questions = raw(shared_data, "musique/musique_ans_v1.0_train.sample.jsonl")
    assert sum(len(q.golden_answers) > 1 for q in questions) == 14
    assert questions[0].golden_answers == ("G. Stanley Hall", "Stanley Hall")
    for q in questions:
        hops = int(q.id.partition("/")[2].partition("hop")[0])
        assert q.metadata["n_hops"] == hops == len(q.metadata["decomposition"])
        assert q.metadata["decomposition"][-1]["answer"] == q.golden_answers[0]
        assert 1 <= len(q.metadata["supporting_titles"]) <= hops and "paragraphs" not in q.metadata


# -- questions ------------------------------------------------------------------------------------


def test_spaces_accents_and_quotation_marks_stay(shared_data: Path) -> None:
    assert any("\u00a0" in a for a in by_id(qa(shared_data, "nq"))["nq/nq_open_dev_1449"].golden_answers)
    hotpot, wiki = by_id(qa(shared_data, "hotpotqa")), by_id(qa(shared_data, "2wikimultihopqa"))
    for question in (hotpot["hotpotqa/5a760faa5542994ccc9186a8"], wiki["2wikimultihopqa/dev_11777"]):
        assert "  " in question.question or question.question != question.question.strip()
    assert "of  The Newcomers" in raw(shared_data, "hotpotqa/hotpot_dev_distractor_v1.sample.json")[0].question
    assert sum(not q.question.isascii() for q in wiki.values()) >= 20
    assert not any("?" in q.question for q in qa(shared_data, "nq"))
    trivia = by_id(qa(shared_data, "triviaqa"))
    assert all('""' in trivia[f"triviaqa/{key}"].question for key in ("test_2551", "test_2633"))  # not unquoted twice
    assert any(q.question.startswith("Lothair Ii") or "'S " in q.question for q in wiki.values())


def test_repeated_texts_are_questions_of_their_own_and_never_train(shared_data: Path) -> None:
    """No stored row repeats a text, so two rows of PopQA are given another id each."""
    rows = raw(shared_data, "popqa/flashrag_test.sample.jsonl")[:10]
    again = [Question(f"{q.id}-again", "nq", q.question, ("other",)) for q in rows[:2]]
    asked = [Question(q.id, "nq", q.question, q.golden_answers) for q in rows] + again
    drawn = draw_training_share(asked, 0.5, seed=0)
    training = {same_text(q.question) for q in drawn if q.split == "train"}
    assert len(drawn) == 12 and len(training) == 6
    assert not training & {same_text(q.question) for q in drawn if q.split == "eval"}


def test_rows_without_ids_are_numbered(shared_data: Path) -> None:
    questions = raw(shared_data, "nq/NQ-open.dev.sample.jsonl")
    assert [q.id for q in questions] == [f"nq/{i}" for i in range(50)]
    native = raw(shared_data, "musique/musique_ans_v1.0_train.sample.jsonl")
    assert native[0].id == "musique_train/2hop__150763_14904" and native[0].split == "train"
    assert raw(shared_data, "2wikimultihopqa/dev_with_aliases.sample.json")[0].id == "2wikimultihopqa/107"


# -- what stands inside rows ----------------------------------------------------------------------


def test_json_within_cells_of_a_table(shared_data: Path) -> None:
    table = by_id(raw(shared_data, "popqa/popQA.sample.tsv"))
    listed = raw(shared_data, "popqa/popqa_with_paragraphs.sample.json")
    assert all(table[q.id] == q for q in listed) and len(listed) == 20
    assert table["popqa/226"].golden_answers == ("politician", "political leader", "political figure", "polit.", "pol")
    assert table["popqa/226"].metadata["s_pop"] == 150 and "paragraphs" not in table["popqa/226"].metadata
    with (shared_data / "raw/popqa/popQA.sample.tsv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file, delimiter="\t"))
    listed_once = [list(dict.fromkeys(json.loads(row["possible_answers"]))) for row in cells]  # one names Sanaa twice
    assert [list(q.golden_answers) for q in table.values()] == listed_once


def test_a_context_of_fewer_than_ten_paragraphs(shared_data: Path) -> None:
    files = ("hotpotqa/hotpot_dev_distractor_v1.sample.json", "hotpotqa/hotpot_train_v1.1.sample.json")
    sizes = {row["_id"]: len(row["context"]) for name in files for row in upstream(shared_data, name)}
    questions = {q.id.partition("/")[2]: q for name in files for q in raw(shared_data, name)}
    short = [key for key, size in sizes.items() if size < 10]
    assert short and set(sizes) == set(questions)
    assert all(questions[key].metadata["supporting_facts"] for key in short)


def test_native_rows_and_the_hub_s_agree_on_what_is_kept(shared_data: Path) -> None:
    hub = upstream(shared_data, "hotpotqa/hf_distractor_validation.sample.jsonl")
    for q, row in zip(raw(shared_data, "hotpotqa/hf_distractor_validation.sample.jsonl"), hub, strict=True):
        facts = row["supporting_facts"]
        assert q.metadata == {
            "type": row["type"], "level": row["level"],
            "supporting_facts": [list(pair) for pair in zip(facts["title"], facts["sent_id"], strict=True)],
        }
    native = upstream(shared_data, "hotpotqa/hotpot_train_v1.1.sample.json")
    for q, row in zip(raw(shared_data, "hotpotqa/hotpot_train_v1.1.sample.json"), native, strict=True):
        assert q.metadata["supporting_facts"] == row["supporting_facts"] and q.split == "train"


def test_a_folder_of_native_files_is_a_run_s_data(shared_data: Path, tmp_path: Path) -> None:
    """The published names, as they are downloaded: the sets and splits are told from them."""
    for source, name in (
        ("nq/NQ-open.dev.sample.jsonl", "NQ-open.dev.jsonl"), ("popqa/popQA.sample.tsv", "popQA.tsv"),
        ("hotpotqa/hotpot_train_v1.1.sample.json", "hotpot_train_v1.1.json"),
        ("hotpotqa/hotpot_dev_distractor_v1.sample.json", "hotpot_dev_distractor_v1.json"),
        ("2wikimultihopqa/dev_with_aliases.sample.json", "2wikimultihopqa/dev.json"),
        ("musique/musique_ans_v1.0_train.sample.jsonl", "musique_ans_v1.0_train.jsonl"),
        ("musique/verl_test.sample.jsonl", "musique_test.jsonl"),
        ("bamboogle/simpledeepsearcher.sample.json", "bamboogle.json"),
        ("triviaqa/flashrag_test.sample.jsonl", "triviaqa/test.jsonl"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(shared_data / "raw" / source)
    corpus = shared_data / "raw" / "corpus_formats" / "list_of_title_text.sample.json"
    choice = Choice(str(tmp_path), str(corpus), eval_per_set=10, train_mix="hotpotqa:1,musique:1", train_size=12)
    data = load_own(choice)
    counts = Counter((q.dataset, q.split) for q in data.questions)
    assert counts == {
        **{(name, "eval"): 10 for name in names.SETS}, ("hotpotqa", "train"): 6, ("musique", "train"): 6,
    }
    assert len(data.passages) == 20 and len(data.files) == 10 and len(data.sources) == 9
