"""How a run's models lie on its GPUs: the block ``layout`` of a profile, and ``--set layout.NAME=VALUE``.

It decides memory and speed, not what is computed.  A profile without the block has the values below: one process,
float32, every parameter trained, which is what two CPU cores want.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from pydantic import Field

Sharding = Literal["none", "zero1", "zero2", "zero3", "fsdp"]
READ: frozenset[str] = frozenset()  # names of Layout that the trainers read; another value of the others is refused


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the weights of a run are, and in which numbers.

    precision: ``bf16`` computes in bfloat16 and holds frozen weights in it; trained weights, their gradients and the
    optimiser stay float32, since a step of 1e-6 is below bfloat16's resolution.  lora_rank: of adapters on all linear
    layers, 0 to train every parameter.  gradient_checkpointing: blocks are computed again in the backward pass.
    micro_batch_tokens: most tokens of one forward and backward pass in stage 03.  sft_rows: texts of one pass in stage
    02, 0 for the whole batch.  policy_gpus: that train.  sharding: what of the trained model is spread over them
    (arXiv 1910.02054): optimiser, and gradients, and weights; ``fsdp`` is torch's way to do the last.
    simulator_gpus: of its own, 0 where it shares the policy's; stage 02 trains on all cards.  sleep: a simulator in
    the notebook's own process leaves the policy's GPUs during the update.  (The policy's vLLM engine always does, by
    level 1 of its sleep mode: weights go to the machine's memory, keys and values are dropped; servers never do.)
    """

    precision: Literal["float32", "bf16"] = "float32"
    lora_rank: Annotated[int, Field(ge=0)] = 0
    gradient_checkpointing: bool = False
    micro_batch_tokens: Annotated[int, Field(ge=1)] = 4096
    sft_rows: Annotated[int, Field(ge=0)] = 0
    policy_gpus: Annotated[int, Field(ge=1)] = 1
    sharding: Sharding = "none"
    simulator_gpus: Annotated[int, Field(ge=0)] = 0
    sleep: bool = False


def unread(layout: Layout) -> list[str]:
    """Return the names whose values differ from the defaults and that no trainer reads."""
    plain = Layout()
    names = (field.name for field in fields(Layout))
    return [name for name in names if name not in READ and getattr(layout, name) != getattr(plain, name)]
