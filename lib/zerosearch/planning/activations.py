"""What one forward and backward pass holds besides weights: activations that autograd saves, logits, working room.

Counted from the operations of transformers' Llama and Qwen2 blocks with SDPA attention, T tokens, width h, MLP f,
queries q, keys k, in the manner of arXiv 2205.05198, section 4 (whose block has other operations).  Held to the
tensors that autograd really saves, and to the peak of live memory of a whole step, by tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zerosearch.planning.shapes import Shape

Arithmetic = Literal["float32", "autocast", "bf16"]
CHUNK_BYTES = 2**30  # of logits at a time in the fused losses, see ``kernels``; a quarter with a frozen head
FULL = 4  # bytes of a float32


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass on one GPU.

    tokens: T, padding included.  trained: tokens that are scored.  arithmetic: ``float32``; ``autocast``, float32
    weights under torch's autocast to bfloat16; ``bf16``, weights already in it.  lora_rank: 0 where every parameter
    learns.  checkpointing: only the states between blocks are kept.  fused: losses sweep over chunks of logits.
    entropy: the loss also reports entropies, as in RL.
    """

    tokens: int
    trained: int
    arithmetic: Arithmetic = "float32"
    lora_rank: int = 0
    checkpointing: bool = False
    fused: bool = False
    entropy: bool = True

    @property
    def size(self) -> int:
        """Bytes of a number in the linear layers."""
        return 4 if self.arithmetic == "float32" else 2

    @property
    def state_size(self) -> int:
        """Bytes of a number of the states between blocks; autocast adds float32 to bfloat16, which gives float32."""
        return 2 if self.arithmetic == "bf16" else 4


def norm_token(shape: Shape, work: Pass, readers: int) -> int:
    """Return what an RMS norm and the linear layers that read it save per token: bytes.

    The float32 states, one inverse root, the normalised states (to train the norm's weight), and what the readers
    were given, once or, where autocast copies it for each, once for each.  With adapters the frozen layers save
    nothing; each adapter saves its own float32 copy (``adapter_token``).
    """
    saved = FULL * shape.hidden + FULL
    if work.lora_rank:
        return saved
    return saved + work.state_size * shape.hidden + _inputs(work, readers) * work.size * shape.hidden


def _inputs(work: Pass, readers: int) -> int:
    """Return how many copies of the same states ``readers`` linear layers save."""
    return readers if work.arithmetic == "autocast" else min(readers, 1)


def adapter_token(shape: Shape, rank: int) -> int:
    """Return what adapters of a rank save per token in one block: each its input in float32, and its r numbers."""
    return FULL * sum(inputs + rank for inputs, _ in shape.linears) if rank else 0


def block_token(shape: Shape, work: Pass) -> int:
    """Return what one block saves for the backward pass per token: bytes.

    Two norms; queries, keys, values, the mix of values (read by the output layer) and one float32 log-sum per head;
    of the MLP the gate, its SiLU, the other factor and their product.  No T x T matrix: SDPA computes it again.
    """
    c, adapters = work.size, bool(work.lora_rank)
    attention = c * (2 * shape.queries + 2 * shape.keys) + FULL * shape.heads
    mlp = c * shape.mlp * (3 if adapters else 4)
    return norm_token(shape, work, 3) + norm_token(shape, work, 2) + attention + mlp + adapter_token(
        shape, work.lora_rank
    )


def blocks(shape: Shape, work: Pass) -> int:
    """Return what the blocks hold when the forward pass ends: bytes.  Checkpointed, each keeps its input alone."""
    each = work.state_size * shape.hidden if work.checkpointing else block_token(shape, work)
    return work.tokens * (shape.layers * each + 8)  # token ids are int64


def copies(shape: Shape, work: Pass) -> int:
    """Return the bfloat16 copies of float32 weights that autocast makes and the backward pass needs: bytes."""
    return 2 * shape.multiplied if work.arithmetic == "autocast" and not work.lora_rank else 0


def head(shape: Shape, work: Pass, backward: bool = False) -> int:
    """Return the most that the last norm and the loss hold at once, in the forward or the backward pass: bytes.

    Plain, as tensors of float32 (N, V): forward the logits and their log-softmax, and for a moment two more where
    entropies are wanted; backward the log-softmax, the gradient that reaches it and the one that leaves it.
    Fused (both passes are one): a chunk of logits, the float32 gradient of a head that learns, gradients of states.
    """
    n, v = work.trained, shape.vocabulary
    states = work.tokens * norm_token(shape, work, 0) + n * shape.hidden * (work.size + FULL)
    if not work.fused:
        return states + (3 if backward else 4 if work.entropy else 2) * FULL * n * v
    chunk = min(CHUNK_BYTES // (4 if work.lora_rank else 1), n * v * work.size)
    return states + chunk + (0 if work.lora_rank else FULL * shape.embedding)


def backward_room(shape: Shape, work: Pass) -> int:
    """Return what the backward pass needs besides ``blocks`` while it is in the MLP of the last block: bytes.

    Two gradients as wide as the MLP more than it has freed (with adapters a float32 one too), one of the states; the
    head's, kept until the embedding's is there when both are one; and with checkpointing all that the block saves,
    its input in float32 counted once.
    """
    wide = 2 * work.size + (FULL if work.lora_rank else 0)
    gradients = work.tokens * (wide * shape.mlp + work.state_size * shape.hidden)
    tied = FULL * shape.embedding if shape.tied and not work.lora_rank else 0
    if not work.checkpointing:
        return gradients + tied
    known = FULL * shape.hidden if work.state_size == FULL else 0
    return gradients + tied + work.tokens * (block_token(shape, work) - known)


def step_peak(shape: Shape, work: Pass) -> int:
    """Return the most that a pass holds besides weights, gradients and optimiser: bytes.

    Either while the loss is computed, or when the backward pass is in the last block; or at its end, when all is
    freed, two gradients of a tied embedding.
    """
    kept, again = blocks(shape, work), copies(shape, work)
    until = min(again, 2 * shape.embedding) if work.checkpointing else again  # the head is in no checkpointed block
    loss = max(again + head(shape, work), until + head(shape, work, backward=True))
    end = (2 if shape.tied else 1) * FULL * shape.embedding if not work.lora_rank else 0
    return max(kept + loss, kept + until + backward_room(shape, work), end)
