"""Notebook 01 with an engine and a judge that bill: stopped by its limit, continued, paid once, no trace of a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
from local_server import Asked, LocalServer, Reply
from model_server import chat_reply

from zerosearch import artifacts, profiles
from zerosearch.costs import price_ledger
from zerosearch.labels_judge import VERSION
from zerosearch.microworld.world import build_questions, build_world
from zerosearch.notebook_runner import NotebookFailed, NotebookRun, run_notebook
from zerosearch.prices import PriceBook
from zerosearch.questions import write_corpus, write_questions

RUN, ENGINE_KEY, JUDGE_KEY = "paid", "sk-engine-canary-11", "sk-judge-canary-22"
SEARCH_USD, TOKEN_USD = 275.0 / 30_000, (1.6e-6, 6.4e-6)  # of data/prices.yaml: serpapi_big_data, qwen-max


class World:
    """An engine and a judge that bill what they answer.  searches, judged: what was billed."""

    def __init__(self) -> None:
        self.searches: list[str] = []
        self.judged: list[str] = []

    def search(self, asked: Asked) -> Reply:
        if asked.params.get("api_key") != ENGINE_KEY:
            return Reply({"error": f"Invalid API key: {asked.params.get('api_key')}"}, status=401)
        query = asked.params["q"]
        self.searches.append(query)
        results = [{"title": f"T{i}", "snippet": f"About {query}, {i}.", "link": f"http://x/{i}"} for i in range(5)]
        return Reply({"search_metadata": {"status": "Success"}, "organic_results": results})

    def judge(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {JUDGE_KEY}":
            return Reply({"error": {"message": f"wrong key {asked.headers.get('authorization')}"}}, status=401)
        found = json.loads(asked.body["messages"][1]["content"])
        self.judged.append(found["mark"])
        if len(self.judged) == 2:
            return chat_reply("They are all useful.", 1000, 100)
        words = (f"{found['mark']} {n} {'useful' if n == 1 else 'misleading'}" for n in range(1, 6))
        return chat_reply("\n".join(words), 1000, 100)

    @property
    def usd(self) -> float:
        return len(self.searches) * SEARCH_USD + len(self.judged) * (1000 * TOKEN_USD[0] + 100 * TOKEN_USD[1])


@pytest.fixture
def asked_world(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, dict[str, Any]]]:
    """A run whose stage 00 is there, and the parameters of its stage 01."""
    for name, value in (("NO_PROXY", "127.0.0.1"), ("SERPAPI_API_KEY", ENGINE_KEY), ("MY_JUDGE_KEY", JUDGE_KEY)):
        monkeypatch.setenv(name, value)
    stage, world = artifacts.open_stage(RUN, "00", {}), build_world()
    write_questions(stage.path("questions.jsonl"), build_questions(world, 1, 12))
    write_corpus(stage.path("corpus.jsonl"), world.passages()[:50])
    stage.finish()
    billing = World()
    with LocalServer(billing.search) as engine, LocalServer(billing.judge) as judge:
        yield billing, profiles.defaults("01") | {
            "run": RUN, "n_questions": 12, "samples_per_question": 1, "force_search_share": 1.0, "batch_size": 4,
            "retriever": "serpapi", "retriever_url": engine.url, "judge_url": f"{judge.url}/v1",
            "judge_model": "qwen-max", "judge_key_variable": "MY_JUDGE_KEY",
        }


def run(parameters: dict[str, Any]) -> None:
    folder = artifacts.run_dir(RUN)
    executed, log = folder / "notebooks" / "01.ipynb", folder / "logs" / "01.log"
    run_notebook(NotebookRun(artifacts.notebook_path("01"), executed, log, parameters))


def test_a_limit_stops_it_more_money_goes_on_and_no_key_is_written(
    asked_world: tuple[World, dict[str, Any]], outputs: Path
) -> None:
    world, parameters = asked_world
    with pytest.raises(NotebookFailed, match="trajectories saved; max_usd: expected.*0.0600 USD at most") as told:
        run(parameters | {"max_usd": 0.06})
    assert len(world.searches) == 6 and world.judged == [] and world.usd <= 0.06
    run(parameters | {"max_usd": 5.0})
    manifest = artifacts.read_manifest(RUN, "01")
    assert manifest["resumed"] and manifest["results"]["usd"] == pytest.approx(world.usd)
    assert len(set(world.searches)) == len(world.searches) > 6 and len(set(world.judged)) == len(world.judged) > 2
    bill = price_ledger(artifacts.read_ledgers(RUN), PriceBook.load(artifacts.REPO / "data" / "prices.yaml"))
    assert bill.loc[bill["role"].isin(["queries", "judge"]), "usd"].sum() == pytest.approx(world.usd)
    verdicts = artifacts.read_table(artifacts.run_dir(RUN) / "01_collect" / "verdicts.parquet")
    assert set(verdicts["label"]) == {"useful", "misleading", "unparsable"} and set(verdicts["model"]) == {"qwen-max"}
    assert set(verdicts["prompt_version"]) == {VERSION} and manifest["results"]["judge"] == f"qwen-max prompt={VERSION}"
    pairs = artifacts.read_table(artifacts.run_dir(RUN) / "01_collect" / "pairs.parquet")
    assert {"useful", "unparsable"} <= set(pairs["label_judge"])
    files = [path for path in outputs.rglob("*") if path.is_file()]
    told_or_written = [str(told.value).encode(), *(path.read_bytes() for path in files)]
    assert len(files) > 15 and not [t for t in told_or_written if b"canary" in t]
