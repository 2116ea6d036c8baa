"""The policy objective, token by token: log-probabilities, clipped gain, KL to the base model.

Everything works on the N trained tokens alone.  Retrieved tokens are read by the model but never
scored, so no gradient can start from them; and the vocabulary-wide step, the expensive one, is
made for the policy's own tokens only (about 40 % of a trajectory).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Sequence

import torch
from transformers import PreTrainedModel

from zerosearch.heads import logits_of
from zerosearch.training import packing
from zerosearch.training.correction import Correction, importance_weights


@dataclass(frozen=True)
class LossTerms:
    """What one loss was made of; sums over its tokens, detached, so that micro-batches add up.

    n_tokens: trained tokens.  kl_sum: nats (0.0 without a reference).  n_clipped: tokens whose
    ratio was cut by the clip.  gap_sum: |log-prob now - log-prob when sampled|, nats; gaps: each of them.
    weight_sum, weight_square_sum: of the importance weights, see ``correction``.  n_dropped: tokens of weight 0.
    """

    n_tokens: int
    kl_sum: float
    n_clipped: int
    gap_sum: float
    gaps: tuple[float, ...] = ()
    weight_sum: float = 0.0
    weight_square_sum: float = 0.0
    n_dropped: int = 0


def hidden_states(
    model: PreTrainedModel, input_ids: torch.Tensor, positions: torch.Tensor, segments: Sequence[int] = ()
) -> torch.Tensor:
    """Return the last hidden states (N, H) that predict the trained tokens; arguments as ``token_logprobs``."""
    forward_only = bool(segments) and not torch.is_grad_enabled()
    with packing.attending_alone(model) if forward_only else nullcontext():
        packed = packing.arguments(model, segments, input_ids.device)
        states = model.get_decoder()(input_ids=input_ids, use_cache=False, **packed).last_hidden_state
    return states.reshape(-1, states.shape[-1]).index_select(0, positions)


def token_logprobs(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    positions: torch.Tensor,
    targets: torch.Tensor,
    temperature: float = 1.0,
    with_entropy: bool = False,
    segments: Sequence[int] = (),
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return (log-probabilities (N,), entropies (N,) or None), float32, nats.

    input_ids (b, L) int64, padded on the right: causal attention never sees the padding, so there
    is no attention mask.  positions (N,) int64: index into the (b * L) flattened states of the one
    that predicts each target.  targets (N,) int64.  temperature: above 0, the one sampled with.
    Entropies carry no gradient.  segments: lengths of the trajectories of a packed row (b = 1), see ``packing``.
    """
    states = hidden_states(model, input_ids, positions, segments)
    logits = logits_of(model, states).float() / temperature
    scores = torch.log_softmax(logits, dim=-1)
    entropies = None
    if with_entropy:
        with torch.no_grad():
            entropies = -(scores.exp() * scores).sum(dim=-1)
    return scores.gather(1, targets.unsqueeze(1)).squeeze(1), entropies


def kl_estimate(logp: torch.Tensor, ref_logp: torch.Tensor) -> torch.Tensor:
    """Return the k3 estimate of KL(policy || reference) per token, nats, never negative.

    k3 = exp(d) - d - 1 with d = ref_logp - logp, for tokens sampled from the policy.
    """
    difference = ref_logp - logp
    return torch.expm1(difference) - difference


def policy_loss(
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    clip: float,
    ref_logp: torch.Tensor | None = None,
    kl_weight: float = 0.0,
    correction: Correction = Correction(),
    rows: torch.Tensor | None = None,
) -> tuple[torch.Tensor, LossTerms]:
    """Return (loss, terms):  sum_t w_t * ( -min(r_t A_t, clip(r_t) A_t) + kl_weight * k3_t ).

    All vectors (N,), one entry per trained token.  r_t = exp(logp - old_logp); clip(r) keeps r in
    [1 - clip, 1 + clip].  weights: shares that sum to 1 over the batch, see ``token_weights``.
    The KL to the reference is added: the loss rises when the policy drifts from it.  A gain beyond
    the clip earns nothing more; a loss beyond it is not softened.

    correction: with another kind than ``none`` the r_t are taken against the trainer's own log-probs (in an
    on-policy step they are 1), and the gain is multiplied by importance weights; the KL is not.  rows (N,):
    the trajectory of each token, as in ``MicroBatch``; None for one trajectory.
    """
    importance = importance_weights(logp, old_logp, torch.zeros_like(logp).long() if rows is None else rows, correction)
    corrected = correction.kind != "none"
    log_ratio = logp - (logp.detach() if corrected else old_logp)
    ratio = log_ratio.exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip) * advantages
    per_token = -torch.minimum(unclipped, clipped)
    if corrected:
        per_token = per_token * importance
    kl_sum = 0.0
    if ref_logp is not None:
        kl = kl_estimate(logp, ref_logp)
        per_token = per_token + kl_weight * kl
        kl_sum = float(kl.detach().sum())
    n_clipped = int((clipped < unclipped).sum())
    terms = loss_terms(logp.detach(), old_logp, importance, corrected=corrected, kl_sum=kl_sum, n_clipped=n_clipped)
    return (weights * per_token).sum(), terms


def loss_terms(
    logp: torch.Tensor, old_logp: torch.Tensor, importance: torch.Tensor, *, corrected: bool, kl_sum: float,
    n_clipped: int,
) -> LossTerms:
    """Return the terms of a loss over N tokens from what is known of each.

    logp, old_logp (N,): now and when sampled, nats, detached.  importance (N,): see ``importance_weights``.
    corrected: whether the loss was multiplied by it.  kl_sum, n_clipped: as in ``LossTerms``.
    """
    gaps = (logp - old_logp).abs()
    return LossTerms(
        n_tokens=len(logp), kl_sum=kl_sum, n_clipped=n_clipped, gap_sum=float(gaps.sum()), gaps=tuple(gaps.tolist()),
        weight_sum=float(importance.sum()), weight_square_sum=float(importance.square().sum()),
        n_dropped=int((importance == 0).sum()) if corrected else 0,
    )
