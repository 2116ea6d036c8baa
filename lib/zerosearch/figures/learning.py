"""Figures of training: reward, the four panels one watches, and curricula.

``metrics`` is always the rows of one or several ``metrics.jsonl`` with two columns more, arm and
seed.  Single steps are drawn faint, the running mean bold; the band says how much to trust it.
Called by notebooks 03 and 05 and by the report.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosearch.figures.style import (
    CYCLE, GREY, LOOKS, frame, in_order, look, need, quiet, styled,
)

STAGE = "03"
_KEYS = ["arm", "seed", "step"]


@styled
def reward_curve(metrics: pd.DataFrame, reward: str = "F1") -> Figure:
    """Draw the mean reward of every step, one line an arm.

    metrics: arm, seed, step, reward_mean (in [0, 1]).  Band: 95 % interval of the running mean over
    its steps (one seed), or lowest to highest seed (several).  reward: name of the reward function.
    """
    need(metrics, [*_KEYS, "reward_mean"], "reward_curve", STAGE)
    figure, axes = frame(
        8.6, 3.9, _reward_finding(metrics),
        f"Mean {reward} reward of the trajectories sampled in each step. {_band_text(metrics)}",
    )
    _curves(axes[0, 0], metrics, "reward_mean")
    axes[0, 0].set(xlabel="optimiser step", ylabel=f"mean reward ({reward}, 0 to 1)", ylim=(0, None))
    axes[0, 0].legend(loc="upper left", ncols=2)
    return figure


@styled
def training_panels(metrics: pd.DataFrame) -> Figure:
    """Draw reward, searches per trajectory, noise planned against realised, and KL over the steps.

    metrics: arm, seed, step, reward_mean, searches_mean, noise_planned, noise_realised (shares,
    NaN where nothing was drawn), kl (nats a token, to the base policy).
    """
    columns = ["reward_mean", "searches_mean", "noise_planned", "noise_realised", "kl"]
    need(metrics, [*_KEYS, *columns], "training_panels", STAGE)
    figure, grid = frame(
        9.2, 5.6, _panels_finding(metrics), _band_text(metrics), rows=2, columns=2, sharex=True,
    )
    reward, searches, noise, kl = grid.ravel()
    panels = ((reward, "reward_mean", "Reward", "mean reward (0 to 1)"),
              (searches, "searches_mean", "Searches", "searches per trajectory"),
              (kl, "kl", "Distance to the base policy", "KL (nats per token)"))
    for axes, column, title, label in panels:
        _curves(axes, metrics, column)
        axes.set(title=title, ylabel=label, ylim=(0, None))
    _noise(noise, metrics)
    for axes in (noise, kl):
        axes.set_xlabel("optimiser step")
    reward.legend(loc="best")
    return figure


@styled
def curriculum_curves(curves: pd.DataFrame) -> Figure:
    """Draw noise schedules over the steps, each with its mean: the dose that a policy really gets.

    curves: curve (name), step, noise_probability (in [0, 1]).
    """
    need(curves, ["curve", "step", "noise_probability"], "curriculum_curves", STAGE)
    names = in_order(curves["curve"], [])
    means = curves.groupby("curve")["noise_probability"].mean()
    first = names[0]
    end = curves[curves["curve"] == first].sort_values("step")["noise_probability"].iloc[-1]
    figure, axes = frame(
        8.6, 4.2, f"“{first}” ends at noise {end:.2f} but averages {means[first]:.3f}",
        "Chance that a search is answered with misleading passages. Dotted: mean over all steps, the dose.",
    )
    for position, name in enumerate(names):
        part = curves[curves["curve"] == name].sort_values("step")
        color = CYCLE[position % len(CYCLE)]
        style = ("-", "--", "-.", (0, (1, 1)))[position % 4]
        axes[0, 0].plot(part["step"], part["noise_probability"], color=color, lw=2.4, ls=style,
                        label=f"{name}  (mean {means[name]:.3f})")
        axes[0, 0].axhline(means[name], color=color, lw=1.2, ls=":", alpha=0.8)
    axes[0, 0].set(xlabel="optimiser step", ylabel="noise probability (0 to 1)", ylim=(-0.02, None))
    axes[0, 0].margins(x=0.02)
    figure.legend(loc="outside lower center", ncols=min(2, len(names)))
    return figure


def running(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centred running mean and its standard error, both as long as ``values``.

    Near the ends the window shrinks to what exists, so no step is invented or lost.
    """
    half = window // 2
    pieces = [values[max(0, i - half): i + half + 1] for i in range(len(values))]
    means = np.array([np.nanmean(p) if np.isfinite(p).any() else np.nan for p in pieces])
    counts = np.array([np.isfinite(p).sum() for p in pieces])
    spreads = np.array([np.nanstd(p, ddof=1) if n > 1 else 0.0 for p, n in zip(pieces, counts)])
    return means, spreads / np.sqrt(np.maximum(counts, 1))


