"""From the rewards of a batch to one advantage per policy token, whatever the algorithm.

With the KL in the loss and no critic a trajectory's advantage is that of all its tokens.  In two cases the models
are asked first, in one pass without gradient over the micro-batches:

- KL in the reward.  Every policy token costs kl_weight * (log p - log p_base): the estimate k1 of the sampled token,
  whose mean over samples is the KL itself, and which may be below 0 for a single token.  p is the sampler's: it
  earned the reward.  Without a critic a trajectory's reward is reduced by the sum of its tokens' costs, before the
  advantages: a group of equal answers is then told apart by its drift alone, and GRPO's division makes that as large
  as any other difference.  This is why it suits the loss there.
- A critic.  The reward is earned by the last policy token, the cost of the KL by each; see
  ``advantages.generalised_advantages``.

Trajectories whose retriever failed stand in no micro-batch, hence in nothing that is made here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from zerosearch.schema import Trajectory
from zerosearch.training.advantages import generalised_advantages, group_advantages, whitened
from zerosearch.training.batching import MicroBatch, make_micro_batches
from zerosearch.training.critic import Critic, ValueLesson
from zerosearch.training.losses import frozen_logp
from zerosearch.training.objective import kl_estimate
from zerosearch.training.team import ALONE, Team

if TYPE_CHECKING:
    from zerosearch.training.policy_trainer import RLSettings


@dataclass(frozen=True, slots=True)
class Judges:
    """The models that are asked what a token is worth.

    reference: frozen base of the KL, None without one.  critic: None without one.  temperature: sampled with.
    device: of the reference.  team: whose processes share the asking.
    """

    reference: PreTrainedModel | None
    critic: Critic | None
    temperature: float
    device: torch.device
    team: Team = ALONE

    def ask(self, work: Callable[[MicroBatch], torch.Tensor], batches: Sequence[MicroBatch]) -> list[torch.Tensor]:
        """Return what ``work`` says of every micro-batch, on the CPU."""
        return self.team.map(work, batches, [batch.input_ids.numel() for batch in batches])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a batch: its trajectories, with one reward and one group each, (B,)."""

    trajectories: Sequence[Trajectory]
    rewards: np.ndarray
    groups: np.ndarray

    @property
    def valid(self) -> np.ndarray:
        """Return which trajectories count, (B,) bool: those whose retriever did not fail."""
        return np.array([t.stop_reason != "retriever_error" for t in self.trajectories], dtype=bool)


@dataclass(frozen=True, slots=True)
class Credit:
    """What a batch teaches.

    micro_batches: with the advantage of every token.  advantages (B,): one per trajectory, to be kept and looked at;
    with a critic the mean over its tokens.  lessons: of the critic, one per micro-batch.  measured: columns of
    ``step_metrics.METRICS`` that are known here.
    """

    micro_batches: list[MicroBatch]
    advantages: np.ndarray
    lessons: list[ValueLesson] = field(default_factory=list)
    measured: dict[str, float | None] = field(default_factory=dict)


def assign_credit(
    outcome: Outcome, settings: RLSettings, judges: Judges, pad_id: int, *, packed: bool = False
) -> Credit:
    """Return what a batch teaches under settings.algorithm.  pad_id, packed: as in ``make_micro_batches``."""
    split = partial(_micro_batches, outcome, settings=settings, pad_id=pad_id, packed=packed)
    in_reward = settings.kl_place == "reward" and judges.reference is not None
    if judges.critic is None and not in_reward:
        advantages = group_advantages(outcome.rewards, outcome.groups, settings.estimator, outcome.valid)
        idle = judges.reference is None
        return Credit(split(advantages, skip_idle=idle), advantages)
    # Until advantages are known, the number of its trajectory stands in the place of a token's.
    batches = split(np.arange(len(outcome.rewards)))
    owners = _joined([batch.advantages for batch in batches]).astype(np.int64)
    costs, measured = np.zeros(len(owners)), {}
    if in_reward:
        costs, measured = _kl_costs(batches, owners, settings, judges)
    if judges.critic is not None:
        values = _joined(judges.ask(judges.critic.values, batches))
        return _by_critic(batches, owners, costs, outcome, settings, values, measured)
    rewards = outcome.rewards - np.bincount(owners, costs, minlength=len(outcome.rewards))
    advantages = group_advantages(rewards, outcome.groups, settings.estimator, outcome.valid)
    return Credit(_with_advantages(batches, advantages[owners]), advantages, measured=measured)


