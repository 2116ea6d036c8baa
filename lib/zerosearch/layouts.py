"""How a run's models lie on its GPUs: the block ``layout`` of a profile, and ``--set layout.NAME=VALUE``.

A profile without the block has the values below: one process, float32, every parameter trained, which is what two
CPU cores want.  Precision and adapters change numbers; the rest decides memory and speed.  A notebook learns the
layout of its profile from an environment variable (``in_force``).
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Iterator, Literal

from pydantic import Field, TypeAdapter, ValidationError

from zerosearch.errors import ConfigError, unknown_name

Sharding = Literal["none", "zero1", "zero2", "zero3", "fsdp"]
SimulatorWeights = Literal["as-is", "int8", "w4a16", "fp8", "auto"]
LAYOUT_VARIABLE = "ZEROSEARCH_LAYOUT"  # tells a notebook what of its profile's layout is not the default, as JSON
READ = frozenset({  # names of Layout that the trainers read; another value of the others is refused
    "precision", "lora_rank", "gradient_checkpointing", "micro_batch_tokens", "sft_rows", "policy_gpus", "sharding", "sleep",
    "overlap", "simulator_weights", "simulator_gpus",
})
DRY = ("zero1", "zero2", "zero3")  # shardings that a dry start tries and no trainer reads, see ``dry_start``
_TRAINED = ("precision", "lora_rank")
DECIDING = {  # what changes numbers
    "01": ("precision",), "02": _TRAINED, "03": (*_TRAINED, "overlap", "simulator_weights"), "04": ("precision",),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the weights of a run are, and in which numbers.

    precision: ``bf16`` computes in bfloat16, loads models and holds frozen weights in it; trained weights, their
    gradients and the optimiser stay float32, since a step of 1e-6 is below bfloat16's resolution.  lora_rank: of
    adapters on all linear layers but the head, 0 to train every parameter.  gradient_checkpointing: blocks are computed again in the backward pass.
    micro_batch_tokens: most tokens of one forward and backward pass in stage 03.  sft_rows: texts of one pass in stage
    02, 0 for the whole batch.  policy_gpus: processes that train in stage 03, one for each GPU (stage 02 trains
    on the simulator's too); on a machine without one they run on the CPU.  sharding: what of the trained model is spread over them (arXiv 1910.02054): optimiser, and
    gradients, and weights; ``fsdp`` is torch's way to do the last, and the one that trainers read.
    simulator_gpus: of its own, 0 where it shares the policy's.  sleep: a simulator in
    the notebook's own process leaves the policy's GPUs during the update.  (The policy's vLLM engine always does, by
    level 1 of its sleep mode: weights go to the machine's memory, keys and values are dropped; servers never do.)
    overlap: stage 03 rolls out the batch of the next step while it learns from this step's, see ``training.overlap``;
    nothing sleeps then, whatever ``sleep`` says.
    simulator_weights: numbers that stage 03 holds its simulator's linear layers in (see ``simulator_weights``); the
    simulator that stage 02 tunes and measures is left as it is.
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
    overlap: bool = False
    simulator_weights: SimulatorWeights = "as-is"

    @property
    def simulator_cards(self) -> tuple[int, ...]:
        """The numbers of the simulator's own GPUs: those after the policy's; empty where it has none."""
        return tuple(range(self.policy_gpus, self.policy_gpus + self.simulator_gpus))


def unread(layout: Layout) -> list[str]:
    """Return the names whose values no trainer reads."""
    plain = Layout()
    names = (field.name for field in fields(Layout))
    found = [name for name in names if name not in READ and getattr(layout, name) != getattr(plain, name)]
    return found + ["sharding"] * (layout.sharding in DRY)


def said(layout: Layout) -> dict[str, Any]:
    """Return what a layout says beyond the defaults, name -> value; empty for the default."""
    plain = Layout()
    values = {field.name: getattr(layout, field.name) for field in fields(Layout)}
    return {name: value for name, value in values.items() if value != getattr(plain, name)}


def deciding(layout: Layout, stage: str) -> dict[str, Any]:
    """Return what of ``said`` changes the numbers of a stage."""
    return {name: value for name, value in said(layout).items() if name in DECIDING.get(stage, ())}


def fingerprint(layout: Layout, stage: str) -> dict[str, Any]:
    """Return what a checkpoint of a stage must remember of a layout: nothing of the default."""
    found = deciding(layout, stage)
    return {"layout": found} if found else {}


def overlap_problem(layout: Layout, correction: str) -> str:
    """Return why stage 03 cannot train with the layout's overlap, and what mends it; empty if all is well.

    correction: of differences between sampler and trainer, the parameter of stage 03.
    """
    if layout.overlap and correction == "none":
        return (
            "layout.overlap: expected an importance correction, since every batch is one update older than the policy "
            "that learns from it, found 03.correction none; add --set 03.correction=token (or sequence), or leave "
            "layout.overlap out"
        )
    if layout.overlap and layout.policy_gpus > 1:
        return (
            f"layout.overlap: expected one process, which keeps the batch under way in its checkpoints, found "
            f"layout.policy_gpus {layout.policy_gpus}; leave one of the two out"
        )
    return ""


def settled(layout: Layout, simulator_weights: str) -> Layout:
    """Return a layout with the numbers that were found for its simulator, "" to leave its wish."""
    return replace(layout, simulator_weights=simulator_weights) if simulator_weights else layout  # type: ignore[arg-type]


def in_force() -> Layout:
    """Return the layout of the profile that runs this process, the default where none does.

    ConfigError for a variable that says something else.
    """
    text = os.environ.get(LAYOUT_VARIABLE)
    return Layout() if not text else _read(text)


@contextlib.contextmanager
def using(layout: Layout) -> Iterator[None]:
    """Put a layout in force for the length of a block."""
    before = os.environ.get(LAYOUT_VARIABLE, "")
    os.environ[LAYOUT_VARIABLE] = json.dumps(said(layout))
    try:
        yield
    finally:
        os.environ[LAYOUT_VARIABLE] = before


def _read(text: str) -> Layout:
    fix = f"leave {LAYOUT_VARIABLE} unset: run_all.sh sets it from the profile's block `layout`"
    try:
        values = json.loads(text)
        known = [field.name for field in fields(Layout)]
        for name in values:
            if name not in known:
                raise unknown_name("layout", name, known)
        return TypeAdapter(Layout).validate_python(values)
    except (ValidationError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"layout: expected values as a profile has them, found {text!r} ({reason}); {fix}") from error
