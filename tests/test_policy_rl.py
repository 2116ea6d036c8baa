"""policy_rl.py and policy_trainer.py on toys: a tiny random model, a scripted engine, the real trainer."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from training_toys import FakeStage, ScriptedRetriever, random_trajectories, read_rows, toy_model, toy_question
from trl import GRPOTrainer

from zerosearch.curriculum import Curriculum
from zerosearch.errors import ConfigError
from zerosearch.interrupts import Stopped
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Question, Retrieval, ScoredTrajectory, SearchRequest
from zerosearch.training import checkpoints
from zerosearch.training.batching import make_micro_batches
from zerosearch.training.laying import frozen_copy
from zerosearch.training.policy_rl import retrieval_events, score_trajectories, train_policy
from zerosearch.training.policy_trainer import PolicyTrainer, RLSettings, ScoredBatch, Slot, question_order
from zerosearch.training.step_metrics import METRICS

TOKENIZER = build_tokenizer()
SETTINGS = RLSettings(
    steps=4, questions_per_step=2, group_size=3, learning_rate=1e-2, kl_weight=1e-2, save_every=2, warmup_steps=1,
    micro_batch_tokens=200, kept_per_step=3,
)
ROLLOUT = RolloutSettings(max_searches=1, max_turn_tokens=6, max_observation_tokens=20, max_total_tokens=120)
CURRICULUM = Curriculum(0.0, 0.5, total_steps=4)
ANSWERS = ("Silver Harbor", "1903", "Port Amber", "Anka Falk")
QUESTIONS = [toy_question(i, answer) for i, answer in enumerate(ANSWERS)]


def micro_model(seed: int = 0) -> torch.nn.Module:
    model = toy_model(vocab_size=len(TOKENIZER), seed=seed, eos_token_id=TOKENIZER.eos_token_id)
    model.config.pad_token_id = TOKENIZER.pad_token_id
    return model


def dense_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reward tokens from the first half of the vocabulary, so that a random model has something to learn."""

    def scored(trajectories, reward="f1"):  # noqa: ANN001, ANN202
        half = len(TOKENIZER) // 2
        own = [[i for i, mine in zip(t.token_ids, t.loss_mask) if mine] for t in trajectories]
        values = [sum(i < half for i in ids) / len(ids) for ids in own]
        return [ScoredTrajectory(t, v, 0.0, 0.0, 0.0) for t, v in zip(trajectories, values, strict=True)]

    monkeypatch.setattr("zerosearch.training.policy_rl.score_trajectories", scored)


def train(
    folder: Path, settings: RLSettings = SETTINGS, questions: Sequence[Question] = QUESTIONS, **changes
) -> tuple[FakeStage, pd.DataFrame, torch.nn.Module]:
    stage, model = FakeStage(folder), micro_model()
    arguments = {"curriculum": CURRICULUM, "rollout_settings": ROLLOUT, "retriever": ScriptedRetriever(noisy=False)}
    arguments |= changes
    prompts = Prompts.load("micro", TOKENIZER)
    history = train_policy(
        questions, model, TOKENIZER, arguments.pop("retriever"), prompts, settings, stage, **arguments
    )
    return stage, history, model


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# -- the whole training on a toy -----------------------------------------------------------------


def test_a_toy_run_writes_what_the_next_stages_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    stage, history, _ = train(tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4] == history["step"].tolist()
    assert set(METRICS) == set(rows[0])  # every column is explained, every explanation has a column
    assert [row["noise_planned"] for row in rows] == pytest.approx(CURRICULUM.schedule())
    assert [row["learning_rate"] for row in rows] == pytest.approx([5e-3, 1e-2, 1e-2, 1e-2])
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-9) and rows[-1]["kl"] > 1e-6
    assert all(abs(row["advantage_mean"]) < 1e-6 for row in rows)
    assert all(row["logprob_gap"] < 1e-4 for row in rows)  # sampler and trainer agree on the policy
    assert stage.progressed == [(i, 4) for i in (0, 1, 2, 3, 4)]
    kept = pd.read_parquet(tmp_path / "trajectories.parquet")
    assert len(kept) == 4 * 3 and {"reward", "advantage", "noise_planned", "turns"} <= set(kept)
    roles = {e["role"] for e in stage.ledger.events if e["kind"] == "busy"}
    assert {"policy_rollout", "policy_training"} <= roles
    tokens = [e for e in stage.ledger.events if e["kind"] == "tokens" and e["role"] == "policy"]
    assert len(tokens) == 4 and all(e["generated"] > 0 for e in tokens)


