"""Figures of how the methods behave: what an answer costs, when they search, where they fail, what more tries bring.

The tables come from stage 04: its averages, its predictions, ``evaluation.calibration.search_calibration``
``evaluation.row_facts.outcome_table`` and ``evaluation.pass_at_k.pass_at_k_table``.  Called by notebook 04 and the report.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zerosearch.figures.point_names import name_points
from zerosearch.figures.scores import average_scores, tie_finding
from zerosearch.figures.style import (
    BLACK, BLUE, GREEN, GREY, INK, INTERVAL, LIGHT, LOOKS, ORANGE, PURPLE, SKY, count_span, frame,
    in_order, look, need, percent, quiet, styled, whisker,
)

STAGE = "04"
AVERAGE = "average"
_MOST_CURVES = 8
_DASHES = ("-", "--", ":")
ALL = "all"  # the row of ``search_calibration`` that holds all sets
_ABOVE = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "borderaxespad": 0.3}  # a legend over its axes
_LOGARITHMIC = 20.0  # the tokens' axis is logarithmic where the largest is more than this times the smallest
_CALIBRATION_COLUMNS = [
    "method", "dataset", "n_known", "n_unknown", "searched_known", "searched_unknown", "seeds", "known_low",
    "known_high", "unknown_low", "unknown_high",
]
OUTCOME_LOOKS = {  # colour and hatch, in the order drawn
    "right": (GREEN, ""), "no search": (LIGHT, ""), "wrong query": (SKY, "//"), "missed in passages": (BLUE, ""),
    "misread": (ORANGE, "\\\\"), "format": (PURPLE, "//"), "engine failed": (BLACK, ""),
}
_FAILURES = {
    "no search": "not searching", "wrong query": "a wrong query", "missed in passages": "passages without the answer",
    "misread": "misreading a passage that has the answer", "format": "an answer that cannot be read",
    "engine failed": "a failed engine",
}
_OUTCOME_NOTE = (
    "No search: nothing was retrieved. Wrong query: nothing it asked could lead to the answer. Missed in passages: "
    "it asked for the right thing, no golden answer was shown. Misread: one was shown, it answered something else. "
    "Format: no answer that can be read."
)


@styled
def efficiency(averages: pd.DataFrame, predictions: pd.DataFrame) -> Figure:
    """Draw EM against the searches (left) and the tokens the policy wrote (right) per question, a point a method.

    averages: method, dataset, metric, value, n, low, high (``statistics.average_table``).  predictions: method,
    dataset, n_searches, n_tokens (counts).  On every axis each data set weighs the same.
    """
    table = _costs(average_scores(averages, "em"), predictions)
    methods = list(table["method"])
    figure, grid = frame(
        10.0, 3.3 + 0.07 * len(methods), _efficiency_finding(table),
        f"Average EM with the real engine against what an answer took; bars: {INTERVAL}. Upper left is better: "
        "more right answers for less.",
        note="Means over the questions of each data set, every set weighing the same. Tokens: what the policy "
        "wrote itself; passages shown to it are not counted.",
        columns=2, sharey=True,
    )
    for axes, column, label in zip(grid[0], ("searches", "tokens"), (
            "mean searches per question (count)", "mean tokens written per question (count)")):
        for row, how in zip(table.itertuples(), map(look, methods, range(len(methods)))):
            _point(axes, getattr(row, column), row, how.color, how.marker)
        axes.set_xlabel(label)
    _efficiency_axes(grid[0], table)
    looks = [look(method, i) for i, method in enumerate(methods)]
    for axes, column in zip(grid[0], ("searches", "tokens")):
        name_points(axes, table[[column, "value"]].to_numpy(float), table[["low", "high"]].to_numpy(float),
                    [how.short for how in looks], [how.color for how in looks])
    return figure


def _costs(average: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the averages with the columns searches and tokens, of the methods that both tables have."""
    need(predictions, ["method", "dataset", "n_searches", "n_tokens"], "efficiency", STAGE)
    of_sets = predictions.groupby(["method", "dataset"])[["n_searches", "n_tokens"]].mean()
    means = of_sets.groupby("method").mean().set_axis(["searches", "tokens"], axis=1)
    table = average.merge(means.reset_index(), on="method")
    return need(table, ["method"], "efficiency (methods in both tables)", STAGE)


