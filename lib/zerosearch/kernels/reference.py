"""The truth: each loss in plain torch, differentiable by autograd, on any device and in any precision.

Short and obviously right, not fast: it holds the logits of all unmasked tokens at once.  The other implementations
are tested against it in float64.
"""

from __future__ import annotations

import torch

from zerosearch.kernels.preparation import Formula, TokenVectors
from zerosearch.kernels.records import Head


def scores(hidden: torch.Tensor, head: Head, temperature: float) -> torch.Tensor:
    """Return the log-softmax (N, V) of the logits over the temperature; float32, or float64 for such states."""
    logits = torch.nn.functional.linear(hidden, head.weight, head.bias)
    logits = head.scale * (logits if logits.dtype == torch.float64 else logits.float())
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return torch.log_softmax(logits / temperature, dim=-1)


def token_logps(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (log-probabilities of the targets, entropies), both (N,), nats."""
    logp = scores(hidden, head, temperature)
    return logp.gather(1, targets.unsqueeze(1)).squeeze(1), -(logp.exp() * logp).sum(dim=-1)


def k3(logp: torch.Tensor, ref_logp: torch.Tensor) -> torch.Tensor:
    """Return the k3 estimate of KL(policy || reference) per token, exp(d) - d - 1 with d = ref_logp - logp."""
    difference = ref_logp - logp
    return torch.expm1(difference) - difference


def sweep(
    hidden: torch.Tensor, head: Head, tokens: TokenVectors, formula: Formula
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (loss, statistics (6, N)) as ``chunked.sweep`` does, with every step written out."""
    kept = torch.arange(len(tokens.targets), device=hidden.device)
    if tokens.mask is not None:
        kept = kept[tokens.mask]
    chosen = tokens.rows(kept)
    logp, entropy = token_logps(hidden[kept], head, chosen.targets, formula.temperature)
    nothing = torch.zeros_like(logp)
    per_token, kl, clipped, gap = -logp, nothing, nothing, nothing
    if chosen.advantages is not None:
        old = logp.detach() if chosen.old_logp is None else chosen.old_logp
        ratio, gain = (logp - old).exp(), chosen.advantages
        if formula.correct_in_sweep:
            gain = gain * (logp.detach() - chosen.sampler_logp).exp().clamp(max=formula.importance_cap)
        unclipped, cut = ratio * gain, ratio.clamp(formula.clip_low, formula.clip_high) * gain
        per_token, clipped = -torch.minimum(unclipped, cut), (cut < unclipped).to(logp.dtype)
        sampled = old if chosen.sampler_logp is None else chosen.sampler_logp
        gap = (logp - sampled).abs()
    if chosen.ref_logp is not None:
        kl = k3(logp, chosen.ref_logp)
        per_token = per_token + formula.kl_weight * kl
    losses = chosen.weights * (per_token - formula.entropy_weight * entropy)
    rows = torch.stack([logp, entropy, losses, kl, clipped, gap]).detach()
    statistics = rows.new_zeros(len(rows), len(tokens.targets)).index_copy(1, kept, rows)
    return losses.sum(), statistics
