"""The figures of rollouts: who waits for whom, one panel for each loop, and how fast loops are as searches get slower."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from zerosearch.figures.style import BLUE, CYCLE, MARKERS, ORANGE, frame, need, percent, quiet, styled

_COLORS = {"write": BLUE, "search": ORANGE}
_LABELS = {"write": "the policy writes", "search": "its search is under way"}


@styled
def waiting(spans: pd.DataFrame) -> Figure:
    """Draw one row a trajectory, one panel a loop: when it wrote, when it searched, and the gaps: it waited.

    spans: loop, trajectory, doing (``write`` or ``search``), start and end (seconds), see ``timeline``.
    """
    need(spans, ["loop", "trajectory", "doing", "start", "end"], "waiting", "03")
    loops = list(dict.fromkeys(spans["loop"]))
    figure, grid = frame(
        8.6, 1.0 + 1.6 * len(loops), _finding(spans, loops),
        "Each row is a trajectory; what is neither blue nor orange is waiting for others.", rows=len(loops), sharex=True,
    )
    for axes, loop in zip(grid[:, 0], loops, strict=True):
        _rows(axes, spans[spans["loop"] == loop])
        axes.set(title=loop, ylabel="trajectory (number)")
    grid[-1, 0].set(xlabel="time (s)", xlim=(0, None))
    handles = [Patch(color=c, label=_LABELS[d]) for d, c in _COLORS.items()]
    grid[0, 0].legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2)  # above the bars
    return figure


@styled
def rollout_speed(table: pd.DataFrame) -> Figure:
    """Draw trajectories per second against the latency of a search, one line a loop, named at its end.

    table: loop, median_latency_seconds, trajectories_per_second and ratio, see ``benchmarks/rollout_throughput.py``.
    """
    need(table, ["loop", "median_latency_seconds", "trajectories_per_second", "ratio"], "rollout_speed", "03")
    figure, grid = frame(
        8.6, 3.6, _speed_finding(table), "Four loops over the same vLLM engine with the same questions and latencies; published: ten searches at a time.",
    )
    axes, longest = grid[0, 0], table["median_latency_seconds"].max()
    order = table[table["median_latency_seconds"] == longest].sort_values("trajectories_per_second", ascending=False)
    least = 0.07 * table["trajectories_per_second"].max()  # between two names
    place = float("inf")
    for name, color, marker in zip(order["loop"], CYCLE, MARKERS):
        own = table[table["loop"] == name].sort_values("median_latency_seconds")
        axes.plot(own["median_latency_seconds"], own["trajectories_per_second"], marker=marker, color=color)
        place = min(place - least, float(own["trajectories_per_second"].iloc[-1]))
        axes.annotate(name, (longest, place), (8, 0), textcoords="offset points", va="center", color=color)
    axes.set(xlabel="median latency of a search (s)", ylabel="trajectories per second", ylim=(min(0.0, place - least), None))
    quiet(axes, "y")
    return figure


def _speed_finding(table: pd.DataFrame) -> str:
    ours = table[table["loop"] == "asynchronous"].set_index("median_latency_seconds")["ratio"]
    told = ", ".join(f"{ratio:.2g} times at {latency:g} s" for latency, ratio in ours.items())
    return f"Asynchronous against the published loop: {told}"


def _rows(axes: Axes, spans: pd.DataFrame) -> None:
    for doing, color in _COLORS.items():
        own = spans[spans["doing"] == doing]
        axes.barh(own["trajectory"], own["end"] - own["start"], left=own["start"], height=0.7, color=color)
    axes.invert_yaxis()
    quiet(axes, "x")


def waiting_share(spans: pd.DataFrame) -> float:
    """Return the share of its time, in [0, 1], that a trajectory of these spans waits for others, on average."""
    own = spans.assign(busy=spans["end"] - spans["start"]).groupby("trajectory").agg(
        busy=("busy", "sum"), start=("start", "min"), end=("end", "max")
    )
    lasted = (own["end"] - own["start"]).sum()
    return float(1.0 - own["busy"].sum() / lasted) if lasted > 0 else 0.0


def _finding(spans: pd.DataFrame, loops: list[str]) -> str:
    parts = [spans[spans["loop"] == loop] for loop in loops]
    told = [f"{loop} {part['end'].max():.1f} s ({percent(waiting_share(part))} waiting)" for loop, part in zip(loops, parts)]
    return "The same trajectories: " + ", ".join(told)
