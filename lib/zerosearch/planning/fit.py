"""Can this machine hold the run?  Asked before anything starts, by every call that plans or runs."""

from __future__ import annotations

from typing import Sequence

from zerosearch.layouts import Layout, unread
from zerosearch.planning import remedies
from zerosearch.planning.limits import not_held, phases_of
from zerosearch.planning.machines import machine_for
from zerosearch.profiles import LAYOUT, Settings


def problems(settings: Settings, stages: Sequence[str], memory_gib: float) -> list[str]:
    """Return what this machine cannot hold of the run's stages, with the nearest run that it can; and what is unread.

    memory_gib: that this machine may use.  Without a GPU here the profile's stated ones count.
    """
    return [*_memory(settings, stages, memory_gib), *layout_problems(settings.layout)]


def _memory(settings: Settings, stages: Sequence[str], memory_gib: float) -> list[str]:
    machine = machine_for(settings.source.needs)
    found = not_held(phases_of(settings, stages, machine), machine, memory_gib)
    if not found:
        return []
    nearest = remedies.nearest(
        settings, lambda other: not not_held(phases_of(other, stages, machine), machine, memory_gib), machine.count
    )
    return [f"plan ({machine.words}): {'; '.join(found)}; {remedies.sentence(nearest)}"]


def layout_problems(layout: Layout) -> list[str]:
    """Return the complaint about values of a layout that no trainer reads: a run must not pass over them silently."""
    ignored = unread(layout)
    if not ignored:
        return []
    given = ", ".join(f"{name}={getattr(layout, name)}" for name in ignored)
    plain = " ".join(f"--set {LAYOUT}.{name}={remedies.shown(getattr(Layout(), name))}" for name in ignored)
    return [f"layout: expected values that the trainers of this version read, found {given}; plan with --dry-run, or "
            f"run with {plain}"]
