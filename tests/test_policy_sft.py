"""policy_sft.py on toys: golden answers, right trajectories only, the mask, the loss, stopping."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_arm_training import PROMPTS, QUESTIONS, simulator, train  # noqa: F401 - simulator is a fixture
from test_policy_rl import ROLLOUT, SETTINGS, TOKENIZER, SearchingEngine, micro_model, weights
from training_toys import FakeStage, ScriptedRetriever, read_rows, toy_question, toy_trajectory

from zerosearch.curriculum import Curriculum, constant
from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.interrupts import Stopped
from zerosearch.prompts import parse_action
from zerosearch.rollout import table_to_trajectories
from zerosearch.training import policy_sft
from zerosearch.training.asking import Asking
from zerosearch.training.policy_sft import SupervisedTrainer, answer_lesson, keep_right, tune_on_right_trajectories

LONG = replace(ROLLOUT, max_turn_tokens=30, max_total_tokens=200)


# -- lessons --------------------------------------------------------------------------------------


def test_a_lesson_is_the_prompt_and_the_answer_as_the_policy_should_write_it() -> None:
    lesson = answer_lesson(toy_question(3, "Port <answer> Amber"), PROMPTS, Asking("direct", searches=False))
    assert TOKENIZER.decode(lesson.prompt_ids) == "Answer at once: who directed film 3\n"
    written = TOKENIZER.decode(lesson.token_ids)
    assert written == "<answer> Port (answer) Amber</answer>" and parse_action(written)[0] == "answer"
    assert all(lesson.loss_mask) and lesson.question.id == "nq/0003"


def test_only_right_trajectories_are_kept_and_few_of_each_question() -> None:
    def made(index: int, tokens: list[int], answer: str | None, **more):  # noqa: ANN003, ANN202
        return toy_trajectory([1], tokens, [1] * len(tokens), index=index, answer=answer, **more)

    right = [made(0, [5, sample], "the Silver Harbor", sample=sample) for sample in range(4)]
    twin = made(0, [5, 0], "Silver Harbor", sample=9)
    wrong = [made(1, [6], "Harbor"), made(1, [7], None, stop="no_action"), made(2, [8], None, stop="retriever_error")]
    other = made(3, [9], "Silver Harbor")
    assert keep_right([*wrong, right[0], twin, *right[1:], other]) == [right[0], right[1], other]
    assert keep_right(right, per_question=3) == right[:3] and keep_right(wrong) == []


def test_rejection_learns_the_policys_own_tokens_of_right_trajectories(tmp_path: Path, simulator: Path) -> None:
    """The scripted policy answers Silver Harbor to everything: one question of four is right."""
    stage, history, _ = train("rejection", tmp_path, simulator)
    kept = table_to_trajectories(pd.read_parquet(stage.path(policy_sft.LESSONS)))
    assert [(t.question.id, t.answer, t.sample) for t in kept] == [("nq/0000", "Silver Harbor", 0)]  # the others are twins
    (lesson,) = kept
    own = TOKENIZER.decode([i for i, mine in zip(lesson.token_ids, lesson.loss_mask, strict=True) if mine])
    assert own == "".join(turn.text for turn in lesson.turns) and "<information>" not in own
    sampled = [e for e in stage.ledger.events if e["kind"] == "queries" and "part" in (e["unit"] or "")]
    assert sum(e["fresh"] for e in sampled) == 4 * 2 * 3  # as many trajectories as RL would sample
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_nothing_right_is_said(tmp_path: Path) -> None:
    with pytest.raises(WorkbookError, match="right trajectories among 18, found none; sample more with --set 03.group_size=6"):
        tune_on_right_trajectories(
            QUESTIONS[1:], micro_model(), TOKENIZER, ScriptedRetriever(), PROMPTS, replace(SETTINGS, steps=3),
            FakeStage(tmp_path), curriculum=constant(0.0, 3), rollout_settings=LONG, engine=SearchingEngine(TOKENIZER),
        )


# -- training -------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_trained_tokens(tmp_path: Path) -> None:
    """By hand: two lessons of different lengths, every own token weighs the same, passages nothing."""
    lessons = [toy_trajectory([2, 3], [4, 5, 6, 7], [1, 0, 0, 1]), toy_trajectory([8], [9], [1], index=1)]
    model = micro_model()
    trainer = SupervisedTrainer(
        model, TOKENIZER, [lessons], replace(SETTINGS, steps=1), tmp_path, lambda step: None, lambda report: None
    )
    trainer._probed = lambda step: None
    loss = trainer.training_step(model, [{"step": 1}])
    with torch.no_grad():
        logps = [torch.log_softmax(model(input_ids=torch.tensor([t.prompt_ids + t.token_ids])).logits[0], -1) for t in lessons]
    by_hand = -(logps[0][1, 4] + logps[0][4, 7] + logps[1][0, 9]) / 3
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_golden_answers_are_learned(tmp_path: Path, simulator: Path) -> None:
    _, history, _ = train("sft", tmp_path, simulator, learning_rate=5e-2)
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    assert history["searches_mean"].eq(0).all() and history["kl"].isna().all() and history["entropy"].notna().all()


def test_what_is_measured_is_never_learned_from(tmp_path: Path, simulator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, model = train("sft", tmp_path / "one", simulator)
    original = policy_sft.PolicyRun.roll_out

    def otherwise(self, slots):  # noqa: ANN001, ANN202
        return original(self, [replace(slot, sample=slot.sample + 100) for slot in slots])

    monkeypatch.setattr(policy_sft.PolicyRun, "roll_out", otherwise)
    _, _, again = train("sft", tmp_path / "two", simulator)
    assert torch.equal(weights(model), weights(again))


@pytest.mark.parametrize("name", ["sft", "rejection"])
def test_asked_to_stop_it_saves_the_step_and_goes_on(
    name: str, tmp_path: Path, simulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 3 is no multiple of save_every: its checkpoint exists because of the signal."""
    _, whole, model = train(name, tmp_path / "whole", simulator)
    original = policy_sft.PolicyRun.roll_out

    def signalled(self, slots):  # noqa: ANN001, ANN202
        if slots[0].step == 3:
            monkeypatch.setattr(policy_sft.PolicyRun, "roll_out", original)
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, slots)

    monkeypatch.setattr(policy_sft.PolicyRun, "roll_out", signalled)
    with pytest.raises(Stopped, match="3 of 4 steps saved; to go on"):
        train(name, tmp_path / "cut", simulator)
    assert len(read_rows(tmp_path / "cut" / "metrics.jsonl")) == 3
    stage, resumed, again = train(name, tmp_path / "cut", simulator)
    assert stage.progressed[-2:] == [(3, 4), (4, 4)] and torch.equal(weights(model), weights(again))
    timeless = [c for c in whole if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(resumed[timeless], whole[timeless], check_exact=True)


def test_a_model_whose_training_was_cut_off_is_no_base(
    tmp_path: Path, simulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = micro_model()
    monkeypatch.setattr(policy_sft.PolicyRun, "on_step", lambda self, report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train("sft", tmp_path, simulator, model)
    with pytest.raises(ConfigError, match="freshly loaded model"):
        train("sft", tmp_path, simulator, model)


def test_other_questions_or_prompts_start_afresh(tmp_path: Path, simulator: Path) -> None:
    train("sft", tmp_path, simulator)
    stage, _, _ = train("sft", tmp_path, simulator)
    assert stage.progressed == [(4, 4)]
    stage, _, _ = train("sft", tmp_path, simulator, learning_rate=1e-3)
    assert [done for done, _ in stage.progressed] == [0, 1, 2, 3, 4]


def test_evaluation_questions_and_greedy_sampling_are_refused(tmp_path: Path) -> None:
    for name in ("tune_on_answers", "tune_on_right_trajectories"):
        with pytest.raises(ValueError, match="split 'eval'"):
            getattr(policy_sft, name)(
                [toy_question(1, split="eval")], micro_model(), TOKENIZER, ScriptedRetriever(), PROMPTS, SETTINGS,
                FakeStage(tmp_path), curriculum=Curriculum(0.0, 0.0, 4), rollout_settings=ROLLOUT,
            )
