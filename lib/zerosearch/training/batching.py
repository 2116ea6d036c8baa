"""From finished trajectories to micro-batches: which tokens are trained, with which weight.

Token ids are the truth here: prompt_ids and token_ids go to the model as they were sampled, the
trained positions come from the loss mask and from lengths, never from pad ids or decoded text.

Three things keep this cheap.  Rows are sorted by length, so a micro-batch is padded only to its own
longest row; or they are packed, one after the other, and nothing is padded.  Padding stands on the
right, where causal attention never looks back at it, so no attention mask is needed.  And a row
ends at its last trained token: what follows (a final observation, say) predicts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal, Sequence

import numpy as np
import torch

from zerosearch.schema import Trajectory
from zerosearch.training.packing import first_fit

Normalisation = Literal["token", "sequence"]


@dataclass(frozen=True)
class MicroBatch:
    """Some trajectories, padded to the longest of them (b rows, L columns, N trained tokens), or packed (b = 1).

    input_ids (b, L) int64, padded on the right.  positions (N,) int64: index into the (b * L)
    flattened rows of the state that predicts each trained token (one column before it).
    targets (N,) int64: the trained tokens.  old_logp (N,) float32, nats, as the sampler reported.
    advantages (N,) float32.  rows (N,) int64: the trajectory of each trained token.  weights (N,) float32: share of
    each token in the loss; the weights of all micro-batches of one batch sum to 1.  segments: the lengths of the
    trajectories of a packed row, L in all; empty for padded rows.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    old_logp: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    segments: tuple[int, ...] = ()

    def to(self, device: torch.device) -> MicroBatch:
        """Return the same micro-batch on another device."""
        tensors = (getattr(self, name).to(device) for name in self.__dataclass_fields__ if name != "segments")
        return MicroBatch(*tensors, segments=self.segments)


def weightless(batch: MicroBatch) -> MicroBatch:
    """Return a micro-batch that adds nothing to a loss or a gradient: for a process that only keeps step."""
    return replace(batch, weights=torch.zeros_like(batch.weights))


@dataclass(frozen=True)
class _Row:
    """One trajectory cut after its last trained token; columns: where its trained tokens stand."""

    ids: np.ndarray
    columns: np.ndarray
    old_logp: np.ndarray
    advantage: float
    weight: float


def trained_tokens(trajectory: Trajectory) -> int:
    """Return the number of tokens of a trajectory that enter the loss: those the policy sampled."""
    return 0 if trajectory.stop_reason == "retriever_error" else sum(trajectory.loss_mask)


def token_weights(counts: Sequence[int], normalisation: Normalisation = "token") -> np.ndarray:
    """Return the weight of one token of each trajectory, (B,) float64; 0 where a count is 0.

    counts: trained tokens per trajectory.  ``token``: every token of the batch weighs the same (as
    in DAPO: 1 / all trained tokens), so long trajectories weigh more.  ``sequence``: every trajectory
    weighs the same, shared evenly by its tokens (as in the original GRPO: 1 / (B * length)).
    The weights, each counted once per token, sum to 1 (or to 0 when nothing is trained).
    """
    counts_array = np.asarray(counts, dtype=np.float64)
    alive = counts_array > 0
    weights = np.zeros_like(counts_array)
    if not alive.any():
        return weights
    if normalisation == "token":
        weights[alive] = 1.0 / counts_array.sum()
    elif normalisation == "sequence":
        weights[alive] = 1.0 / (alive.sum() * counts_array[alive])
    else:
        raise ValueError(f"normalisation: expected 'token' or 'sequence', found {normalisation!r}")
    return weights


