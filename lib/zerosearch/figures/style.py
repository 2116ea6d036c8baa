"""The look that all figures share: palette, names, the frame with its finding, and saving.

The palette is Okabe and Ito's, told apart with any common colour blindness; a marker or a hatch
always repeats what a colour says.  Figures are plain matplotlib ``Figure`` objects made without
pyplot, so drawing one changes no global state.  Called by the other modules of this package.
"""

from __future__ import annotations

import functools
import io
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zerosearch.errors import WorkbookError
from zerosearch.files import write_atomic

DPI = 160
INK, GREY, LIGHT, WASH = "#1F2933", "#5F6B7A", "#CBD2D9", "#F3F5F7"
BLUE, VERMILLION, GREEN, SKY = "#0072B2", "#D55E00", "#009E73", "#56B4E9"
ORANGE, PURPLE, YELLOW, BLACK = "#E69F00", "#CC79A7", "#F0E442", "#333333"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
INTERVAL = "95 % interval"
RC = {
    "font.family": ["DejaVu Sans"], "font.size": 10.0, "text.color": INK, "axes.labelcolor": INK,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 6.0,
    "axes.edgecolor": GREY, "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#E4E7EB", "grid.linewidth": 0.8,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.labelsize": 9.0, "ytick.labelsize": 9.5, "legend.frameon": False, "legend.fontsize": 9.0,
    "figure.facecolor": "white", "axes.facecolor": "white", "hatch.linewidth": 0.8,
    "lines.solid_capstyle": "round", "text.parse_math": False,  # a dollar is a dollar
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one method or arm is named and drawn in every figure."""

    label: str
    color: str
    marker: str

    @property
    def short(self) -> str:
        """The name without its explanation, e.g. ``ZeroSearch``."""
        return self.label.split(",")[0] if "rained" not in self.label else self.label


LOOKS = {
    "direct": Look("Direct answer", "#8A94A0", "o"),
    "cot": Look("Chain of thought", "#8A94A0", "s"),
    "rag": Look("RAG", PURPLE, "D"),
    "search": Look("Untrained, may search", "#4A5562", "v"),
    "forced": Look("Untrained, forced to search", GREEN, "P"),
    "ra-agent": Look("RA-Agent", "#4A5562", "X"),
    "search-o1": Look("Search-o1", GREEN, "X"),
    "own-search": Look("Own search, from memory", "#4A5562", "<"),
    "sft": Look("SFT on answers", "#8A94A0", "p"),
    "r1": Look("R1, no search", PURPLE, "p"),
    "self-search": Look("Self-search, SSRL", PURPLE, "h"),
    "rejection": Look("Rejection sampling", BLUE, "h"),
    "search-r1": Look("Search-R1, real engine", BLUE, "s"),
    "zerosearch": Look("ZeroSearch, simulator", VERMILLION, "o"),
    "prompted": Look("Prompted simulator", ORANGE, "v"),
    "untuned": Look("Untuned simulator", ORANGE, "^"),
}
DATASET_LABELS = {
    "nq": "NQ", "triviaqa": "TriviaQA", "popqa": "PopQA", "hotpotqa": "HotpotQA",
    "2wikimultihopqa": "2WikiMultiHopQA", "musique": "MuSiQue", "bamboogle": "Bamboogle",
    "average": "Average",
}
LATER = "later"  # the condition that asks questions of its own
CONDITION_LABELS = {
    "clean": "clean", "homonyms": "with\nhomonyms", "corrupt-0.25": "a quarter\ncorrupted",
    "corrupt-0.5": "half\ncorrupted", "corrupt-0.75": "three quarters\ncorrupted", "random": "random\npassages",
    "empty": "nothing\nfound", LATER: "later\nworld",
}
METRIC_LABELS = {"em": "EM", "cover_em": "cover EM", "f1": "F1"}


class WorkbookFigure(Figure):
    """A matplotlib Figure that a notebook shows as PNG without pyplot or any magic."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self, dpi=110)


def look(method: str, position: int = 0) -> Look:
    """Return how a method is drawn; an unknown one gets its own name and a colour of the cycle."""
    if method in LOOKS:
        return LOOKS[method]
    return Look(str(method), CYCLE[position % len(CYCLE)], MARKERS[position % len(MARKERS)])


def in_order(found: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the found names once each: known ones in their order, then the others as they came."""
    unique = list(dict.fromkeys(found))
    return [name for name in known if name in unique] + [name for name in unique if name not in known]


def need(table: pd.DataFrame, columns: Sequence[str], figure: str, stage: str) -> pd.DataFrame:
    """Return the table if it has rows and these columns; WorkbookError naming what is missing.

    stage: which stage writes the table, for the advice, e.g. "04".
    """
    missing = [name for name in columns if name not in table.columns]
    if missing or table.empty:
        found = f"columns {list(table.columns)}" if missing else "an empty table"
        raise WorkbookError(
            f"figure {figure}: expected a table with rows and columns {', '.join(columns)}, found {found}; "
            f"run stage {stage} first, e.g. `./run_all.sh --only {stage}`"
        )
    return table


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorate a figure function so that it draws under the shared style, whatever the caller's is."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(RC)
            return draw(*args, **kwargs)

    return wrapper


def frame(
    width: float, height: float, title: str, subtitle: str = "", note: str = "",
    rows: int = 1, columns: int = 1, **subplots: Any,
) -> tuple[WorkbookFigure, np.ndarray]:
    """Return a figure with its finding on top, and its axes as a (rows, columns) array.

    width, height: inches, height of the plotting area without title and note.  title: the finding.
    subtitle: what is drawn and what the intervals are.  note: small print at the bottom.
    """
    head = textwrap.wrap(title, int(width * 9.0))
    sub = textwrap.wrap(subtitle, int(width * 13.6))
    foot = textwrap.wrap(note, int(width * 14.6))
    top = 0.14 + 0.25 * len(head) + (0.05 + 0.185 * len(sub) if sub else 0.0) + 0.10
    bottom = 0.10 + 0.165 * len(foot) if foot else 0.04
    total = height + top + bottom
    figure = WorkbookFigure(figsize=(width, total), layout="constrained")
    plotted = (0.008, bottom / total, 0.984, height / total)
    figure.get_layout_engine().set(rect=plotted, w_pad=0.06, h_pad=0.05)
    text = figure.suptitle("\n".join(head), x=0.012, y=1 - 0.12 / total, ha="left", va="top",
                           fontsize=13, fontweight="bold", color=INK, linespacing=1.25)
    text.set_in_layout(False)
    if sub:
        y = 1 - (0.14 + 0.25 * len(head) + 0.05) / total
        figure.text(0.012, y, "\n".join(sub), ha="left", va="top", fontsize=9.5, color=GREY,
                    linespacing=1.3, gid="subtitle").set_in_layout(False)
    if foot:
        figure.text(0.012, 0.06 / total, "\n".join(foot), ha="left", va="bottom", fontsize=8.5, color=GREY,
                    linespacing=1.3, gid="note").set_in_layout(False)
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def whisker(
    axes: Axes, x: float, y: float, low: float, high: float, color: str, *, filled: bool = True,
    marker: str = "o", size: float = 7.0,
) -> None:
    """Draw one value with its interval: a thin bar and a marker, hollow when asked."""
    if math.isfinite(low) and math.isfinite(high):
        axes.plot([low, high], [y, y], color=color, lw=2.2, alpha=0.55, zorder=2)
    axes.plot([x], [y], marker=marker, ms=size, color=color, mec=color, mew=1.6,
              mfc=color if filled else "white", ls="none", zorder=3)


def quiet(axes: Axes, grid: str = "x") -> None:
    """Keep only the grid lines that help reading values along ``grid``; drop the category spine."""
    axes.grid(False)
    axes.grid(True, axis=grid)
    axes.spines["left" if grid == "x" else "bottom"].set_visible(grid != "x")
    axes.tick_params(axis="y" if grid == "x" else "x", length=0)


def plain(name: str, capital: bool = True) -> str:
    """Return a column's name in words: ``golden_in_useful`` becomes "Golden in useful", ``forced_em`` "Forced EM".

    capital: whether it begins with a capital letter, as a label does and a word inside a sentence does not.
    """
    words = [METRIC_LABELS.get(word, word) for word in str(name).replace("_", " ").split()]
    text = " ".join(words)
    return text[:1].upper() + text[1:] if capital else text


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share of n tries."""
    from scipy.stats import binomtest  # here, because importing it takes longer than drawing a figure

    bounds = binomtest(round(share * n), int(n)).proportion_ci(method="wilson")
    return float(bounds.low), float(bounds.high)


def count_span(counts: pd.Series) -> str:
    """Return "400", or "125 to 150" when the counts differ."""
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def usd(amount: float) -> str:
    """Return an amount of dollars as one would say it: $587, $17.70, $0.0123."""
    if abs(amount) >= 100:
        return f"${amount:,.0f}"
    if abs(amount) >= 0.995 or amount == 0:
        return f"${amount:,.2f}"
    digits = max(2, 1 - math.floor(math.log10(abs(amount))))
    return f"${amount:.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share in [0, 1] in per cent, e.g. "87.9 %"."""
    return f"{share * 100:.{digits}f} %"


def usd_tick(amount: float, _: int = 0) -> str:
    """Return an amount for an axis of dollars: $1,000, $10, $0.1."""
    return f"${amount:,.0f}" if amount >= 1 else f"${amount:g}"


def png_bytes(figure: Figure, dpi: int = DPI) -> bytes:
    """Return the figure as PNG, its title and small print in the file's own metadata."""
    texts = [text.get_text().replace("\n", " ") for text in figure.texts if text.get_gid()]
    metadata = {"Title": figure.get_suptitle().replace("\n", " "), "Description": " ".join(texts),
                "Author": "ZeroSearch Workbook", "Software": f"matplotlib {matplotlib.__version__}"}
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format="png", dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def save(figure: Figure, path: str | Path, dpi: int = DPI) -> Path:
    """Write the figure to ``path`` (PNG, complete or not at all) and return the path.

    dpi: dots an inch; the default gives about 1,450 pixels, twice the width of a README.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise WorkbookError(f"figure file: expected a name ending in .png, found {path.name!r}; "
                            f"save it as {path.with_suffix('.png').name!r}")
    write_atomic(path, png_bytes(figure, dpi))
    return path
