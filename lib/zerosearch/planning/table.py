"""The plan as it is printed: a few short tables of plain text."""

from __future__ import annotations

from typing import Sequence

from zerosearch.planning.memory import CONTEXT, GIB, PYTHON, SLACK, Phase
from zerosearch.planning.plan import Plan, disk_problem

COLUMNS = {  # of the table of memory: heading -> the parts it adds up
    "weights": ("weights", "reference", "simulator"),
    "gradients": ("gradients",),
    "optimiser": ("optimiser",),
    "activations": ("activations",),
    "KV cache": ("KV cache",),
}


def lines(plan: Plan) -> list[str]:
    """Return the lines of a plan: memory phase by phase, then disk, time and money, then what was assumed."""
    return [*_memory(plan), *_totals(plan), *_notes(plan)]


def _memory(plan: Plan) -> list[str]:
    place = "each GPU" if plan.machine.card else "a notebook"
    head = [f"plan of memory, GiB of {place} ({plan.machine.words}); an estimate, nothing was started"]
    titles = ["phase", "GPUs", *COLUMNS, "expected", "here", ""]
    rows = [titles, *(_row(phase, plan) for phase in plan.phases)]
    return head + aligned(rows, left=(0, len(titles) - 1))


def _row(phase: Phase, plan: Plan) -> list[str]:
    amounts = [sum(map(phase.part, parts)) / GIB for parts in COLUMNS.values()]
    verdict = "fits" if _fits(phase, plan) else "does not fit"
    gpus = str(phase.gpus) if plan.machine.card else "-"
    return [f"{phase.stage} {phase.name}", gpus, *(f"{amount:.1f}" for amount in amounts), f"{phase.gib:.1f}",
            f"{plan.limit:.1f}", verdict + _at_once(phase, plan)]


def _fits(phase: Phase, plan: Plan) -> bool:
    return phase.gib <= plan.limit and phase.has_room


def _at_once(phase: Phase, plan: Plan) -> str:
    """Say how much of the wanted cache finds room, in vLLM's shares of a card or in what is left of its own."""
    if not phase.wanted or not _fits(phase, plan):
        return ""
    left = phase.part("KV cache") + (0 if phase.engines else (plan.limit - phase.gib) * GIB)
    return f", room for {min(1.0, left / phase.wanted):.0%} of the conversations at once"


def _totals(plan: Plan) -> list[str]:
    wanted, free = sum(plan.downloads.values()), plan.disk_gib
    rows = [["what", "expected", "here", ""]]
    rows += [[f"download {name}", f"{gib:.1f} GiB", "", ""] for name, gib in plan.downloads.items()]
    rows += [[name, f"{gib:.1f} GiB", "", ""] for name, gib in plan.disk.items()]
    rows.append(["disk in all", f"{wanted + sum(plan.disk.values()):.1f} GiB", f"{free:.0f} GiB free",
                 "does not fit" if disk_problem(plan) else "fits"])
    rows += [[f"time of stage {stage}", _time(hours), "", ""] for stage, hours in plan.hours.items()]
    rows.append(["time in all", _time(sum(plan.hours.values())), "", ""])
    rows += [[f"cost of {item}", "no price" if usd is None else _usd(usd), "", ""] for item, usd in plan.dollars.items()]
    known = [usd for usd in plan.dollars.values() if usd is not None]
    partly = "" if len(known) == len(plan.dollars) else ", where known"
    rows.append([f"cost in all{partly}", _usd(sum(known)), "", ""])
    return aligned(rows, left=(0, 3))


def _usd(amount: float) -> str:
    return f"{amount:,.2f} USD"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _notes(plan: Plan) -> list[str]:
    own = f"{CONTEXT:g} GiB of CUDA's own" if plan.machine.card else f"{PYTHON:g} GiB of Python and libraries"
    found = [f"assumed: {sentence}" for sentence in plan.assumed]
    found.append(f"assumed: expected memory includes {own} and {SLACK:.0%} that the allocator cannot use")
    return found + [
        f"not planned: the sizes of {model} are not known here; fetch its settings once with "
        f"`hf download {model} config.json`" for model in plan.models.unknown
    ]


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Return rows of cells as lines with columns under each other; left: columns that begin at their left edge."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def cell(i: int, text: str) -> str:
        return text.ljust(widths[i]) if i in left else text.rjust(widths[i])

    return [("  " + "  ".join(cell(i, text) for i, text in enumerate(row))).rstrip() for row in rows]
