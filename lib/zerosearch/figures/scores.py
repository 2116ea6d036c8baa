"""Figures of evaluation: scores, conditions, the published table beside ours, searches made, the headline.

``scores`` is the tidy table of stage 04: method, dataset, seed, metric, value, n, low, high, with
values in [0, 1]; the same over all seeds has no column seed (``averages.csv``).  Ours is always filled
and carries its interval; published is always hollow, on a grey ground and without one, because none was
published.  Called by notebooks 04 and 05, the README and the report.
"""

from __future__ import annotations

import matplotlib.ticker as ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosearch.figures.style import (
    BLUE, CONDITION_LABELS, DATASET_LABELS, GREY, INK, INTERVAL, LATER, LIGHT, LOOKS, METRIC_LABELS, VERMILLION, WASH,
    Look, count_span, frame, in_order, look, need, quiet, styled, usd, usd_tick, whisker, wilson,
)

STAGE = "04"
_COLUMNS = ["method", "dataset", "metric", "value", "n", "low", "high"]
PUBLISHED_METHODS = {"Direct Answer": "direct", "CoT": "cot", "RAG": "rag", "RA-Agent": "ra-agent",
                     "Search-o1": "search-o1", "R1-base": "r1", "Search-R1-base": "search-r1",
                     "ZeroSearch-base": "zerosearch"}
_ALWAYS_BESIDE = {"direct", "rag", "search-r1", "zerosearch"}  # the others where this run has them too
_BESIDE = (f"Left, filled: this workbook's questions, corpus and policy, {INTERVAL}. Right, hollow: printed "
           "numbers for {policy} (base) in arXiv 2505.04588, without intervals. Compare orders and gaps, not "
           "heights.")
_BESIDE_NOTE = ("Published Bamboogle: 125 questions for untrained methods, 72 for trained rows. The "
                "reference scorer tests containment under the name EM; ours is strict.")


def average_scores(scores: pd.DataFrame, metric: str = "em") -> pd.DataFrame:
    """Return one row a method: the mean over its data sets, every set weighing the same.

    Columns: method, value, low, high, n, seeds.  Rows of a data set called "average" are used as
    they are; otherwise the intervals of the sets are combined as independent errors.  A table without
    the column seed (``averages.csv``) is over all seeds already; with several seeds value is their mean
    and the interval the mean interval of one run.
    """
    need(scores, _COLUMNS, "average_scores", STAGE)
    chosen = scores[scores["metric"] == metric]
    need(chosen, _COLUMNS, f"average_scores (metric {metric!r})", STAGE)
    keys = [key for key in ("method", "seed") if key in chosen]
    runs = [_one_run(names[0], part) for names, part in chosen.groupby(keys, sort=False)]
    table = pd.DataFrame(runs, columns=["method", "value", "low", "high", "n"])
    result = table.groupby("method", sort=False).agg(
        value=("value", "mean"), low=("low", "mean"), high=("high", "mean"), n=("n", "max"),
        seeds=("n", "size"),
    )
    return result.loc[in_order(list(result.index), list(LOOKS))].reset_index()


def _one_run(method: str, part: pd.DataFrame) -> tuple[str, float, float, float, int]:
    ready, sets = part[part["dataset"] == "average"], part[part["dataset"] != "average"]
    if len(ready):
        row = ready.iloc[0]
        return method, row["value"], row["low"], row["high"], int(row["n"])
    value = float(sets["value"].mean())
    half = float(np.sqrt((((sets["high"] - sets["low"]) / 2) ** 2).sum()) / len(sets))
    return method, value, max(0.0, value - half), min(1.0, value + half), int(sets["n"].sum())


