"""simulator_sft.py: the weighted loss, prompts that are not learned, resuming, the same numbers twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_renaming import EXAMPLES, PEOPLE, example
from training_toys import FakeStage, read_rows, toy_model

from zerosearch.errors import WorkbookError
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.prompts import Prompts
from zerosearch.training.objective import token_logprobs
from zerosearch.training.simulator_data import collate
from zerosearch.training.simulator_sft import (
    SFTSettings,
    SimulatorTrainer,
    make_lessons,
    tune_simulator,
    weighted_nll,
)

TOKENIZER = build_tokenizer()
PROMPTS = Prompts.load("micro", TOKENIZER)
SETTINGS = SFTSettings(steps=6, batch_size=4, learning_rate=1e-2, save_every=2, max_length=200)
BEARING = [replace(e, golden_answer=p, aliases=(p,)) for e, p in zip(EXAMPLES, PEOPLE)]
POOL = [*BEARING, *(replace(e, useful=False) for e in EXAMPLES)]


def micro_model() -> torch.nn.Module:
    return toy_model(vocab_size=len(TOKENIZER), eos_token_id=TOKENIZER.eos_token_id)


def tune(folder: Path, settings: SFTSettings = SETTINGS) -> tuple[FakeStage, pd.DataFrame, torch.nn.Module]:
    stage, model = FakeStage(folder), micro_model()
    return stage, tune_simulator(POOL, model, TOKENIZER, PROMPTS, settings, stage), model


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_weighted_loss_by_hand() -> None:
    logp = torch.tensor([-1.0, -2.0, -3.0])
    assert weighted_nll(logp, torch.tensor([1.0, 4.0, 1.0])).item() == pytest.approx((1 + 8 + 3) / 6)
    assert weighted_nll(logp, torch.ones(3)).item() == pytest.approx(2.0)


def test_the_trainers_loss_is_the_plain_models_loss(tmp_path: Path) -> None:
    """One row at a time with the full logits: prompt tokens do not count, answer tokens count fourfold."""
    lessons = make_lessons(POOL, PROMPTS, SETTINGS)
    model = micro_model()
    trainer = SimulatorTrainer(model, TOKENIZER, lessons, SETTINGS, tmp_path, lambda step, row: None)
    part = lessons[:5]
    rows = [{"input_ids": list(le.input_ids), "n_prompt": le.n_prompt, "weights": list(le.weights)} for le in part]
    found = trainer.compute_loss(model, collate(rows, TOKENIZER))
    total = norm = 0.0
    for lesson in part:
        ids = torch.tensor([lesson.input_ids])
        scores = torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)
        for i, w in enumerate(lesson.weights):
            at = lesson.n_prompt + i
            total -= w * scores[at - 1, lesson.input_ids[at]].item()
            norm += w
    assert found.item() == pytest.approx(total / norm, abs=1e-4)


def test_no_gradient_starts_from_the_prompt() -> None:
    lessons = make_lessons(POOL, PROMPTS, SETTINGS)[:3]
    rows = [{"input_ids": list(le.input_ids), "n_prompt": le.n_prompt, "weights": list(le.weights)} for le in lessons]
    batch, model, kept = collate(rows, TOKENIZER), micro_model(), []

    def keep(module, inputs, output) -> None:  # noqa: ANN001
        output.retain_grad()
        kept.append(output)

    handle = model.get_decoder().norm.register_forward_hook(keep)
    logp, _ = token_logprobs(model, batch["input_ids"], batch["positions"], batch["targets"])
    weighted_nll(logp, batch["weights"]).backward()
    handle.remove()
    gradient = kept[0].grad.reshape(-1, kept[0].shape[-1])
    learned = torch.zeros(len(gradient), dtype=torch.bool)
    learned[batch["positions"]] = True
    assert (gradient[~learned] == 0).all() and (gradient[learned].abs().sum(1) > 0).all()


def test_a_toy_run_learns_and_writes_its_log(tmp_path: Path) -> None:
    stage, history, model = tune(tmp_path, replace(SETTINGS, steps=30, save_every=100))
    assert history["step"].tolist() == list(range(1, 31))
    assert history["loss"].tail(5).mean() < 0.7 * history["loss"].head(5).mean()
    assert {"loss", "nll", "nll_golden", "grad_norm", "learning_rate", "seconds"} <= set(history)
    assert read_rows(tmp_path / "sft_metrics.jsonl") == history.to_dict("records")
    assert history["learning_rate"].iloc[-1] < 0.1 * history["learning_rate"].max()
    busy = [e for e in stage.ledger.events if e["role"] == "simulator_training"]
    assert len(busy) == 30 and stage.progressed[0] == (0, 30) and stage.progressed[-1] == (30, 30)
    assert "forward" not in model.__dict__ and not model.training


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    (_, first, a), (_, second, b) = tune(tmp_path / "a"), tune(tmp_path / "b")
    assert first["loss"].tolist() == second["loss"].tolist() and torch.equal(weights(a), weights(b))
    _, _, c = tune(tmp_path / "c", replace(SETTINGS, seed=1))
    assert not torch.equal(weights(a), weights(c))


def test_a_resumed_tuning_ends_like_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole, model = tune(tmp_path / "whole")
    original = SimulatorTrainer.compute_loss

    def dying(self, *arguments, **named):  # noqa: ANN001, ANN002, ANN003, ANN202
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return original(self, *arguments, **named)

    monkeypatch.setattr(SimulatorTrainer, "compute_loss", dying)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "cut")
    monkeypatch.setattr(SimulatorTrainer, "compute_loss", original)
    stage, resumed, again = tune(tmp_path / "cut")
    assert [done for done, _ in stage.progressed] == [4, 5, 6]
    assert resumed["loss"].tolist() == whole["loss"].tolist() and torch.equal(weights(model), weights(again))


def test_lessons_are_as_many_as_the_steps_need() -> None:
    lessons = make_lessons(POOL, PROMPTS, SETTINGS)
    assert len(lessons) == 24 and all(len(le.input_ids) <= 200 for le in lessons)
    assert lessons == make_lessons(POOL, PROMPTS, SETTINGS)


def test_nothing_to_learn_from_is_said_in_one_sentence() -> None:
    with pytest.raises(WorkbookError, match="02.max_length"):
        make_lessons([example()], PROMPTS, replace(SETTINGS, max_length=5))
    with pytest.raises(WorkbookError, match="found none among 0"):
        make_lessons([], PROMPTS, SETTINGS)
