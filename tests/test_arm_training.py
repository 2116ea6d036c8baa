"""Every arm through its one door, on toys: files, metrics, ledger, resuming; and what is special to each arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_policy_rl import CURRICULUM, ROLLOUT, SETTINGS, TOKENIZER, SearchingEngine, micro_model, weights
from training_toys import FakeStage, read_rows, toy_model, toy_question

from zerosearch.curriculum import constant
from zerosearch.engines.base import EngineCounts, Generation
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import BadInput
from zerosearch.labels import Pair
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import NoRetriever
from zerosearch.retrievers.by_policy import PolicyWriter, SelfRetriever
from zerosearch.retrievers.prompted import PromptedSimulatorRetriever, Shown
from zerosearch.rollout import RolloutRequest, rollout, table_to_trajectories
from zerosearch.schema import Passage, SearchRequest
from zerosearch.training.arm_setup import OPENERS, open_retriever, shown_examples
from zerosearch.training.arm_training import TRAINERS, train_arm
from zerosearch.training.arms import ARMS, get_arm
from zerosearch.training.asking import asking_of
from zerosearch.training.policy_rl import PolicyRun
from zerosearch.training.step_metrics import METRICS

PROMPTS = Prompts.load("micro", TOKENIZER)
QUESTIONS = [toy_question(i, answer) for i, answer in enumerate(("Silver Harbor", "1903", "Port Amber", "Anka Falk"))]
CORPUS = [Passage(str(i), "", f"who directed film {i} is {q.golden_answers[0]}.") for i, q in enumerate(QUESTIONS)]


class OwnSearchEngine(SearchingEngine):
    """Also writes two passages where it is asked for them from memory."""

    def generate(self, requests):  # noqa: ANN001, ANN201
        opening = self.tokenizer("<information>", add_special_tokens=False).input_ids[0]
        made = super().generate(requests)
        passages = tuple(self.tokenizer("\n I am Silver.\n So am I.\n</information>", add_special_tokens=False).input_ids)
        return [
            Generation(passages, (-1.0,) * len(passages), "eos") if request.prompt_ids[-1] == opening else one
            for request, one in zip(requests, made, strict=True)
        ]


def pair(number: int, useful: bool) -> Pair:
    """Return a search of stage 01 that found its answer, or something else."""
    question = toy_question(50 + number, f"Answer {number}")
    text = f"It was Answer {number}." if useful else f"Nothing {number}."
    label = "useful" if useful else "misleading"
    passages = (Passage(f"p{number}", "", text),)
    return Pair(f"t{number}", 0, question, f"query {number}", "bm25", passages, (label,), None, label, label)


PAIRS = [pair(i, useful=i % 2 == 0) for i in range(6)]


def train(name: str, folder: Path, simulator: Path, model: torch.nn.Module | None = None, **changes):  # noqa: ANN003, ANN201
    arm, stage, model = get_arm(name), FakeStage(folder), model or micro_model()
    scripted = {"rejection": SearchingEngine, "self-search": OwnSearchEngine}
    engine = scripted[name](TOKENIZER) if name in scripted else TransformersEngine(model, TOKENIZER)
    retriever = open_retriever(
        arm, k=1, seed=0, passages=CORPUS, simulator=simulator, max_new_tokens=16, pairs=PAIRS,
        policy=(engine, PROMPTS),
    )
    curriculum = CURRICULUM if arm.curriculum else constant(0.0, SETTINGS.steps)
    history = train_arm(
        arm, QUESTIONS, model, TOKENIZER, retriever, PROMPTS, replace(SETTINGS, **changes), stage,
        curriculum=curriculum, rollout_settings=ROLLOUT if name not in scripted else replace(
            ROLLOUT, max_turn_tokens=30, max_total_tokens=200
        ), engine=engine, identity={"inputs": "toy"},
    )
    return stage, history, model


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulator") / "model"
    models.save(toy_model(vocab_size=len(TOKENIZER), eos_token_id=TOKENIZER.eos_token_id), TOKENIZER, folder)
    return folder


class _Stopped(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Kill the next run in the middle of the rollouts of a step."""
    original = PolicyRun.roll_out

    def dying(self, slots):  # noqa: ANN001, ANN202
        if slots[0].step == step:
            monkeypatch.setattr(PolicyRun, "roll_out", original)
            raise _Stopped
        return original(self, slots)

    monkeypatch.setattr(PolicyRun, "roll_out", dying)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_writes_the_same_files_and_resumes_identically(
    name: str, tmp_path: Path, simulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, history, model = train(name, tmp_path / "whole", simulator)
    rows = read_rows(whole.path("metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and set(rows[0]) == set(METRICS)
    assert all(row["loss"] is not None and row["grad_norm"] >= 0 for row in rows)
    assert [row["learning_rate"] for row in rows] == pytest.approx([5e-3, 1e-2, 1e-2, 1e-2])
    assert all(dtype != object for dtype in history.dtypes), "what was not measured is NaN, so that means can be taken"
    steps = {e["unit"] for e in whole.ledger.events if (e.get("unit") or "").startswith("step ")}
    assert steps == {f"step {i}" for i in (1, 2, 3, 4)}
    assert whole.path("trajectories.parquet").is_file() and not model.training
    stop_at(monkeypatch, 4)  # after the checkpoint of step 2 and one step more
    with pytest.raises(_Stopped):
        train(name, tmp_path / "cut", simulator)
    stage, resumed, again = train(name, tmp_path / "cut", simulator)
    timeless = [c for c in history if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(resumed[timeless], history[timeless], check_exact=True)
    assert torch.equal(weights(model), weights(again))
    counted = [[(e["unit"], e["prompt"], e["generated"]) for e in s.ledger.events if e["kind"] == "tokens"]
               for s in (whole, stage)]
    assert [counts for unit, *counts in counted[0]] == [counts for unit, *counts in counted[1]]


def test_every_arm_has_a_trainer_an_opener_and_a_prompt() -> None:
    assert {arm.trainer for arm in ARMS.values()} == set(TRAINERS)
    assert {arm.retriever for arm in ARMS.values()} == set(OPENERS)
    for arm in ARMS.values():
        assert asking_of(arm).text(PROMPTS, QUESTIONS[0]).endswith("who directed film 0\n")


# -- without a search -----------------------------------------------------------------------------


def test_r1_is_asked_to_think_and_its_search_ends_the_trajectory(tmp_path: Path) -> None:
    request = asking_of(get_arm("r1")).request(PROMPTS, QUESTIONS[0], 3, 2, 0.0)
    assert request.prompt == "Think, then answer: who directed film 0\n" and request.max_searches == 0
    assert (request.step, request.sample) == (3, 2)
    (made,) = rollout([request], SearchingEngine(TOKENIZER), NoRetriever(), PROMPTS, replace(ROLLOUT, max_turn_tokens=30))
    assert made.stop_reason == "max_searches" and made.answer is None and made.n_searches == 0
    with pytest.raises(ValueError, match="expected no search, found 'q'"):
        NoRetriever().search([SearchRequest("q", QUESTIONS[0])])


# -- the policy as its own engine -----------------------------------------------------------------


def test_self_search_counts_its_tokens_once_and_learns_no_passage(tmp_path: Path, simulator: Path) -> None:
    stage, history, _ = train("self-search", tmp_path, simulator)
    events = stage.ledger.events
    assert {e["role"] for e in events if e["kind"] == "tokens"} == {"policy"}
    assert {e["engine"] for e in events if e["kind"] == "queries"} == {"self"}
    assert {e["role"] for e in events if e["kind"] == "busy"} == {"policy_rollout", "policy_training"}
    assert history["searches_mean"].tolist() == [1.0] * 4
    kept = table_to_trajectories(pd.read_parquet(tmp_path / "trajectories.parquet"))
    for t in kept:
        own = TOKENIZER.decode([i for i, mine in zip(t.token_ids, t.loss_mask, strict=True) if mine])
        assert t.turns[0].observation == "<information>\n I am Silver.\n</information>" and "I am" not in own


def test_self_search_writes_with_the_policy_as_it_is_now() -> None:
    model = micro_model()
    retriever = SelfRetriever(PolicyWriter(TransformersEngine(model, TOKENIZER), PROMPTS, 0, 1.0, 40), 3)
    request = SearchRequest("director of film", QUESTIONS[0], step=1)
    before, again = (retriever.search([request])[0].passages for _ in range(2))
    assert before == again and before
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert retriever.search([request])[0].passages != before


def test_self_search_draws_belong_to_their_search() -> None:
    retriever = SelfRetriever(PolicyWriter(TransformersEngine(micro_model(), TOKENIZER), PROMPTS, 0, 1.0, 30), 3)
    requests = [SearchRequest("q", QUESTIONS[i % 2], step=1, sample=i // 2, turn=t) for i in range(4) for t in (0, 1)]
    together, alone = retriever.search(requests), [retriever.search([r])[0] for r in requests]
    assert [r.passages for r in together] == [r.passages for r in alone]
    assert len({tuple(p.text for p in r.passages) for r in together}) > 4 and all(r.n_generated_tokens == 0 for r in together)


# -- a simulator with examples --------------------------------------------------------------------


class Listening:
    """An engine that keeps the prompts it is shown and writes one passage."""

    name = "listening"

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.counts = EngineCounts()

    def generate(self, requests):  # noqa: ANN001, ANN201
        self.prompts += [TOKENIZER.decode(r.prompt_ids) for r in requests]
        ids = tuple(TOKENIZER("\n A passage.", add_special_tokens=False).input_ids)
        return [Generation(ids, (0.0,) * len(ids), "eos") for _ in requests]

    def release(self) -> None: ...


EXAMPLES = shown_examples(PAIRS)


def prompted(examples: list[Shown] = EXAMPLES, **options):  # noqa: ANN003, ANN201
    engine = Listening()
    return engine, PromptedSimulatorRetriever(engine, PROMPTS, examples, k=1, run_seed=0, **options)


def test_a_prompted_simulator_is_shown_useful_and_misleading_searches() -> None:
    engine, retriever = prompted(n_examples=2)
    (found,) = retriever.search([SearchRequest("the query", QUESTIONS[0], noise_probability=1.0)])
    first, second, asked = engine.prompts[0].split("\n\n")
    assert first.startswith("Write one useful passages") and second.startswith("Write one misleading passages")
    assert "\nPassages:\n It was Answer" in first and "\nPassages:\n Nothing" in second
    assert asked.startswith("Write one misleading passages") and asked.endswith("Answer: Silver Harbor\nPassages:")
    assert found.noisy and found.passages[0].text == "A passage." and found.source == "simulator-prompted"


def test_examples_are_drawn_for_each_search_by_its_own_seed() -> None:
    requests = [SearchRequest("q", QUESTIONS[0], step=s, sample=i) for s in (1, 2) for i in range(6)]
    engines = [prompted()[1] for _ in range(2)]
    for retriever, order in zip(engines, (requests, requests[::-1]), strict=True):
        retriever.search(order)
    forward, backward = engines[0].engine.prompts, engines[1].engine.prompts
    assert forward == backward[::-1] and len(set(forward)) > 3


def test_examples_are_cut_to_the_budget_and_never_of_the_same_question() -> None:
    engine, retriever = prompted(n_examples=6, max_tokens=60)
    retriever.search([SearchRequest("q", QUESTIONS[0])])
    shown = engine.prompts[0].removesuffix(retriever.engine.prompts[0].split("\n\n")[-1])
    assert 0 < len(TOKENIZER(shown, add_special_tokens=False).input_ids) <= 60
    engine, retriever = prompted(n_examples=1)
    retriever.search([SearchRequest("q", PAIRS[0].question, sample=i) for i in range(20)])
    assert all("query 0" not in prompt for prompt in engine.prompts)


def test_examples_that_give_the_answer_away_are_no_misleading_ones() -> None:
    leak = replace(pair(1, useful=False), passages=(Passage("x", "", "It was Answer 1."),))
    assert [e.useful for e in shown_examples([PAIRS[0], leak])] == [True]
    with pytest.raises(BadInput, match="found 1 and 0; collect more"):
        prompted([EXAMPLES[0]])


def test_a_prompted_simulator_costs_tokens_under_its_own_name(tmp_path: Path, simulator: Path) -> None:
    retriever = open_retriever(
        get_arm("prompted"), k=1, seed=0, simulator=simulator, max_new_tokens=8, pairs=PAIRS
    )
    found = retriever.search([SearchRequest("q", QUESTIONS[0])])[0]
    assert (retriever.name, found.source) == ("simulator-prompted", "simulator-prompted")
    assert found.n_prompt_tokens > 60 and found.n_generated_tokens > 0


def test_a_missing_piece_is_named() -> None:
    for name in ("prompted", "zerosearch"):
        with pytest.raises(ValueError, match="folder or name of its simulator"):
            open_retriever(get_arm(name), k=1, seed=0, pairs=PAIRS)
    with pytest.raises(ValueError, match="engine and the prompts of its policy"):
        open_retriever(get_arm("self-search"), k=1, seed=0)


def test_a_request_of_a_searching_arm_is_that_of_search() -> None:
    assert asking_of(get_arm("zerosearch")).request(PROMPTS, QUESTIONS[0]) == RolloutRequest(QUESTIONS[0])
