"""Figures of the world and of the models that start in it: graph, recall of the engine, abilities.

Called by notebook 00 and by the report.
"""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zerosearch.figures.style import (
    CYCLE, DATASET_LABELS, GREY, INK, INTERVAL, MARKERS, VERMILLION,
    count_span, frame, in_order, need, percent, plain, quiet, styled, whisker, wilson,
)

STAGE = "00"
_LETTER, _BOX = 0.085, 0.14  # inches: width of a letter, half the height of a name's box


@styled
def world_graph(edges: pd.DataFrame, highlight: Sequence[str] = (), title: str = "") -> Figure:
    """Draw a piece of the micro-world: entities as boxes, facts as arrows named by their relation.

    edges: source, relation, target (names) and, if known, source_kind and target_kind.  highlight:
    the entities of one question's path, in order; its arrows are bold.  Meant for up to about 25
    entities; the layout is the same every time.
    """
    need(edges, ["source", "relation", "target"], "world_graph", STAGE)
    kinds = _kinds(edges)
    width, height = 9.0, min(6.6, max(3.2, 1.05 * math.sqrt(len(kinds)) + 0.9))
    figure, grid = frame(
        width, height,
        title or f"{len(kinds)} entities and {len(edges)} facts: every arrow is one sentence of the corpus",
        "Arrows run from the subject to the object of a fact."
        + (" Bold: the path of one question." if highlight else ""),
    )
    axes, places = grid[0, 0], _places(edges, width, height)
    path = set(zip(highlight, highlight[1:])) | set(zip(highlight[1:], highlight))
    for row in edges.itertuples():
        _arrow(axes, row, places, (row.source, row.target) in path)
    names = in_order(list(kinds.values()), [])
    for name, (x, y) in places.items():
        bold = name in highlight
        axes.text(x, y, name, ha="center", va="center", fontsize=9, color=INK, zorder=4,
                  fontweight="bold" if bold else "normal",
                  bbox={"boxstyle": "round,pad=0.35", "fc": "white", "lw": 2.4 if bold else 1.5,
                        "ec": CYCLE[names.index(kinds[name]) % len(CYCLE)]})
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    if len(names) > 1:
        figure.legend(handles=_kind_keys(names), loc="outside lower center", ncols=min(7, len(names)))
    return figure


def _kinds(edges: pd.DataFrame) -> dict[str, str]:
    """Return the kind of every entity, "entity" where the table does not say."""
    kinds: dict[str, str] = {}
    for side in ("source", "target"):
        known = edges.get(f"{side}_kind", pd.Series("entity", index=edges.index))
        for name, kind in zip(edges[side], known):
            kinds.setdefault(str(name), str(kind))
    return kinds


def _places(edges: pd.DataFrame, width: float, height: float) -> dict[str, np.ndarray]:
    """Return where each entity stands, in inches, spread over the whole plotting area."""
    import networkx as nx  # here, because only this figure needs it

    graph = nx.Graph()
    graph.add_edges_from((str(s), str(t)) for s, t in zip(edges["source"], edges["target"]))
    raw = nx.kamada_kawai_layout(graph) if len(graph) > 1 else {next(iter(graph)): np.zeros(2)}
    points = np.array([raw[name] for name in graph])
    low, size = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
    room = np.array([width - 2.0, height - 0.7])
    return dict(zip(graph, np.array([1.0, 0.35]) + (points - low) / size * room))


def _arrow(axes: Axes, fact: object, places: dict[str, np.ndarray], bold: bool) -> None:
    """Draw one fact as an arrow from the edge of one box to the edge of the other, with its name."""
    start, end = places[str(fact.source)], places[str(fact.target)]
    color = VERMILLION if bold else GREY
    line = end - start
    first, last = start + line * _inside(line, str(fact.source)), end - line * _inside(line, str(fact.target))
    axes.annotate("", xy=tuple(last), xytext=tuple(first), zorder=1 + bold,
                  arrowprops={"arrowstyle": "-|>,head_width=0.22,head_length=0.45", "color": color,
                              "lw": 2.4 if bold else 1.1, "shrinkA": 0, "shrinkB": 0})
    name, (x, y) = str(fact.relation).replace("_", " "), (first + last) / 2
    flat = abs(last[1] - first[1]) < 0.15  # the name would hide a short arrow: write it above
    axes.text(x, y + (0.13 if flat else 0.0), name, fontsize=8, color=color, ha="center", va="center",
              style="italic", zorder=3,
              bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.92})