@styled
def scores_by_dataset(
    scores: pd.DataFrame, metric: str = "em", averages: pd.DataFrame | None = None
) -> Figure:
    """Draw every method on every data set and on average: a dot with its 95 % interval.

    scores: see the module.  Small dots are single seeds when there are several.  averages: the same over
    all seeds (``statistics.average_table``); their intervals, of questions and seeds, are drawn when given.
    """
    need(scores, [*_COLUMNS, "seed"], "scores_by_dataset", STAGE)
    average = average_scores(scores if averages is None else averages, metric)
    chosen = scores[(scores["metric"] == metric) & (scores["dataset"] != "average")]
    sets = in_order(chosen["dataset"], list(DATASET_LABELS))
    methods, name = list(average["method"]), METRIC_LABELS.get(metric, metric)
    columns = min(4, len(sets) + 1)
    rows = -(-(len(sets) + 1) // columns)
    figure, grid = frame(
        10.0, rows * (0.62 + 0.235 * len(methods)), _score_finding(average, name),
        f"{name} with the real engine, share of questions; bars: {INTERVAL}. {_n_text(chosen)}",
        rows=rows, columns=columns, sharex=True, sharey=True,
    )
    for axes, dataset in zip(grid.ravel(), [*sets, "average"]):
        part = average if dataset == "average" else chosen[chosen["dataset"] == dataset]
        _dots(axes, part, methods, _over_seeds(averages, dataset, metric))
        axes.set_title(DATASET_LABELS.get(dataset, dataset))
        if dataset == "average":
            axes.set_facecolor(WASH)
    for axes in grid.ravel()[len(sets) + 1:]:
        axes.set_visible(False)
    _method_axis(grid[0, 0], methods)
    for axes in grid[-1]:
        axes.set_xlabel(f"{name} (0 to 1)")
    return figure


def _over_seeds(averages: pd.DataFrame | None, dataset: str, metric: str) -> pd.DataFrame | None:
    """Return a set's values over all seeds by method, None where these are not given."""
    if averages is None:
        return None
    own = averages[(averages["dataset"] == dataset) & (averages["metric"] == metric)]
    return own.set_index("method")[["value", "low", "high"]]


def _dots(axes: Axes, part: pd.DataFrame, methods: list[str], over_seeds: pd.DataFrame | None = None) -> None:
    """Draw one panel: a row a method, its mean value and interval, single seeds as small dots.

    over_seeds: value, low, high by method, to draw in place of the mean of the seeds' own intervals.
    """
    for row, method in enumerate(methods):
        own, how = part[part["method"] == method], look(method, row)
        if own.empty:
            continue
        means = own[["value", "low", "high"]].mean()
        value, low, high = means if over_seeds is None else over_seeds.loc[method]
        whisker(axes, value, row, low, high, how.color, marker=how.marker, size=6.5)
        if len(own) > 1:
            axes.plot(own["value"], [row + 0.3] * len(own), ls="none", marker=".", ms=4, color=how.color)
        left = value > 0.72
        axes.annotate(f"{value:.2f}", (low if left else high, row), xytext=(-5 if left else 5, 0),
                      textcoords="offset points", ha="right" if left else "left", va="center",
                      fontsize=8.5, color=how.color)
    quiet(axes, "x")
    axes.set_xlim(-0.03, 1.03)


def _method_axis(axes: Axes, methods: list[str]) -> None:
    axes.set_yticks(range(len(methods)), [look(m, i).label for i, m in enumerate(methods)])
    axes.set_ylim(len(methods) - 0.4, -0.6)


@styled
def published_beside_ours(
    scores: pd.DataFrame, published: pd.DataFrame, policy: str = "Qwen2.5-3B", metric: str = "em"
) -> Figure:
    """Draw our scores (left) and the published ones (right) for the methods both have, told apart.

    published: policy, method, dataset, value in [0, 1] (``published.main_results()``).  The two sides
    share no question, no model and no corpus: compare orders and gaps, not heights.
    """
    need(scores, _COLUMNS, "published_beside_ours", STAGE)
    need(published, ["policy", "method", "dataset", "value"], "published_beside_ours", STAGE)
    theirs = published[(published["policy"] == policy) & published["method"].isin(PUBLISHED_METHODS)]
    need(theirs, ["policy"], f"published_beside_ours (policy {policy!r})", STAGE)
    theirs = theirs.assign(method=theirs["method"].map(PUBLISHED_METHODS))
    ours = scores[(scores["metric"] == metric) & scores["method"].isin(set(PUBLISHED_METHODS.values()))]
    theirs = theirs[theirs["method"].isin(_ALWAYS_BESIDE | set(ours["method"]))]
    average = average_scores(ours if len(ours) else scores, metric).assign(dataset="average")
    ours = pd.concat([ours[ours["dataset"] != "average"], average], ignore_index=True)
    sets = in_order([*ours["dataset"], *theirs["dataset"]], list(DATASET_LABELS))
    height = max(0.52, 0.11 * max(theirs["method"].nunique(), ours["method"].nunique()))
    figure, grid = frame(
        9.6, 0.55 + height * len(sets), _beside_finding(average, theirs, policy), _BESIDE.format(policy=policy),
        note=_BESIDE_NOTE, columns=2, sharey=True,
    )
    left, right = grid[0]
    _pairs(left, ours, sets, filled=True)
    _pairs(right, theirs.assign(low=np.nan, high=np.nan), sets, filled=False)
    right.set_facecolor(WASH)
    name = METRIC_LABELS.get(metric, metric)
    left.set(title="Ours, measured", xlabel=f"{name} (0 to 1)", xlim=(-0.03, 1.03))
    right.set(title=f"Published, {policy}", xlabel="EM as printed (0 to 1)", xlim=(-0.03, 1.03))
    left.set_yticks(range(len(sets)), [DATASET_LABELS.get(name, name) for name in sets])
    left.set_ylim(len(sets) - 0.45, -0.55)
    right.legend(loc="lower right")
    return figure


def _pairs(axes: Axes, table: pd.DataFrame, sets: list[str], filled: bool) -> None:
    """Draw the methods of every data set, a little apart from each other."""
    methods = in_order(table["method"], list(LOOKS))
    means = table.groupby(["method", "dataset"])[["value", "low", "high"]].mean()
    apart = min(0.19, 0.84 / len(methods))
    for position, method in enumerate(methods):
        how = look(method, position)
        shift = (position - (len(methods) - 1) / 2) * apart
        for row, dataset in enumerate(sets):
            if (method, dataset) in means.index:
                value, low, high = means.loc[(method, dataset)]
                whisker(axes, value, row + shift, low, high, how.color, filled=filled, marker=how.marker,
                        size=6)
        axes.plot([], [], ls="none", marker=how.marker, color=how.color, mec=how.color,
                  mfc=how.color if filled else "white", label=how.label)
    for row in range(1, len(sets)):
        axes.axhline(row - 0.5, color=LIGHT, lw=0.8, zorder=1)
    quiet(axes, "x")


@styled
def searches_histogram(predictions: pd.DataFrame) -> Figure:
    """Draw how many searches each method made a question: one panel a method that may search.

    predictions: method, n_searches (count).  Bars: share of questions with Wilson 95 % intervals;
    the vertical line is the mean.  Methods that never search are named in the subtitle.
    """
    need(predictions, ["method", "n_searches"], "searches_histogram", STAGE)
    means = predictions.groupby("method")["n_searches"].mean()
    methods = [m for m in in_order(predictions["method"], list(LOOKS)) if means[m] > 0]
    searching = predictions[predictions["method"].isin(methods)]
    need(searching, ["method"], "searches_histogram (methods that search)", STAGE)
    silent = [look(m).label for m in means.index if m not in methods]
    top = int(predictions["n_searches"].max())
    most = max(methods, key=lambda m: means[m])
    figure, grid = frame(
        max(5.2, 2.45 * len(methods)), 2.7,
        f"{look(most).short} searches most: {means[most]:.1f} times a question on average",
        f"Share of questions by number of searches; bars: {INTERVAL}. Dashed: mean."
        + (f" Never searching: {', '.join(silent)}." if silent else ""),
        columns=len(methods), sharey=True, sharex=True,
    )
    for position, (axes, method) in enumerate(zip(grid[0], methods)):
        counts, how = predictions.loc[predictions["method"] == method, "n_searches"], look(method, position)
        _histogram(axes, counts, top, how.color)
        axes.set_title("\n".join(how.label.split(", ")), fontsize=9.5)
        axes.set_xlabel("searches per question")
    grid[0, 0].set_ylabel("share of questions (0 to 1)")
    return figure


def _histogram(axes: Axes, counts: pd.Series, top: int, color: str) -> None:
    n, xs = len(counts), np.arange(top + 1)
    shares = np.array([(counts == x).mean() for x in xs])
    bounds = np.array([wilson(share, n) for share in shares])
    errors = np.abs(bounds - shares[:, None]).T
    axes.bar(xs, shares, width=0.72, color=color, alpha=0.85, zorder=2)
    axes.errorbar(xs, shares, yerr=errors, fmt="none", ecolor=INK, elinewidth=1.3, zorder=3)
    axes.axvline(counts.mean(), color=GREY, ls="--", lw=1.2, zorder=4)
    axes.set_xticks(xs)
    axes.set_ylim(0, 1.04)
    quiet(axes, "y")


@styled
def headline(scores: pd.DataFrame, costs: pd.DataFrame, metric: str = "em") -> Figure:
    """Draw the README's headline: what each method scores, and what its training searches cost.

    scores: see the module, or the same over all seeds.  costs: option, item, usd, basis
    (``costs.run_options`` or the published ones); one bar an option, "what if" and assumed amounts hatched.
    """
    average = average_scores(scores, metric)
    need(costs, ["option", "item", "usd", "basis"], "headline", "05")
    name, methods = METRIC_LABELS.get(metric, metric), list(average["method"])
    figure, grid = frame(
        10.0, max(2.6, 0.55 + 0.34 * len(methods)), _headline_finding(average, name),
        f"Left: average {name} over {_sets_text(scores)}, judged with the real engine, {INTERVAL}. Right: "
        "price of training, logarithmic; hollow: if every search had been paid.",
        columns=2, width_ratios=(1.5, 1),
    )
    _dots(grid[0, 0], average, methods)
    _method_axis(grid[0, 0], methods)
    grid[0, 0].set(xlabel=f"average {name} (0 to 1)", title="Questions answered right")
    _bills(grid[0, 1], costs)
    return figure


def _bills(axes: Axes, costs: pd.DataFrame) -> None:
    """Draw the total of every option as a dot on a logarithmic axis, hollow when part of it is "what if"."""
    totals = costs.groupby("option", sort=False)["usd"].sum()
    guessed = set(costs.loc[costs["basis"] == "what if", "option"])
    floor = max(totals[totals > 0].min() / 4 if (totals > 0).any() else 0.01, 1e-6)
    for row, (option, total) in enumerate(totals.items()):
        color = VERMILLION if option.lower().startswith(("zero", "sft-")) else BLUE
        value = max(total, floor)
        axes.plot([floor, value], [row, row], color=color, lw=2.2, alpha=0.35, zorder=2)
        axes.plot([value], [row], marker="o" if color == VERMILLION else "s", ms=8, color=color, mew=1.8,
                  ls="none", mfc="white" if option in guessed else color, zorder=3)
        axes.annotate(usd(total), (value, row), xytext=(9, 0), textcoords="offset points", va="center",
                      fontweight="bold")
    axes.set_yticks(range(len(totals)), ["\n".join(option.split(", ")) for option in totals.index])
    axes.set(xscale="log", xlim=(floor, max(totals.max(), floor) * 40), ylim=(len(totals) - 0.4, -0.6),
             xlabel="cost of training (US dollars)", title="What the training cost")
    axes.xaxis.set_major_locator(ticker.LogLocator(numticks=5))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(usd_tick))
    quiet(axes, "x")


