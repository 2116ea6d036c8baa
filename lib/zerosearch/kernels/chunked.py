"""The sweep: over row chunks of the unmasked tokens, from hidden states to loss, statistics and gradients.

For each chunk: logits = hidden @ weight.T, one tile function for everything between logits and their gradient, then
grad_hidden = d_logits @ weight and grad_weight += d_logits.T @ hidden.  Three matrix products in all, nothing is
computed twice, and no more logits exist at a time than the budget allows.  The gradients are finished before
``backward`` is called, which only scales them; a frozen head costs no product for its weight.

The sweep is one operator of torch, opaque to ``torch.compile``; a sharded weight is gathered before it, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import torch
from torch.distributed.tensor import DTensor, Partial

from zerosearch.kernels.preparation import STATISTICS, Formula, TokenVectors
from zerosearch.kernels.records import Head

BUDGET_BYTES = 1 << 30  # of logits at a time, with a head that learns
FROZEN_SHARE = 4  # a frozen head needs no long chunks: no weight gradient is read and written once per chunk
CPU_BYTES = 1 << 26  # on a CPU: shorter chunks make its products slower, longer ones gain nothing
ROW_MULTIPLE = 64  # chunks of a GPU end on a multiple: matrix products like it
TileFunction = Callable[[torch.Tensor, TokenVectors, Formula, bool], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which gradients a sweep has to leave behind."""

    hidden: bool
    weight: bool
    bias: bool

    def any(self) -> bool:
        """Say whether a gradient is wanted at all."""
        return self.hidden or self.weight or self.bias


