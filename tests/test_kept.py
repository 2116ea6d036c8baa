"""Whole trajectories of an evaluation: the very ones that were scored, for a draw of the questions."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest_models import TOKENIZER, EchoRetriever, ScriptedEngine

from zerosearch import files, rollout
from zerosearch.evaluation import kept, runner
from zerosearch.evaluation.methods import Bench, Method, make_methods
from zerosearch.ledger import Ledger
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Question

PROMPTS = Prompts.load("micro", TOKENIZER)
SETTINGS = RolloutSettings(2, 40, 60, 600, temperature=0.0)
ASKED = [Question(f"nq/{i}", "nq", f"who directed film {i}", (f"Alda Falk {i}",), metadata={"kind": "chain"})
         for i in range(4)]


def script(prompt: str) -> str:
    """Search once where no passages stand, then answer."""
    if "Passages:" not in prompt and "</information>" not in prompt:
        return "<search> film</search>"
    return "<answer> Alda Falk 1</answer>"


def methods(*names: str, engine: ScriptedEngine | None = None, fail_on: str = "") -> list[Method]:
    engine = engine or ScriptedEngine(script)
    return make_methods(names, Bench("scripted", EchoRetriever(fail_on), SETTINGS, 1, lambda: (engine, PROMPTS)), {}, 7)


def evaluated(folder: Path, *names: str, keep=("nq/1", "nq/3"), **options) -> pd.DataFrame:  # noqa: ANN001, ANN003
    return runner.evaluate_all(methods(*names, **options), ASKED, folder, batch_size=3, kept=keep)


def test_predictions_are_the_same_whether_trajectories_are_kept_or_not(tmp_path):
    plain = evaluated(tmp_path / "plain", "search", "rag", keep=())
    assert kept.COLUMN not in plain
    with_kept, _ = kept.split(evaluated(tmp_path / "kept", "search", "rag"))
    pd.testing.assert_frame_equal(plain, with_kept)
    same, nothing = kept.split(plain)
    assert same is plain and nothing.empty


def test_the_kept_trajectories_are_those_that_were_scored(tmp_path):
    predictions, table = kept.split(evaluated(tmp_path, "direct", "search"))
    assert list(zip(table["method"], table["question_id"])) == [
        ("direct", "nq/1"), ("direct", "nq/3"), ("search", "nq/1"), ("search", "nq/3")]
    scored = predictions.set_index(["method", "question_id"])
    for row in table.to_dict("records"):
        made, own = rollout.from_row(row), scored.loc[(row["method"], row["question_id"])]
        assert "".join(turn.text + turn.observation for turn in made.turns) == own["transcript"]
        assert (made.answer, made.stop_reason, row["seed"], row["em"]) == (
            own["prediction"], own["stop_reason"], 7, own["em"]) or (made.answer is None and pd.isna(own["prediction"]))
        assert sum(made.loss_mask) == own["n_tokens"] and not row["given"]
        assert TOKENIZER.decode(list(made.token_ids)) == own["transcript"]


def test_passages_given_before_the_first_message_are_a_first_turn(tmp_path):
    _, table = kept.split(evaluated(tmp_path, "rag", fail_on="film 3"))
    read, failed = (rollout.from_row(row) for row in table.to_dict("records"))
    assert table["given"].tolist() == [True, True]
    given, own = read.turns
    assert (given.text, given.content, given.action) == ("", "who directed film 1", "search")
    assert given.retrieval.passages[0].text in given.observation and own.action == "answer"
    assert failed.turns[0].retrieval.error == failed.error == "scripted failure" and failed.token_ids == ()


def test_the_table_survives_parquet(tmp_path):
    _, table = kept.split(evaluated(tmp_path, "search", "rag", fail_on="film 3"))
    files.write_table(tmp_path / kept.TRAJECTORIES, table)
    read = files.read_table(tmp_path / kept.TRAJECTORIES)
    assert rollout.table_to_trajectories(read) == rollout.table_to_trajectories(table)


def test_a_resumed_evaluation_has_the_trajectories_of_finished_parts(tmp_path):
    first = evaluated(tmp_path, "search")
    engine = ScriptedEngine(lambda prompt: pytest.fail("a finished part was made again"))
    pd.testing.assert_frame_equal(evaluated(tmp_path, "search", engine=engine), first)


def test_a_part_without_the_wanted_trajectories_is_not_used(tmp_path):
    evaluated(tmp_path, "search", keep=())
    evaluated(tmp_path, "search", keep=("nq/1",))
    _, table = kept.split(evaluated(tmp_path, "search", keep=("nq/0", "nq/1")))
    assert table["question_id"].tolist() == ["nq/0", "nq/1"]
    assert kept.mark(()) == "" and kept.mark(("a", "b")) == kept.mark({"b", "a"}) != kept.mark(("a",))


def test_the_ledger_counts_no_search_twice(tmp_path):
    found = []
    for name, keep in (("plain", ()), ("kept", ("nq/0", "nq/1"))):
        ledger = Ledger(tmp_path / f"{name}.jsonl", "04")
        runner.evaluate_all(methods("search"), ASKED, tmp_path / name, 3, ledger, kept=keep)
        events = files.read_jsonl(tmp_path / f"{name}.jsonl")
        found.append([{k: v for k, v in e.items() if k in ("kind", "fresh", "prompt", "generated")} for e in events])
    assert found[0] == found[1] and any(e["kind"] == "queries" for e in found[0])


def test_equal_evaluations_keep_equal_tables(tmp_path):
    first, second = (kept.split(evaluated(tmp_path / name, "search", "rag"))[1] for name in ("a", "b"))
    pd.testing.assert_frame_equal(first, second)
    seconds = [turn["retrieval"]["wall_seconds"] for turns in first["turns"] for turn in json.loads(turns)
               if "retrieval" in turn]
    assert seconds and not any(seconds)