_MOST_TOLD = 3  # methods that a title names


@styled
def scores_by_condition(averages: pd.DataFrame, sentinels: pd.DataFrame | None = None) -> Figure:
    """Draw EM against the condition of the searches: a line a method, its 95 % interval as a band.

    averages: method, seeds, condition, metric, value, n, low, high (``robustness.condition_scores``).
    sentinels: sentinel, condition, em: scripted policies, drawn dashed; they say how much room there is.
    ``later`` stands apart: it asks other questions.
    """
    need(averages, ["method", "condition", "metric", "value", "n", "low", "high"], "scores_by_condition", STAGE)
    chosen = need(averages[averages["metric"] == "em"], ["method"], "scores_by_condition (metric 'em')", STAGE)
    names = in_order(chosen["condition"], list(CONDITION_LABELS))
    places = {name: i + 0.4 * (name == LATER) for i, name in enumerate(names)}
    several = int(chosen["seeds"].max()) > 1 if "seeds" in chosen else False
    figure, grid = frame(
        9.0, 3.4, _condition_finding(chosen, names),
        f"EM with the real engine under other searches, mean over the questions; bands and bars: {INTERVAL}"
        f"{', of questions and seeds' if several else ''}; n = {count_span(chosen['n'])}."
        + (" Dashed: scripted policies." if sentinels is not None and len(sentinels) else ""),
    )
    axes = grid[0, 0]
    for position, method in enumerate(in_order(chosen["method"], list(LOOKS))):
        _condition_line(axes, chosen[chosen["method"] == method], places, look(method, position), 0.07 * position)
    for number, (name, part) in enumerate(sentinels.groupby("sentinel", sort=False) if sentinels is not None else ()):
        shared = part[part["condition"].isin(names) & (part["condition"] != LATER)]
        known = sorted(zip(shared["condition"].map(places), shared["em"]))
        dashes = ("--", ":")[number % 2]
        axes.plot(*zip(*known), color=GREY, ls=dashes, lw=1.6, marker="x", ms=5, label=f"scripted: {name}")
    axes.set_xticks(list(places.values()), [CONDITION_LABELS.get(name, name) for name in names])
    axes.set(ylim=(-0.03, 1.03), ylabel="EM (0 to 1)", xlabel="what the searches bring (condition)")
    quiet(axes, "y")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _condition_line(axes: Axes, own: pd.DataFrame, places: dict[str, float], how: Look, shift: float) -> None:
    """Draw one method: a line with its band over the conditions that ask the same questions, and ``later`` alone.

    shift: to the right, of the point at ``later``, so that those of several methods stand side by side.
    """
    own = own.assign(x=own["condition"].map(places)).sort_values("x")
    line, apart = own[own["condition"] != LATER], own[own["condition"] == LATER]
    axes.fill_between(line["x"], line["low"], line["high"], color=how.color, alpha=0.15, lw=0)
    axes.plot(line["x"], line["value"], color=how.color, marker=how.marker, ms=6, lw=1.8, label=how.label)
    errors = np.abs(apart[["low", "high"]].to_numpy() - apart[["value"]].to_numpy()).T
    places_apart, look_apart = apart["x"] + shift, {"fmt": how.marker, "color": how.color, "ms": 6}
    axes.errorbar(places_apart, apart["value"], yerr=errors, elinewidth=2.2, **look_apart)


