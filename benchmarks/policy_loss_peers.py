"""The contenders of ``policy_loss.py``: one function each, from the same inputs to a loss that can go backward.

All of them compute the clipped policy loss with KL (k3) over the policy's tokens, each token weighing the same, and
the entropy where they can.  A peer is imported when it is asked for; nothing of it is changed but for the patch that
its name says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch

from zerosearch import kernels
from zerosearch.training.objective import kl_estimate

CLIP, KL_WEIGHT, TEMPERATURE = 0.2, 1e-3, 0.9
VOCABULARY_CHUNK = 32_768  # TRL's own


@dataclass(frozen=True)
class Inputs:
    """One batch.  hidden (B, T, H); weight (V, H); targets, mask, old, ref (B, T); advantages (B,)."""

    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    advantages: torch.Tensor
    old: torch.Tensor
    ref: torch.Tensor


def ours(impl: str) -> Callable[[Inputs], torch.Tensor]:
    """Return our loss in one of its implementations."""
    settings = kernels.PolicySettings(clip=CLIP, kl_weight=KL_WEIGHT, temperature=TEMPERATURE)

    def loss(x: Inputs) -> torch.Tensor:
        b, t = x.targets.shape
        trajectory = torch.arange(b, device=x.targets.device).repeat_interleave(t)
        tokens = kernels.PolicyTokens(
            x.targets.flatten(), x.advantages, mask=x.mask.flatten(), trajectory=trajectory,
            old_logp=x.old.flatten(), ref_logp=x.ref.flatten(),
        )
        return kernels.policy_loss(x.hidden.flatten(0, 1), kernels.Head(x.weight), tokens, settings, impl=impl).loss

    return loss


def eager(x: Inputs) -> torch.Tensor:
    """Plain torch: the logits of all tokens at once."""
    logits = torch.nn.functional.linear(x.hidden, x.weight).float() / TEMPERATURE
    scores = torch.log_softmax(logits, dim=-1)
    return _masked_loss(scores.gather(2, x.targets.unsqueeze(2)).squeeze(2), x)


def eager_compacted(x: Inputs) -> torch.Tensor:
    """Plain torch on the policy's tokens alone: the path ``loss: plain`` of the profiles."""
    logits = torch.nn.functional.linear(x.hidden[x.mask], x.weight).float() / TEMPERATURE
    scores = torch.log_softmax(logits, dim=-1)
    return _flat_loss(scores.gather(1, x.targets[x.mask].unsqueeze(1)).squeeze(1), x)


def compiled() -> Callable[[Inputs], torch.Tensor]:
    """Return plain torch under its compiler."""
    inner = torch.compile(lambda *given: eager(Inputs(*given)), dynamic=False)
    return lambda x: inner(x.hidden, x.weight, x.targets, x.mask, x.advantages, x.old, x.ref)


def trl() -> Callable[[Inputs], torch.Tensor]:
    """Return TRL's GRPO loss with its fused head, as shipped: every completion token is scored."""
    score = _trl_head()

    def loss(x: Inputs) -> torch.Tensor:
        return _masked_loss(score(x.hidden.flatten(0, 1), x.weight, x.targets.flatten()).view_as(x.old), x)

    return loss


def trl_patched() -> Callable[[Inputs], torch.Tensor]:
    """Return the same with the tool mask added to its labels, so that its head skips retrieved tokens.

    ``labels[:, -logits_to_keep:].masked_fill_(tool_mask == 0, -100)`` in ``_get_per_token_logps_and_entropies``.
    """
    score = _trl_head()

    def loss(x: Inputs) -> torch.Tensor:
        logp = score(x.hidden[x.mask], x.weight, x.targets[x.mask])
        return _masked_loss(torch.zeros_like(x.old).masked_scatter(x.mask, logp), x)

    return loss


def trl_async() -> Callable[[Inputs], torch.Tensor]:
    """Return the way of TRL's asynchronous trainer: its head and its loss see a flat selection of trained tokens."""
    score = _trl_head()
    return lambda x: _flat_loss(score(x.hidden[x.mask], x.weight, x.targets[x.mask]), x)


def liger() -> Callable[[Inputs], torch.Tensor]:
    """Return liger-kernel's fused linear GRPO loss (token-wise normalisation, no entropy)."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    def loss(x: Inputs) -> torch.Tensor:
        fused = LigerFusedLinearGRPOLoss(
            beta=KL_WEIGHT, compiled=x.hidden.is_cuda, use_ref_model=True, chunk_size=1, epsilon_low=CLIP,
            epsilon_high=CLIP, loss_type="bnpo", temperature=TEMPERATURE,
        )
        return fused(
            x.hidden, x.weight, x.targets, x.mask.float(), x.advantages, ref_per_token_logps=x.ref,
            old_per_token_logps=x.old,
        )[0]

    return loss


def cut_cross_entropy() -> Callable[[Inputs], torch.Tensor]:
    """Return a loss on the log-probabilities of cut-cross-entropy, which never writes logits (no entropy).

    Its default drops small gradients; here it is asked for all, as everyone else computes them.
    """
    from cut_cross_entropy import linear_cross_entropy

    def loss(x: Inputs) -> torch.Tensor:
        targets = x.targets.masked_fill(~x.mask, -100)
        nll = linear_cross_entropy(x.hidden / TEMPERATURE, x.weight, targets, reduction="none", filter_eps=None)
        return _masked_loss(-nll.float(), x)

    return loss


CONTENDERS: dict[str, Callable[[], Callable[[Inputs], torch.Tensor]]] = {
    "ours (triton)": lambda: ours("triton"), "ours (torch)": lambda: ours("torch"), "torch eager": lambda: eager,
    "torch eager, compacted": lambda: eager_compacted, "torch.compile": compiled, "TRL as shipped": trl,
    "TRL with the mask in its labels": trl_patched, "TRL asynchronous": trl_async, "liger-kernel": liger,
    "cut-cross-entropy": cut_cross_entropy,
}
"""Name -> what makes the loss; ImportError where the peer is not installed."""
GPU_ONLY = ("ours (triton)", "cut-cross-entropy")


def _trl_head() -> Callable[..., torch.Tensor]:
    from trl.kernels import ChunkedLogProbFunction

    def score(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ChunkedLogProbFunction.apply(
            hidden, weight, None, targets, TEMPERATURE, min(VOCABULARY_CHUNK, len(weight)), None, 1.0, ("log_probs", "entropy")
        )[0]

    return score


def _masked_loss(logp: torch.Tensor, x: Inputs) -> torch.Tensor:
    """Return the loss of log-probabilities (B, T), as TRL writes it."""
    mask = x.mask.float()
    return (_per_token(logp, x.old, x.ref, x.advantages.unsqueeze(1)) * mask).sum() / mask.sum()


def _flat_loss(logp: torch.Tensor, x: Inputs) -> torch.Tensor:
    """Return the loss of the log-probabilities of the policy's tokens alone."""
    advantages = x.advantages.unsqueeze(1).expand_as(x.old)[x.mask]
    return _per_token(logp, x.old[x.mask], x.ref[x.mask], advantages).mean()


def _per_token(
    logp: torch.Tensor, old: torch.Tensor, ref: torch.Tensor, advantages: torch.Tensor
) -> torch.Tensor:
    ratio = (logp - old).exp()
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
    return KL_WEIGHT * kl_estimate(logp, ref) - gain
