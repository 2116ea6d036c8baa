"""The figures of the appendix on statistics: what is drawn, what is said, and text that fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from zerosearch import figures
from zerosearch.errors import WorkbookError
from zerosearch.figures import style

DRAWS = pd.DataFrame(  # two ways of drawing the same: far apart, or always alike
    [("Score of A", "wide", value) for value in (0.0, 1.0)] + [("Score of A", "narrow", 0.5)] * 2
    + [("A minus B", "apart", value) for value in (-0.5, 0.5)]
    + [("A minus B", "paired", value) for value in (0.25, 0.25)],
    columns=["what", "drawn", "value"])
REPORT = pd.DataFrame(
    [("many", 0.05, 0.03, 0.07, 1e-6, 0.029, "better"), ("few", -0.06, -0.17, 0.05, 0.39, 0.163, "undecided"),
     ("equal", 0.005, -0.008, 0.018, 0.55, 0.019, "matches (within 2 points)"),
     ("other way", -0.12, -0.2, -0.05, 0.004, 0.11, "worse")],
    columns=["label", "difference", "low", "high", "p_holm", "detectable", "verdict"])
LINES = pd.DataFrame(
    [(name, share, scale * np.sqrt(share)) for name, scale in (("as published", 0.065), ("500 each", 0.05))
     for share in (0.01, 0.04, 0.09, 0.16, 0.25)], columns=["questions", "disagreement", "detectable"])
DRAWN = {
    "resampled_means": lambda: figures.resampled_means(DRAWS),
    "verdict_intervals": lambda: figures.verdict_intervals(REPORT, 0.02),
    "detectable_gap": lambda: figures.detectable_gap(LINES, 0.0166, 0.2),
}
EMPTY = {
    "resampled_means": lambda: figures.resampled_means(DRAWS.iloc[:0]),
    "verdict_intervals": lambda: figures.verdict_intervals(REPORT.drop(columns="label"), 0.02),
    "detectable_gap": lambda: figures.detectable_gap(LINES.iloc[:0], 0.0166, 0.2),
}


def _said(figure):
    return figure.get_suptitle().replace("\n", " ")


@pytest.mark.parametrize("name", DRAWN)
def test_all_text_fits(name):
    figure = DRAWN[name]()
    canvas, box = FigureCanvasAgg(figure), figure.bbox
    canvas.draw()
    texts = [*figure.texts, figure._suptitle, *(text for axes in figure.axes for text in axes.texts)]
    texts += [part for axes in figure.axes for part in (axes.xaxis.label, axes.yaxis.label, axes.title)]
    extents = [text.get_window_extent(canvas.get_renderer()) for text in texts if text.get_text()]
    assert all(e.x0 >= -2 and e.y0 >= -2 and e.x1 <= box.x1 + 2 and e.y1 <= box.y1 + 2 for e in extents)
    assert all("(" in axes.get_xlabel() for axes in figure.axes), "units"


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_or_incomplete_table_is_a_readable_error(name):
    with pytest.raises(WorkbookError, match=r"^figure \w+: expected .*, found .*; run notebooks/A2_statistics.ipynb"):
        EMPTY[name]()


def test_draws_are_shares_and_what_the_interval_leaves_out_is_pale():
    many = pd.DataFrame({"what": "x", "drawn": "y", "value": [0.0] + [0.5] * 98 + [1.0]})
    (axes,) = figures.resampled_means(many).axes
    (bars,) = axes.collections
    assert [segment[1].tolist() for segment in bars.get_segments()] == [[0.0, 0.01], [0.5, 0.98], [1.0, 0.01]]
    pale, coloured = style.LIGHT.lower(), style.BLUE.lower()
    assert [to_hex(color) for color in bars.get_colors()] == [pale, coloured, pale]
    assert axes.get_title(loc="left") == "x, y: 0.5 to 0.5"


def test_ways_of_drawing_stand_side_by_side_and_the_title_tells_their_widths():
    figure = figures.resampled_means(DRAWS)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Score of A, wide: 0.025 to 0.975", "Score of A, narrow: 0.5 to 0.5",
                      "A minus B, apart: −0.475 to 0.475", "A minus B, paired: 0.25 to 0.25"]
    assert [axes.get_xlabel() for axes in figure.axes[1:3]] == ["Score of A (0 to 1)", "A minus B (−1 to 1)"]
    assert _said(figure).endswith("Width of the interval: 0.95 wide, 0.00 narrow; 0.95 apart, 0.00 paired")
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim() != figure.axes[2].get_xlim()


def test_verdicts_stand_beside_their_intervals_in_points():
    figure = figures.verdict_intervals(REPORT, 0.02)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(REPORT["label"])
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2.2]
    assert np.array(bars) == pytest.approx(100 * REPORT[["low", "high"]].to_numpy())
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["better", "< 0.001", "2.9"] and texts[3:6] == ["undecided", "0.390", "16.3"]
    shaded = axes.patches[0].get_window_extent().transformed(axes.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((-2, 2))
    assert _said(figure) == "Size is not enough: a difference of 6.0 points stays undecided, one of 5.0 does not"


def test_verdicts_without_that_lesson_are_counted():
    figure = figures.verdict_intervals(REPORT[REPORT["label"].isin(["many", "equal"])], 0.02)
    assert _said(figure) == "Verdicts: 1 better, 1 matches"


def test_the_gap_is_found_where_the_first_curve_runs_below_it():
    """0.065 times the root of the share is below 0.0166 up to 6.5 %: of the shares drawn, 4 % is the last one."""
    figure = figures.detectable_gap(LINES, 0.0166, 0.2)
    (axes,) = figure.axes
    assert _said(figure).replace("\xa0", " ") == (
        "A gap of 1.7 points would be found four times in five only if the two disagree on 4.0 % of the questions "
        "or fewer")
    curve = axes.lines[0].get_xydata()
    assert curve[1].tolist() == pytest.approx([0.04, 1.3])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["as published", "500 each"]
    assert "Published gap, not measured here" in " ".join(text.get_text() for text in figure.texts)
    assert "at no disagreement" in _said(figures.detectable_gap(LINES, 0.001, 0.2))


def test_the_order_of_the_rows_changes_no_curve():
    first, second = (figures.detectable_gap(t, 0.0166, 0.2) for t in (LINES, LINES.iloc[::-1]))
    curves = [{line.get_label(): line.get_xydata().tolist() for line in f.axes[0].lines[:2]} for f in (first, second)]
    assert curves[0] == curves[1]
