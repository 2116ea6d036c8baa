"""Figures of the simulator's schooling: the labels it learns from, and what fine-tuning changed.

Called by notebooks 01 and 02 and by the report.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosearch.figures.style import (
    BLUE, CYCLE, GREEN, INK, INTERVAL, LIGHT, VERMILLION, WASH,
    count_span, frame, in_order, need, percent, plain, quiet, styled, whisker, wilson,
)

LABEL_COLORS = {"useful": BLUE, "misleading": VERMILLION, "noisy": VERMILLION, "altered": GREEN}
LABEL_KINDS = {"trajectory": "trajectory outcome (v1)", "judge": "judge per passage (v2)"}


@styled
def label_stats(stats: pd.DataFrame) -> Figure:
    """Draw the ways of labelling query–passage pairs, one stacked bar each.

    stats: label_kind ("judge", "trajectory"), label, n (pairs), share (of the kind, in [0, 1]).
    """
    need(stats, ["label_kind", "label", "n", "share"], "label_stats", "01")
    kinds = in_order(stats["label_kind"], list(LABEL_KINDS))
    labels = in_order(stats["label"], list(LABEL_COLORS))
    wide = stats.pivot_table(index="label_kind", columns="label", values=["share", "n"], aggfunc="sum")
    share, count = wide["share"].fillna(0.0), wide["n"].fillna(0)
    first = labels[0]
    names = {kind: LABEL_KINDS.get(kind, kind) for kind in kinds}
    said = ", ".join(f"{percent(share.loc[k, first])} by {name.split(' (')[0]}" for k, name in names.items())
    figure, grid = frame(
        8.6, 0.75 + 0.62 * len(kinds), f"Labelled {first}: {said}",
        f"The same query–passage pairs of stage 01, labelled both ways. Black: {INTERVAL} of the first "
        "share.",
    )
    axes, left = grid[0, 0], pd.Series(0.0, index=kinds)
    for position, label in enumerate(labels):
        color = LABEL_COLORS.get(label, CYCLE[(position + 2) % len(CYCLE)])
        axes.barh(range(len(kinds)), share.loc[kinds, label], left=left, height=0.56, color=color, alpha=0.9,
                  edgecolor="white", hatch="" if position == 0 else "///", label=label)
        for row, kind in enumerate(kinds):
            _inscribe(axes, left[kind], share.loc[kind, label], int(count.loc[kind, label]), row)
        left += share.loc[kinds, label]
    for row, kind in enumerate(kinds):
        low, high = wilson(share.loc[kind, first], int(count.loc[kind].sum()))
        axes.plot([low, high], [row + 0.36] * 2, color=INK, lw=2.4, zorder=6)
    axes.set_yticks(range(len(kinds)), [name.replace(" (", "\n(") for name in names.values()])
    axes.set(ylim=(len(kinds) - 0.5, -0.6), xlim=(0, 1), xlabel="share of query–passage pairs (0 to 1)")
    figure.legend(loc="outside lower center", ncols=len(labels))
    quiet(axes, "x")
    return figure


def _inscribe(axes: Axes, left: float, width: float, n: int, row: int) -> None:
    """Write share and count into a segment that is wide enough."""
    text = f"{percent(width)}  (n = {n:,})" if width > 0.19 else percent(width)
    if width > 0.06:
        axes.text(left + width / 2, row, text, ha="center", va="center", fontsize=9, color=INK, zorder=5,
                  bbox={"fc": "white", "ec": "none", "pad": 1.5})


@styled
def simulator_quality(quality: pd.DataFrame) -> Figure:
    """Draw every quality metric of the simulator before (hollow) and after (filled) its fine-tuning.

    quality: when ("before", "after"), kind ("useful", "misleading", "altered": useful passages for
    another golden answer), metric, value, n, low, high.  One panel a metric; metrics that are no
    shares have their own scale and a grey ground.
    """
    need(quality, ["when", "kind", "metric", "value", "n", "low", "high"], "simulator_quality", "02")
    metrics, kinds = in_order(quality["metric"], []), in_order(quality["kind"], list(LABEL_COLORS))
    columns = min(3 if len(metrics) < 7 else 4, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, grid = frame(
        10.0, rows * (0.95 + 0.3 * len(kinds)), _quality_finding(quality),
        f"Hollow: before fine-tuning, filled: after; bars: {INTERVAL}; "
        f"n = {count_span(quality['n'])} requests.",
        rows=rows, columns=columns, sharey=True,
    )
    for axes, metric in zip(grid.ravel(), metrics):
        _before_after(axes, quality[quality["metric"] == metric], kinds)
        axes.set_title(plain(metric), fontsize=9.5)
    for axes in grid.ravel()[len(metrics):]:
        axes.set_visible(False)
    names = [f"{kind}\n{'answer' if kind == 'altered' else 'passages'}" for kind in kinds]
    grid[0, 0].set_yticks(range(len(kinds)), names)
    grid[0, 0].set_ylim(len(kinds) - 0.5, -0.5)
    return figure


def _before_after(axes: Axes, part: pd.DataFrame, kinds: list[str]) -> None:
    """Draw one metric: before above after, for every kind of request."""
    for row in part.itertuples():
        y, after = kinds.index(row.kind), row.when == "after"
        color = LABEL_COLORS.get(row.kind, CYCLE[(y + 2) % len(CYCLE)])
        whisker(axes, row.value, y + (0.14 if after else -0.14), row.low, row.high, color, filled=after)
    share = _is_share(part)
    axes.set_xlabel("share (0 to 1)" if share else "value")
    if share:
        axes.set(xlim=(-0.04, 1.04), xticks=(0.0, 0.5, 1.0))
    axes.set_facecolor("white" if share else WASH)
    for y in range(1, len(kinds)):
        axes.axhline(y - 0.5, color=LIGHT, lw=0.8)
    quiet(axes, "x")


def _is_share(part: pd.DataFrame) -> bool:
    return bool(part[["value", "low", "high"]].max(axis=None) <= 1.0)


def _quality_finding(quality: pd.DataFrame) -> str:
    """Return where the golden answer stands after tuning, or else the share that moved most."""
    after = quality[(quality["when"] == "after") & (quality["metric"] == "answer_present")]
    present = after.set_index("kind")["value"]
    if {"useful", "misleading"} <= set(present.index):
        useful, misleading = percent(present["useful"]), percent(present["misleading"])
        where = f"{useful} of useful, {misleading} of misleading results"
        return f"After tuning the golden answer stands in {where}"
    shares = quality.groupby("metric").filter(_is_share)
    table = shares.pivot_table(index=["kind", "metric"], columns="when", values="value")
    if not {"before", "after"} <= set(table.columns):
        return "Quality of the simulator"
    kind, metric = (table["after"] - table["before"]).abs().idxmax()
    before, after = table.loc[(kind, metric), ["before", "after"]]
    return f"Fine-tuning moves “{plain(metric).lower()}” ({kind}) most: {before:.2f} → {after:.2f}"