def test_the_policy_learns_what_is_rewarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    settings = replace(SETTINGS, steps=30, kl_weight=0.0, group_size=8, save_every=100)
    _, history, _ = train(tmp_path, settings, curriculum=Curriculum(0.0, 0.0, 30))
    assert history["reward_mean"].tail(3).mean() > history["reward_mean"].head(3).mean() + 0.1
    assert history["kl"].isna().all()


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    runs = [train(tmp_path / name) for name in ("a", "b")]
    timeless = [h.drop(columns=[c for c in h if c.startswith("seconds_")]) for _, h, _ in runs]
    pd.testing.assert_frame_equal(timeless[0], timeless[1], check_exact=True)
    assert torch.equal(weights(runs[0][2]), weights(runs[1][2]))
    _, other, _ = train(tmp_path / "c", replace(SETTINGS, seed=1), rollout_settings=replace(ROLLOUT, run_seed=1))
    assert other["tokens_mean"].tolist() != runs[0][1]["tokens_mean"].tolist()


class _Stopped(Exception):
    pass


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Kill the next run in the middle of the rollouts of a step."""
    original = PolicyTrainer._generate_and_score_completions

    def dying(self, inputs):  # noqa: ANN001, ANN202
        if self.state.global_step == step:
            monkeypatch.setattr(PolicyTrainer, "_generate_and_score_completions", original)
            raise _Stopped
        return original(self, inputs)

    monkeypatch.setattr(PolicyTrainer, "_generate_and_score_completions", dying)


def test_a_resumed_run_ends_like_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    _, whole, model = train(tmp_path / "whole")
    stop_after(monkeypatch, 3)  # after the checkpoint of step 2 and one step more
    with pytest.raises(_Stopped):
        train(tmp_path / "cut")
    assert len(read_rows(tmp_path / "cut" / "metrics.jsonl")) == 3
    stage, resumed, again = train(tmp_path / "cut")
    assert stage.progressed == [(2, 4), (3, 4), (4, 4)]  # steps 1 and 2 were not repeated
    timeless = [c for c in whole if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(resumed[timeless], whole[timeless], check_exact=True)
    assert torch.equal(weights(model), weights(again))
    assert len(pd.read_parquet(tmp_path / "cut" / "trajectories.parquet")) == 12


def test_a_run_with_fewer_steps_than_save_every_goes_on_where_the_clock_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step takes longer than a kill may cost: the checkpoint of step 3 is there though save_every is 100."""
    dense_reward(monkeypatch)
    seldom = replace(SETTINGS, save_every=100)
    _, whole, model = train(tmp_path / "whole", seldom)
    assert not list((tmp_path / "whole").rglob("checkpoint-1"))
    monkeypatch.setattr(checkpoints, "LOST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "_SAVING_SHARE", 1e9)
    stop_after(monkeypatch, 3)
    with pytest.raises(_Stopped):
        train(tmp_path / "cut", seldom)
    stage, resumed, again = train(tmp_path / "cut", seldom)
    assert stage.progressed == [(3, 4), (4, 4)]  # steps 1 to 3 were not repeated
    timeless = [c for c in whole if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(resumed[timeless], whole[timeless], check_exact=True)
    assert torch.equal(weights(model), weights(again))


def test_a_resumed_run_counts_every_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    undisturbed, _, _ = train(tmp_path / "whole")
    stop_after(monkeypatch, 3)  # step 3 stands in the ledger and is made again
    with pytest.raises(_Stopped):
        train(tmp_path / "cut")
    resumed, _, _ = train(tmp_path / "cut")
    tokens = [[(e["unit"], e["prompt"], e["generated"]) for e in stage.ledger.events if e["kind"] == "tokens"]
              for stage in (undisturbed, resumed)]
    assert tokens[0] == tokens[1] and [unit for unit, *_ in tokens[1]] == ["step 1", "step 2", "step 3", "step 4"]
    aside = [e for path in (tmp_path / "cut" / "superseded").iterdir() for e in read_rows(path)]
    assert {e["unit"] for e in aside} == {"step 3"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_the_step_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Step 3 is no multiple of save_every: its checkpoint exists because of the signal."""
    dense_reward(monkeypatch)
    _, whole, model = train(tmp_path / "whole")
    before = signal.getsignal(number)
    original = PolicyTrainer._generate_and_score_completions

    def signalled(self, inputs):  # noqa: ANN001, ANN202
        if self.state.global_step == 2:
            monkeypatch.setattr(PolicyTrainer, "_generate_and_score_completions", original)
            os.kill(os.getpid(), number)
        return original(self, inputs)

    monkeypatch.setattr(PolicyTrainer, "_generate_and_score_completions", signalled)
    with pytest.raises(Stopped, match="3 of 4 steps saved; to go on"):
        train(tmp_path / "cut")
    assert signal.getsignal(number) is before
    stage, resumed, again = train(tmp_path / "cut")
    assert stage.progressed == [(3, 4), (4, 4)]
    timeless = [c for c in whole if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(resumed[timeless], whole[timeless], check_exact=True)
    assert torch.equal(weights(model), weights(again))


def test_a_model_whose_training_was_cut_off_is_no_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = micro_model()
    monkeypatch.setattr(sys.modules[__name__], "micro_model", lambda: model)
    stop_after(monkeypatch, 3)
    with pytest.raises(_Stopped):
        train(tmp_path)
    with pytest.raises(ConfigError, match="run the notebook again from its first cell"):
        train(tmp_path)
    assert (tmp_path / "checkpoints" / "checkpoint-2" / "COMPLETE.json").is_file()


def test_a_finished_run_is_loaded_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    _, history, model = train(tmp_path)
    stage, again, loaded = train(tmp_path)
    assert stage.progressed == [(4, 4)] and again["step"].tolist() == history["step"].tolist()
    assert torch.equal(weights(model), weights(loaded))


def test_other_settings_start_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    train(tmp_path)
    stage, history, _ = train(tmp_path, replace(SETTINGS, learning_rate=2e-3))
    assert len(stage.progressed) == 5 and history["step"].tolist() == [1, 2, 3, 4]


def test_a_broken_checkpoint_is_not_resumed_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    train(tmp_path)
    (tmp_path / "checkpoints" / "checkpoint-4" / "optimizer.pt").unlink()
    stage, history, _ = train(tmp_path)
    assert [done for done, _ in stage.progressed] == [2, 3, 4] and history["step"].tolist() == [1, 2, 3, 4]


def test_the_model_comes_back_unpatched_and_in_evaluation_mode(tmp_path: Path) -> None:
    _, _, model = train(tmp_path, replace(SETTINGS, steps=1), curriculum=Curriculum(0.0, 0.0, 1))
    assert "forward" not in model.__dict__ and not model.training


# -- rows and records -----------------------------------------------------------------------------


class SearchingEngine:
    """Writes one search per first message and an answer afterwards; the query names the prompt's last token."""

    name = "scripted"

    def __init__(self, tokenizer):  # noqa: ANN001
        from zerosearch.engines.base import EngineCounts

        self.tokenizer, self.counts = tokenizer, EngineCounts()

    def generate(self, requests):  # noqa: ANN001, ANN201
        from zerosearch.engines.base import Generation

        closing = self.tokenizer("</information>", add_special_tokens=False).input_ids[0]
        made = []
        for request in requests:
            read = closing in request.prompt_ids
            asked = self.tokenizer.decode(request.prompt_ids).splitlines()[0].removeprefix("Question: ")
            text = "<answer> Silver Harbor</answer>" if read else f"<search> {asked}</search>"
            ids = tuple(self.tokenizer(text, add_special_tokens=False).input_ids)
            made.append(Generation(ids, (-1.0,) * len(ids), "stop"))
        self.counts.generated += sum(len(m.token_ids) for m in made)
        return made

    def release(self) -> None:
        pass


def test_every_search_travels_with_its_own_question(tmp_path: Path) -> None:
    """Two questions with the same text but different answers: records are never looked up by text."""
    twin = replace(QUESTIONS[0], id="nq/twin", golden_answers=("Port Amber",))
    retriever = ScriptedRetriever("simulator", noisy=True)
    stage, history, _ = train(
        tmp_path, replace(SETTINGS, steps=2, save_every=100), [QUESTIONS[0], twin], retriever=retriever,
        engine=SearchingEngine(TOKENIZER), curriculum=Curriculum(0.0, 0.5, 2),
    )
    assert len(retriever.asked) == 2 * 2 * 3
    assert all(request.query == request.question.question for request in retriever.asked)
    by_step = {s: sorted((r.question.id, r.sample) for r in retriever.asked if r.step == s) for s in (1, 2)}
    wanted = sorted((q, sample) for q in ("nq/0000", "nq/twin") for sample in range(3))
    assert by_step == {1: wanted, 2: wanted}
    assert {r.noise_probability for r in retriever.asked if r.step == 2} == {0.5}
    assert history["reward_mean"].tolist() == [0.5, 0.5]  # one of the twins is answered rightly
    assert history["noise_realised"].tolist() == [1.0, 1.0] and history["searches_mean"].tolist() == [1.0, 1.0]
    queries = [e for e in stage.ledger.events if e["kind"] == "queries"]
    assert sum(e["fresh"] for e in queries) == 12 and all(e["paid"] == 0 for e in queries)


def test_failed_rollouts_are_masked_and_counted(tmp_path: Path) -> None:
    retriever = ScriptedRetriever(fail=[QUESTIONS[1].question])
    settings = replace(SETTINGS, steps=1, kl_weight=0.0)
    _, history, _ = train(
        tmp_path, settings, QUESTIONS[:2], retriever=retriever, engine=SearchingEngine(TOKENIZER),
        curriculum=Curriculum(0.0, 0.0, 1),
    )
    row = history.iloc[0]
    assert row["stop_retriever_error"] == 0.5 and row["reward_mean"] == 1.0
    kept = pd.read_parquet(tmp_path / "trajectories.parquet")
    assert (kept.loc[kept["stop_reason"] == "retriever_error", "advantage"] == 0).all()


def test_a_step_whose_every_search_failed_changes_nothing(tmp_path: Path) -> None:
    retriever = ScriptedRetriever(fail=[q.question for q in QUESTIONS])
    settings = replace(SETTINGS, steps=1)
    _, history, model = train(
        tmp_path, settings, retriever=retriever, engine=SearchingEngine(TOKENIZER),
        curriculum=Curriculum(0.0, 0.0, 1),
    )
    assert history["stop_retriever_error"].tolist() == [1.0] and history["grad_norm"].tolist() == [0.0]
    assert torch.equal(weights(model), weights(micro_model()))


def test_rows_that_come_back_in_another_order_are_refused(tmp_path: Path) -> None:
    def shuffled(slots: list[Slot]) -> ScoredBatch:
        made = [replace(t, question=s.question, step=s.step, sample=s.sample)
                for t, s in zip(random_trajectories(len(slots)), slots)]
        return ScoredBatch([ScoredTrajectory(t, 0.0, 0.0, 0.0, 0.0) for t in reversed(made)], 0.0)

    trainer = PolicyTrainer(micro_model(), TOKENIZER, QUESTIONS, SETTINGS, tmp_path, shuffled, lambda report: None)
    with pytest.raises(RuntimeError, match="a different one at row 0"):
        trainer.train()


# -- the loss inside the trainer ------------------------------------------------------------------


def trainer_with_reference(tmp_path: Path, model, reference) -> PolicyTrainer:  # noqa: ANN001
    return PolicyTrainer(
        model, TOKENIZER, QUESTIONS, replace(SETTINGS, kl_weight=0.1), tmp_path, lambda slots: None,
        lambda report: None, reference=reference,
    )


def test_the_loss_is_trls_own_dapo_loss(tmp_path: Path) -> None:
    """Clip, KL and normalisation: the same number and gradient as TRL's implementation on the same batch."""
    model, reference = micro_model(), frozen_copy(micro_model(seed=1))
    trainer = trainer_with_reference(tmp_path, model, reference)
    trajectories = random_trajectories(6, seed=2, vocab_size=len(TOKENIZER))
    advantages = np.linspace(-1.0, 1.5, 6)
    (batch,) = make_micro_batches(trajectories, advantages, pad_id=0, max_tokens=10_000)
    model.train()
    ours = trainer.compute_loss(model, batch)
    ours.backward()
    our_gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    trainer.beta, trainer.current_gradient_accumulation_steps = 0.1, 1  # set by train() otherwise
    theirs = GRPOTrainer._compute_loss(trainer, model, trl_inputs(trainer, trajectories, advantages, reference))
    theirs.backward()
    their_gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-5, rtol=1e-3)


def trl_inputs(trainer, trajectories, advantages, reference) -> dict[str, torch.Tensor]:  # noqa: ANN001
    """Return the batch in TRL's own form: prompts padded left, completions right, retrieved tokens masked."""
    n, pad = len(trajectories), TOKENIZER.pad_token_id
    wide = max(len(t.prompt_ids) for t in trajectories)
    long = max(len(t.token_ids) for t in trajectories)
    prompt_ids, completion_ids = torch.full((n, wide), pad), torch.full((n, long), pad)
    prompt_mask = torch.zeros(n, wide).long()
    completion_mask, tool_mask = (torch.zeros(n, long).long() for _ in range(2))
    old = torch.zeros(n, long)
    for i, t in enumerate(trajectories):
        prompt_ids[i, wide - len(t.prompt_ids):] = torch.tensor(t.prompt_ids)
        prompt_mask[i, wide - len(t.prompt_ids):] = 1
        completion_ids[i, : len(t.token_ids)] = torch.tensor(t.token_ids)
        completion_mask[i, : len(t.token_ids)] = 1
        tool_mask[i, : len(t.token_ids)] = torch.tensor(t.loss_mask).long()
        old[i, : len(t.token_ids)] = torch.tensor(t.logprobs)
    ids, mask = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1)
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = reference(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, :-1]
        ref = torch.log_softmax(logits, -1).gather(2, ids[:, 1:, None])[..., 0][:, -long:]
    return {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "completion_ids": completion_ids,
        "completion_mask": completion_mask, "tool_mask": tool_mask, "old_per_token_logps": old,
        "ref_per_token_logps": ref, "advantages": torch.tensor(advantages, dtype=torch.float32),
        "num_items_in_batch": (completion_mask * tool_mask).sum(),
    }


def test_the_kl_inside_the_trainer_rises_with_drift(tmp_path: Path) -> None:
    reference = frozen_copy(micro_model())
    (batch,) = make_micro_batches(
        random_trajectories(3, vocab_size=len(TOKENIZER)), np.zeros(3), pad_id=0, max_tokens=10_000
    )
    losses = []
    for drift in (0.0, 0.02, 0.05):
        model = micro_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(drift * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        trainer = trainer_with_reference(tmp_path, model, reference)
        losses.append(trainer.compute_loss(model, batch).item())
    assert losses[0] == pytest.approx(0.0, abs=1e-7) and losses[0] < losses[1] < losses[2]


def test_the_reference_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    seen: list[torch.nn.Module] = []
    monkeypatch.setattr(
        "zerosearch.training.laying.frozen_copy", lambda model: seen.append(frozen_copy(model)) or seen[-1]
    )
    _, _, model = train(tmp_path, replace(SETTINGS, steps=2), curriculum=Curriculum(0.0, 0.0, 2))
    assert torch.equal(weights(seen[0]), weights(micro_model()))
    assert not torch.equal(weights(seen[0]), weights(model))
    assert not any(p.requires_grad for p in seen[0].parameters())


# -- small parts ----------------------------------------------------------------------------------


def test_question_order_by_its_promises() -> None:
    order = question_order(7, steps=6, per_step=3, seed=0)
    assert len(order) == 6 and all(len(set(chunk)) == 3 for chunk in order)
    for first in (0, 2, 4):  # two steps make one pass: no question twice in it
        assert len(set(order[first] + order[first + 1])) == 6
    assert order == question_order(7, 6, 3, 0) != question_order(7, 6, 3, 1)
    assert order[:4] == question_order(7, 4, 3, 0)
    with pytest.raises(ConfigError, match="questions_per_step = 8, found 7"):
        question_order(7, 1, 8, 0)


def test_only_training_questions_are_accepted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split 'eval'"):
        train(tmp_path, questions=[*QUESTIONS, toy_question(9, split="eval")])
    with pytest.raises(ValueError, match="expected 4 steps"):
        train(tmp_path, curriculum=Curriculum(0.0, 0.5, 9))
    with pytest.raises(ValueError, match="greedy"):
        train(tmp_path, rollout_settings=replace(ROLLOUT, temperature=0.0))


def test_rewards_come_from_the_answer_alone() -> None:
    good, wrong, none = (
        replace(t, answer=answer)
        for t, answer in zip(random_trajectories(3), ("the Silver Harbor", "Harbor", None), strict=True)
    )
    rows = score_trajectories([good, wrong, none])
    assert [r.em for r in rows] == [1.0, 0.0, 0.0]
    assert [r.reward for r in rows] == pytest.approx([1.0, 2 / 3, 0.0])


def test_ledger_events_of_retrievals_by_hand() -> None:
    request = SearchRequest("q", toy_question())
    rows = [
        Retrieval(request, (), "serpapi"), Retrieval(request, (), "serpapi", cached=True),
        Retrieval(request, (), "simulator", n_prompt_tokens=10, n_generated_tokens=4),
        Retrieval(request, (), "simulator", n_prompt_tokens=11, n_generated_tokens=5),
    ]
    assert retrieval_events(rows) == [  # what was paid enters the ledger when it arrives
        {"kind": "queries", "engine": "serpapi", "fresh": 1, "cached": 1, "paid": 0},
        {"kind": "queries", "engine": "simulator", "fresh": 2, "cached": 0, "paid": 0},
        {"kind": "tokens", "role": "simulator", "model": "simulator", "prompt": 21, "generated": 9},
    ]
    tokens = {"kind": "tokens", "role": "simulator", "model": "served-14b", "prompt": 21, "generated": 9, "unit": "paid"}
    assert retrieval_events(rows[2:], served="served-14b")[1:] == [tokens]