def _condition_finding(chosen: pd.DataFrame, names: list[str]) -> str:
    """Say what is left of the best trained policies' scores (or of all, if none is trained) where half the searches fail."""
    hard = "corrupt-0.5" if "corrupt-0.5" in names else names[-1]
    value = chosen.set_index(["condition", "method"])["value"]
    methods = [m for m in in_order(chosen["method"], list(LOOKS)) if m != "forced"] or list(chosen["method"].unique())
    best = chosen[chosen["condition"] == names[0]].set_index("method")["value"].reindex(methods).nlargest(_MOST_TOLD).index
    methods = [m for m in methods if m in best] or methods[:_MOST_TOLD]
    told = [f"{look(m).short} {value['clean', m]:.2f} to {value[hard, m]:.2f}" if ("clean", m) in value.index
            else f"{look(m).short} {value[hard, m]:.2f}" for m in methods]
    return f"From clean searches to {CONDITION_LABELS.get(hard, hard).replace(chr(10), ' ')}: EM {', '.join(told)}"


def _sets_text(scores: pd.DataFrame) -> str:
    n = scores.loc[scores["dataset"] != "average", "dataset"].nunique()
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return f"{words[n] if n < len(words) else n} question set{'s' if n != 1 else ''}"


def _n_text(chosen: pd.DataFrame) -> str:
    seeds = chosen["seed"].nunique()
    dots = " Small dots: single seeds." if seeds > 1 else ""
    return f"{count_span(chosen['n'])} questions a set, {seeds} seed{'s' if seeds > 1 else ''}.{dots}"


