"""From what a caller gives to what a sweep needs: one vector per quantity, plain numbers, checked shapes.

Everything here works on vectors of N entries, before any logit exists: weights from the normalisation, advantages per
token, and the importance correction, which multiplies the gain and can therefore be folded into the advantage.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from zerosearch.errors import unknown_name
from zerosearch.kernels.records import Head, PolicySettings, PolicyTokens

STATISTICS = ("logp", "entropy", "loss", "kl", "clipped", "gap")
"""Rows of the statistics of a sweep, one entry per token."""


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """The vectors of a sweep, (N,) each.  advantages None: plain cross entropy of the targets."""

    targets: torch.Tensor
    weights: torch.Tensor
    mask: torch.Tensor | None = None
    advantages: torch.Tensor | None = None
    old_logp: torch.Tensor | None = None
    sampler_logp: torch.Tensor | None = None
    ref_logp: torch.Tensor | None = None

    def rows(self, kept: torch.Tensor | slice) -> TokenVectors:
        """Return the chosen rows; the mask has done its work."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "mask"}
        return TokenVectors(**{name: None if v is None else v[kept] for name, v in chosen.items()})


@dataclass(frozen=True, slots=True)
class Formula:
    """The numbers of a sweep.  correct_in_sweep: the importance correction needs the log-probability of the sweep."""

    temperature: float = 1.0
    scale: float = 1.0
    softcap: float | None = None
    clip_low: float = 0.8
    clip_high: float = 1.2
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    importance_cap: float = 2.0
    correct_in_sweep: bool = False

    def numbers(self) -> list[float]:
        """Return the fields as floats, as an operator of torch can take them; 0 stands for no softcap."""
        return [float(getattr(self, f.name) or 0.0) for f in fields(self)]

    @staticmethod
    def from_numbers(values: list[float]) -> Formula:
        """Return the formula whose ``numbers`` these are."""
        named = dict(zip((f.name for f in fields(Formula)), values, strict=True))
        named |= {"softcap": named["softcap"] or None, "correct_in_sweep": bool(named["correct_in_sweep"])}
        return Formula(**named)


def prepare(
    hidden: torch.Tensor, head: Head, tokens: PolicyTokens, settings: PolicySettings
) -> tuple[TokenVectors, Formula]:
    """Return what the sweep of a policy loss needs; ValueError for shapes or numbers that do not fit."""
    if settings.temperature <= 0:
        raise ValueError(f"policy loss: expected a temperature above 0, found {settings.temperature}")
    advantages = tokens.advantages if tokens.trajectory is None else tokens.advantages[tokens.trajectory]
    weights = token_weights(tokens, settings) if tokens.weights is None else tokens.weights
    in_sweep, correction = _correction(tokens, settings)
    vectors = TokenVectors(
        tokens.targets, weights, tokens.mask, advantages if correction is None else advantages * correction,
        tokens.old_logp, tokens.sampler_logp, tokens.ref_logp,
    )
    check_shapes(hidden, head, vectors)
    high = settings.clip if settings.clip_high is None else settings.clip_high
    return vectors, Formula(
        settings.temperature, head.scale, head.softcap, 1.0 - settings.clip, 1.0 + high, settings.kl_weight,
        settings.entropy_weight, settings.importance_cap, in_sweep,
    )


def token_weights(tokens: PolicyTokens, settings: PolicySettings) -> torch.Tensor:
    """Return the share of each token in the loss, (N,) float32: they sum to 1, or to 0 when all is masked."""
    kept = torch.ones_like(tokens.targets, dtype=torch.float32)
    if tokens.mask is not None:
        kept = tokens.mask.float()
    if settings.normalisation == "token":
        return kept / kept.sum().clamp(min=1.0)
    if settings.normalisation != "sequence":
        raise unknown_name("normalisation", settings.normalisation, ("token", "sequence"))
    counts = _per_trajectory(kept, tokens)
    alive = (counts > 0).sum().clamp(min=1)
    return kept / (counts.clamp(min=1.0)[tokens.trajectory] * alive)


def check_shapes(hidden: torch.Tensor, head: Head, vectors: TokenVectors) -> None:
    """Refuse shapes that do not fit together (ValueError, with the shapes)."""
    n = len(hidden)
    if hidden.ndim != 2 or head.weight.ndim != 2 or hidden.shape[1] != head.weight.shape[1]:
        raise ValueError(
            f"expected hidden states (N, H) and a head (V, H), found {tuple(hidden.shape)} and "
            f"{tuple(head.weight.shape)}"
        )
    given = {f.name: getattr(vectors, f.name) for f in fields(vectors)}
    wrong = [f"{name} {tuple(v.shape)}" for name, v in given.items() if v is not None and v.shape != (n,)]
    if head.bias is not None and head.bias.shape != head.weight.shape[:1]:
        wrong.append(f"bias {tuple(head.bias.shape)} for {len(head.weight)} entries")
    if wrong:
        raise ValueError(f"expected one entry for each of {n} hidden states, found {', '.join(wrong)}")


def _per_trajectory(values: torch.Tensor, tokens: PolicyTokens) -> torch.Tensor:
    """Return the sum of a vector per trajectory, (B,)."""
    if tokens.trajectory is None:
        raise ValueError("policy loss per sequence: expected PolicyTokens.trajectory, found none; give it, or weights")
    return values.new_zeros(len(tokens.advantages)).index_add(0, tokens.trajectory, values)


def _correction(tokens: PolicyTokens, settings: PolicySettings) -> tuple[bool, torch.Tensor | None]:
    """Return (whether the sweep itself must correct, the factor on the gain if it is known before)."""
    if settings.importance == "none":
        return False, None
    if tokens.sampler_logp is None:
        raise ValueError(f"importance correction per {settings.importance}: expected sampler_logp, found none")
    if settings.importance not in ("token", "sequence"):
        raise unknown_name("importance", settings.importance, ("none", "token", "sequence"))
    if tokens.old_logp is None:
        if settings.importance == "sequence":
            raise ValueError("importance correction per sequence: expected old_logp, found none; use `token`")
        return True, None
    drift = tokens.old_logp - tokens.sampler_logp
    if settings.importance == "token":
        return False, drift.exp().clamp(max=settings.importance_cap)
    if tokens.mask is not None:
        drift = drift.where(tokens.mask, 0.0)
    ratio = _per_trajectory(drift, tokens).exp()[tokens.trajectory]
    return False, ratio.where(ratio <= settings.importance_cap, 0.0)
