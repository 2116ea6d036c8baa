"""The figure of rollouts: who waits for whom, one panel for each loop on one axis of time."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from zerosearch.figures.style import BLUE, ORANGE, frame, need, percent, quiet, styled

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
    grid[0, 0].legend(handles=[Patch(color=c, label=_LABELS[d]) for d, c in _COLORS.items()], loc="upper right", ncols=2)
    return figure


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
