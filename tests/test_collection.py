"""Collecting: who is asked, who is forced to search, and what the ledger says about it."""

from __future__ import annotations

import signal
from pathlib import Path

import pandas as pd
import pytest
from conftest_models import TOKENIZER, EchoRetriever, ScriptedEngine

from zerosearch import artifacts
from zerosearch.collection import behaviour, collect, collected_table, draw_questions, plan
from zerosearch.errors import BadInput
from zerosearch.interrupts import Stopped
from zerosearch.ledger import read_events
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutSettings, table_to_trajectories
from zerosearch.schema import Question, Trajectory

PROMPTS = Prompts.load("micro", TOKENIZER)
SETTINGS = RolloutSettings(max_searches=2, max_turn_tokens=40, max_observation_tokens=60)


def questions(n: int = 30) -> list[Question]:
    return [Question(f"nq/{i}", "nq", f"question {i}", (f"gold {i}",), "train" if i % 3 else "eval") for i in range(n)]


def script(prompt: str) -> str:
    """Search once when forced, then answer; else answer at once, wrongly."""
    number = prompt.split("\n")[0].split()[-1]
    if "</information>" in prompt:
        return f"<answer> gold {number}</answer>"
    return f"<search> find {number}</search>" if PROMPTS.forced_prefix in prompt else "<answer> no idea</answer>"


def test_only_training_questions_are_drawn() -> None:
    drawn = draw_questions(questions(), 12, seed=1)
    assert len(drawn) == 12 and all(q.split == "train" for q in drawn)
    assert draw_questions(questions()[::-1], 8, seed=1) == drawn[:8]
    assert draw_questions(questions(), 12, seed=2) != drawn
    assert len(draw_questions(questions(), 1000, seed=1)) == 20
    with pytest.raises(BadInput, match="some that train, found 10"):
        draw_questions([q for q in questions() if q.split == "eval"], 5, seed=1)


def test_forced_share_is_a_draw_of_each_trajectory() -> None:
    many = [Question(f"nq/{i}", "nq", "q", ("a",)) for i in range(500)]
    requests = plan(many, 2, 0.3, "<think> I need", seed=0)
    assert [(r.question.id, r.sample) for r in requests[:3]] == [("nq/0", 0), ("nq/0", 1), ("nq/1", 0)]
    assert {r.forced_prefix for r in requests} == {"", "<think> I need"}
    assert 240 <= sum(bool(r.forced_prefix) for r in requests) <= 360
    assert plan(many[::-1], 2, 0.3, "<think> I need", seed=0)[-2:] == requests[:2]
    for share, n in ((0.0, 0), (1.0, 1000)):
        assert sum(bool(r.forced_prefix) for r in plan(many, 2, share, "x", seed=0)) == n


def test_a_collection_that_is_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies in the third batch: two are there, nothing is asked or counted twice."""
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    requests = plan(questions(12), 2, 0.5, PROMPTS.forced_prefix, seed=0)

    def collected(run: str, dies: bool = False) -> tuple[list[Trajectory], EchoRetriever, pd.DataFrame]:
        stage, retriever, calls = artifacts.open_stage(run, "01", {"seed": 0}), EchoRetriever(), []

        def failing(prompt: str) -> str:
            calls.append(prompt)
            if dies and len(calls) > 30:
                raise MemoryError
            return script(prompt)

        made = collect(requests, ScriptedEngine(failing), retriever, PROMPTS, SETTINGS, 10, stage)
        return made, retriever, pd.DataFrame(read_events(stage.ledger.path))

    whole, asked, spent = collected("whole")
    with pytest.raises(MemoryError):
        collected("cut", dies=True)
    made, asked_again, spent_again = collected("cut")
    timeless = [c for c in spent if c not in ("time", "seconds")]
    pd.testing.assert_frame_equal(spent_again[timeless], spent[timeless])
    assert made == whole and 0 < len(asked_again.seen) < len(asked.seen)


def test_asked_to_stop_a_collection_ends_after_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    stage, requests = artifacts.open_stage("t", "01", {}), plan(questions(12), 2, 0.5, PROMPTS.forced_prefix, seed=0)

    def interrupted(prompt: str) -> str:
        if not list(stage.path("checkpoints").glob("*")):
            return script(prompt)
        signal.raise_signal(signal.SIGINT)
        return script(prompt)

    def stopped(prompt: str) -> str:
        for number in once:
            signal.raise_signal(number)
        return script(prompt)

    once, arguments = iter([signal.SIGTERM]), (EchoRetriever(), PROMPTS, SETTINGS, 10, stage)
    with pytest.raises(KeyboardInterrupt):  # asked twice, in the second batch
        collect(requests, ScriptedEngine(interrupted), *arguments)
    with pytest.raises(Stopped, match="20 of 24 trajectories saved"):
        collect(requests, ScriptedEngine(stopped), *arguments)
    assert len(collect(requests, ScriptedEngine(script), *arguments)) == 24


def test_collecting_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    stage = artifacts.open_stage("t", "01", {"seed": 0})
    requests = plan(questions(12), 2, 0.5, PROMPTS.forced_prefix, seed=0)
    engine, retriever = ScriptedEngine(script), EchoRetriever()
    trajectories = collect(requests, engine, retriever, PROMPTS, SETTINGS, 10, stage)
    assert [(t.question.id, t.sample) for t in trajectories] == [(r.question.id, r.sample) for r in requests]
    table = collected_table(requests, trajectories)
    assert (table["em"] == table["forced"]).all() and (table["n_searches"] == table["forced"]).all()
    assert table_to_trajectories(table) == trajectories
    events = pd.DataFrame(read_events(stage.ledger.path))
    assert events["kind"].value_counts().to_dict() == {"tokens": 3, "busy": 6, "queries": 3}
    assert events["fresh"].sum() == len(retriever.seen) == table["forced"].sum() and events["paid"].sum() == 0
    summary = behaviour(table)
    assert summary.loc["free", ["searches", "answered", "em"]].tolist() == [0, 1, 0]
    assert summary.loc["forced to search", ["searches", "em", "stop_answer"]].tolist() == [1, 1, 1]
    assert list(summary.columns) == ["trajectories", "searches", "answered", "em", "stop_answer"]
