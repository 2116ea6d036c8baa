"""What each of two processes does in ``test_together``: the gradient of recorded trajectories, then a job of each training."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from test_policy_rl import TOKENIZER, micro_model
from test_simulator_sft import POOL, PROMPTS
from test_simulator_sft import SETTINGS as SFT
from test_simulator_sft import TOKENIZER as READER
from test_simulator_sft import micro_model as simulator
from training_toys import random_trajectories, toy_question

from zerosearch.schema import ScoredTrajectory
from zerosearch.training import launching, sharding, worker
from zerosearch.training.policy_trainer import PolicyTrainer, RLSettings, ScoredBatch, Slot
from zerosearch.training.simulator_data import collate
from zerosearch.training.simulator_sft import SimulatorTrainer, make_lessons
from zerosearch.training.team import ALONE, Team

GRADIENTS, FIRST = "gradients.pt", "FIRST_JOB"
SETTINGS = RLSettings(
    steps=1, questions_per_step=3, group_size=4, kl_weight=0.3, micro_batch_tokens=90, loss="plain", packing="padded"
)
QUESTIONS = [toy_question(i) for i in range(3)]


def recorded(slots: list[Slot]) -> ScoredBatch:
    """Return the same trajectories in every process, with rewards that teach."""
    made = [
        replace(t, question=slot.question, step=slot.step, sample=slot.sample)
        for t, slot in zip(random_trajectories(len(slots), seed=3), slots, strict=True)
    ]
    rewards = np.random.default_rng(5).uniform(size=len(made)).tolist()
    return ScoredBatch([ScoredTrajectory(t, r, 0.0, 0.0, r) for t, r in zip(made, rewards, strict=True)], 0.0)


def gradient(kind: str, folder: Path, team: Team = ALONE) -> dict[str, torch.Tensor | float]:
    """Return loss, KL, gap and gradient (P,) of the recorded batch.  kind: of sharding."""
    model, reference = micro_model(seed=0), micro_model(seed=1).requires_grad_(False)
    trainer = PolicyTrainer(
        model, TOKENIZER, QUESTIONS, SETTINGS, folder / f"gradient-{kind}", recorded, print, reference=reference, team=team
    )
    for one in (model, reference) if kind == "fsdp" else ():
        sharding.spread(one, team.size)
    rows = [{"question": q, "step": 1} for q in range(3) for _ in range(4)]
    loss = trainer.training_step(model, rows)
    whole = torch.cat([sharding.whole(p.grad).flatten() for p in model.parameters()])
    return {
        "loss": float(loss), "kl": sum(terms.kl_sum for terms in trainer._terms), "gradient": whole,
        "passes": len(trainer._terms), "norm": float(trainer._clip_grad_norm(model)),
    }


def tuning_gradient(folder: Path, team: Team = ALONE) -> tuple[float, torch.Tensor]:
    """Return (loss, gradient (P,)) of five lessons for a simulator that every process has whole."""
    lessons, model = make_lessons(POOL, PROMPTS, SFT), simulator()
    trainer = SimulatorTrainer(model, READER, lessons, SFT, folder / "tuning", print, team=team)
    loss = trainer.training_step(model, collate([asdict(lesson) for lesson in lessons[:5]], READER))
    return float(loss), torch.cat([p.grad.flatten() for p in model.parameters()])


def main() -> None:
    """Leave the gradients of all ways; then do two jobs as any process of a training, that of FIRST before."""
    folder = Path(sys.argv[1])
    team = worker.join(folder / launching.STOP)
    made: dict[str, object] = {kind: gradient(kind, folder, team) for kind in ("none", "fsdp")}
    made["tuning"] = tuning_gradient(folder, team)
    if team.leads:
        torch.save(made, folder.parent / GRADIENTS)
    code = worker.work(Path(os.environ[FIRST]), team) or worker.work(folder, team)
    torch.distributed.destroy_process_group()
    sys.exit(code)


if __name__ == "__main__":
    main()
