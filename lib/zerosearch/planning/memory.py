"""Memory of one GPU, phase by phase: weights, gradients, optimiser, activations, keys and values.

Bytes of what is trained, per parameter (arXiv 1910.02054, sections 3.1 and 5; K = 12 of its table are float32 weights
and Adam's two moments), spread over n GPUs:

    none, float32 or autocast   4 + 4 + 8             zero1, bf16   2 + 2 + 12 / n
    zero3, fsdp                 (4 + 4 + 8) / n       zero2, bf16   2 + (2 + 12) / n
                                                      zero1, float32   4 + 4 + 8 / n;  zero2   4 + (4 + 8) / n

With adapters (arXiv 2106.09685) the model's own weights are frozen, and these numbers count the adapters alone.
vLLM beside others takes a share of a card whole (``engines/gpu_memory.py``): what weights leave is for keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping

from zerosearch.layouts import Layout
from zerosearch.planning.activations import Arithmetic, Pass, step_peak
from zerosearch.planning.shapes import BYTES, Shape
from zerosearch.simulator_weights import BYTES as SHORT

GIB = 2**30
CONTEXT = 0.8  # GiB of a process on a GPU before the first tensor: CUDA's context and libraries (assumed)
PYTHON = 0.58  # GiB of a notebook on a CPU with its libraries: the peak of notebook 00, profile laptop (measured)
SLACK = 0.05  # of the rest: what the allocator holds and cannot use
ENGINE_ROOM = 1.5  # GiB of vLLM besides weights and cache: its graphs and the pass that it measures at the start
SPREAD = ("zero3", "fsdp")


@dataclass(frozen=True, slots=True)
class Phase:
    """What one GPU holds while a part of a run is at work.

    stage, name: which part.  gpus: how many cards hold this.  parts: name -> bytes.  engines: name -> bytes inside
    vLLM's engines, where they have a share of the card; room: bytes of those shares.  wanted: bytes of keys and values
    for all conversations at once, of which an engine with a paged cache needs only one.  on_gpu: else in the machine's
    memory.
    """

    stage: str
    name: str
    gpus: int
    parts: Mapping[str, int] = field(default_factory=dict)
    wanted: int = 0
    on_gpu: bool = True
    engines: Mapping[str, int] = field(default_factory=dict)
    room: int = 0

    @property
    def gib(self) -> float:
        """What is expected on one card (or in a notebook on a CPU), GiB, with what no tensor holds."""
        own = sum(self.parts.values()) / GIB * (1 + SLACK)
        return own + sum(self.engines.values()) / GIB + (CONTEXT if self.on_gpu else PYTHON)

    @property
    def has_room(self) -> bool:
        """Whether vLLM's engines find room in their shares for weights and one conversation."""
        return sum(self.engines.values()) <= self.room

    def part(self, name: str) -> int:
        """Bytes of one part, in vLLM's engines and outside."""
        return self.parts.get(name, 0) + self.engines.get(name, 0)


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine takes of one card; the fields of ``Phase`` with these names."""

    parts: Mapping[str, int] = field(default_factory=dict)
    wanted: int = 0
    engines: Mapping[str, int] = field(default_factory=dict)
    room: int = 0


@dataclass(frozen=True, slots=True)
class Conversations:
    """Conversations that an engine holds at once: how many, tokens of an average and of the longest one.

    new: most tokens of one row that are read at once.  limit: most that are written at once.
    """

    rows: int
    mean: int
    longest: int
    new: int
    limit: int


def frozen_weights(shape: Shape, layout: Layout) -> int:
    """Return the bytes of a model that is only used, whole."""
    return shape.parameters * BYTES[layout.precision]


def simulator_weights(shape: Shape, layout: Layout) -> int:
    """Return the bytes of a simulator's weights, whole: its blocks' linear layers may be in shorter numbers."""
    if layout.simulator_weights not in SHORT:
        return frozen_weights(shape, layout)
    linear = shape.layers * sum(inputs * outputs for inputs, outputs in shape.linears)
    rest = shape.parameters - linear
    return int(linear * SHORT[layout.simulator_weights]) + rest * BYTES[layout.precision]


def arithmetic(layout: Layout, gpus: int) -> Arithmetic:
    """Return how a pass of training computes: frozen weights are in bfloat16 themselves, and those that DeepSpeed spreads."""
    if layout.precision == "float32":
        return "float32"
    return "bf16" if layout.lora_rank or (gpus > 1 and layout.sharding not in ("none", "fsdp")) else "autocast"


def trained(shape: Shape, layout: Layout, gpus: int) -> dict[str, int]:
    """Return the bytes of a model in training on one of ``gpus`` cards: weights, gradients, optimiser."""
    n = gpus if layout.sharding != "none" else 1
    whole = 4 if layout.precision == "float32" or layout.sharding in ("none", *SPREAD) or n == 1 else 2
    learned = shape.lora(layout.lora_rank) if layout.lora_rank else shape.parameters
    if layout.lora_rank:
        whole = 4
    weights, gradients, moments = whole * learned, whole * learned, (16 - 2 * whole) * learned
    if n > 1:
        moments //= n
        gradients //= n if layout.sharding in ("zero2", *SPREAD) else 1
        weights //= n if layout.sharding in SPREAD else 1
    base = 0
    if layout.lora_rank:
        base = frozen_weights(shape, layout) // (n if layout.sharding in SPREAD else 1)
    return {"weights": base + weights, "gradients": gradients, "optimiser": moments}


def gathered(shape: Shape, layout: Layout, gpus: int) -> int:
    """Return what a card gathers of weights that are spread: two blocks, and embedding and head; bytes.

    FSDP2 keeps the root's own weights after the forward pass and fetches the next block while one is at work; ours
    fetches weights as they are trained, in float32 unless they are frozen.
    """
    if gpus == 1 or layout.sharding not in SPREAD:
        return 0
    root = shape.embedding * (1 if shape.tied else 2)
    size = 4 if layout.sharding == "fsdp" and not layout.lora_rank else BYTES[layout.precision]
    return size * (2 * shape.block + root)


def training_pass(shape: Shape, work: Pass, layout: Layout, gpus: int) -> dict[str, int]:
    """Return the bytes of a model in training at the peak of a pass."""
    parts = trained(shape, layout, gpus)
    return parts | {"activations": step_peak(shape, work) + gathered(shape, layout, gpus)}


def own_cache(shape: Shape, talk: Conversations, layout: Layout) -> dict[str, int]:
    """Return the bytes of our own engine besides weights (``engines/transformers_engine.py``).

    Keys and values: room for an average conversation and one message of full length in every row, beside what is kept
    of earlier turns (long conversations are at work when most others have ended).  Working room while new tokens are
    read: attention scores (rows, heads, new, seen) twice in the model's type and once in float32, with the mask, or
    the MLP's three tensors; then logits of one token a row, with float32 and float64 copies.
    """
    c = BYTES[layout.precision]
    cache = talk.rows * (2 * talk.mean + talk.limit) * shape.kv_token(c)
    scores = talk.mean * (shape.heads * (2 * c + 4) + c)
    room = talk.rows * talk.new * max(scores, 3 * c * shape.mlp)
    return {"KV cache": cache, "activations": room + talk.rows * shape.vocabulary * 24}


def paged_cache(shape: Shape, talk: Conversations, layout: Layout, gpus: int = 1) -> tuple[dict[str, int], int]:
    """Return (bytes needed, bytes wanted) of vLLM besides weights: one longest conversation; all at once.

    What does not fit waits: a small cache costs time and ends nothing.
    """
    each = shape.kv_token(BYTES[layout.precision]) // min(gpus, shape.kv_heads)
    needed = {"KV cache": talk.longest * each, "activations": int(ENGINE_ROOM * GIB)}
    return needed, talk.rows * talk.mean * each


def vllm(
    shape: Shape, talk: Conversations, layout: Layout, *, gpus: int = 1, room: int = 0, copies: int = 1, weights: int = 0
) -> Engine:
    """Return what vLLM takes of a card, its own weights included, in so many copies.

    room: bytes of its share of a card, which it fills with keys and values; more than that where not even one
    conversation finds room.  0 for what it needs at least, on cards of its own or without any.  weights: bytes of one
    copy, 0 for those of a model that is only used.
    """
    needed, wanted = paged_cache(shape, talk, layout, gpus)
    one = {"weights": (weights or frozen_weights(shape, layout)) // gpus, **needed}
    parts = {name: copies * size for name, size in one.items()}
    if not room:
        return Engine(parts, wanted)
    free = max(0, room - sum(parts.values()))
    return Engine({}, wanted, parts | {"KV cache": parts["KV cache"] + free}, room)


def together(*parts: Mapping[str, int]) -> dict[str, int]:
    """Return the sum of parts, name by name."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}
