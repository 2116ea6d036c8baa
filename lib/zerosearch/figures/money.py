"""Figures of money and time: bills side by side, the break-even point, the stages of a run.

Called by notebook 05 and by the report.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import matplotlib.ticker as ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosearch.figures.style import (
    BLUE, CYCLE, GREEN, GREY, INK, LIGHT, ORANGE, PURPLE, SKY, VERMILLION,
    frame, in_order, look, need, percent, quiet, styled, usd, usd_tick,
)

ITEM_COLORS = {
    "searches in training": BLUE, "paid searches": BLUE,
    "simulator GPUs": VERMILLION, "simulator": VERMILLION,
    "simulator SFT": ORANGE, "simulator training": ORANGE,
    "collection": PURPLE, "collection and judge": PURPLE,
    "local engine": GREEN, "policy GPUs": LIGHT, "policy rollouts": LIGHT, "policy training": "#9AA5B1",
    "evaluation searches": SKY, "evaluation": SKY,
}
GUESSED = ("assumption", "what if")
STAGE_NAMES = {"00": "micro world", "01": "collection", "02": "simulator", "03": "RL", "04": "evaluation",
               "05": "costs"}


@styled
def cost_bars(options: pd.DataFrame, title: str = "") -> Figure:
    """Draw one stacked bar an option: what its bill is made of.

    options: option, item, usd, basis, all options of about the same size (cents disappear beside
    hundreds of dollars).  Items whose basis is "assumption" or "what if" are hatched.  There are no
    intervals: prices are printed prices, amounts are counted.  title: the finding, if not the saving.
    """
    need(options, ["option", "item", "usd", "basis"], "cost_bars", "05")
    names = in_order(options["option"], [])
    totals = options.groupby("option")["usd"].sum().loc[names]
    figure, grid = frame(
        9.2, 0.9 + 0.52 * len(names), title or _bars_finding(totals),
        "US dollars; hatched: assumed or “what if” amounts, plain: published, reported or measured ones.",
    )
    axes = grid[0, 0]
    _stack(axes, options, names)
    for row, total in enumerate(totals):
        axes.annotate(usd(total), (total, row), xytext=(6, 0), textcoords="offset points", va="center",
                      fontweight="bold")
    axes.set_yticks(range(len(names)), ["\n".join(name.split(", ")) for name in names])
    axes.set(ylim=(len(names) - 0.45, -0.6), xlabel="cost (US dollars)", xlim=(0, totals.max() * 1.14 or 1.0))
    figure.legend(loc="outside lower center", ncols=4)
    quiet(axes, "x")
    return figure


def _stack(axes: Axes, options: pd.DataFrame, names: list[str]) -> None:
    """Draw the items of every option one after the other; a legend entry for each item."""
    left = pd.Series(0.0, index=names)
    for position, item in enumerate(in_order(options["item"], list(ITEM_COLORS))):
        color = ITEM_COLORS.get(item, CYCLE[position % len(CYCLE)])
        for row in options[options["item"] == item].itertuples():
            guess = row.basis in GUESSED and item not in ("policy rollouts", "policy training")
            axes.barh(names.index(row.option), row.usd, left=left[row.option], height=0.58, color=color,
                      edgecolor="white", lw=1.0, hatch="///" if guess else None, zorder=2)
            left[row.option] += row.usd
        axes.barh([0], [0], color=color, label=item)


def _bars_finding(totals: pd.Series) -> str:
    dear, cheap = totals.idxmax(), totals.idxmin()
    if dear == cheap or totals[dear] == 0:
        return f"{dear}: {usd(totals[dear])}"
    share = min(1 - totals[cheap] / totals[dear], 0.9999)
    return (f"{cheap}: {usd(totals[cheap])}, {percent(share, 1 if share < 0.999 else 2)} less than "
            f"{dear} with {usd(totals[dear])}")


@styled
def break_even(lines: pd.DataFrame, run_queries: float | None = None) -> Figure:
    """Draw the bill against the number of queries, and where each simulator gets cheaper.

    lines: option, fixed_usd, per_query_usd, kind ("engine" or "simulator"), break_even (queries).
    run_queries: how many queries the run made, drawn as a dotted line.  Both axes are logarithmic.
    """
    need(lines, ["option", "fixed_usd", "per_query_usd", "kind", "break_even"], "break_even", "05")
    finite = lines[np.isfinite(lines["break_even"]) & (lines["break_even"] > 0)]
    queries = _query_range(finite["break_even"], run_queries)
    figure, grid = frame(
        9.0, 4.2, _even_finding(finite),
        "Cost of answering that many training queries. Engine: paid per search. Simulator: rented or tuned "
        "once.",
    )
    axes = grid[0, 0]
    for position, row in enumerate(lines.itertuples()):
        engine = row.kind == "engine"
        color = BLUE if engine else (VERMILLION, ORANGE, PURPLE, GREEN)[(position - 1) % 4]
        style = "-" if engine else ("--", "-.", (0, (1, 1)), (0, (5, 1)))[(position - 1) % 4]
        axes.plot(queries, row.fixed_usd + row.per_query_usd * queries, color=color, lw=2.6, ls=style,
                  label=row.option)
        if row.break_even >= queries[0]:
            _mark(axes, row, color)
    if run_queries:
        axes.axvline(run_queries, color=GREY, lw=1.4, ls=":", label=f"queries of the run: {run_queries:,.0f}")
    axes.set(xscale="log", yscale="log", xlabel="queries during training", ylabel="cost (US dollars)",
             xlim=(queries[0], queries[-1]))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(usd_tick))
    axes.legend(loc="upper left")
    return figure


def _query_range(points: pd.Series, run_queries: float | None) -> np.ndarray:
    """Return 200 numbers of queries that show every break-even point and the run with room around."""
    shown = [*points, *([run_queries] if run_queries else []), 2_000.0]
    return np.geomspace(max(1.0, min(shown) / 20), max(100_000.0, 4 * max(shown)), 200)


def _mark(axes: Axes, row: Any, color: Any) -> None:
    """Mark one break-even point and write its number of queries below it."""
    if not np.isfinite(row.break_even):
        return
    bill = row.fixed_usd + row.per_query_usd * row.break_even
    point = (row.break_even, bill)
    axes.plot(*point, marker="o", ms=8, mfc="white", mec=color, mew=2.2, ls="none", zorder=5)
    axes.annotate(f"{row.break_even:,.0f}", point, xytext=(9, -4), textcoords="offset points", fontsize=9.5,
                  fontweight="bold", color=INK, va="top")


def _even_finding(finite: pd.DataFrame) -> str:
    if finite.empty:
        return "Simulating never gets cheaper at these prices"
    last = finite.loc[finite["break_even"].idxmax()]
    if len(finite) == 1:
        first_query = last["break_even"] < 1
        since = "the first query" if first_query else f"{last['break_even']:,.0f} queries"
        return f"Simulating ({last['option']}) is cheaper from {since} on"
    first = finite.loc[finite["break_even"].idxmin()]
    return (f"Simulating is cheaper from {first['break_even']:,.0f} ({first['option']}) to "
            f"{last['break_even']:,.0f} queries ({last['option']}) on")


@styled
def stage_times(manifests: Iterable[Mapping[str, Any]] | pd.DataFrame) -> Figure:
    """Draw wall minutes and peak memory of every stage that ran.

    manifests: dicts (or rows) with stage ("03" or "03_rl"), arm, seed (or None), wall_seconds and
    peak_rss_mib.
    """
    table = manifests if isinstance(manifests, pd.DataFrame) else pd.DataFrame(list(manifests))
    need(table, ["stage", "wall_seconds", "peak_rss_mib"], "stage_times", "00")
    table = table.sort_values("stage", kind="stable").reset_index(drop=True)
    minutes, memory = table["wall_seconds"].astype(float) / 60.0, table["peak_rss_mib"].astype(float) / 1024.0
    figure, grid = frame(
        9.2, 0.8 + 0.36 * len(table),
        f"{minutes.sum():.1f} minutes in all, {memory.max():.1f} GiB at most",
        "One row a stage, arm and seed; wall time and peak memory of its own process, one run, no interval.",
        columns=2, sharey=True, width_ratios=(1.5, 1),
    )
    _amounts(grid[0, 0], minutes, "wall time (minutes)", "min", BLUE)
    _amounts(grid[0, 1], memory, "peak memory (GiB)", "GiB", GREY)
    grid[0, 0].set_yticks(range(len(table)), [_stage_name(row) for row in table.to_dict("records")])
    grid[0, 0].set_ylim(len(table) - 0.45, -0.6)
    return figure


def _amounts(axes: Axes, values: pd.Series, label: str, unit: str, color: str) -> None:
    axes.barh(range(len(values)), values, height=0.58, color=color, zorder=2)
    for row, value in enumerate(values):
        axes.annotate(f"{value:.1f} {unit}", (value, row), xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=9)
    axes.set(xlabel=label, xlim=(0, max(values.max() * 1.25, 0.1)))
    quiet(axes, "x")


def _stage_name(row: Mapping[str, Any]) -> str:
    """Return e.g. "03 ZeroSearch, seed 0"."""
    arm, seed, number = row.get("arm"), row.get("seed"), str(row["stage"])[:2]
    if not isinstance(arm, str) or not arm:
        return f"{number} {STAGE_NAMES.get(number, '')}".strip()
    return f"{number} {look(arm).short}" + ("" if pd.isna(seed) else f", seed {int(seed)}")
