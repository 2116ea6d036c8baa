"""overlap.py: batches are one update old whatever the timing, kept in checkpoints, and end with their training."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest_models import TOKENIZER as TINY_TOKENIZER
from conftest_models import tiny_model
from test_policy_rl import (
    CURRICULUM, QUESTIONS, ROLLOUT, SETTINGS, TOKENIZER, SearchingEngine, _Stopped, dense_reward, micro_model,
    stop_after, train, weights,
)
from training_toys import ScriptedRetriever, random_trajectories, toy_model, toy_question, toy_trajectory

from zerosearch import adapters, checks, layouts, profiles
from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.opening import open_text_engine
from zerosearch.errors import ConfigError
from zerosearch.interrupts import Stopped
from zerosearch.layouts import Layout
from zerosearch.retrievers.base import FailureLimit, RetrieverError
from zerosearch.rollout import table_to_trajectories
from zerosearch.schema import Passage, Retrieval, SearchRequest, Turn
from zerosearch.training import overlap, policy_rl
from zerosearch.training.correction import Correction
from zerosearch.training.objective import token_logprobs
from zerosearch.training.policy_rl import run_fingerprint
from zerosearch.training.policy_trainer import PolicyTrainer
from zerosearch.training.sampler import apart

OVERLAP = Layout(overlap=True)
CORRECTED = replace(SETTINGS, correction=Correction("token"), kept_per_step=6)


def timeless(history: pd.DataFrame) -> pd.DataFrame:
    return history[[c for c in history if not c.startswith("seconds_")]]


def rolling_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rollouts ahead"]


def largest_gap(kept: pd.DataFrame, step: int, model: torch.nn.Module) -> float:
    """Return how far a model's log-probs are from the recorded ones, over the policy's tokens of a step."""
    gaps = []
    for t in table_to_trajectories(kept[kept["step"] == step]):
        ids = torch.tensor([t.prompt_ids + t.token_ids])
        own = [i for i, mine in enumerate(t.loss_mask) if mine]
        places = torch.tensor([len(t.prompt_ids) + i - 1 for i in own])
        with torch.no_grad():
            logp, _ = token_logprobs(model, ids, places, torch.tensor([t.token_ids[i] for i in own]))
        gaps.append((logp - torch.tensor([t.logprobs[i] for i in own])).abs().max().item())
    return max(gaps)


def test_every_batch_is_one_update_old_whatever_is_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches 1 and 2 are the base's; batch 3 is that of one update, made by a training of one step."""
    dense_reward(monkeypatch)
    with layouts.using(OVERLAP):
        _, quick, model = train(tmp_path / "quick", CORRECTED)
        original = policy_rl.roll_out
        monkeypatch.setattr(policy_rl, "roll_out", lambda *given: time.sleep(0.2) or original(*given))
        _, slow, same = train(tmp_path / "slow", CORRECTED)
    monkeypatch.setattr(policy_rl, "roll_out", original)
    pd.testing.assert_frame_equal(timeless(quick), timeless(slow), check_exact=True)
    assert torch.equal(weights(model), weights(same)) and not rolling_threads()
    kept, base = pd.read_parquet(tmp_path / "quick" / "trajectories.parquet"), micro_model()
    assert largest_gap(kept, 1, base) < 1e-4 and largest_gap(kept, 2, base) < 1e-4
    assert largest_gap(kept, 3, base) > 1e-2
    short = {"settings": replace(CORRECTED, steps=1), "curriculum": replace(CURRICULUM, total_steps=1)}
    _, first, once = train(tmp_path / "once", **short)
    assert first["loss"][0] == quick["loss"][0] and largest_gap(kept, 3, once) < 1e-4
    assert quick["logprob_gap"][0] < 1e-4 < 1e-3 < quick["logprob_gap"][1:].min() and (quick["clip_share"] == 0.0).all()
    assert quick["seconds_total"].notna().all() and list(quick) == list(first)


@pytest.mark.parametrize(("layout", "killed"), [(OVERLAP, True), (Layout(overlap=True, lora_rank=4), False)])
def test_cut_off_it_ends_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout, killed: bool
) -> None:
    """Killed in step 4 after the checkpoint of step 2, or asked in step 3 to stop: the batch under way is kept."""
    dense_reward(monkeypatch)
    original = PolicyTrainer._generate_and_score_completions

    def signalled(self, inputs):  # noqa: ANN001, ANN202
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, inputs)

    with layouts.using(layout):
        undisturbed, whole, model = train(tmp_path / "whole", CORRECTED)
        if killed:
            stop_after(monkeypatch, 3)
        else:
            monkeypatch.setattr(PolicyTrainer, "_generate_and_score_completions", signalled)
        with pytest.raises(_Stopped if killed else Stopped):
            train(tmp_path / "cut", CORRECTED)
        assert not rolling_threads()
        monkeypatch.setattr(PolicyTrainer, "_generate_and_score_completions", original)
        stage, resumed, again = train(tmp_path / "cut", CORRECTED)
    assert stage.progressed[0] == (2 if killed else 3, 4)
    pd.testing.assert_frame_equal(timeless(resumed), timeless(whole), check_exact=True)
    assert torch.equal(weights(model), weights(again))
    used = [[(e["unit"], e["prompt"], e["generated"]) for e in s.ledger.events if e["kind"] == "tokens"]
            for s in (undisturbed, stage)]
    assert used[0] == used[1] and len(used[0]) == 4


