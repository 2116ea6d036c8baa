"""One tile of logits (n rows, whole vocabulary) in Triton: statistics, loss, and the gradient of the logits in place.

One program per row, two walks over its V logits.  The first keeps a running maximum m, s = sum exp(z - m) and
x = sum exp(z - m) z, rescaled whenever m grows:

    log p = z_target - m - log s        H = m + log s - x / s

Then the row knows its loss and how hard it pulls, g = d loss / d log p.  The second walk reads the logits again (from
the second-level cache where they fit) and writes over them

    d loss / d z_j = g (1[j = target] - p_j) + entropy_weight w p_j (log p_j + H)

times the slope of scale, cap and temperature.  Memory: nothing beside the tile but six numbers per row; traffic: two
reads and one write of the tile, against three matrix products of 2 n V H operations each.

Set ``TRITON_INTERPRET=1`` before Python starts to run the arithmetic without a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from zerosearch.kernels.preparation import STATISTICS, Formula, TokenVectors

BLOCK = 4096  # logits per step of a walk
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}  # of the compiler


@triton.jit
def _scored(raw, scale, softcap, over_t, HAS_SOFTCAP: tl.constexpr):
    """Return (scaled and capped logits over the temperature, d new / d raw)."""
    if HAS_SOFTCAP:
        capped = 2.0 * tl.sigmoid(2.0 * raw * (scale / softcap)) - 1.0  # tanh
        z = softcap * over_t * capped
        slope = scale * over_t * (1.0 - capped * capped)
    else:
        z = raw * (scale * over_t)
        slope = scale * over_t
    return z, slope


@triton.jit
def _expm1(d):
    """Return exp(d) - 1 without losing the digits of a small d."""
    series = d * (1.0 + d * (0.5 + d * (0.16666667 + d * (0.041666668 + d * 0.008333334))))
    return tl.where(tl.abs(d) < 0.1, series, tl.exp(d) - 1.0)


@triton.jit
def _row_statistics(
    row_ptr, target, n_cols, scale, softcap, over_t, HAS_SOFTCAP: tl.constexpr, BLOCK: tl.constexpr
):
    """Return (log p of the target, entropy, m + log s) of one row: the first walk."""
    m = -float("inf")
    s = 0.0
    x = 0.0
    for start in range(0, n_cols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < n_cols
        raw = tl.load(row_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        z, _ = _scored(raw, scale, softcap, over_t, HAS_SOFTCAP)
        z = tl.where(inside, z, -float("inf"))
        new_m = tl.maximum(m, tl.max(z, axis=0))
        rescale = tl.exp(m - new_m)
        e = tl.exp(z - new_m)
        # x is kept relative to m: sums of exp(z - m) (z - m) lose no digits to a large m
        x = (x + s * tl.where(s > 0.0, m - new_m, 0.0)) * rescale
        x += tl.sum(e * tl.where(inside, z - new_m, 0.0), axis=0)
        s = s * rescale + tl.sum(e, axis=0)
        m = new_m
    at_target = tl.load(row_ptr + target).to(tl.float32)
    z_target, _ = _scored(at_target, scale, softcap, over_t, HAS_SOFTCAP)
    log_s = tl.log(s)
    return z_target - m - log_s, log_s - x / s, m + log_s


@triton.jit
def _token_terms(
    logp, advantage, old, sampled, ref, clip_low, clip_high, kl_weight, importance_cap,
    IS_POLICY: tl.constexpr, HAS_OLD: tl.constexpr, HAS_SAMPLER: tl.constexpr, HAS_REF: tl.constexpr,
    CORRECT: tl.constexpr,
):
    """Return (loss, d loss / d log p, kl, clipped, gap) of one token, as ``torch_tiles.token_terms``."""
    loss = -logp
    pull = -1.0
    kl = 0.0
    clipped = 0.0
    gap = 0.0
    if IS_POLICY:
        if not HAS_OLD:
            old = logp
        if not HAS_SAMPLER:
            sampled = old
        gain = advantage
        if CORRECT:
            gain = gain * tl.minimum(tl.exp(logp - sampled), importance_cap)
        ratio = tl.exp(logp - old)
        unclipped = ratio * gain
        cut = tl.minimum(tl.maximum(ratio, clip_low), clip_high) * gain
        is_cut = cut < unclipped
        loss = -tl.minimum(unclipped, cut)
        pull = tl.where(is_cut, 0.0, -unclipped)
        clipped = is_cut.to(tl.float32)
        gap = tl.abs(logp - sampled)
    if HAS_REF:
        difference = ref - logp
        growth = _expm1(difference)
        kl = growth - difference
        loss += kl_weight * kl
        pull -= kl_weight * growth
    return loss, pull, kl, clipped, gap


@triton.jit
def _write_gradient(
    row_ptr, target, n_cols, pull, bonus, entropy, log_total, scale, softcap, over_t,
    HAS_SOFTCAP: tl.constexpr, HAS_BONUS: tl.constexpr, BLOCK: tl.constexpr,
):
    """Write the gradient of one row over its logits: the second walk."""
    for start in range(0, n_cols, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < n_cols
        raw = tl.load(row_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        z, slope = _scored(raw, scale, softcap, over_t, HAS_SOFTCAP)
        log_p = z - log_total
        p = tl.exp(log_p)
        gradient = -pull * p
        if HAS_BONUS:
            gradient += bonus * p * (log_p + entropy)
        gradient = tl.where(columns == target, gradient + pull, gradient) * slope
        tl.store(row_ptr + columns, gradient.to(row_ptr.dtype.element_ty), mask=inside)


@triton.jit
def sweep_kernel(
    logits_ptr,  # (n, V) any float; overwritten with the gradient when WITH_GRADIENT
    targets_ptr,  # (n,) int64
    weights_ptr,  # (n,) float32
    advantages_ptr, old_ptr, sampler_ptr, ref_ptr,  # (n,) float32; each is used where its flag says so
    statistics_ptr,  # (6, n) float32, written: logp, entropy, loss, kl, clipped, gap
    n_rows, n_cols,
    row_stride,
    scale, softcap, over_t, clip_low, clip_high, kl_weight, entropy_weight, importance_cap,
    WITH_GRADIENT: tl.constexpr, IS_POLICY: tl.constexpr, HAS_OLD: tl.constexpr, HAS_SAMPLER: tl.constexpr,
    HAS_REF: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_BONUS: tl.constexpr, CORRECT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Finish one row: its six statistics, and the gradient of its loss written over its logits."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    target = tl.load(targets_ptr + row)
    logp, entropy, log_total = _row_statistics(
        row_ptr, target, n_cols, scale, softcap, over_t, HAS_SOFTCAP, BLOCK
    )
    weight = tl.load(weights_ptr + row)
    loss, pull, kl, clipped, gap = _token_terms(
        logp, tl.load(advantages_ptr + row), tl.load(old_ptr + row), tl.load(sampler_ptr + row),
        tl.load(ref_ptr + row), clip_low, clip_high, kl_weight, importance_cap,
        IS_POLICY, HAS_OLD, HAS_SAMPLER, HAS_REF, CORRECT,
    )
    if HAS_BONUS:
        loss -= entropy_weight * entropy
    tl.store(statistics_ptr + row, logp)
    tl.store(statistics_ptr + n_rows + row, entropy)
    tl.store(statistics_ptr + 2 * n_rows + row, weight * loss)
    tl.store(statistics_ptr + 3 * n_rows + row, kl)
    tl.store(statistics_ptr + 4 * n_rows + row, clipped)
    tl.store(statistics_ptr + 5 * n_rows + row, gap)
    if WITH_GRADIENT:
        tl.debug_barrier()  # every thread has read the target's logit before any is overwritten
        _write_gradient(
            row_ptr, target, n_cols, pull * weight, entropy_weight * weight, entropy, log_total, scale, softcap,
            over_t, HAS_SOFTCAP, HAS_BONUS, BLOCK,
        )


def tile(
    logits: torch.Tensor, tokens: TokenVectors, formula: Formula, with_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (statistics (6, n), gradient (n, V) in the place of the logits), as ``torch_tiles.tile`` does.

    logits (n, V): float32, bfloat16 or float16, rows contiguous; TypeError for float64, which only torch does.
    """
    if logits.dtype == torch.float64:
        raise TypeError("impl 'triton': expected float32, bfloat16 or float16, found float64; use impl='torch'")
    n, vocabulary = logits.shape
    targets = tokens.targets
    torch._assert_async(((targets >= 0) & (targets < vocabulary)).all(), f"targets outside 0 to {vocabulary - 1}")
    statistics = torch.empty(len(STATISTICS), n, dtype=torch.float32, device=logits.device)
    if n == 0:
        return statistics, logits
    sweep_kernel[(n,)](
        **arguments(logits, tokens, formula, statistics), WITH_GRADIENT=with_gradient, **flags(tokens, formula),
        BLOCK=BLOCK, **OPTIONS,
    )
    return statistics, logits


