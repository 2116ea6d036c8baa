"""Losses over a vocabulary that touch the tokens of the loss only: policy loss, log-probabilities, cross entropy.

The only door to this package.  ``impl`` chooses how: ``reference`` (the truth, all logits at once), ``torch`` (row
chunks, any device), ``triton`` (GPU kernels), ``auto`` (Triton with a GPU, else torch; says so once).
All take hidden states (N, H), a ``Head`` and one entry per state.  Called by ``training``.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os

import torch

from zerosearch.errors import ConfigError, unknown_name
from zerosearch.kernels import reference
from zerosearch.kernels.preparation import STATISTICS, Formula, TokenVectors, check_shapes, prepare
from zerosearch.kernels.records import SUMS, Head, PolicyLoss, PolicySettings, PolicyTokens
from zerosearch.kernels.chunked import BUDGET_BYTES, sweep

__all__ = [
    "BUDGET_BYTES", "IMPLEMENTATIONS", "SUMS", "Head", "PolicyLoss", "PolicySettings", "PolicyTokens", "chosen",
    "masked_cross_entropy", "policy_loss", "token_logps",
]

IMPLEMENTATIONS = ("auto", "triton", "torch", "reference")


def policy_loss(
    hidden: torch.Tensor, head: Head, tokens: PolicyTokens, settings: PolicySettings = PolicySettings(), *,
    impl: str = "auto", budget_bytes: int = BUDGET_BYTES,
) -> PolicyLoss:
    """Return sum_t w_t (-min(r_t A_t, clip(r_t) A_t) + kl_weight k3_t - entropy_weight H_t), and its statistics.

    hidden (N, H): the states that predict each target.  budget_bytes: of logits at a time.  See ``PolicyTokens`` and
    ``PolicySettings`` for the rest; ConfigError for an unknown impl, ValueError for what does not fit together.
    """
    vectors, formula = prepare(hidden, head, tokens, settings)
    loss, statistics = _swept(hidden, head, vectors, formula, impl, budget_bytes)
    return PolicyLoss(loss, *_kept(statistics, "logp", "entropy"), _sums(statistics, vectors))


def token_logps(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, *, mask: torch.Tensor | None = None,
    temperature: float = 1.0, impl: str = "auto", budget_bytes: int = BUDGET_BYTES,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (log-probabilities of the targets, entropies), both (N,) float32, nats, without gradient; 0 if masked.

    temperature: above 0, the one sampled with.
    """
    weights = torch.zeros(len(targets), device=hidden.device)
    vectors = TokenVectors(targets, weights, mask)
    check_shapes(hidden, head, vectors)
    formula = Formula(temperature, head.scale, head.softcap)
    with torch.no_grad():
        _, statistics = _swept(hidden, head, vectors, formula, impl, budget_bytes)
    return _kept(statistics, "logp", "entropy")


def masked_cross_entropy(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, *, weights: torch.Tensor | None = None,
    mask: torch.Tensor | None = None, impl: str = "auto", budget_bytes: int = BUDGET_BYTES,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (loss, log-probabilities (N,), entropies (N,)): loss = sum_t w_t * -logp_t, the others detached.

    weights (N,) float32: the shares of the tokens; None weighs all unmasked tokens alike, so that they sum to 1.
    """
    if weights is None:
        kept = torch.ones_like(targets, dtype=torch.float32) if mask is None else mask.float()
        weights = kept / kept.sum().clamp(min=1.0)
    vectors = TokenVectors(targets, weights, mask)
    check_shapes(hidden, head, vectors)
    loss, statistics = _swept(hidden, head, vectors, Formula(1.0, head.scale, head.softcap), impl, budget_bytes)
    return loss, *_kept(statistics, "logp", "entropy")


def chosen(impl: str, device: torch.device) -> str:
    """Return the implementation that ``impl`` names on a device; ConfigError for one that it cannot run."""
    if impl not in IMPLEMENTATIONS:
        raise unknown_name("impl", impl, IMPLEMENTATIONS)
    if impl == "auto":
        return _automatic(device.type)
    if impl == "triton" and device.type != "cuda" and not os.environ.get("TRITON_INTERPRET"):
        raise ConfigError(
            f"impl 'triton': expected a GPU, found {device.type}; use impl='torch', or set TRITON_INTERPRET=1 before "
            "Python starts to try the kernels slowly without one"
        )
    return impl


@functools.cache
def _automatic(kind: str) -> str:
    found = "triton" if kind == "cuda" and importlib.util.find_spec("triton") is not None else "torch"
    logging.getLogger(__name__).info("kernels: %s on %s", found, kind)
    return found


def _swept(
    hidden: torch.Tensor, head: Head, vectors: TokenVectors, formula: Formula, impl: str, budget_bytes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    impl = chosen(impl, hidden.device)
    if impl == "reference":
        return reference.sweep(hidden, head, vectors, formula)
    return sweep(hidden, head, vectors, formula, impl, budget_bytes)


def _kept(statistics: torch.Tensor, *names: str) -> tuple[torch.Tensor, ...]:
    return tuple(statistics[STATISTICS.index(name)] for name in names)


def _sums(statistics: torch.Tensor, vectors: TokenVectors) -> torch.Tensor:
    """Return the sums in the order of SUMS; masked tokens are zero everywhere."""
    n = len(vectors.targets)
    counted = statistics.new_full((), n) if vectors.mask is None else vectors.mask.sum().to(statistics.dtype)
    by_name = dict(zip(STATISTICS, statistics.sum(dim=1), strict=True)) | {"n_tokens": counted}
    return torch.stack([by_name["clipped" if name == "n_clipped" else name] for name in SUMS])
