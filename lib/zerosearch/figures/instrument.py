"""Figures that show what the micro-world can measure: the gate of the bases, the sentinels, one question's path."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zerosearch.figures.style import (
    BLUE, CYCLE, GREEN, GREY, INK, INTERVAL, LIGHT, MARKERS, VERMILLION, count_span, frame, in_order, need,
    plain, quiet, styled, whisker, wilson,
)

STAGE = "00"
_KIND_COLORS = {
    "fact": GREEN, "other_relation": "#8A94A0", "lookalike": CYCLE[4], "namesake": CYCLE[3], "superseded": CYCLE[5],
    "contradicted": VERMILLION, "non_answer": "#B0B8C1", "unrelated": LIGHT,
}


@styled
def ability_gate(card: pd.DataFrame, gate: pd.DataFrame) -> Figure:
    """Draw the abilities that a base must show, each between its bounds, one marker a model.

    card: model, ability, value, n.  gate: ability, least, most, one row a bound, in the order drawn.
    """
    need(card, ["model", "ability", "value", "n"], "ability_gate", STAGE)
    need(gate, ["ability", "least", "most"], "ability_gate", STAGE)
    names = list(gate["ability"])
    table = card[card["ability"].isin(names)]
    models = in_order(table["model"], [])
    bounds = gate.set_index("ability")
    main = table[table["model"] == models[0]].set_index("ability")["value"]
    passed = sum(bounds["least"][a] <= main[a] <= bounds["most"][a] for a in names)
    figure, grid = frame(
        8.6, 0.7 + 0.5 * len(names),
        f"{models[0]} passes {passed} of {len(names)} bounds: able enough to learn, weak enough to need it",
        f"Abilities of the bases before any training of this run, fresh facts. Green: where the main base must lie. "
        f"Bars: {INTERVAL} (Wilson); n = {count_span(table['n'])}.",
    )
    axes = grid[0, 0]
    for row, ability in enumerate(names):
        least, most = bounds["least"][ability], bounds["most"][ability]
        axes.barh(row, most - least, left=least, height=0.72, color=GREEN, alpha=0.14, zorder=0)
        for position, model in enumerate(models):
            _dot(axes, table, ability, model, row, position, len(models))
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(-0.03, 1.03), xlabel="share of tries, AUROC or EM (0 to 1)")
    quiet(axes, "x")
    if len(models) > 1:
        figure.legend(handles=_keys(models), loc="outside lower center", ncols=min(4, len(models)))
    return figure


def _dot(axes: Axes, table: pd.DataFrame, ability: str, model: str, row: int, position: int, n_models: int) -> None:
    found = table[(table["model"] == model) & (table["ability"] == ability)]
    if found.empty:
        return
    value, n = float(found["value"].iloc[0]), float(found["n"].iloc[0])
    bounded = 0.0 <= value <= 1.0 and not ability.startswith("tells") and not ability.endswith("gain")
    low, high = wilson(value, n) if bounded else (float("nan"), float("nan"))
    y = row + (position - (n_models - 1) / 2) * 0.16
    color, marker = CYCLE[position % len(CYCLE)], MARKERS[position % len(MARKERS)]
    whisker(axes, value, y, low, high, color, marker=marker, size=6.0)


def _keys(names: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], ls="none", ms=7, marker=MARKERS[i % len(MARKERS)], color=CYCLE[i % len(CYCLE)], label=name)
        for i, name in enumerate(names)
    ]


@styled
def sentinel_gap(table: pd.DataFrame) -> Figure:
    """Draw how far apart the two scripted policies are under each condition: the room that studies have.

    table: sentinel, condition, em, low, high, n; two sentinels, the better one first.
    """
    need(table, ["sentinel", "condition", "em", "low", "high", "n"], "sentinel_gap", STAGE)
    conditions, sentinels = in_order(table["condition"], []), in_order(table["sentinel"], [])
    wide = table.pivot(index="condition", columns="sentinel", values="em").loc[conditions]
    gaps = wide[sentinels[0]] - wide[sentinels[-1]]
    figure, grid = frame(
        8.6, 3.4,
        f"Noticing misses is worth up to {gaps.max():.2f} EM (under {gaps.idxmax()}): the room between the lines",
        f"Two scripted policies through the same loop: one takes only what is true, one takes what looks best. "
        f"Bars: {INTERVAL} (Wilson); n = {count_span(table['n'])} questions.",
    )
    axes, places = grid[0, 0], range(len(conditions))
    axes.fill_between(places, wide[sentinels[-1]], wide[sentinels[0]], color=GREEN, alpha=0.12, lw=0)
    for name, color, marker in zip(sentinels, (BLUE, VERMILLION), MARKERS):
        rows = table[table["sentinel"] == name].set_index("condition").loc[conditions]
        axes.plot(places, rows["em"], color=color, marker=marker, lw=2, ms=7, label=name)
        axes.vlines(places, rows["low"], rows["high"], color=color, lw=2, alpha=0.5)
    for place, gap in zip(places, gaps):
        if gap >= 0.07:  # a smaller one has no room for its number
            middle = wide.iloc[place].mean()
            axes.annotate(f"{gap:.2f}", (place, middle), ha="center", va="center", fontsize=9.5, color=INK)
    axes.set_xticks(list(places), conditions)
    axes.set(ylim=(0, 1.03), xlim=(-0.4, len(conditions) - 0.6))
    axes.set(ylabel="EM (0 to 1)", xlabel="condition of the searches")
    quiet(axes, "y")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def question_path(question: str, path: pd.DataFrame) -> Figure:
    """Draw one question's way through the passages: each search, what it returned, and what each passage is.

    question: its text.  path: query (in the order of the searches), rank from 1, text, kind.
    """
    need(path, ["query", "rank", "text", "kind"], "question_path", STAGE)
    queries = in_order(path["query"], [])
    rows = len(path) + 1.5 * len(queries)
    right = path[path["kind"] == "fact"].groupby("query")["rank"].min()
    hit = sum(query in right.index for query in queries)
    figure, grid = frame(
        9.4, 0.3 + 0.265 * rows,
        f"\"{question}\" takes {len(queries)} searches; {hit} of them bring up what was asked for",
        "What the real engine returned, best first. Bold and green: the passage that states the fact.",
    )
    axes, y = grid[0, 0], 0.0
    for number, query in enumerate(queries, 1):
        axes.text(0.0, y, f"search {number}:  {query}", fontsize=10, color=INK, va="center", fontweight="bold")
        for row in path[path["query"] == query].sort_values("rank").itertuples():
            y += 1
            color = _KIND_COLORS.get(row.kind, GREY)
            axes.plot([0.02], [y], marker="s", ms=8, color=color, clip_on=False)
            weight = "bold" if row.kind == "fact" else "normal"
            axes.text(0.04, y, row.text, fontsize=9.5, va="center", color=GREEN if row.kind == "fact" else INK,
                      fontweight=weight)
            axes.text(0.86, y, plain(row.kind).lower(), fontsize=9, va="center", color=GREY)
        y += 1.5
    axes.set(xlim=(0, 1), ylim=(y - 0.8, -0.7))
    axes.set_axis_off()
    return figure