def arguments(
    logits: torch.Tensor, tokens: TokenVectors, formula: Formula, statistics: torch.Tensor
) -> dict[str, torch.Tensor | int | float]:
    """Return the kernel's arguments up to its flags; the weights stand in for vectors that it will not read."""
    def given(vector: torch.Tensor | None) -> torch.Tensor:
        return tokens.weights if vector is None else vector

    return {
        "logits_ptr": logits, "targets_ptr": tokens.targets, "weights_ptr": tokens.weights,
        "advantages_ptr": given(tokens.advantages), "old_ptr": given(tokens.old_logp),
        "sampler_ptr": given(tokens.sampler_logp), "ref_ptr": given(tokens.ref_logp),
        "statistics_ptr": statistics, "n_rows": len(logits), "n_cols": logits.shape[1],
        "row_stride": logits.stride(0), "scale": formula.scale, "softcap": formula.softcap or 1.0,
        "over_t": 1.0 / formula.temperature, "clip_low": formula.clip_low, "clip_high": formula.clip_high,
        "kl_weight": formula.kl_weight, "entropy_weight": formula.entropy_weight,
        "importance_cap": formula.importance_cap,
    }


def flags(tokens: TokenVectors, formula: Formula) -> dict[str, bool]:
    """Return which parts of the kernel a loss needs; the rest is not compiled."""
    return {
        "IS_POLICY": tokens.advantages is not None, "HAS_OLD": tokens.old_logp is not None,
        "HAS_SAMPLER": tokens.sampler_logp is not None, "HAS_REF": tokens.ref_logp is not None,
        "HAS_SOFTCAP": formula.softcap is not None, "HAS_BONUS": formula.entropy_weight != 0.0,
        "CORRECT": formula.correct_in_sweep,
    }
