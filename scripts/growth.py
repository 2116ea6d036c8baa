"""Figures of one process taken over and over, and the verdict whether any of them grows.

Memory may differ by a twentieth: an allocator keeps what it once had.  Everything else is counted and may not
grow at all.  Called by ``soak``.
"""

from __future__ import annotations

import gc
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Sequence

import pandas as pd
import psutil
import traces

from zerosearch import files

MEMORY = ("rss_mib", "peak_rss_mib")
MEMORY_GROWTH = 0.05  # relative
EDGE = 10  # measurements at either end that are compared, at most a third of all
NOT_JUDGED = ("number", "wall_seconds")


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process holds.  fds: open file descriptors.  files_*: files below the folders that were named."""

    rss_mib: float
    fds: int
    threads: int
    children: int
    files_temporary: int
    files_other: int

    @classmethod
    def take(cls, temporary: Path, other: Path) -> Figures:
        """Measure this process, after a collection of garbage."""
        gc.collect()
        process = psutil.Process(os.getpid())
        return cls(
            round(process.memory_info().rss / 2**20, 2), process.num_fds(), process.num_threads(),
            len(process.children(recursive=True)), _count(temporary), _count(other),
        )


def _count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def growth(table: pd.DataFrame, warm_up: int) -> dict[str, float]:
    """Return by how much each column grew after the warm-up: memory relatively, of medians; counts of their maxima.

    table: one row per measurement.  ValueError when fewer than three are left after the warm-up.
    """
    judged = table.iloc[warm_up:].drop(columns=[name for name in NOT_JUDGED if name in table])
    if len(judged) < 3:
        raise ValueError(f"growth: expected three measurements after the warm-up, found {len(judged)}")
    edge = max(1, min(EDGE, len(judged) // 3))
    first, last = judged.head(edge), judged.tail(edge)
    return {
        name: median(last[name]) / median(first[name]) - 1 if name in MEMORY else int(last[name].max() - first[name].max())
        for name in judged
    }


def too_much(grown: dict[str, float]) -> list[str]:
    """Return a sentence for every column that grew by more than it may."""
    found = []
    for name, amount in grown.items():
        if name in MEMORY and amount > MEMORY_GROWTH:
            found.append(f"{name} grew by {amount:.1%}, more than {MEMORY_GROWTH:.0%}")
        elif name not in MEMORY and amount > 0:
            found.append(f"{name} grew by {amount:g}")
    return found


def verdict(rows: Sequence[dict[str, float]], warm_up: int, report: Path | None) -> int:
    """Print what grew, write the table and its plot; return 0 when nothing grew too much, else 1."""
    table = pd.DataFrame(rows)
    grown = growth(table, warm_up)
    for name, amount in grown.items():
        change = f"{amount:+.1%}" if name in MEMORY else f"{amount:+g}"
        print(f"  {name:<16} {table[name].iloc[warm_up]:>9g} -> {table[name].iloc[-1]:>9g}   {change}")
    complaints = too_much(grown)
    if report:
        files.write_table(report, table.assign(**traces.made_by(), warm_up=warm_up))
        plot(table, warm_up, report.with_suffix(".png"))
    print("\n".join(complaints) or "nothing grew")
    return 1 if complaints else 0


def plot(table: pd.DataFrame, warm_up: int, path: Path) -> None:
    """Draw memory above and counts below, over the measurements."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 5), layout="constrained")
    for axes, names, label in (
        (above, [n for n in MEMORY if n in table], "MiB"),
        (below, [n for n in table if n not in (*MEMORY, *NOT_JUDGED)], "count"),
    ):
        for name in names:
            axes.plot(table["number"], table[name], label=name, linewidth=1)
        axes.axvspan(-0.5, warm_up - 0.5, color="0.9")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7, ncols=3)
    below.set_xlabel("measurement (grey: warm-up)")
    files.write_via(path, figure.savefig)
    pyplot.close(figure)


def row(number: int, figures: Figures, **more: float) -> dict[str, float]:
    """Return one measurement as a row of the table."""
    return {"number": number, **asdict(figures), **more}