def _micro_batches(
    outcome: Outcome, advantages: np.ndarray, *, settings: RLSettings, pad_id: int, packed: bool, skip_idle: bool = False
) -> list[MicroBatch]:
    return make_micro_batches(
        outcome.trajectories, advantages, pad_id=pad_id, max_tokens=settings.micro_batch_tokens,
        normalisation=settings.normalisation, skip_idle=skip_idle, packed=packed,
    )


def _kl_costs(
    batches: Sequence[MicroBatch], owners: np.ndarray, settings: RLSettings, judges: Judges
) -> tuple[np.ndarray, dict[str, float | None]]:
    """Return (cost of every token in reward units, (N,), what was measured: ``kl`` is k3, as in the loss)."""
    found = judges.ask(
        lambda batch: frozen_logp(judges.reference, batch.to(judges.device), judges.temperature, settings.loss), batches
    )
    logp, reference = _joined([batch.old_logp for batch in batches]), _joined(found)
    costs = settings.kl_weight * (logp - reference)
    if not len(owners):
        return costs, {}
    k3 = kl_estimate(torch.from_numpy(logp), torch.from_numpy(reference))
    return costs, {"kl": float(k3.mean()), "kl_reward": float(-costs.sum() / len(np.unique(owners)))}


def _by_critic(
    batches: list[MicroBatch], owners: np.ndarray, costs: np.ndarray, outcome: Outcome, settings: RLSettings,
    values: np.ndarray, measured: dict[str, float | None],
) -> Credit:
    """Return the credit by GAE over each trajectory's policy tokens, whitened over those of the batch.

    values (N,): what the critic expects before each token.
    """
    earned = -costs
    raw = np.zeros(len(owners))
    for own in _tokens_by_trajectory(owners):
        earned[own[-1]] += outcome.rewards[owners[own[-1]]]
        raw[own] = generalised_advantages(earned[own], values[own], settings.gae_gamma, settings.gae_lambda)
    returns, advantages = raw + values, whitened(raw)
    sizes = [len(batch.targets) for batch in batches]
    lessons = [ValueLesson(*pair) for pair in zip(_split(values, sizes), _split(returns, sizes), strict=True)]
    n = len(outcome.rewards)
    counts = np.bincount(owners, minlength=n)
    mean = np.bincount(owners, advantages, minlength=n) / np.maximum(counts, 1)
    return Credit(_with_advantages(batches, advantages), mean, lessons, measured | _foreseen(values, returns))


def _foreseen(values: np.ndarray, returns: np.ndarray) -> dict[str, float | None]:
    """Return how well the critic knew the returns before it learned from them; nothing where they do not differ."""
    if not len(values):
        return {}
    spread = float(returns.var())
    explained = 1.0 - float((returns - values).var()) / spread if spread > 0 else None
    return {"value_mean": float(values.mean()), "explained_variance": explained}


def _tokens_by_trajectory(owners: np.ndarray) -> list[np.ndarray]:
    """Return the indices of each trajectory's tokens, in the order in which they were written."""
    order = np.argsort(owners, kind="stable")
    ends = np.flatnonzero(np.diff(owners[order])) + 1
    return np.split(order, ends) if len(owners) else []


def _with_advantages(batches: Sequence[MicroBatch], advantages: np.ndarray) -> list[MicroBatch]:
    parts = _split(advantages, [len(batch.targets) for batch in batches])
    return [replace(batch, advantages=part) for batch, part in zip(batches, parts, strict=True)]


def _joined(pieces: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the tokens of all micro-batches as one vector, float64."""
    return torch.cat([piece.double() for piece in pieces]).numpy() if pieces else np.zeros(0)


def _split(values: np.ndarray, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Return a vector over all tokens as one of float32 per micro-batch."""
    return list(torch.from_numpy(values.astype(np.float32)).split(list(sizes))) if len(values) else []
