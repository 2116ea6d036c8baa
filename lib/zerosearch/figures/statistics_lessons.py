"""Figures that explain the statistics of stage 04: what is drawn, what a verdict needs, what can be found.

The tables are made by hand, from a few numbers, in the appendix notebook on statistics, which calls this.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosearch.errors import WorkbookError
from zerosearch.figures.style import (
    BLUE, GREEN, GREY, INK, INTERVAL, LIGHT, ORANGE, VERMILLION, WASH, frame, in_order, percent, quiet, styled, whisker,
)

_ENDS = (0.025, 0.975)  # what INTERVAL leaves out on either side
_TINY = 1e-9  # draws that differ by less have the same value
_POINTS = 100.0  # points of a share
VERDICT_LOOKS = {"better": (GREEN, "o"), "worse": (VERMILLION, "s"), "matches": (BLUE, "D"), "undecided": (GREY, "v")}
_LINES = ((VERMILLION, "-", "o"), (BLUE, "--", "s"), (GREEN, "-.", "D"))


def _need(table: pd.DataFrame, columns: Sequence[str], figure: str) -> None:
    """Raise WorkbookError naming what is missing, unless the table has rows and these columns."""
    missing = [name for name in columns if name not in table.columns]
    if missing or table.empty:
        found = f"no {', '.join(missing)}" if missing else "an empty table"
        raise WorkbookError(
            f"figure {figure}: expected a table with rows and columns {', '.join(columns)}, found {found}; "
            "run notebooks/A2_statistics.ipynb again from its first cell"
        )


@styled
def resampled_means(draws: pd.DataFrame) -> Figure:
    """Draw how resampled means spread when other things are drawn: a row for each ``what``, a panel for each way.

    draws: what, drawn (the way), value; one row per equally likely draw.  All rows have the same number of ways.
    """
    _need(draws, ["what", "drawn", "value"], "resampled_means")
    whats = in_order(draws["what"], [])
    ways = {what: in_order(draws.loc[draws["what"] == what, "drawn"], []) for what in whats}
    parts = {(what, way): part["value"].to_numpy(float) for (what, way), part in draws.groupby(["what", "drawn"])}
    figure, grid = frame(
        10.0, 2.3 * len(whats), f"Same numbers, other draws. Width of the interval: {_widths(parts, whats, ways)}",
        f"Share of all equally likely draws by their mean. Coloured: the {INTERVAL}, from the 2.5 % to the 97.5 % "
        "quantile; tick: the mean of all draws.",
        rows=len(whats), columns=max(map(len, ways.values())), sharex="row", sharey="row",
    )
    for axes_of_row, what in zip(grid, whats, strict=True):
        signed = min(parts[what, way].min() for way in ways[what]) < -_TINY
        label = f"{what} ({_number(-1.0) if signed else '0'} to 1)"
        for axes, way in zip(axes_of_row, ways[what], strict=True):
            low, high = _spikes(axes, parts[what, way])
            axes.set(title=f"{what}, {way}: {_number(low)} to {_number(high)}", xlabel=label)
            if signed:
                axes.axvline(0.0, color=INK, lw=0.9, ls=":", zorder=0)
        axes_of_row[0].set_ylabel("share of draws (0 to 1)")
    return figure


def _widths(parts: dict[tuple[str, str], np.ndarray], whats: list[str], ways: dict[str, list[str]]) -> str:
    """Say how wide the interval is in every panel."""
    wide = {key: float(np.ptp(np.quantile(values, _ENDS))) for key, values in parts.items()}
    return "; ".join(", ".join(f"{wide[what, way]:.2f} {way}" for way in ways[what]) for what in whats)


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _spikes(axes: Axes, values: np.ndarray) -> tuple[float, float]:
    """Draw a bar for each value, those within the interval coloured, and below them the interval, which is returned."""
    found, counts = np.unique(np.round(values, 9), return_counts=True)
    low, high = np.quantile(values, _ENDS)
    inside = (found >= low - _TINY) & (found <= high + _TINY)
    shares = counts / counts.sum()
    axes.vlines(found, 0, shares, colors=[BLUE if within else LIGHT for within in inside], lw=4.5)
    below = -0.035
    axes.plot([low, high], [below, below], color=BLUE, lw=2.4, solid_capstyle="butt", clip_on=False)
    axes.plot([values.mean()], [below], marker="|", ms=12, mew=2.0, color=INK, clip_on=False)
    quiet(axes, "y")
    axes.spines["bottom"].set_visible(True)
    return float(low), float(high)


@styled
def verdict_intervals(report: pd.DataFrame, margin: float) -> Figure:
    """Draw the difference of each comparison with its interval, its verdict and what it could have found.

    report: label (of the row) and columns of ``evaluation.comparison.comparison_report``.  margin: largest
    difference that counts as none, a share.
    """
    columns = ["label", "difference", "low", "high", "p_holm", "detectable", "verdict"]
    _need(report, columns, "verdict_intervals")
    figure, grid = frame(
        10.0, 1.0 + 0.5 * len(report), _verdict_finding(report),
        f"Difference of A and B, bars: {INTERVAL}. Shaded: less than {_POINTS * margin:g} points either way, which "
        "counts as none.",
        note="p: of no difference, after Holm. Would find: the true difference that these questions show four times "
        "in five. Where no question ever differed, the bootstrap has no width; the verdict does not rest on it.",
    )
    axes = grid[0, 0]
    axes.axvspan(-_POINTS * margin, _POINTS * margin, color=BLUE, alpha=0.13, lw=0, zorder=0)
    axes.axvline(0.0, color=GREY, lw=0.9, zorder=1)
    for row, one in enumerate(report.itertuples()):
        color, marker = VERDICT_LOOKS[one.verdict.split()[0]]
        low, high, value = _POINTS * one.low, _POINTS * one.high, _POINTS * one.difference
        whisker(axes, value, row, low, high, color, marker=marker)
        axes.annotate(one.verdict, (max(high, value, _POINTS * margin), row), xytext=(9, 0),
                      textcoords="offset points", va="center", fontsize=9.5, fontweight="bold", color=color)
        p = f"{one.p_holm:.3f}" if one.p_holm >= 0.001 else "< 0.001"
        _beside(axes, row, p, f"{_POINTS * one.detectable:.1f}", INK)
    _beside(axes, -1, "p", "would find\n(points)", GREY)
    axes.set_yticks(range(len(report)), list(report["label"]))
    axes.set(ylim=(len(report) - 0.4, -1.4), xlabel="A minus B (points)")
    left, right = axes.get_xlim()
    axes.set_xlim(left, right + 0.16 * (right - left))  # room for the last verdict
    quiet(axes, "x")
    return figure


def _beside(axes: Axes, row: int, first: str, second: str, color: str) -> None:
    """Write two cells of a row to the right of the axes."""
    for text, place in ((first, 52), (second, 128)):
        axes.annotate(text, (1.0, row), xytext=(place, 0), xycoords=("axes fraction", "data"), ha="right",
                      textcoords="offset points", va="center", fontsize=9, color=color)


def _verdict_finding(report: pd.DataFrame) -> str:
    """Say which difference was too small for its questions although a smaller one was decided, if there is one."""
    size = (_POINTS * report["difference"]).abs()
    open_, decided = size[report["verdict"] == "undecided"], size[report["verdict"].isin(["better", "worse"])]
    if len(open_) and len(decided) and open_.max() > decided.min():
        return (f"Size is not enough: a difference of {open_.max():.1f} points stays undecided, one of "
                f"{decided.min():.1f} does not")
    counts = report["verdict"].str.split().str[0].value_counts(sort=False)
    return "Verdicts: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items())


@styled
def detectable_gap(lines: pd.DataFrame, gap: float, independent: float) -> Figure:
    """Draw which difference of an average is found four times in five, by how often two methods disagree.

    lines: questions (label of a line), disagreement (share of questions that just one of the two gets right) and
    detectable (share).  gap: the published difference.  independent: disagreement of answers as unrelated as coins.
    """
    _need(lines, ["questions", "disagreement", "detectable"], "detectable_gap")
    names = in_order(lines["questions"], [])
    figure, grid = frame(
        9.6, 3.6, _gap_finding(lines, gap, names[0]),
        "Published gap, not measured here. Curves: the smallest true difference of the average over the sets that a "
        "paired comparison finds four times in five, by how often just one of the two methods is right.",
        note="Published: the gap, the numbers of questions and the scores behind the dotted line. Not published: the "
        "answers to single questions, so the disagreement is unknown. One training of each; its luck is not in here.",
    )
    axes = grid[0, 0]
    for (color, dashes, marker), name in zip(_LINES, names):
        own = lines[lines["questions"] == name].sort_values("disagreement")
        axes.plot(own["disagreement"], _POINTS * own["detectable"], color=color, ls=dashes, lw=2.0, marker=marker,
                  ms=4.5, markevery=max(1, len(own) // 8), label=name)
    most = float(lines["disagreement"].max())
    axes.axhspan(0, _POINTS * gap, color=WASH, zorder=0)
    axes.axhline(_POINTS * gap, color=INK, lw=1.4)
    axes.annotate(f"published gap, {_POINTS * gap:.1f} points: found where a curve runs below",
                  (independent, _POINTS * gap), xytext=(-6, -5), textcoords="offset points", ha="right", va="top",
                  fontsize=9, color=INK)
    axes.axvline(independent, color=ORANGE, lw=1.4, ls=":")
    axes.annotate("if answers were\nunrelated", (independent, 0.0), xytext=(-5, 5), textcoords="offset points",
                  ha="right", va="bottom", fontsize=9, color=GREY)
    axes.set(xlim=(0, most), ylim=(0, None), ylabel="difference found (points of EM)",
             xlabel="questions that just one of the two gets right (share, 0 to 1)")
    axes.legend(loc="upper left", title="questions per set", alignment="left")
    return figure


def _gap_finding(lines: pd.DataFrame, gap: float, name: str) -> str:
    """Say up to which disagreement the gap would have been found."""
    own = lines[(lines["questions"] == name) & (lines["detectable"] <= gap)]
    start = f"A gap of {_POINTS * gap:.1f} points would be found four times in five"
    if own.empty:
        return f"{start} at no disagreement drawn here"
    most = percent(own["disagreement"].max(), 1).replace(" ", "\N{NO-BREAK SPACE}")
    return f"{start} only if the two disagree on {most} of the questions or fewer"
