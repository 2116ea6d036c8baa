"""Notebooks 01 and 04 with a remote engine, against a server on this machine: counts, conditions, the key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Iterator

import pytest
from fault_server import serpapi_answer
from local_server import LocalServer, Reply

from zerosearch import artifacts, profiles
from zerosearch.notebook_runner import NotebookRun, run_notebook
from zerosearch.questions import write_corpus, write_questions
from zerosearch.retrievers.answers import Answers
from zerosearch.schema import Passage, Question

KEY, RUN = "canary4711key", "paid"
QUESTIONS = [
    Question(f"{split}/{i}", "nq", f"who directed film {i}", (f"Falk {i}",), split)
    for i, split in enumerate(("train", "train", "eval", "eval"))
]
CORPUS = [Passage(str(i), f"Film {i}", f"Film {i} was directed by Falk {i} in the year 19{i:02}.") for i in range(40)]
SMALL: dict[str, dict[str, Any]] = {
    "01": {"n_questions": 2, "samples_per_question": 2, "force_search_share": 1.0, "max_searches": 2, "batch_size": 2},
    "04": {"methods": "rag,search", "conditions": "homonyms,later,empty,corrupt-0.5", "n_bootstrap": 20,
           "questions_per_condition": 2, "max_searches": 2},
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SERPAPI_API_KEY", KEY)
    with LocalServer(lambda asked: Reply(serpapi_answer(asked.params["q"]))) as made:
        yield made


@pytest.fixture
def folder(outputs: Path) -> Path:
    """A run that has its questions and a policy."""
    place = artifacts.run_dir(RUN)
    write_questions(place / "00_micro_world" / "questions.jsonl", QUESTIONS)
    shutil.copytree(artifacts.MICRO_LM / "llama-base", place / "03_rl" / "zerosearch" / "seed0" / "policy")
    return place


def run(stage: str, folder: Path, url: str) -> str:
    """Execute a notebook and return what it printed."""
    values = profiles.defaults(stage) | SMALL[stage] | {"run": RUN, "retriever": "serpapi", "retriever_url": url}
    made = folder / "notebooks" / f"{stage}.ipynb"
    log = folder / "logs" / f"{stage}.log"
    run_notebook(NotebookRun(artifacts.notebook_path(stage), made, log, values))
    return log.read_text("utf-8")


def queries_of(folder: Path, stage: str) -> dict[str, int]:
    """Return the sums of a stage's ledger for the engine."""
    lines = (folder / artifacts.STAGES[stage] / "ledger.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["kind"] == "queries" and event["engine"] == "serpapi"]
    return {name: sum(event[name] for event in events) for name in ("fresh", "cached", "paid")}


def test_collected_and_evaluated_with_google_and_no_key_is_left_anywhere(server: LocalServer, folder: Path) -> None:
    shown = run("01", folder, server.url)
    asked = [a.params["q"] for a in server.asked]
    assert len(asked) == len(set(asked)) > 1 and {a.params["api_key"] for a in server.asked} == {KEY}
    collected = queries_of(folder, "01")
    assert collected["paid"] == len(asked) == len(Answers(artifacts.answers_dir())) and collected["fresh"] >= len(asked)
    assert f"{len(asked)} paid, 0 failed" in shown
    write_corpus(folder / "00_micro_world" / "corpus.jsonl", CORPUS)  # until now there were no passages
    shown = run("04", folder, server.url)
    for name in ("homonyms", "later"):
        assert f"condition '{name}' is left out: expected BM25 over passages that the micro-world tagged" in shown
    assert "'empty' is left out" not in shown and "'corrupt-0.5' is left out" not in shown
    assert len(server.asked) == len({a.params["q"] for a in server.asked})  # nothing that notebook 01 had paid for
    assert queries_of(folder, "04")["paid"] == len(server.asked) - len(asked)
    files = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert not [path.name for path in files if path.name.startswith("cache.db-")]  # the database is closed and whole
    assert {"01.ipynb", "04.ipynb", "01.log", "04.log", "cache.db", "manifest.json"} <= {path.name for path in files}
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
