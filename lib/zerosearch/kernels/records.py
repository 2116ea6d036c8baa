"""What the kernels are given and what they return: a head, the tokens of a loss, its settings, its sums.

Shapes: N tokens, H hidden size, V vocabulary, B trajectories.  Nothing here computes a loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Normalisation = Literal["token", "sequence"]
Importance = Literal["none", "token", "sequence"]


@dataclass(frozen=True, slots=True)
class Head:
    """A language-model head: logits = cap(scale * (hidden @ weight.T + bias)), divided by the temperature later.

    weight (V, H).  bias (V,) or None.  softcap: cap(x) = softcap * tanh(x / softcap), None for none (Gemma has one).
    scale: a factor that some models put on their logits (Cohere, Granite).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class PolicyTokens:
    """The tokens of a policy loss, row by row with the hidden states that predict them.

    targets (N,) int64.  trajectory (N,) int64: which of B trajectories a token belongs to; with it advantages are
    (B,), one per trajectory, without it (N,), one per token.  mask (N,) bool, None for all: False rows
    (prompt, passages, padding) cost nothing and get a gradient of exactly 0, whatever their targets say.
    weights (N,) float32: share of each token in the loss; None lets the settings' normalisation give them.
    old_logp (N,): log-probabilities before the update, nats; None means that this is the first update on them.
    sampler_logp (N,): what the sampler reported.  ref_logp (N,): those of the reference model, for the KL.
    """

    targets: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    trajectory: torch.Tensor | None = None
    old_logp: torch.Tensor | None = None
    sampler_logp: torch.Tensor | None = None
    ref_logp: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The numbers of a policy loss.

    clip, clip_high: the ratio stays in [1 - clip, 1 + clip_high]; clip_high None is clip.  kl_weight: of the KL (k3) to
    the reference, added.  entropy_weight: of the entropy, subtracted.  temperature: above 0, the one sampled with.
    normalisation: of tokens without weights, ``token`` (all tokens alike) or ``sequence`` (all trajectories alike).
    importance: correction of the gain for a sampler that differs from the trainer, times old / sampler: per ``token``
    and at most the cap, or per ``sequence`` from the product over a trajectory's tokens, 0 where it is above the cap.
    """

    clip: float = 0.2
    clip_high: float | None = None
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    temperature: float = 1.0
    normalisation: Normalisation = "token"
    importance: Importance = "none"
    importance_cap: float = 2.0


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A loss and what it was made of; all but ``loss`` are detached, float32, on the device of the states.

    loss (): differentiable.  logp, entropy (N,): nats, 0 where the mask is False.  sums (5,): see ``SUMS``; they stay
    tensors, so that nothing waits for the device before they are read.
    """

    loss: torch.Tensor
    logp: torch.Tensor
    entropy: torch.Tensor
    sums: torch.Tensor


SUMS = ("n_tokens", "kl", "n_clipped", "gap", "entropy")
"""Entries of ``PolicyLoss.sums``, over the tokens of the loss: their number, KL (nats), tokens cut by the clip,
|log-probability now - when sampled| (nats; against old_logp without sampler_logp), entropy (nats)."""
