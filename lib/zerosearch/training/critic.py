"""The critic of PPO: a second model that says what reward a trajectory may still expect, token by token.

Its body is a copy of the base policy's, its head one number that starts at 0.  Only the policy's own tokens have
values: what a retriever wrote is read, but nothing is predicted for it and nothing is learned from it.  The critic
learns once per step, like the policy, with an optimiser of its own; both are kept in the checkpoints and nowhere else.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from zerosearch.training.batching import MicroBatch
from zerosearch.training.objective import hidden_states
from zerosearch.training.packing import attending_alone
from zerosearch.training.team import ALONE, Team

FILE = "critic.pt"  # of a checkpoint


class ValueModel(torch.nn.Module):
    """The body of a policy with a head of one number, all zeros before it is trained."""

    def __init__(self, policy: PreTrainedModel):
        super().__init__()
        self.body = copy.deepcopy(policy.get_decoder()).requires_grad_(True).eval()
        self.head = torch.nn.Linear(policy.config.get_text_config().hidden_size, 1).to(policy.device)
        for parameter in self.head.parameters():
            torch.nn.init.zeros_(parameter)

    def get_decoder(self) -> torch.nn.Module:
        """Return the body, as a policy does."""
        return self.body

    def forward(self, batch: MicroBatch) -> torch.Tensor:
        """Return what is expected before each trained token is written, (N,) float32, in reward units."""
        states = hidden_states(self, batch.input_ids, batch.positions, batch.segments)  # type: ignore[arg-type]
        return self.head(states.float()).squeeze(-1)


@dataclass(frozen=True, slots=True)
class ValueLesson:
    """What the critic learns from a micro-batch, (N,) float32 each: its values before the update, and the returns."""

    values: torch.Tensor
    returns: torch.Tensor


def value_losses(values: torch.Tensor, lesson: ValueLesson, clip: float) -> torch.Tensor:
    """Return the loss of each value, (N,):  0.5 * max((v - R)^2, (clip(v) - R)^2).

    clip(v) stays within ``clip`` of the value before the update: a step that goes further earns nothing by it.
    """
    near = lesson.values + (values - lesson.values).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - lesson.returns).square(), (near - lesson.returns).square())


class Critic:
    """A value model with its optimiser.

    policy: the base, before its training.  learning_rate: of AdamW without decay, rising over the first
    warmup_steps like the policy's.  clip: of values.  max_grad_norm: of the gradient.
    """

    def __init__(
        self, policy: PreTrainedModel, *, learning_rate: float, warmup_steps: int, clip: float, max_grad_norm: float
    ):
        self.model = ValueModel(policy)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, weight_decay=0.0)
        self.schedule = LambdaLR(self.optimiser, lambda done: min(1.0, (done + 1) / (warmup_steps + 1)))
        self.clip, self.max_grad_norm = clip, max_grad_norm

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.head.weight.device

    def values(self, batch: MicroBatch) -> torch.Tensor:
        """Return the values (N,) of a micro-batch's trained tokens on the CPU, without gradient."""
        with torch.no_grad():
            return self.model(batch.to(self.device)).cpu()

    def loss(self, batch: MicroBatch, lesson: ValueLesson, n_tokens: int) -> torch.Tensor:
        """Return a micro-batch's part of the mean over n_tokens, those of all micro-batches of the step."""
        there = ValueLesson(lesson.values.to(self.device), lesson.returns.to(self.device))
        return value_losses(self.model(batch.to(self.device)), there, self.clip).sum() / n_tokens

    def learn(self, batches: Sequence[MicroBatch], lessons: Sequence[ValueLesson], team: Team = ALONE) -> float:
        """Take one step on the micro-batches of a batch; return its loss, the mean over all its tokens.

        team: whose processes share the passes; each has a whole critic.
        """
        n_tokens, made = sum(len(batch.targets) for batch in batches), []
        self.optimiser.zero_grad()
        packed = any(batch.segments for batch in batches)
        with attending_alone(self.model) if packed else nullcontext():  # type: ignore[arg-type]
            for index in team.deal([batch.input_ids.numel() for batch in batches]):
                keeps_step = index is None  # its gradient, of nothing, must be there to be summed
                number = len(batches) - 1 if index is None else index
                loss = self.loss(batches[number], lessons[number], n_tokens)
                (0.0 * loss if keeps_step else loss).backward()
                if not keeps_step:
                    made.append((number, float(loss.detach())))
        team.sum_gradients(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        self.optimiser.step()
        self.schedule.step()
        return sum(team.in_order(made))

    def save(self, folder: Path) -> None:
        """Write weights, optimiser and schedule into the folder of a checkpoint."""
        parts = (self.model, self.optimiser, self.schedule)
        torch.save([part.state_dict() for part in parts], folder / FILE)

    def load(self, folder: Path) -> None:
        """Go on from what ``save`` wrote."""
        found = torch.load(folder / FILE, map_location=self.device, weights_only=True)
        for part, state in zip((self.model, self.optimiser, self.schedule), found, strict=True):
            part.load_state_dict(state)
