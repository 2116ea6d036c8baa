"""Advantages: how much better than expected a trajectory, or a token, was.  Plain NumPy, no model, no text.

A group holds the trajectories drawn for one question.  Group ids are given explicitly (never
guessed from positions), so a failed trajectory can drop out without shifting its neighbours.
With a critic every token has an advantage of its own; no group is needed.
"""

from __future__ import annotations

from typing import Callable

import numpy as np
from scipy.signal import lfilter

from zerosearch.errors import unknown_name

STD_EPSILON = 1e-4  # added to the standard deviation, in reward units; rewards lie in [0, 1]


def _grpo(rewards: np.ndarray) -> np.ndarray:
    """(r - mean) / (std + epsilon); std with n - 1 in the denominator, as torch.std."""
    if len(rewards) < 2:
        return np.zeros_like(rewards)
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + STD_EPSILON)


def _centered(rewards: np.ndarray) -> np.ndarray:
    """r - mean: GRPO without the division (as in Dr. GRPO)."""
    return rewards - rewards.mean()


def _leave_one_out(rewards: np.ndarray) -> np.ndarray:
    """r - mean of the others: an unbiased baseline; equals the centered one times n / (n - 1)."""
    if len(rewards) < 2:
        return np.zeros_like(rewards)
    return rewards - (rewards.sum() - rewards) / (len(rewards) - 1)


def _plain(rewards: np.ndarray) -> np.ndarray:
    """r itself: REINFORCE without a baseline; never negative for rewards in [0, 1]."""
    return rewards.copy()


ESTIMATORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "grpo": _grpo,
    "centered": _centered,
    "leave_one_out": _leave_one_out,
    "plain": _plain,
}


def group_advantages(
    rewards: np.ndarray, groups: np.ndarray, kind: str = "grpo", valid: np.ndarray | None = None
) -> np.ndarray:
    """Return one advantage per trajectory, (B,) float64.

    rewards (B,): any numbers.  groups (B,): equal entries mark one group; order is free.
    kind: ``grpo``, ``centered``, ``leave_one_out`` or ``plain`` (ConfigError otherwise).
    valid (B,) bool: False for failed trajectories; they count in no baseline and get 0.

    A group whose rewards are all equal gets exact zeros from every kind but ``plain``: nothing can
    be learned from it, however its mean was rounded.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    groups = np.asarray(groups)
    valid = np.ones(len(rewards), dtype=bool) if valid is None else np.asarray(valid, dtype=bool)
    if not rewards.shape == groups.shape == valid.shape or rewards.ndim != 1:
        raise ValueError(
            "advantages: rewards, groups and valid must be vectors of one length, found shapes "
            f"{rewards.shape}, {groups.shape}, {valid.shape}"
        )
    if kind not in ESTIMATORS:
        raise unknown_name("advantage", kind, tuple(ESTIMATORS))
    advantages = np.zeros_like(rewards)
    for group in np.unique(groups):
        members = np.flatnonzero((groups == group) & valid)
        if len(members) == 0 or (kind != "plain" and np.ptp(rewards[members]) == 0.0):
            continue
        advantages[members] = ESTIMATORS[kind](rewards[members])
    return advantages



def generalised_advantages(
    rewards: np.ndarray, values: np.ndarray, gamma: float = 1.0, lam: float = 1.0
) -> np.ndarray:
    """Return the advantage of every policy token of one trajectory, (T,) float64 (GAE, before any whitening).

    rewards (T,): earned by each token.  values (T,): expected before it is written.  The policy's tokens alone
    stand in both: what follows the last token of a message is the first token of the next message, however many
    retrieved tokens lie between, and nothing follows the last one.

    d_t = r_t + gamma V_{t+1} - V_t;  A_t = d_t + gamma lam A_{t+1}.  With both 1, as published, A_t is the sum of
    the rewards from t on, minus V_t.
    """
    rewards, values = np.asarray(rewards, dtype=np.float64), np.asarray(values, dtype=np.float64)
    errors = rewards + gamma * np.append(values[1:], 0.0) - values
    return lfilter([1.0], [1.0, -gamma * lam], errors[::-1])[::-1]


def whitened(advantages: np.ndarray) -> np.ndarray:
    """Return (A - mean) / (std + epsilon) of the policy tokens of a batch, (N,); zeros where fewer than two are."""
    if len(advantages) < 2:
        return np.zeros_like(advantages)
    return (advantages - advantages.mean()) / (advantages.std(ddof=1) + STD_EPSILON)
