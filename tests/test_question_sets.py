"""One loader per format, on rows written by hand: what is read, what is kept, how a format and a set are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from zerosearch.errors import BadInput, ConfigError
from zerosearch.labels import gold_hops
from zerosearch.question_sets import formats, names
from zerosearch.question_sets.folder import read_folder
from zerosearch.question_sets.names import Name
from zerosearch.question_sets.own import Choice, load_own, load_questions_dir
from zerosearch.question_sets.reading import ReadFile, read_rows
from zerosearch.row_files import open_rows
from zerosearch.schema import Question

PROMPT = [
    {"role": "system", "content": "s"}, {"role": "user", "content": "Say. Question: first? Question: who wrote it?\n"},
]


def put(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(tmp_path: Path, *rows: dict[str, Any], name: Name = Name("mine", ""), format: str = "") -> ReadFile:
    return read_rows(open_rows(put(tmp_path / "file", *rows), "questions"), name, format)


# Rows, the format they must be told as, and what must come out: id, answers, metadata.
CASES: list[tuple[str, dict[str, Any], str, tuple[str, ...], dict[str, Any]]] = [
    ("plain", {"id": 7, "question": "q", "golden_answers": ["a", "b"], "metadata": {"level": "x", "context": ["p"]}},
     "7", ("a", "b"), {"level": "x"}),
    ("answer", {"question": "q", "answer": ["a", " ", "b", "a"]}, "0", ("a", "b"), {}),
    ("answer", {"question": "q", "answer": "a, b", "type": "bridge"}, "0", ("a, b",), {"type": "bridge"}),
    ("answer", {"test_id": 107, "question": "q", "answer": ["B", "b"]}, "107", ("B", "b"), {}),
    ("answer", {"id": "x1", "question": "q", "answer": "7"}, "x1", ("7",), {}),
    ("dpr", {"question": "q", "answers": ["a"], "ctxs": [{"text": "p"}]}, "0", ("a",), {}),
    ("efficientqa", {"question": "q", "answer": ["6", "x"], "def_correct_predictions": ["six"],
                     "answer_and_def_correct_predictions": ["6", "x", "six"]}, "0", ("6", "x", "six"),
     {"n_original_answers": 2}),
    ("simpledeepsearcher", {"Question": "q", "source": "elsewhere", "id": "b_1", "note": "update", "answer": ["a"]},
     "b_1", ("a",), {"note": "update"}),
    ("bamboogle", {"Question": "q", "Answer": "a"}, "0", ("a",), {}),
    ("hotpotqa", {"_id": "h", "question": "q", "answer": "a", "type": "bridge", "level": "hard",
                  "supporting_facts": [["T", 0], ["U", 3]], "context": [["T", ["s"]]]}, "h", ("a",),
     {"type": "bridge", "level": "hard", "supporting_facts": [["T", 0], ["U", 3]]}),
    ("hotpotqa", {"_id": "w", "question": "q", "answer": "a", "supporting_facts": [], "context": [], "answer_id": "Q1",
                  "evidences": [["S", "r", "O"]]}, "w", ("a",), {"evidences": [["S", "r", "O"]], "answer_id": "Q1"}),
    ("hotpotqa_hub", {"id": "h", "question": "q", "answer": "a", "type": "comparison", "level": "easy",
                      "supporting_facts": {"title": ["T", "U"], "sent_id": [0, 3]},
                      "context": {"title": ["T"], "sentences": [["s"]]}}, "h", ("a",),
     {"type": "comparison", "level": "easy", "supporting_facts": [["T", 0], ["U", 3]]}),
    ("hotpotqa_hub", {"id": "w", "question": "q", "answer": "a", "supporting_facts": {"title": [], "sent_id": []},
                      "evidences": {"fact": ["S"], "relation": ["r"], "entity": ["O"]}}, "w", ("a",),
     {"evidences": [["S", "r", "O"]]}),
    ("musique", {"id": "2hop__1_2", "question": "q", "answer": "a", "answer_aliases": ["b", "a"], "answerable": True,
                 "paragraphs": [{"title": "T", "paragraph_text": "p", "is_supporting": True},
                                {"title": "U", "paragraph_text": "p", "is_supporting": False}],
                 "question_decomposition": [{"id": 1, "question": "who", "answer": "x", "paragraph_support_idx": 0},
                                            {"id": 2, "question": "#1 of", "answer": "a"}]}, "2hop__1_2", ("a", "b"),
     {"decomposition": [{"question": "who", "answer": "x"}, {"question": "#1 of", "answer": "a"}], "n_hops": 2,
      "supporting_titles": ["T"]}),
    ("popqa", {"id": 3, "subj": "S", "prop": "director", "obj": "a", "s_pop": "12", "s_aliases": "[\"Es\"]",
               "question": "q", "possible_answers": "[\"a\", \"b\"]", "paragraphs": [{}]}, "3", ("a", "b"),
     {"subj": "S", "prop": "director", "obj": "a", "s_pop": 12, "s_aliases": ["Es"]}),
    ("popqa", {"question": "q", "possible_answers": ["a"], "s_pop": 5, "s_aliases": "[]"}, "0", ("a",), {"s_pop": 5}),
    ("triviaqa", {"QuestionId": "t_1", "Question": "q", "Answer": {"Value": "a", "Aliases": ["A", "a", "b"]}}, "t_1",
     ("a", "A", "b"), {}),
    ("triviaqa_hub", {"question_id": "t_1", "question": "q", "answer": {"value": "a", "aliases": ["b"]}}, "t_1",
     ("a", "b"), {}),
    ("verl", {"data_source": "me/own", "prompt": PROMPT, "reward_model": {"ground_truth": "a, b", "style": "rule"},
              "extra_info": {"answer": ["a", "b"], "index": 4, "question": "q", "split": "test"}}, "test_4", ("a", "b"),
     {"data_source": "me/own"}),
    ("verl", {"data_source": "me/own", "question": "q", "id": "train_9", "golden_answers": ["a", "c"],
              "reward_model": {"ground_truth": {"target": ["a"]}}, "extra_info": {"index": 1}}, "train_9", ("a", "c"),
     {"data_source": "me/own"}),
    ("verl", {"data_source": "me/own", "reward_model": {"ground_truth": {"target": ["a", "b"]}},
              "extra_info": {"question": "q", "answer": "a"}}, "0", ("a", "b"), {"data_source": "me/own"}),
    ("verl", {"data_source": "me/own", "reward_model": {"ground_truth": {"target": "a"}}, "question": "q",
              "metadata": {"level": "hard", "context": {"title": ["T"]}}}, "0", ("a",),
     {"level": "hard", "data_source": "me/own"}),
]


@pytest.mark.parametrize(("format", "row", "key", "answers", "metadata"), CASES)
def test_each_format(
    tmp_path: Path, format: str, row: dict[str, Any], key: str, answers: tuple[str, ...], metadata: dict[str, Any]
) -> None:
    made = read(tmp_path, row)
    assert (made.format, made.problems, made.notes) == (format, [], [])
    assert made.questions == [Question(f"mine/{key}", "mine", "q", answers, "eval", metadata)]
    assert gold_hops(made.questions[0]) == ()  # nothing of it is taken for the micro-world's
    json.dumps(dict(made.questions[0].metadata))


def test_every_format_is_tried_and_named() -> None:
    assert {case[0] for case in CASES} | {"flashrag"} == set(formats.NAMES)
    assert len(set(formats.NAMES)) == len(formats.FORMATS)
    assert [formats.by_name(name).name for name in formats.NAMES] == list(formats.NAMES)
    with pytest.raises(ConfigError, match="did you mean 'musique'"):
        formats.by_name("musiqe")


def test_a_format_that_is_named_goes_before_what_the_keys_say(tmp_path: Path) -> None:
    row = {"id": 1, "question": "q", "golden_answers": ["a", ""], "answer": ["b"]}
    assert read(tmp_path, row, format="flashrag").questions[0].golden_answers == ("a",)
    assert read(tmp_path, row, format="answer").questions[0].golden_answers == ("b",)
    assert "golden_answers: expected a list" in read(tmp_path, row).problems[0]


def test_the_question_of_a_prompt_follows_its_instructions(tmp_path: Path) -> None:
    row = {"data_source": "nq", "reward_model": {"ground_truth": ["a"]}}
    assert read(tmp_path, {**row, "prompt": PROMPT}).questions[0].question == "who wrote it?"
    bare = [{"role": "user", "content": "who read it?"}]
    assert read(tmp_path, {**row, "prompt": bare}).questions[0].question == "who read it?"
    assert "under question, extra_info.question or prompt" in read(tmp_path, row).problems[0]


def test_a_joined_text_is_kept_whole_and_told(tmp_path: Path) -> None:
    rows = [
        {"data_source": "nq", "reward_model": {"ground_truth": truth}, "question": f"q{i}"}
        for i, truth in enumerate(["14 December 1972 UTC, December 1972", "Paris", ["a, b"], {"target": ["c, d"]}])
    ]
    made = read(tmp_path, *rows)
    assert [q.golden_answers for q in made.questions] == [
        ("14 December 1972 UTC, December 1972",), ("Paris",), ("a, b",), ("c, d",),
    ]
    assert len(made.notes) == 1 and "the answers of 1 of its rows are one text with ', '" in made.notes[0]


def test_rows_name_their_sets_where_files_do_not(tmp_path: Path) -> None:
    def row(source: str, index: int) -> dict[str, Any]:
        return {"data_source": source, "reward_model": {"ground_truth": ["a"]}, "question": f"{source} {index}?",
                "extra_info": {"index": index, "split": "test"}}

    sources = ("nq", "hotpotqa/hotpot_qa", "searchR1_popqa", "google-research-datasets/nq_open", "bdsaglam/musique")
    rows = [row(source, index) for index, source in enumerate(sources)]
    rows.append(row("popqa", 0))  # an index again, but in another set
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    put(tmp_path / "train.jsonl", row("nq", 8))
    data = load_own(Choice(str(tmp_path)))
    assert [(q.id, q.dataset) for q in data.questions] == [
        ("nq/test_0", "nq"), ("hotpotqa/test_1", "hotpotqa"), ("popqa/test_2", "popqa"), ("nq/test_3", "nq"),
        ("musique/test_4", "musique"), ("popqa/test_0", "popqa"), ("nq_train/test_8", "nq"),
    ]
    assert [s["n_questions"] for s in data.sources] == [6, 1] and data.questions[-1].split == "train"


@pytest.mark.parametrize(
    ("stem", "dataset", "split"),
    [
        ("nq", "nq", ""), ("nq_train", "nq", "train"), ("nq_open", "nq", ""), ("NQ-open.dev", "nq", "dev"),
        ("NQ-open.efficientqa.test.1.1", "NQ-open.efficientqa.test.1.1", ""), ("nq_hard", "nq_hard", ""),
        ("popQA", "popqa", ""), ("hotpot_qa", "hotpotqa", ""), ("hotpot_train_v1.1", "hotpotqa", "train"),
        ("hotpot_dev_distractor_v1", "hotpotqa", "dev"), ("hotpot_dev_v1_simplified", "hotpotqa", "dev"),
        ("2wiki", "2wikimultihopqa", ""), ("2WikiMultihopQA_test", "2wikimultihopqa", "test"),
        ("musique_ans_v1.0_train", "musique", "train"), ("trivia_qa-validation", "triviaqa", "dev"),
        ("Bamboogle", "bamboogle", ""), ("train", "", "train"), ("test", "", "test"), ("mine", "mine", ""),
        ("mine_train", "mine", "train"), ("mine_dev", "mine", "dev"), ("training_data", "training_data", ""),
        ("my.set_test", "my.set", "test"), ("latest", "latest", ""), ("mine_test_train", "mine_test", "train"),
    ],
)
def test_what_a_file_s_name_says(stem: str, dataset: str, split: str) -> None:
    assert names.of_file(stem) == Name(dataset, split)


def test_a_sub_folder_names_the_set_and_its_files_the_split(tmp_path: Path) -> None:
    asked = {
        "hotpot_qa/train.jsonl": 2, "hotpot_qa/dev.jsonl": 3, "nq/dev.jsonl": 1, "nq/test.jsonl": 4,
        "mine/part.jsonl": 1,
    }
    for name, n in asked.items():
        put(tmp_path / name, *({"id": i, "question": f"{name} {i}", "golden_answers": ["a"]} for i in range(n)))
    put(tmp_path / ".cache" / "nq.jsonl", {"damaged": 1})
    put(tmp_path / "nq" / ".hidden.jsonl", {"damaged": 1})
    (tmp_path / "nq" / "README.md").write_text("not a question")
    made = read_folder(tmp_path)
    assert made.problems == [] and [q.id for q in made.questions] == [
        "hotpotqa/0", "hotpotqa/1", "hotpotqa/2", "hotpotqa_train/0", "hotpotqa_train/1", "mine/0",
        "nq/0", "nq/1", "nq/2", "nq/3",
    ]
    assert made.notes == [f"{tmp_path}/nq/dev.jsonl: passed over, since test.jsonl of the same set is evaluated"]
    assert [q.split for q in made.questions].count("train") == 2


def test_two_files_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    row = {"id": 1, "question": "q", "golden_answers": ["a"]}
    for name in ("hotpot_dev_distractor_v1.jsonl", "hotpot_dev_fullwiki_v1.jsonl", "hotpotqa_train.jsonl"):
        put(tmp_path / name, {**row, "question": name})
    with pytest.raises(BadInput, match="expected one file of evaluation questions of hotpotqa, found") as caught:
        load_questions_dir(tmp_path)
    assert "hotpot_dev_fullwiki_v1.jsonl; remove or rename" in str(caught.value)


def test_two_files_may_not_give_one_id(tmp_path: Path) -> None:
    row = {"data_source": "nq", "reward_model": {"ground_truth": ["a"]}, "question": "q", "id": "7"}
    put(tmp_path / "test.jsonl", row)
    put(tmp_path / "nq.jsonl", {"id": 7, "question": "another", "golden_answers": ["a"]})
    assert "nq/7: expected an id of its own, found it in two files" in read_folder(tmp_path).problems[0]


def test_aliases_of_2wiki_come_from_their_own_file(tmp_path: Path) -> None:
    facts = {"question": "q", "supporting_facts": [], "context": []}
    rows = [
        {"_id": "a", "answer": "Wales", "answer_id": "Q25", **facts},
        {"_id": "b", "answer": "yes", "answer_id": None, **facts},
    ]
    (tmp_path / "2wikimultihopqa").mkdir()
    (tmp_path / "2wikimultihopqa" / "dev.json").write_text(json.dumps(rows))
    aliases = [{"Q_id": "Q25", "aliases": ["Cymru", "Wales"], "demonyms": ["Welsh"]}, {"Q_id": "Q30", "aliases": []}]
    put(tmp_path / "2wikimultihopqa" / "id_aliases.json", *aliases)
    made = read_folder(tmp_path)
    assert [q.golden_answers for q in made.questions] == [("Wales", "Cymru"), ("yes",)] and made.problems == []
    assert [path.name for path in made.files] == ["dev.json", "id_aliases.json"]


def test_what_was_loaded_is_named_with_its_checksum(tmp_path: Path) -> None:
    import hashlib

    put(tmp_path / "nq_train.jsonl", {"id": 1, "question": "t", "golden_answers": ["a"]})
    put(tmp_path / "popqa_test.jsonl", {"question": "q", "answer": "a"})
    corpus = put(tmp_path / "c" / "corpus.txt", {"id": 1, "text": "x"})
    data = load_own(Choice(str(tmp_path), str(corpus)))
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.glob("*.jsonl")}
    assert [dict(source) for source in data.sources] == [
        {"place": str(tmp_path / name), "format": format, "dataset": dataset, "split": split, "n_questions": 1,
         "sha256": digests[name]}
        for name, format, dataset, split in (
            ("nq_train.jsonl", "plain", "nq", "train"), ("popqa_test.jsonl", "answer", "popqa", "test"))
    ]
    assert [path.name for path in data.files] == ["nq_train.jsonl", "popqa_test.jsonl", "corpus.txt"]


def test_training_questions_that_are_evaluated_may_be_left_out(tmp_path: Path) -> None:
    put(tmp_path / "nq.jsonl", {"id": 1, "question": "Who wrote  it", "golden_answers": ["a"]})
    asked = ["who wrote it ", "who read it"]
    training = [{"id": i, "question": text, "golden_answers": ["a"]} for i, text in enumerate(asked)]
    put(tmp_path / "hotpotqa_train.jsonl", *training)
    with pytest.raises(BadInput, match="--set 00.drop_overlap=true"):
        load_own(Choice(str(tmp_path)))
    data = load_own(Choice(str(tmp_path), drop_overlap=True))
    assert [q.id for q in data.questions] == ["hotpotqa_train/1", "nq/1"]
    assert "1 training questions left out" in data.notes[0]


def test_all_problems_of_a_file_of_another_format(tmp_path: Path) -> None:
    good = {"id": "2hop__1_2", "question": "q", "answer": "a", "question_decomposition": []}
    rows = [good, {**good, "id": "2"}, good, {**good, "id": "3", "answer": ""},
            {**good, "id": "4", "answerable": False},
            {**good, "id": "5", "answer_aliases": "x", "question_decomposition": ["who"]}, {"id": "6", "question": "q"}]
    made = read(tmp_path, *rows)
    found = [problem.removeprefix(str(tmp_path / "file")) for problem in made.problems]
    assert [f.split(" ")[0] + f.split(" ")[1] for f in found] == [
        ":3:id:", ":4:answer:", ":5:answerable:", ":6:question_decomposition:", ":7:answer:",
    ]
    assert [q.id for q in made.questions] == ["mine/2hop__1_2", "mine/2"]
