"""Several sampled answers to each question, with the tiny policy: other draws, the same draws again, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest_models import EchoRetriever
from test_evaluation import one_method, questions, searcher

from zerosearch.errors import ConfigError
from zerosearch.evaluation import methods as ways
from zerosearch.evaluation import runner
from zerosearch.evaluation.sampling import evaluate_samples, sampled
from zerosearch.ledger import Ledger, read_events
from zerosearch.microworld.world import build_questions, build_world
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.rollout import RolloutSettings


def test_rows_are_those_of_predictions_and_a_sample(tmp_path: Path) -> None:
    asked, told = questions(), []
    table = evaluate_samples(
        [one_method("search", searcher), one_method("direct", lambda p: "<answer> x</answer>")], asked, 3, 0.7, tmp_path,
        on_progress=lambda label, done, total: told.append((label, done, total)),
    )
    assert len(table) == 2 * 3 * len(asked)
    assert all(list(own) == [0, 1, 2] for _, own in table.groupby(["method", "question_id"])["sample"])
    assert (table["temperature"] == 0.7).all() and table["sampling_seed"].nunique() == 3
    assert told[-1] == ("direct, seed 0, sampled", 36, 36) and [d for _, d, _ in told] == sorted(d for _, d, _ in told)
    rows = runner.answer_batch(one_method("search", searcher), asked)
    assert set(table.columns) == set(rows[0]) | {"sample"}


def test_samples_of_a_real_policy_differ_and_come_again(tmp_path: Path) -> None:
    """Finished batches are taken from the disk: the ledger does not grow, the table is the same."""
    world = build_world()
    asked = runner.pick(build_questions(world, n_eval=1, n_train=1))
    bench = ways.make_bench(
        "micro/llama-base", "micro/llama-base", BM25Retriever(world.passages()[:50], k=1),
        RolloutSettings(2, 24, 60, temperature=0.0), 1,
    )
    method = ways.UNTRAINED["search"](bench)
    ledger = Ledger(tmp_path / "ledger.jsonl", "04")
    table = evaluate_samples([method], asked, 2, 1.0, tmp_path / "parts", ledger=ledger)
    first, second = (table[table["sample"] == i]["transcript"].tolist() for i in (0, 1))
    assert len(first) == len(asked) and sum(a != b for a, b in zip(first, second, strict=True)) > len(asked) / 2
    events = len(read_events(ledger.path))
    assert events > 0
    again = evaluate_samples([method], asked, 2, 1.0, tmp_path / "parts", ledger=ledger)
    assert len(read_events(ledger.path)) == events and again.equals(table)
    fresh = evaluate_samples([method], asked, 2, 1.0, tmp_path / "other")
    assert fresh["transcript"].tolist() == table["transcript"].tolist()
    assert sampled(method, 0, 1.0).bench.settings.run_seed != sampled(method, 1, 1.0).bench.settings.run_seed


@pytest.mark.parametrize(("n_samples", "temperature"), [(0, 1.0), (3, 0.0), (1, float("nan"))])
def test_what_cannot_be_sampled_is_refused(tmp_path: Path, n_samples: int, temperature: float) -> None:
    method = one_method("search", searcher, retriever=EchoRetriever())
    with pytest.raises(ConfigError, match="temperature above 0"):
        evaluate_samples([method], questions(), n_samples, temperature, tmp_path)