def sweep(
    hidden: torch.Tensor, head: Head, tokens: TokenVectors, formula: Formula, impl: str, budget_bytes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (loss (), statistics (6, N) float32 in the order of STATISTICS, 0 where masked).

    hidden (N, H).  impl: ``torch`` or ``triton``.  The loss is differentiable once, with respect to hidden states,
    weight and bias.  Under autocast the products are made in its type, as those of a linear layer would be.
    """
    weight, bias = _gathered(head.weight), None if head.bias is None else _gathered(head.bias)
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    learning = torch.is_grad_enabled()
    wanted = [learning and t is not None and t.requires_grad for t in (hidden, weight, bias)]
    with torch.autocast(kind, enabled=False):
        loss, statistics, *_ = _operator(
            hidden, weight, bias, tokens.targets, tokens.weights, tokens.mask, tokens.advantages, tokens.old_logp,
            tokens.sampler_logp, tokens.ref_logp, formula.numbers(), impl, budget_bytes, dtype, wanted,
        )
    return loss, statistics


def chunk_rows(n: int, vocabulary: int, itemsize: int, budget_bytes: int, *, frozen: bool, on_cpu: bool) -> int:
    """Return how many rows a chunk has, so that its logits stay within the budget and chunks are of similar size."""
    budget = budget_bytes // FROZEN_SHARE if frozen else budget_bytes
    most = max(1, (min(budget, CPU_BYTES) if on_cpu else budget) // (vocabulary * itemsize))
    chunks = -(-n // most)
    rows = -(-n // max(1, chunks))
    rounded = -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE
    return max(1, rounded if rounded <= most else rows)


@torch.library.custom_op("zerosearch::sweep", mutates_args=())
def _operator(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor,
    weights: torch.Tensor, mask: torch.Tensor | None, advantages: torch.Tensor | None, old_logp: torch.Tensor | None,
    sampler_logp: torch.Tensor | None, ref_logp: torch.Tensor | None, numbers: list[float], impl: str,
    budget_bytes: int, dtype: torch.dtype, wanted: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (loss, statistics, gradients of hidden, weight and bias; empty where not wanted)."""
    formula, needs, exact = Formula.from_numbers(numbers), Wanted(*wanted), _exact_type(hidden)
    tokens = TokenVectors(targets, weights, mask, advantages, old_logp, sampler_logp, ref_logp)
    made = _Gradients.empty(hidden, weight, bias, needs, exact)
    statistics = hidden.new_zeros(len(STATISTICS), len(hidden), dtype=exact)
    head = Head(weight.to(dtype), None if bias is None else bias.to(dtype))
    _walk(hidden, head, tokens, formula, tile_function(impl), budget_bytes, needs, statistics, made)
    loss = statistics[STATISTICS.index("loss")].sum()
    return loss, statistics, *made.in_the_types_of(hidden, weight, bias)


def _walk(
    hidden: torch.Tensor, head: Head, tokens: TokenVectors, formula: Formula, tile: TileFunction, budget_bytes: int,
    needs: Wanted, statistics: torch.Tensor, made: _Gradients,
) -> None:
    """Go through the chunks; fill statistics (6, N) and the gradients.  The last chunk is freed on return."""
    mask, (vocabulary, _), dtype = tokens.mask, head.weight.shape, head.weight.dtype
    kept = torch.arange(len(hidden), device=hidden.device) if mask is None else mask.nonzero().squeeze(1)
    rows = chunk_rows(
        len(kept), vocabulary, dtype.itemsize, budget_bytes, frozen=not needs.weight, on_cpu=not hidden.is_cuda
    )
    for start in range(0, len(kept), rows):
        at = slice(start, start + rows) if mask is None else kept[start : start + rows]
        chosen, states = _exact(tokens.rows(at), statistics.dtype), hidden[at].to(dtype)
        logits = states @ head.weight.T if head.bias is None else torch.addmm(head.bias, states, head.weight.T)
        statistics[:, at], d_logits = tile(logits, chosen, formula, needs.any())
        made.add(at, d_logits, states, head.weight)


@_operator.register_fake
def _shapes(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *given: object
) -> tuple[torch.Tensor, ...]:
    """Return empty tensors of the operator's shapes, for compilers."""
    exact, wanted = _exact_type(hidden), given[-1]
    gradients = (
        torch.empty_like(of) if need else of.new_empty(0)
        for of, need in zip((hidden, weight, hidden if bias is None else bias), wanted, strict=True)
    )
    return (
        hidden.new_empty((), dtype=exact), hidden.new_empty((len(STATISTICS), len(hidden)), dtype=exact), *gradients
    )


def _keep(ctx, inputs, output) -> None:  # noqa: ANN001
    """Keep the finished gradients; nothing else is needed later."""
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.made, ctx.wanted = output[2:], inputs[-1]


def _scale(ctx, grad_loss, *_):  # noqa: ANN001, ANN002, ANN202
    """Return the gradients times that of the loss, in place: they are large, and needed once."""
    if ctx.made is None:
        raise RuntimeError("expected one backward pass through a sweep, found a second; call the loss again")
    made, ctx.made = ctx.made, None
    scaled = [g.mul_(grad_loss) if need else None for g, need in zip(made, ctx.wanted, strict=True)]
    return *scaled, *[None] * 12


_operator.register_autograd(_scale, setup_context=_keep)


@dataclass(frozen=True, slots=True)
class _Gradients:
    """Gradients under way; those of weight and bias are added up in float32 (float64 for such states)."""

    hidden: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None

    @staticmethod
    def empty(
        hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, needs: Wanted, exact: torch.dtype
    ) -> _Gradients:
        return _Gradients(
            torch.zeros_like(hidden) if needs.hidden else None,
            torch.zeros_like(weight, dtype=exact) if needs.weight else None,
            torch.zeros_like(bias, dtype=exact) if needs.bias and bias is not None else None,
        )

    def add(
        self, at: slice | torch.Tensor, d_logits: torch.Tensor, states: torch.Tensor, weight: torch.Tensor
    ) -> None:
        """Take the gradients of one chunk from that of its logits (n, V)."""
        if self.hidden is not None:
            self.hidden[at] = _product(d_logits, weight).to(self.hidden.dtype)
        if self.weight is not None:
            _add_product(self.weight, d_logits.T, states)
        if self.bias is not None:
            self.bias.add_(d_logits.sum(dim=0, dtype=self.bias.dtype))

    def in_the_types_of(self, *tensors: torch.Tensor | None) -> list[torch.Tensor]:
        """Return what was wanted in the types of its tensors, and empty tensors for the rest."""
        found = (self.hidden, self.weight, self.bias)
        of = [tensors[0] if t is None else t for t in tensors]
        return [t.new_empty(0) if g is None else g.to(t.dtype) for g, t in zip(found, of, strict=True)]


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a @ b, summed and left in float32 where a GPU multiplies shorter numbers."""
    if a.is_cuda and a.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(a, b, out_dtype=torch.float32)
    return a @ b


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add a @ b to a float32 total, without rounding it to a shorter type on the way."""
    if a.is_cuda and a.dtype in (torch.bfloat16, torch.float16):
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))


def _exact_type(hidden: torch.Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _exact(tokens: TokenVectors, dtype: torch.dtype) -> TokenVectors:
    """Return the vectors in the type of the statistics, without gaps between their entries."""
    named = {name: getattr(tokens, name) for name in tokens.__slots__ if name != "targets"}
    return TokenVectors(
        tokens.targets.contiguous(), **{n: None if v is None else v.to(dtype).contiguous() for n, v in named.items()}
    )


def _gathered(parameter: torch.Tensor) -> torch.Tensor:
    """Return the whole of a parameter that FSDP has spread over processes.

    Each process has tokens of its own: on the way back gradients are averaged over them, as FSDP does with all others.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    return parameter.full_tensor(grad_placements=[Partial("avg")] * parameter.device_mesh.ndim)


def tile_function(impl: str) -> TileFunction:
    """Return what turns a tile of logits into statistics and gradient."""
    if impl == "triton":
        from zerosearch.kernels import triton_tiles

        return triton_tiles.tile
    from zerosearch.kernels import torch_tiles

    return torch_tiles.tile