def make_micro_batches(
    trajectories: Sequence[Trajectory],
    advantages: np.ndarray,
    *,
    pad_id: int,
    max_tokens: int,
    normalisation: Normalisation = "token",
    skip_idle: bool = False,
    packed: bool = False,
) -> list[MicroBatch]:
    """Return the trained trajectories as micro-batches, longest rows first.

    advantages (B,): one per trajectory.  max_tokens: most cells (rows times padded length) of one
    micro-batch; a single longer row still gets its own.  packed: the rows of a micro-batch stand one
    after the other in a single row, so that every cell is a token; read it inside
    ``packing.attending_alone``.  pad_id: any valid token id; its value
    changes nothing.  Trajectories whose retriever failed, and rows without a policy token, are left
    out.  skip_idle: leave out rows of advantage 0 as well (their weight is still counted): without a
    KL term they add exactly nothing to the loss and to its gradient, only time.  However
    the batch is split, the sum of the micro-batch losses is the full-batch loss.
    """
    if len(trajectories) != len(advantages):
        raise ValueError(
            f"expected {len(trajectories)} advantages, one per trajectory, found {len(advantages)}"
        )
    weights = token_weights([trained_tokens(t) for t in trajectories], normalisation)
    rows = [
        _row(t, float(a), float(w))
        for t, a, w in zip(trajectories, advantages, weights, strict=True)
        if w > 0 and not (skip_idle and a == 0.0)
    ]
    rows.sort(key=lambda row: -len(row.ids))  # stable: equal lengths keep their order
    if packed:
        bins = first_fit([len(row.ids) - 1 for row in rows], max_tokens)
        return [_collate_packed([rows[i] for i in part]) for part in bins]
    return [_collate(part, pad_id) for part in _split(rows, max_tokens)]


def _row(trajectory: Trajectory, advantage: float, weight: float) -> _Row:
    ids = np.asarray(trajectory.prompt_ids + trajectory.token_ids, dtype=np.int64)
    trained = np.flatnonzero(np.asarray(trajectory.loss_mask, dtype=bool))
    columns = trained + len(trajectory.prompt_ids)
    if columns[0] == 0:
        raise ValueError(
            f"trajectory of {trajectory.question.id!r}: expected a prompt of at least one token before the "
            "first trained token, found none"
        )
    old_logp = np.asarray(trajectory.logprobs, dtype=np.float32)[trained]
    return _Row(ids[: columns[-1] + 1], columns, old_logp, advantage, weight)


def _split(rows: Sequence[_Row], max_tokens: int) -> list[Sequence[_Row]]:
    parts: list[Sequence[_Row]] = []
    start = 0
    while start < len(rows):
        size = max(1, max_tokens // len(rows[start].ids))
        parts.append(rows[start : start + size])
        start += size
    return parts


def _collate(rows: Sequence[_Row], pad_id: int) -> MicroBatch:
    width = len(rows[0].ids) - 1  # the last trained token is predicted, not read
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    for i, row in enumerate(rows):
        input_ids[i, : len(row.ids) - 1] = row.ids[:-1]
    return _joined(rows, input_ids, [i * width for i in range(len(rows))])


def _collate_packed(rows: Sequence[_Row]) -> MicroBatch:
    """Return rows as one; what a row's last trained token would read is left out, as in ``_collate``."""
    segments = tuple(len(row.ids) - 1 for row in rows)
    input_ids = np.concatenate([row.ids[:-1] for row in rows])[None]
    return _joined(rows, input_ids, [0, *accumulate(segments[:-1])], segments)


def _joined(
    rows: Sequence[_Row], input_ids: np.ndarray, starts: Sequence[int], segments: tuple[int, ...] = ()
) -> MicroBatch:
    """Return the micro-batch of rows whose first cells stand at starts in the flattened input_ids."""

    def joined(pieces: list[np.ndarray], dtype: type) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(pieces).astype(dtype, copy=False))

    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        positions=joined([start + row.columns - 1 for start, row in zip(starts, rows, strict=True)], np.int64),
        targets=joined([row.ids[row.columns] for row in rows], np.int64),
        old_logp=joined([row.old_logp for row in rows], np.float32),
        advantages=joined([np.full(len(row.columns), row.advantage) for row in rows], np.float32),
        weights=joined([np.full(len(row.columns), row.weight) for row in rows], np.float32),
        rows=joined([np.full(len(row.columns), i) for i, row in enumerate(rows)], np.int64),
        segments=segments,
    )
