"""The whole plan of a run, as it is printed by a dry run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from zerosearch import artifacts
from zerosearch.planning import effort, limits, memory, money, phases, storage, workload
from zerosearch.planning.machines import Machine, machine_for
from zerosearch.planning.memory import Phase
from zerosearch.planning.phases import Models
from zerosearch.prices import PriceBook
from zerosearch.profiles import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is expected to need.

    phases: memory, in order.  downloads, disk: name -> GiB.  hours: stage -> hours.  dollars: item -> USD, None where
    the price book has none.  memory_gib, disk_gib: what is here.  assumed: sentences about what cannot be known.
    """

    machine: Machine
    models: Models
    phases: Sequence[Phase]
    downloads: Mapping[str, float]
    disk: Mapping[str, float]
    hours: Mapping[str, float]
    dollars: Mapping[str, float | None]
    memory_gib: float
    disk_gib: float
    assumed: Sequence[str]

    @property
    def limit(self) -> float:
        """GiB that one phase may take: of one card, or of this machine."""
        return limits.limit(self.machine, self.memory_gib)


def make(
    settings: Settings, folder: Path, memory_gib: float, machine: Machine | None = None,
    selected: Sequence[str] = tuple(artifacts.STAGES),
) -> Plan:
    """Return the plan of a run's stages; WorkbookError when the price book cannot be read.

    folder: of the run, for the free disk.  memory_gib: that this machine may use.  machine: in place of the one that
    is here or that the profile states.
    """
    machine = machine or machine_for(settings.source.needs)
    found, work = phases.models(settings), workload.workload(settings)
    if machine.card is not None:
        hours = effort.hours(settings, found.shapes, work, machine.card)
    else:
        hours = effort.stated_hours(settings, selected)
    hours = {stage: value for stage, value in hours.items() if stage in selected}
    book = PriceBook.load(artifacts.REPO / settings.stage("05")["price_book"])
    assumed = [workload.lengths(settings.stage("03")["policy_model"]).words()]
    assumed += [effort.ASSUMED] if machine.card else ["hours: those that the profile states, measured"]
    free = shutil.disk_usage(_existing(folder)).free / memory.GIB
    return Plan(
        machine, found, limits.phases_of(settings, selected, machine), storage.downloads(settings, found),
        storage.disk(settings, found.shapes), hours, money.dollars(settings, hours, work, machine, book), memory_gib,
        free, assumed,
    )


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def disk_problem(plan: Plan) -> str | None:
    """Return what is wrong with the disk: it cannot hold downloads, checkpoints and models."""
    needed = sum(plan.downloads.values()) + sum(plan.disk.values())
    if needed <= plan.disk_gib:
        return None
    return f"expected {needed:.0f} GiB of disk for downloads, checkpoints and models, found {plan.disk_gib:.0f} free"
