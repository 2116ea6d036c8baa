"""checks.py: what a run needs is found missing before it starts, with the way to mend it."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from zerosearch import artifacts, checks, profiles
from zerosearch.profiles import Needs
from zerosearch.question_sets.own import Choice

NOTHING = Needs(memory_gib=0, disk_gib=0, gpus=0, minutes=1)


def test_this_installation_is_complete() -> None:
    assert checks.package_problems() == []


def test_absent_and_outdated_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "numpy>=9999",
        "no-such-package==1",
        "other; extra == 'gpu'",
        "third; sys_platform == 'nowhere'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    problems = checks.package_problems()
    assert len(problems) == 2
    assert (
        problems[0].startswith("packages: expected numpy>=9999, found ") and "pip install -c" in problems[0]
    )
    assert "no-such-package==1, found none" in problems[1]


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "DISTRIBUTION", "no-such-distribution")
    assert "run ./run_all.sh" in checks.package_problems()[0]


def test_a_machine_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "gpu_count", lambda: 1)
    assert checks.machine_problems(NOTHING, tmp_path / "not" / "there" / "yet") == []
    huge = checks.machine_problems(Needs(memory_gib=1e6, disk_gib=1e9, gpus=8, minutes=1), tmp_path)
    assert [problem.split(":")[0] for problem in huge] == ["memory", "disk", "GPUs"]
    assert "found 1" in huge[2]
    assert checks.memory_warning(NOTHING) is None
    assert "are free now" in str(checks.memory_warning(Needs(1e6, 0, 0, 1)))


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "GPU 0: NVIDIA A100 (UUID: a)\nGPU 1: NVIDIA A100 (UUID: b)\n"
    answer = subprocess.CompletedProcess([], 0, stdout=listing)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: answer)
    assert checks.gpu_count() == 2

    def no_driver(*a: object, **k: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", no_driver)
    assert checks.gpu_count() == 0


def own(folder: Path, corpus: Path, **more: float) -> tuple[list[str], list[str]]:
    return checks.question_problems(Choice(str(folder), str(corpus), **more))


def test_questions_and_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "passages.txt"
    assert checks.question_problems(Choice()) == ([], [])
    assert "expected both" in checks.question_problems(Choice(str(tmp_path)))[0][0]
    assert "expected both" in checks.question_problems(Choice(corpus_file=str(corpus)), ("serpapi",))[0][0]
    collection = Choice(questions_source="flashrag")
    assert "since bm25 searches passages of yours" in checks.question_problems(collection, ("serpapi", "bm25"))[0][0]
    assert checks.question_problems(collection, ("serpapi", "wikipedia")) == ([], [])
    assert len(own(tmp_path / "none", corpus)[0]) == 2
    corpus.write_text('{"id": 1, "text": "Ada Falk wrote it."}\n')
    asked = [{"id": i, "question": f"q{i}", "golden_answers": [answer]} for i, answer in enumerate(["Falk", "Berg"])]
    (tmp_path / "nq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    problems, notes = own(tmp_path, corpus, train_fraction=0.0)
    assert "expected some that train, found none" in problems[0] and notes == []
    (tmp_path / "popqa_train.jsonl").write_text('{"id": 1, "question": "q9", "golden_answers": ["x"]}\n')
    problems, notes = own(tmp_path, corpus)
    assert problems == [] and notes[0].startswith("--corpus: a golden answer of 50% of the 2 evaluation questions")
    assert str(corpus) in notes[0]


def test_the_run_s_own_share_and_seed_decide_the_split(tmp_path: Path) -> None:
    """What passes here passes in stage 00: one question of nq trains with 0.5, none with 0.1."""
    asked = [{"id": i, "question": f"q{i}", "golden_answers": ["a"]} for i in range(2)]
    (tmp_path / "nq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text('{"id": 1, "text": "a b"}\n')
    assert own(tmp_path, corpus, train_fraction=0.5)[0] == []
    assert own(tmp_path, corpus, train_fraction=0.1)[0] != []


def test_of_a_very_large_corpus_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_CORPUS_BYTES", 100)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f'{{"id": {i}, "text": "passage"}}\n' for i in range(10)) + "damaged\n")
    asked = [{"id": i, "question": f"q{i}", "golden_answers": ["x"]} for i in range(5)]
    (tmp_path / "nq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    problems, notes = own(tmp_path, corpus)
    assert problems == [] and f"of the beginning of {corpus}" in notes[0]
    monkeypatch.setattr(checks, "MAX_CORPUS_BYTES", 10_000)
    assert f"{corpus}:11" in own(tmp_path, corpus)[0][0]


def test_models_are_looked_at_for_the_stages_that_run() -> None:
    settings = profiles.load("smoke", {"02.simulator_model": "micro/simulator-medum", "04.policy_model": "Some/Model"})
    damaged, absent = checks.model_problems(settings, artifacts.STAGES)
    assert "02.simulator_model" in damaged[0] and "did you mean 'micro/simulator-medium'" in damaged[0]
    assert "04.policy_model" in absent[0] and "`hf download Some/Model`" in absent[0]
    assert checks.model_problems(settings, ["00", "01", "03", "05"]) == ([], [])


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "/v1", "http//host", "http://[::1"])
def test_addresses_are_looked_at_before_the_run(url: str) -> None:
    settings = profiles.load("smoke", {"04.judge_url": url, "04.judge_model": "toy"})
    (problem,) = checks.server_problems(settings, ["03", "04"])
    assert problem.startswith("04.judge_url: expected an address such as")


def test_a_judge_has_a_model() -> None:
    wanted = {"04.judge_url": "https://host:1/v1"}
    (problem,) = checks.server_problems(profiles.load("smoke", wanted), ["04"])
    assert problem.endswith("found none; give it with --set 04.judge_model=NAME")
    assert checks.server_problems(profiles.load("smoke", wanted), ["03"]) == []
    assert checks.server_problems(profiles.load("smoke", wanted | {"04.judge_model": "toy"}), artifacts.STAGES) == []


def test_servers_are_looked_at_before_anything_runs() -> None:
    wrong = {"01.judge_url": "localhost:8000/v1", "03.simulator_url": "http://localhost:6001/v1"}
    problems = checks.server_problems(profiles.load("smoke", wrong), artifacts.STAGES)
    assert len(problems) == 3 and problems[0].startswith("01.judge_url: expected an address such as http://localhost")
    assert "01.judge_model: expected the name of the model" in problems[1] and "--set 03.simulator_name=NAME" in problems[2]
    assert len(checks.server_problems(profiles.load("smoke", wrong), ["03", "04"])) == 1
    right = {"01.judge_url": "http://localhost:8000/v1", "01.judge_model": "m"}
    assert checks.server_problems(profiles.load("smoke", right), artifacts.STAGES) == []


@pytest.mark.parametrize(
    ("values", "lacks"),
    [
        ({"01.retriever": "serpapi"}, "serpapi: expected a key in the environment variable SERPAPI_API_KEY, found"),
        ({"04.retriever": "wikipedia"}, "wikipedia: expected the address of a server in 04.retriever_url, found none"),
        ({"04.retriever": "dense"}, "no faiss-cpu; install it with `pip install -c constraints.txt -e '.[dense]'`"),
    ],
)
def test_what_engines_lack_is_found_before_the_run(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], lacks: str
) -> None:
    monkeypatch.delenv("SERPAPI_API_KEY", raising=False)
    monkeypatch.setattr(checks, "installed_version", lambda name: None if name == "faiss-cpu" else "1")
    (problem,) = checks.engine_problems(profiles.load("smoke", values), artifacts.STAGES)
    assert lacks in problem and problem.endswith(f"or use another engine, e.g. --set {problem[:2]}.retriever=bm25")
    other = "04" if problem.startswith("01") else "01"
    assert checks.engine_problems(profiles.load("smoke", values), [other]) == []
    replayed = values | {f"{problem[:2]}.retriever_mode": "replay"}
    assert checks.engine_problems(profiles.load("smoke", replayed), artifacts.STAGES) == []
    assert checks.engine_problems(profiles.load("smoke", {}), artifacts.STAGES) == []


def test_an_engine_that_has_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERPAPI_API_KEY", "x")
    values = {"01.retriever": "serpapi", "04.retriever": "wikipedia", "04.retriever_url": "http://127.0.0.1:8000"}
    assert checks.engine_problems(profiles.load("smoke", values), artifacts.STAGES) == []


def test_missing_and_damaged_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.notebook_problems() == []
    monkeypatch.setenv("ZEROSEARCH_NOTEBOOKS", str(tmp_path))
    (tmp_path / "04_evaluate.ipynb").write_text("")
    (tmp_path / "05_cost_comparison.ipynb").write_text('{"cells": [{}], "metadata": {}}')
    problems = checks.notebook_problems()
    assert len(problems) == 6 and all("`git checkout notebooks`" in problem for problem in problems)
    assert "04_evaluate.ipynb:1: expected a JSON document" in problems[4]
    assert "05_cost_comparison.ipynb: expected cells" in problems[5]


def test_price_book(tmp_path: Path) -> None:
    assert checks.price_book_problems("data/prices.yaml") == []
    assert "found none at" in checks.price_book_problems(str(tmp_path / "mine.yaml"))[0]


def test_a_damaged_corpus_is_told_beside_questions_that_overlap(tmp_path: Path) -> None:
    row = '{"id": 1, "question": "q", "golden_answers": ["a"]}\n'
    (tmp_path / "nq.jsonl").write_text(row)
    (tmp_path / "nq_train.jsonl").write_text(row)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("damaged\n")
    (problem,) = own(tmp_path, corpus)[0]
    assert "nq_train/1 asks the same as nq/1" in problem and f"{corpus}:1: expected a JSON object" in problem