def _curves(axes: Axes, metrics: pd.DataFrame, column: str) -> None:
    """Draw one metric: faint steps, bold running mean, band; one colour and line style an arm."""
    for position, arm in enumerate(_arms(metrics)):
        how = look(arm, position)
        own = metrics[metrics["arm"] == arm].dropna(subset=column)
        if own.empty:
            continue
        table = own.pivot_table(index="step", columns="seed", values=column)
        steps, window = table.index.to_numpy(), max(3, len(table) // 8 | 1)
        smooth = np.stack([running(table[seed].to_numpy(float), window)[0] for seed in table])
        for seed in table:
            axes.plot(steps, table[seed], color=how.color, lw=0.9, alpha=0.3)
        mean = np.nanmean(smooth, axis=0)
        if len(smooth) > 1:
            low, high = np.nanmin(smooth, axis=0), np.nanmax(smooth, axis=0)
        else:
            error = running(table.iloc[:, 0].to_numpy(float), window)[1]
            low, high = mean - 1.96 * error, mean + 1.96 * error
        axes.fill_between(steps, low, high, color=how.color, alpha=0.16, lw=0)
        style = "-" if position == 0 else (0, (6, 1.5))
        axes.plot(steps, mean, color=how.color, lw=2.4, ls=style, label=how.label)
    quiet(axes, "y")
    axes.margins(x=0.02)


def _noise(axes: Axes, metrics: pd.DataFrame) -> None:
    """Draw planned noise as a line and realised shares as dots; arms without noise are left out."""
    drawn = metrics.dropna(subset="noise_realised")
    drawn = drawn[drawn.groupby("arm")["noise_planned"].transform("max") > 0]
    for position, arm in enumerate(_arms(drawn)):
        how, part = look(arm, position), drawn[drawn["arm"] == arm].sort_values("step")
        plan = part.groupby("step")["noise_planned"].mean()
        axes.plot(plan.index, plan, color=how.color, lw=2.4, label="planned")
        axes.plot(part["step"], part["noise_realised"], ls="none", marker="o", ms=4.5, mfc="white",
                  mec=how.color, mew=1.2, label="realised share")
    if drawn.empty:
        axes.text(0.5, 0.5, "no noise in these runs", transform=axes.transAxes, ha="center", color=GREY)
    else:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[:2], labels[:2], loc="upper left")
    axes.set(title="Misleading answers", ylabel="share of searches (0 to 1)", ylim=(-0.02, None))
    quiet(axes, "y")


def _arms(metrics: pd.DataFrame) -> list[str]:
    return in_order(metrics["arm"], list(reversed(LOOKS)))


def _fifths(metrics: pd.DataFrame, arm: str, column: str) -> tuple[float, float]:
    """Return the mean of the first and of the last fifth of an arm's steps."""
    part = metrics[metrics["arm"] == arm].sort_values("step")
    steps = np.sort(part["step"].unique())
    fifth = max(1, len(steps) // 5)
    ends = (part[part["step"].isin(steps[:fifth])], part[part["step"].isin(steps[-fifth:])])
    return tuple(float(end[column].mean()) for end in ends)  # type: ignore[return-value]


def _reward_finding(metrics: pd.DataFrame) -> str:
    parts = []
    for position, arm in enumerate(_arms(metrics)):
        first, last = _fifths(metrics, arm, "reward_mean")
        parts.append(f"{first:.2f} to {last:.2f} ({look(arm, position).short})")
    return "Mean reward, first to last fifth of the steps: " + ", ".join(parts)


def _panels_finding(metrics: pd.DataFrame) -> str:
    arm = _arms(metrics)[0]
    reward, searches = _fifths(metrics, arm, "reward_mean"), _fifths(metrics, arm, "searches_mean")
    return (f"{look(arm).short}: reward {reward[0]:.2f} → {reward[1]:.2f} while searches per trajectory "
            f"go {searches[0]:.1f} → {searches[1]:.1f}")


def _band_text(metrics: pd.DataFrame) -> str:
    several = metrics.groupby("arm")["seed"].nunique().max() > 1
    band = "lowest to highest seed" if several else "95 % interval of the running mean"
    return f"Faint: single steps. Bold: running mean. Band: {band}."
