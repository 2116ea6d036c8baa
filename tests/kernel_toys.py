"""Toys shared by the tests of the kernels: random tokens of a policy loss, and errors against float64."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from zerosearch import kernels
from zerosearch.kernels import Head, PolicyLoss, PolicySettings, PolicyTokens


@dataclass(frozen=True)
class Case:
    """Everything that one policy loss is computed from."""

    hidden: torch.Tensor
    head: Head
    tokens: PolicyTokens

    def to(self, dtype: torch.dtype) -> Case:
        """Return a differentiable copy whose floating numbers have another type."""
        def moved(t):  # noqa: ANN001, ANN202
            return t.detach().to(dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t

        tokens = PolicyTokens(**{f.name: moved(getattr(self.tokens, f.name)) for f in fields(self.tokens)})
        bias = None if self.head.bias is None else moved(self.head.bias).requires_grad_()
        head = replace(self.head, weight=moved(self.head.weight).requires_grad_(), bias=bias)
        return Case(moved(self.hidden).requires_grad_(), head, tokens)


def random_case(
    n: int, width: int, vocabulary: int, *, share: float | None = 0.4, bias: bool = False, softcap: float | None = None,
    scale: float = 1.0, spread: float = 0.3, seed: int = 0, trajectories: int = 4, size: float = 1.0,
) -> Case:
    """Return a case whose old, sampler and reference log-probabilities lie around those of the head.

    share: of unmasked tokens, None for no mask.  spread: how far, in nats.  size: of the logits, about.
    """
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    hidden, weight = normal(n, width), size * normal(vocabulary, width) / width**0.5
    head = Head(weight, normal(vocabulary) if bias else None, softcap, scale)
    targets = torch.randint(0, vocabulary, (n,), generator=rng)
    mask = None if share is None else torch.rand(n, generator=rng) < share
    trajectory = torch.arange(n) * trajectories // max(n, 1)
    logp, _ = kernels.token_logps(hidden, head, targets, impl="reference") if n else (normal(0), None)
    old, sampler, ref = (logp + spread * normal(n) for _ in range(3))
    tokens = PolicyTokens(
        targets, normal(trajectories), mask=mask, trajectory=trajectory, old_logp=old, sampler_logp=sampler,
        ref_logp=ref,
    )
    return Case(hidden, head, tokens)


def run(
    case: Case, settings: PolicySettings, impl: str, budget_bytes: int = 1 << 12
) -> tuple[PolicyLoss, list[torch.Tensor]]:
    """Return the loss of a differentiable case and its gradients: hidden states, weight, bias if there is one."""
    loss = kernels.policy_loss(case.hidden, case.head, case.tokens, settings, impl=impl, budget_bytes=budget_bytes)
    wanted = [case.hidden, case.head.weight, *([] if case.head.bias is None else [case.head.bias])]
    return loss, list(torch.autograd.grad(loss.loss, wanted))


def errors(case: Case, settings: PolicySettings, impl: str, dtype: torch.dtype) -> list[float]:
    """Return the largest errors against the truth in float64 of the same inputs: loss, log-probs, each gradient."""
    rounded = case.to(dtype)
    truth, truths = run(rounded.to(torch.float64), settings, "reference")
    found, gradients = run(rounded, settings, impl)
    pairs = [(found.loss, truth.loss), (found.logp, truth.logp), *zip(gradients, truths, strict=True)]
    return [(a.double() - b).abs().max().item() for a, b in pairs]


def no_worse_than_torch(
    case: Case, settings: PolicySettings, impl: str, dtype: torch.dtype, times: float = 1.0
) -> None:
    """Assert the rule: no error is larger than that of plain torch at the same type (``times`` it), plus 1e-5."""
    ours, plain = (errors(case, settings, which, dtype) for which in (impl, "reference"))
    for name, mine, theirs in zip(("loss", "logp", "hidden", "weight", "bias"), ours, plain):
        assert mine <= times * theirs + 1e-5, f"{name}: error {mine:.3g} of {impl}, {theirs:.3g} of torch in {dtype}"
