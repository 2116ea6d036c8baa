"""What is done about a sampler and a trainer that do not give a token the same probability.

The loss is an expectation under the trainer's policy; its samples come from the engine's.  Where both compute
the same to rounding (every engine here, in float32) nothing needs to be done; with other kernels or another
precision the gap grows with the length of a trajectory.  Three choices, named in the settings and never made
silently:

- ``none``: the ratio of the objective is taken against the sampler's log-probs.
- ``token``: every token's loss times min(p_trainer / p_sampler, cap): little variance, some bias.
- ``sequence``: every token's loss times the ratio of its whole trajectory, and trajectories whose ratio is
  above the cap are dropped.  Ratios multiply along a trajectory, so it is the long ones that go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from zerosearch.errors import ConfigError, unknown_name

CorrectionKind = Literal["none", "token", "sequence"]


@dataclass(frozen=True, slots=True)
class Correction:
    """kind: see the module's docstring.  cap: largest ratio, at least 1."""

    kind: CorrectionKind = "none"
    cap: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(CorrectionKind):
            raise unknown_name("correction", self.kind, get_args(CorrectionKind))
        if not self.cap >= 1.0:
            raise ConfigError(f"correction: expected a cap of at least 1, found {self.cap}; raise it")


def importance_weights(
    trainer_logp: torch.Tensor, sampler_logp: torch.Tensor, rows: torch.Tensor, correction: Correction
) -> torch.Tensor:
    """Return the factor of every token's loss, (N,), without gradient.

    trainer_logp, sampler_logp (N,): log-probs of the same tokens, nats.  rows (N,) int64: which trajectory a
    token belongs to.  For ``none`` it is the plain ratio, to be looked at and not to be multiplied with.
    """
    difference = (trainer_logp - sampler_logp).detach()
    if correction.kind == "sequence":
        totals = torch.zeros(int(rows.max()) + 1 if len(rows) else 0, dtype=difference.dtype, device=difference.device)
        ratio = totals.index_add(0, rows, difference).exp()[rows]
        return torch.where(ratio <= correction.cap, ratio, torch.zeros_like(ratio))
    ratio = difference.exp()
    return ratio.clamp_max(correction.cap) if correction.kind == "token" else ratio