def _point(axes: Axes, x: float, row: object, color: str, marker: str) -> None:
    """Draw a point with its vertical interval."""
    if math.isfinite(row.low) and math.isfinite(row.high):
        axes.plot([x, x], [row.low, row.high], color=color, lw=1.8, alpha=0.45, zorder=2)
    axes.plot([x], [row.value], marker=marker, ms=7.5, color=color, mec="white", mew=0.4, ls="none", zorder=3)


def _efficiency_axes(panels: Sequence[Axes], table: pd.DataFrame) -> None:
    """Set the limits so that names have room, and the tokens' scale."""
    searches, tokens = panels
    top = float(np.nanmax(table[["value", "high"]].to_numpy()))
    searches.set(ylim=(-0.05 * max(top, 0.1), min(1.03, 1.1 * max(top, 0.1))), ylabel="average EM (0 to 1)")
    most = max(float(table["searches"].max()), 0.5)
    searches.set_xlim(-0.09 * most, 1.14 * most)
    least, most = float(table["tokens"].min()), max(float(table["tokens"].max()), 1.0)
    if least > 0 and most / least > _LOGARITHMIC:
        tokens.set(xscale="log", xlim=(least / 1.6, most * 1.8))
        tokens.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    else:
        tokens.set_xlim(-0.09 * most, 1.14 * most)


def _efficiency_finding(table: pd.DataFrame) -> str:
    """Say what the best method and the next one scored, and what it took; of equals none is called the highest."""
    if tie := tie_finding(table, "EM"):
        return tie
    best, *rest = table.sort_values("value", ascending=False, kind="stable").head(2).itertuples()
    text = (f"Highest EM: {look(best.method).short} {best.value:.2f} with {best.searches:.1f} searches and "
            f"{best.tokens:,.0f} tokens a question")
    return text + "".join(f"; next {look(row.method).short} {row.value:.2f} with {row.searches:.1f} and "
                          f"{row.tokens:,.0f}" for row in rest)


@styled
def search_calibration(table: pd.DataFrame) -> Figure:
    """Draw how often each method searched, for questions it could answer without a search and for the others.

    table: ``evaluation.calibration.search_calibration``: method, dataset, n_known, n_unknown (rows),
    searched_known, searched_unknown (shares) with known_low, known_high, unknown_low, unknown_high, seeds; the
    rows of all sets together are drawn.  Methods that never searched are named in the subtitle.
    """
    need(table, _CALIBRATION_COLUMNS, "search_calibration", STAGE)
    whole = need(table[table["dataset"] == ALL], ["method"], f"search_calibration (data set {ALL!r})", STAGE)
    searched = whole[["searched_known", "searched_unknown"]].max(axis=1) > 0
    drawn = need(whole[searched], ["method"], "search_calibration (methods that search)", STAGE).set_index("method")
    methods = in_order(list(drawn.index), list(LOOKS))
    silent = [look(method).label for method in whole.loc[~searched, "method"]]
    figure, grid = frame(
        9.2, 1.4 + 0.42 * len(methods), _calibration_finding(drawn.loc[methods]),
        f"Share of questions with a search; bars: {_calibration_interval(drawn)}."
        + (f" Never searching: {', '.join(silent)}." if silent else ""), note=_calibration_note(drawn),
    )
    axes = grid[0, 0]
    _pair(axes, 0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), GREY)
    for row, method in enumerate(methods, 1):
        how, own = look(method, row - 1), drawn.loc[method]
        _pair(axes, row, _share(own, "known"), _share(own, "unknown"), how.color)
        axes.annotate(f"{int(own['n_known']):,} / {int(own['n_unknown']):,}", (1.0, row), xytext=(12, 0),
                      xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=9)
    axes.annotate("questions\nknown / not", (1.0, 0), xytext=(12, 0), xycoords=("axes fraction", "data"),
                  textcoords="offset points", va="center", fontsize=9, color=GREY)
    axes.axhline(0.5, color=LIGHT, lw=0.8)
    _rows(axes, ["A perfect policy", *(look(method, i).label for i, method in enumerate(methods))])
    axes.set(xlim=(-0.03, 1.03), xlabel="share of questions with a search (0 to 1)")
    axes.legend(handles=_calibration_keys(), ncols=2, **_ABOVE)
    return figure


def _share(own: pd.Series, kind: str) -> tuple[float, float, float]:
    """Return the share of the known or unknown questions with a search, and its bounds; NaN without any."""
    return float(own[f"searched_{kind}"]), float(own[f"{kind}_low"]), float(own[f"{kind}_high"])


