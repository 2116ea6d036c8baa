"""Figures that explain the kernels: what memory logits take, how long a loss and a step take beside their peers.

The tables come from the appendix notebook on kernels, ``benchmarks/policy_loss.py`` and ``benchmarks/policy_step.py``.
"""

from __future__ import annotations

from typing import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosearch.errors import WorkbookError
from zerosearch.figures.style import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, frame, in_order, quiet, styled

_LINES = ((VERMILLION, "-", "o"), (ORANGE, "--", "s"), (BLUE, "-.", "D"), (GREEN, ":", "^"))
OURS = "ours"  # how the names of our own implementations begin


def _need(table: pd.DataFrame, columns: Sequence[str], figure: str) -> None:
    """Raise WorkbookError naming what is missing, unless the table has rows and these columns."""
    missing = [name for name in columns if name not in table.columns]
    if missing or table.empty:
        found = f"no {', '.join(missing)}" if missing else "an empty table"
        raise WorkbookError(
            f"figure {figure}: expected a table with rows and columns {', '.join(columns)}, found {found}; "
            "run notebooks/A1_kernels.ipynb again from its first cell, or benchmarks/policy_loss.py or policy_step.py"
        )


@styled
def loss_memory(table: pd.DataFrame) -> Figure:
    """Draw the memory of a loss against the tokens of a batch, one line per way of computing it.

    table: way, n_tokens (completion tokens), gb (gigabytes beyond states and weights); computed, not measured.
    """
    _need(table, ["way", "n_tokens", "gb"], "loss_memory")
    largest = table[table["n_tokens"] == table["n_tokens"].max()].set_index("way")["gb"]
    figure, grid = frame(
        9.0, 3.4, f"Memory of one loss with {table['n_tokens'].max():,} tokens: from {largest.max():.0f} GB down to "
        f"{largest.min():.1f} GB", "Computed from shapes, beyond states and weights; see the text for what each line "
        "counts.",
    )
    axes = grid[0, 0]
    for (color, line, marker), way in zip(_LINES, in_order(table["way"], []), strict=False):
        part = table[table["way"] == way].sort_values("n_tokens")
        axes.plot(part["n_tokens"], part["gb"], color=color, ls=line, marker=marker, label=way)
    axes.set(
        xscale="log", yscale="log", xlabel="completion tokens in a batch (number)", ylabel="memory (GB)",
        xticks=sorted(set(table["n_tokens"])),
    )
    axes.set_xticks(sorted(set(table["n_tokens"])), [f"{n:,}" for n in sorted(set(table["n_tokens"]))])
    axes.minorticks_off()
    axes.legend(fontsize=9)
    quiet(axes, "both")
    return figure


@styled
def loss_times(table: pd.DataFrame) -> Figure:
    """Draw how long each contender takes for one case of the benchmark, with the 20 % and 80 % quantiles.

    table: rows of ``benchmarks/policy_loss.csv`` of one case: contender, median_ms, p20_ms, p80_ms, share_of_floor,
    shape, n_tokens, policy_share, head, device.
    """
    columns = ["contender", "median_ms", "p20_ms", "p80_ms", "share_of_floor", "shape", "n_tokens", "policy_share",
               "head", "device"]
    _need(table, columns, "loss_times")
    shown = table.dropna(subset=["median_ms"]).sort_values("median_ms", ascending=False)
    _need(shown, columns, "loss_times")
    best, slowest, case = shown.iloc[-1], shown.iloc[0], shown.iloc[0]
    floor = float(best["median_ms"] * best["share_of_floor"])
    figure, grid = frame(
        9.0, 0.36 * len(shown) + 0.7,
        f"Fastest here: {best['contender']}, {best['median_ms']:.3g} ms; slowest: {slowest['contender']}, "
        f"{slowest['median_ms'] / best['median_ms']:.1f} times that",
        f"Head of {case['shape']}, {case['n_tokens']:,} completion tokens, {100 * case['policy_share']:.0f} % of them "
        f"the policy's, {case['head']} head, {case['device']}. Line: 20 % to 80 % of the repeats. Dotted: the matrix "
        "products alone.",
    )
    axes = grid[0, 0]
    colors = [BLUE if name.startswith(OURS) else GREY for name in shown["contender"]]
    axes.barh(shown["contender"], shown["median_ms"], color=colors, height=0.62)
    axes.hlines(shown["contender"], shown["p20_ms"], shown["p80_ms"], color=INK, lw=1.6)
    axes.axvline(floor, color=VERMILLION, ls=":", lw=1.6)
    axes.set_xlabel("forward and backward (milliseconds)")
    quiet(axes)
    return figure


@styled
def step_times(table: pd.DataFrame) -> Figure:
    """Draw the seconds of one optimiser step by every way, one panel a model, beside them how many times TRL's speed.

    table: model, way, kl_weight, median_seconds, ratio (to TRL as shipped), tokens, padding_share, policy_share; see
    ``benchmarks/policy_step.py``.
    """
    columns = ["model", "way", "kl_weight", "median_seconds", "ratio", "tokens", "padding_share", "policy_share"]
    shown = table.dropna(subset=["median_seconds"]) if "median_seconds" in table else table
    _need(shown, columns, "step_times")
    best, names = shown.groupby(["model", "kl_weight"])["ratio"].max(), list(dict.fromkeys(shown["model"]))
    figure, grid = frame(
        9.0, 0.6 + 3.6 * len(names),
        f"One step of the policy: {best.min():.1f} to {best.max():.1f} times as fast as TRL's trainer as shipped",
        "Forward, backward and optimiser on the same ragged trajectories; a plus adds a switch to those above it. "
        "Dark: without a KL; light: with one. Numbers: times TRL's speed.",
        rows=len(names),
    )
    for axes, name in zip(grid[:, 0], names, strict=True):
        _step_panel(axes, shown[shown["model"] == name])
    grid[-1, 0].set_xlabel("one optimiser step (s)")
    return figure


def _step_panel(axes: Axes, own: pd.DataFrame) -> None:
    ways, weights = list(dict.fromkeys(own["way"])), sorted(set(own["kl_weight"]))
    height = 0.8 / len(weights)
    for number, weight in enumerate(weights):
        rows = own[own["kl_weight"] == weight].set_index("way").loc[ways]
        places = [place + (number - (len(weights) - 1) / 2) * height for place in range(len(ways))]
        colors = [GREY if way.startswith("TRL") else BLUE for way in ways]
        axes.barh(places, rows["median_seconds"], height=height, color=colors, alpha=1.0 if number == 0 else 0.5)
        for place, seconds, ratio in zip(places, rows["median_seconds"], rows["ratio"], strict=True):
            axes.annotate(f"{ratio:.2f}", (seconds, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(ways)), ways)
    axes.invert_yaxis()
    first = own.iloc[0]
    axes.set_title(
        f"{first['model']}: {int(first['tokens']):,} tokens, {100 * first['policy_share']:.0f} % the policy's; unsorted "
        f"{100 * first['padding_share']:.0f} % padding", fontsize=10, x=0.0, ha="left",
    )
    quiet(axes)