def _inside(line: np.ndarray, name: str) -> float:
    """Return the share of a line that runs inside the box of the name at its end, at most 0.45."""
    half_width = _LETTER * len(name) / 2 + 0.09
    shares = [half / abs(step) for half, step in zip((half_width, _BOX), line) if abs(step) > 1e-9]
    return min([0.45, *shares])


def _kind_keys(names: Sequence[str]) -> list[Line2D]:
    return [Line2D([], [], ls="none", marker="s", ms=9, mfc="white", mec=CYCLE[i % len(CYCLE)], mew=1.8,
                   label=name) for i, name in enumerate(names)]


@styled
def retrieval_recall(recall: pd.DataFrame) -> Figure:
    """Draw how often a search for the question itself brings up the answer, one row a data set.

    recall: dataset, recall (share of questions whose golden answer stands in the top-k passages), n,
    and if several k were tried, k.  Intervals: Wilson.
    """
    need(recall, ["dataset", "recall", "n"], "retrieval_recall", STAGE)
    table = recall if "k" in recall else recall.assign(k="")
    sets, depths = in_order(table["dataset"], list(DATASET_LABELS)), in_order(table["k"], [])
    deepest = table[table["k"] == table["k"].max()]
    best, worst = deepest.loc[deepest["recall"].idxmax()], deepest.loc[deepest["recall"].idxmin()]
    labels = {name: DATASET_LABELS.get(name, name) for name in sets}
    figure, grid = frame(
        8.6, 0.6 + 0.34 * len(sets),
        f"Searching for the question itself finds the answer for {percent(best['recall'])} of "
        f"{labels[best['dataset']]}, {percent(worst['recall'])} of {labels[worst['dataset']]}",
        f"Share of questions whose golden answer stands in the passages found; bars: {INTERVAL}; "
        f"n = {count_span(table['n'])} a set.",
    )
    for position, k in enumerate(depths):
        shift = (position - (len(depths) - 1) / 2) * 0.22
        for row in table[table["k"] == k].itertuples():
            low, high = wilson(row.recall, row.n)
            whisker(grid[0, 0], row.recall, sets.index(row.dataset) + shift, low, high,
                    CYCLE[position % len(CYCLE)], marker=MARKERS[position % len(MARKERS)])
    _shares(grid[0, 0], list(labels.values()), "recall, share of questions (0 to 1)")
    if len(depths) > 1:
        _model_keys(figure, [f"top {k}" for k in depths])
    return figure


@styled
def ability_card(card: pd.DataFrame) -> Figure:
    """Draw what the tiny base models can and cannot do: one dot an ability, with its interval.

    card: ability, value in [0, 1], n and, if there are several models, model.  low and high are used
    where the table has them; otherwise the Wilson interval of value and n.
    """
    need(card, ["ability", "value", "n"], "ability_card", STAGE)
    table = (card if "model" in card else card.assign(model="base model")).reset_index(drop=True)
    models = in_order(table["model"], [])
    best, worst = table.loc[table["value"].idxmax()], table.loc[table["value"].idxmin()]
    figure, grid = frame(
        8.6, 0.6 + 0.36 * len(table),
        f"Strongest: {_ability(best)}; weakest: {_ability(worst)}",
        f"Base models before any training of this run, share of tries; bars: {INTERVAL}; "
        f"n = {count_span(table['n'])}.",
    )
    for row in table.itertuples():
        position = models.index(row.model)
        color = CYCLE[position % len(CYCLE)]
        low, high = (row.low, row.high) if {"low", "high"} <= set(table) else wilson(row.value, row.n)
        whisker(grid[0, 0], row.value, row.Index, low, high, color, marker=MARKERS[position % len(MARKERS)])
        grid[0, 0].annotate(f"{row.value:.2f}", (row.value, row.Index), xytext=(0, 7), ha="center",
                            textcoords="offset points", fontsize=8.5, color=color)
    _shares(grid[0, 0], [plain(name) for name in table["ability"]], "share of tries that succeed (0 to 1)")
    if len(models) > 1:
        _model_keys(figure, models)
    return figure


def _ability(row: pd.Series) -> str:
    return f"{plain(row['ability'], capital=False)} ({row['value']:.2f})"


def _shares(axes: Axes, names: Sequence[str], label: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.4, -0.7), xlim=(-0.03, 1.03), xlabel=label)
    quiet(axes, "x")


def _model_keys(figure: Figure, names: Sequence[str]) -> None:
    keys = [Line2D([], [], ls="none", ms=7, marker=MARKERS[i % len(MARKERS)], color=CYCLE[i % len(CYCLE)],
                   label=str(name)) for i, name in enumerate(names)]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
