"""One tile of logits (n rows, whole vocabulary) in torch: statistics, loss, and the gradient of the logits.

The arithmetic of ``triton_tiles``, for CPUs and wherever Triton is not.  Log-probabilities and entropies come from
one softmax; the gradient is written over it, so a tile costs two buffers of its size.
"""

from __future__ import annotations

import torch

from zerosearch.kernels.preparation import Formula, TokenVectors


def tile(
    logits: torch.Tensor, tokens: TokenVectors, formula: Formula, with_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (statistics (6, n), gradient of the loss with respect to the logits (n, V)); logits are overwritten.

    The gradient stands where the logits stood, or is empty without ``with_gradient``.
    """
    shifted = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    slope = _transform(shifted, formula)
    at_target = shifted.gather(1, tokens.targets.unsqueeze(1)).squeeze(1)
    top = shifted.amax(dim=1)
    p = torch.softmax(shifted.sub_(top.unsqueeze(1)), dim=1)
    log_total = -p.amax(dim=1).log()  # the largest logit, now 0, has p = 1 / sum
    logp = at_target - top - log_total
    entropy = log_total - torch.linalg.vecdot(p, shifted)
    statistics, pull = token_terms(logp, entropy, tokens, formula)
    if not with_gradient:
        return statistics, logits.new_empty(0)
    # d logp / d z_j = 1[j = target] - p_j;  d entropy / d z_j = -p_j (log p_j + entropy)
    if formula.entropy_weight:
        bonus = (formula.entropy_weight * tokens.weights).unsqueeze(1)
        p.mul_(shifted.add_((entropy - log_total).unsqueeze(1)).mul_(bonus).sub_(pull.unsqueeze(1)))
    else:
        p.mul_(-pull.unsqueeze(1))
    p.scatter_add_(1, tokens.targets.unsqueeze(1), pull.unsqueeze(1))
    if slope is not None:
        p.mul_(slope)
    elif formula.scale != formula.temperature:
        p.mul_(formula.scale / formula.temperature)
    return statistics, p if p.dtype == logits.dtype else logits.copy_(p)


def token_terms(
    logp: torch.Tensor, entropy: torch.Tensor, tokens: TokenVectors, formula: Formula
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (statistics (6, n), d loss / d logp (n,)) from what a tile knows of each token."""
    loss, pull = -logp, -torch.ones_like(logp)
    kl = clipped = gap = torch.zeros_like(logp)
    if tokens.advantages is not None:
        old = logp if tokens.old_logp is None else tokens.old_logp
        ratio, gain = (logp - old).exp(), tokens.advantages
        if formula.correct_in_sweep:
            gain = gain * (logp - tokens.sampler_logp).exp().clamp(max=formula.importance_cap)
        unclipped, cut = ratio * gain, ratio.clamp(formula.clip_low, formula.clip_high) * gain
        is_cut = cut < unclipped
        loss, pull = -torch.minimum(unclipped, cut), torch.where(is_cut, 0.0, -unclipped)
        clipped = is_cut.to(logp.dtype)
        gap = (logp - (old if tokens.sampler_logp is None else tokens.sampler_logp)).abs()
    if tokens.ref_logp is not None:
        difference = tokens.ref_logp - logp
        growth = torch.expm1(difference)
        kl = growth - difference
        loss, pull = loss + formula.kl_weight * kl, pull - formula.kl_weight * growth
    loss = tokens.weights * (loss - formula.entropy_weight * entropy)
    return torch.stack([logp, entropy, loss, kl, clipped, gap]), tokens.weights * pull


def _transform(z: torch.Tensor, formula: Formula) -> torch.Tensor | None:
    """Turn raw logits into scaled, capped ones over the temperature, in place; return d new / d raw if it varies."""
    if formula.softcap is None:
        if formula.scale != formula.temperature:
            z.mul_(formula.scale / formula.temperature)
        return None
    z.mul_(formula.scale / formula.softcap).tanh_()
    slope = (1.0 - z * z).mul_(formula.scale / formula.temperature)
    z.mul_(formula.softcap / formula.temperature)
    return slope
