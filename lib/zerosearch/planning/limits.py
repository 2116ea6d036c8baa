"""What a machine can hold of a run's phases.  Needs no prices, and so is quick enough for every call."""

from __future__ import annotations

from typing import Sequence

from zerosearch import artifacts
from zerosearch.planning import phases, workload
from zerosearch.planning.machines import Machine, machine_for
from zerosearch.planning.memory import GIB, Phase
from zerosearch.profiles import Settings


def phases_of(
    settings: Settings, selected: Sequence[str] = tuple(artifacts.STAGES), machine: Machine | None = None
) -> list[Phase]:
    """Return the phases of memory of a run's stages; machine: in place of the one that the profile states."""
    card = (machine or machine_for(settings.source.needs, [])).card
    gib = card.gib if card else 0.0
    found = phases.phases(settings, phases.models(settings).shapes, workload.workload(settings), gib)
    return [phase for phase in found if phase.stage in selected]


def not_held(found: Sequence[Phase], machine: Machine, memory_gib: float) -> list[str]:
    """Return what these phases ask of a machine that it has not."""
    most = limit(machine, memory_gib)
    problems = [
        f"expected {phase.gib:.1f} GiB for {phase.name} (stage {phase.stage}), found {most:.1f}"
        for phase in found if phase.gib > most
    ]
    problems += [
        f"expected {sum(phase.engines.values()) / GIB:.1f} GiB for vLLM in {phase.name} (stage {phase.stage}), found "
        f"{phase.room / GIB:.1f}, its share of a card" for phase in found if not phase.has_room
    ]
    if machine.card and gpus_at_once(found) > machine.count:
        problems.append(f"expected {gpus_at_once(found)} GPUs, found {machine.count}")
    return problems


def gpus_at_once(found: Sequence[Phase]) -> int:
    """Return the cards of the busiest moment: policy and simulator side by side, or one phase alone."""
    training = sum(phase.gpus for phase in found if phase.name in ("update", "simulator"))
    return max([training, *(phase.gpus for phase in found)], default=0)


def limit(machine: Machine, memory_gib: float) -> float:
    """Return the GiB that one phase may take: of one card, or of this machine."""
    return machine.card.gib if machine.card else memory_gib