def _calibration_interval(drawn: pd.DataFrame) -> str:
    """Say which luck the intervals hold."""
    if (drawn["seeds"] < 2).all():
        return f"{INTERVAL} (Wilson)"
    always = drawn[["searched_known", "searched_unknown"]].isin([0.0, 1.0]).any(axis=1)
    alone = ((drawn["seeds"] < 2) | always).any()
    limit = ", of the questions alone (Wilson) after a single training and for shares of 0 or 1" if alone else ""
    return f"{INTERVAL} of training seeds and questions{limit}"


def _pair(
    axes: Axes, row: int, known: tuple[float, float, float], unknown: tuple[float, float, float], color: str
) -> None:
    """Draw the two shares of a method, hollow and filled, a little apart, and the line between them."""
    if math.isfinite(known[0]) and math.isfinite(unknown[0]):
        axes.plot([known[0], unknown[0]], [row + 0.17, row - 0.17], color=color, lw=1.0, ls=":", zorder=1)
    for (value, low, high), y, filled in ((known, row + 0.17, False), (unknown, row - 0.17, True)):
        if math.isfinite(value):
            whisker(axes, value, y, low, high, color, filled=filled, size=6.5)


def _calibration_keys() -> list[Line2D]:
    return [Line2D([], [], ls="none", marker="o", ms=7, color=INK, mew=1.6, mfc=fill, label=label) for fill, label in (
        ("white", "could answer without a search (ideal: 0)"), (INK, "could not (ideal: 1)"))]


def _calibration_finding(drawn: pd.DataFrame) -> str:
    """Name the method that tells best when to search, and how often it does."""
    gaps = (drawn["searched_unknown"] - drawn["searched_known"]).dropna()
    if gaps.empty:
        return _nothing_to_compare(drawn)
    if not (gaps > 0).any():
        return "No method searches more often where it must than where it need not"
    best = gaps.idxmax()
    own = drawn.loc[best]
    known, unknown = percent(own["searched_known"]), percent(own["searched_unknown"])
    told = f"{look(best).short}, for {unknown} of what it does not know and {known} of what it does"
    return f"Tells best when to search: {told}" if len(gaps) > 1 else f"Searching: {told}"


def _nothing_to_compare(drawn: pd.DataFrame) -> str:
    """Say which kind of questions is missing where no method has both."""
    if not drawn["n_known"].any():
        return "Nothing to compare: no question is answered right without a search"
    if not drawn["n_unknown"].any():
        return "Nothing to compare: every question is answered right without a search"
    return "Nothing to compare: no method has questions of both kinds"


def _calibration_note(drawn: pd.DataFrame) -> str:
    """Say who was asked what is known, and what the numbers of questions count."""
    text = ("Questions: those that a direct answer, without a search, gets right / the others; with several training "
            "seeds each counts once a seed.")
    borrowed = drawn.index[drawn["known_from"].str.contains("untrained")] if "known_from" in drawn else []
    names = ", ".join(look(method).short for method in borrowed)
    return text + (f" For {names} the untrained policy was asked." if names else "")


@styled
def outcomes(table: pd.DataFrame) -> Figure:
    """Draw where each method's questions end: right, or in which kind of failure; one stacked bar a method.

    table: method, dataset, outcome, n, share (``evaluation.row_facts.outcome_table``).  Drawn is the mean share
    over the data sets, every set weighing the same, so that "right" is the average EM.
    """
    need(table, ["method", "dataset", "outcome", "n", "share"], "outcomes", STAGE)
    methods, kinds = in_order(table["method"], list(LOOKS)), in_order(table["outcome"], list(OUTCOME_LOOKS))
    wide = table.pivot_table(index=["method", "dataset"], columns="outcome", values="share", aggfunc="sum")
    shares = wide.fillna(0.0).groupby("method").mean().loc[methods, kinds]
    figure, grid = frame(
        10.0, 0.95 + 0.34 * len(methods), _outcome_finding(shares),
        "Share of questions by how they end, mean over the data sets; "
        f"n = {count_span(table.groupby('method')['n'].sum())} a method, all training seeds together.",
        note=_OUTCOME_NOTE,
    )
    axes, left = grid[0, 0], np.zeros(len(methods))
    for kind in kinds:
        color, hatch = OUTCOME_LOOKS.get(kind, ("white", "xx"))
        widths = shares[kind].to_numpy()
        axes.barh(range(len(methods)), widths, left=left, height=0.74, color=color, hatch=hatch, edgecolor="white",
                  lw=0.8, label=kind)
        for row, (start, width) in enumerate(zip(left, widths)):
            _inscribe(axes, start + width / 2, row, width, color, bool(hatch))
        left += widths
    _rows(axes, [look(method, i).label for i, method in enumerate(methods)])
    axes.set(xlim=(0, 1), xlabel="share of questions (0 to 1)")
    axes.legend(ncols=len(kinds), columnspacing=1.2, handlelength=1.4, **_ABOVE)
    return figure