def test_rows_and_ledger_belong_to_the_batch_learned_from_and_failures_reach_the_caller(tmp_path: Path) -> None:
    settings = replace(CORRECTED, steps=3, save_every=100)
    retriever = FailureLimit(ScriptedRetriever("simulator", fail=[QUESTIONS[3].question]), 0.1, after=18)
    wanted = {"questions": [QUESTIONS[0], QUESTIONS[1]], "engine": SearchingEngine(TOKENIZER)}
    with layouts.using(OVERLAP):
        stage, history, _ = train(
            tmp_path / "well", settings, retriever=ScriptedRetriever("simulator", noisy=True), **wanted,
            curriculum=replace(CURRICULUM, total_steps=3),
        )
        with pytest.raises(RetrieverError, match="at most 10% failed searches"):
            train(tmp_path / "ill", settings, retriever=retriever, engine=SearchingEngine(TOKENIZER),
                  questions=[QUESTIONS[0], QUESTIONS[3]], curriculum=replace(CURRICULUM, total_steps=3))
    assert not rolling_threads()
    assert history["noise_planned"].tolist() == pytest.approx(replace(CURRICULUM, total_steps=3).schedule())
    counted = [(e["unit"], e["fresh"]) for e in stage.ledger.events if e["kind"] == "queries"]
    assert counted == [("step 1", 6), ("step 2", 6), ("step 3", 6)]
    rows = [len(path.read_text().splitlines()) for path in (tmp_path / "ill").glob("metrics.jsonl")]
    assert rows == [2]  # the third batch failed while the policy learned from the second


def test_kept_rollouts_are_the_same_rollouts(tmp_path: Path) -> None:
    request = SearchRequest("who", toy_question(), 1, 2, 0, 0.25)
    found = Retrieval(request, (Passage("p", "", "text"),), "simulator", True, wall_seconds=0.1, n_generated_tokens=3)
    searched = replace(
        toy_trajectory([1], [2, 3], [1, 0], [-0.1 - 1e-16, 0.0], step=1, sample=2),
        turns=(Turn("<search>who</search>", "search", "who", found, "text"),),
    )
    asked = [{"kind": "queries", "engine": "simulator", "fresh": 1, "cached": 0, "paid": 0}]
    rolled = overlap.Rolled([searched, *random_trajectories(3)], 0.25, 7, 5, asked, "simulator", 1 / 3, 0.1)
    overlap.save(rolled, tmp_path)
    assert overlap.load(tmp_path) == rolled


@pytest.mark.parametrize("rank", [0, 4])
def test_an_engine_apart_writes_with_the_weights_it_was_given(rank: int) -> None:
    model = tiny_model()
    engine, request = open_text_engine("transformers", model, TINY_TOKENIZER, "toy"), GenerationRequest((5, 6, 7), 1, 9)
    if rank:
        adapters.add(model, rank, seed=0)
    before = engine.generate([request])
    with apart(engine, model) as renew:
        shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in engine.model.parameters()}
        assert len(shared) == sum(not p.requires_grad for p in model.parameters()) and bool(shared) == (rank > 0)
        with torch.no_grad():
            for parameter in adapters.trained(model).values():
                parameter.add_(0.1)
        assert engine.generate([request]) == before
        engine.release()
        renew()
        after = engine.generate([request])
    assert engine.model is model and engine.generate([request]) == after != before


def test_without_a_correction_it_is_refused_before_anything_starts(tmp_path: Path) -> None:
    asked = profiles.load("smoke", {"layout.overlap": "true"})
    (problem,) = checks.overlap_problems(asked, ["03"])
    assert "--set 03.correction=token" in problem and "found 03.correction none" in problem
    assert checks.overlap_problems(asked, ["04"]) == []  # stage 03 does not run
    assert checks.overlap_problems(profiles.load("smoke", {"layout.overlap": "true"}, arms=["sft"]), ["03"]) == []
    mended = profiles.load("smoke", {"layout.overlap": "true", "03.correction": "sequence"})
    assert checks.overlap_problems(mended, ["03"]) == [] == checks.overlap_problems(profiles.load("smoke"), ["03"])
    with layouts.using(OVERLAP), pytest.raises(ConfigError, match="03.correction=token"):
        train(tmp_path)


def test_it_is_part_of_what_names_a_run() -> None:
    def made(layout: Layout) -> dict[str, object]:
        with layouts.using(layout):
            return run_fingerprint(QUESTIONS, toy_model(), "bm25", SETTINGS, CURRICULUM, ROLLOUT)

    assert made(OVERLAP) == made(Layout()) | {"layout": {"overlap": True}}
    assert layouts.fingerprint(OVERLAP, "02") == {} == layouts.deciding(OVERLAP, "04")
