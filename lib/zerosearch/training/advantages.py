"""Advantages: how much better than its group a trajectory was.  Plain NumPy, no model, no text.

A group holds the trajectories drawn for one question.  Group ids are given explicitly (never
guessed from positions), so a failed trajectory can drop out without shifting its neighbours.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

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