def _inscribe(axes: Axes, x: float, row: int, share: float, color: str, hatched: bool) -> None:
    """Write a share into its segment if that is wide enough, in ink or white, whichever stands out."""
    if share <= 0.06:
        return
    dark = np.dot(to_rgb(color), (0.299, 0.587, 0.114)) < 0.5
    axes.text(x, row, percent(share), ha="center", va="center", fontsize=8.5, color="white" if dark else INK,
              bbox={"fc": color, "ec": "none", "pad": 1.2} if hatched else None)


def _outcome_finding(shares: pd.DataFrame) -> str:
    """Name the method that is right most often, and what it most often fails by."""
    if "right" not in shares:
        return "No method answers any question right"
    if not (shares["right"] > 0).any():
        return "No method answers any question right"
    best = shares["right"].idxmax()
    text = f"{look(best).short}: {percent(shares.loc[best, 'right'])} right"
    wrong = shares.loc[best].drop("right")
    if not (wrong > 0).any():
        return text
    return f"{text}; it fails most by {_FAILURES.get(wrong.idxmax(), wrong.idxmax())} ({percent(wrong.max())})"


@styled
def pass_curves(table: pd.DataFrame) -> Figure:
    """Draw pass@k against k, one line per method, the best _MOST_CURVES of them at the largest k.

    table: method, dataset, k, value, low, high, n, samples (``pass_at_k.pass_at_k_table``); the row ``average``.
    """
    need(table, ["method", "dataset", "k", "value", "low", "high", "n", "samples"], "pass_curves", STAGE)
    average = table[table["dataset"] == AVERAGE]
    most, least = int(average["k"].max()), int(average["k"].min())
    last = average[average["k"] == most].sort_values("value", ascending=False, kind="stable")
    shown = in_order(list(last["method"].head(_MOST_CURVES)), list(LOOKS))
    left_out = f" The best {len(shown)} of {len(last)} methods are drawn." if len(shown) < len(last) else ""
    figure, grid = frame(
        8.0, 3.9, _pass_finding(average, least, most),
        f"Chance that at least one of k sampled answers is right, mean over the sets, {int(average['n'].max()):,} "
        f"questions; bands: {INTERVAL}.",
        note=f"Estimated without bias from {int(average['samples'].max())} samples of each question. At k = 1: one "
        f"sample, not the greedy answer of the headline.{left_out}",
    )
    axes = grid[0, 0]
    used: Counter[str] = Counter()
    for place, method in enumerate(shown):
        own, how = average[average["method"] == method].sort_values("k"), look(method, place)
        axes.fill_between(own["k"], own["low"], own["high"], color=how.color, alpha=0.13, lw=0)
        dashes = _DASHES[used[how.color] % len(_DASHES)]  # a colour that comes again looks different
        axes.plot(own["k"], own["value"], dashes, color=how.color, marker=how.marker, ms=5, lw=1.8, label=how.short)
        used[how.color] += 1
    axes.set(xlabel="tries, k (count)", ylabel="pass@k (share of questions)", ylim=(-0.02, 1.02))
    axes.set_xticks(range(least, most + 1))
    axes.set_xlim(least - 0.1, most + 0.1)
    quiet(axes, "y")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _pass_finding(average: pd.DataFrame, least: int, most: int) -> str:
    """Say what more tries bring to the method that is best with one, and to the untrained policy beside it."""
    values = average.set_index(["method", "k"])["value"]
    best = values.xs(least, level="k").idxmax()
    text = f"{look(best).short}: {percent(values[best, least])} right with one try, {percent(values[best, most])} with {most}"
    if best != "search" and ("search", most) in values.index:
        text += f"; untrained policy: {percent(values['search', least])} and {percent(values['search', most])}"
    return text


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Give each row its name, the first one on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    quiet(axes, "x")