def _score_finding(average: pd.DataFrame, name: str) -> str:
    """Name the best method, and whether its interval is clear of the others'."""
    best = average.loc[average["value"].idxmax()]
    text = f"{look(best['method']).short} leads with average {name} {best['value']:.2f}"
    rest = average[average["method"] != best["method"]]
    if rest.empty:
        return text
    close = [look(row.method).short for row in rest.itertuples() if row.high >= best["low"]]
    if close:
        return f"{text}, not clearly ahead of {', '.join(close)}"
    second = rest.loc[rest["value"].idxmax()]
    return f"{text}, ahead of {look(second['method']).short} with {second['value']:.2f}"


def _headline_finding(average: pd.DataFrame, name: str) -> str:
    value = average.set_index("method")["value"]
    if "zerosearch" not in value:
        return _score_finding(average, name)
    text = f"Trained on a simulated search engine, judged with a real one: {name} {value['zerosearch']:.2f}"
    if "search-r1" in value:
        text += f"; trained on the real engine {value['search-r1']:.2f}"
    return text + (f", untrained {value['search']:.2f}" if "search" in value else "")


def _beside_finding(average: pd.DataFrame, theirs: pd.DataFrame, policy: str) -> str:
    ours = average.set_index("method")["value"]
    printed = theirs[theirs["dataset"] == "average"].set_index("method")["value"]
    if not {"zerosearch", "search-r1"} <= set(ours.index):
        return f"Our scores and the published ones for {policy}"
    gaps = [side["zerosearch"] - side["search-r1"] for side in (ours, printed)]
    signs = [f"{gap:+.2f}".replace("-", "−") for gap in gaps]
    return f"ZeroSearch minus Search-R1, average EM: {signs[0]} here, {signs[1]} in the paper"
