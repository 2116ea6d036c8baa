"""The figures of behaviour on small hand-made tables: what is drawn, what is said, and names that hide nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb

from zerosearch import figures
from zerosearch.errors import WorkbookError
from zerosearch.evaluation.calibration import CALIBRATION_COLUMNS
from zerosearch.evaluation.pass_at_k import PASS_COLUMNS
from zerosearch.evaluation.row_facts import OUTCOMES
from zerosearch.figures import behaviour, style

AVERAGES = pd.DataFrame(
    [(method, "average", 2, "em", value, 4, value - 0.1, value + 0.1)
     for method, value in (("direct", 0.2), ("search", 0.4), ("zerosearch", 0.7))],
    columns=["method", "dataset", "seeds", "metric", "value", "n", "low", "high"])
PREDICTIONS = pd.DataFrame(  # zerosearch: nq 1 and 10, hotpotqa 3 and 30 (two seeds of it); each set weighs the same
    [("direct", "nq", 0, 5), ("direct", "hotpotqa", 0, 5), ("search", "nq", 1, 20), ("search", "hotpotqa", 1, 20),
     ("zerosearch", "nq", 1, 10), ("zerosearch", "hotpotqa", 2, 20), ("zerosearch", "hotpotqa", 4, 40)],
    columns=["method", "dataset", "n_searches", "n_tokens"])
_NO = float("nan")
CALIBRATION = pd.DataFrame(
    [("search", "nq", "direct, same policy", 1, 9, 0.0, 0.0, 0.0, 0, 0, 1, 0, 1, "wilson", *[_NO] * 6),
     ("search", "all", "direct, same policy", 20, 180, 1.0, 0.9, -0.1, 1, 1, 1, 0.1, 1, "wilson", 0.84, 1.0, 0.85,
      0.94, -0.15, 0.07),
     ("cot", "all", "direct, same policy", 20, 180, 0.0, 0.0, 0.0, 0, 0, 1, 0.1, 1, "wilson", *[_NO] * 6),
     ("rejection", "all", "direct, untrained policy", 0, 1_200, _NO, 0.5, _NO, _NO, 1, _NO, 0.1, 3, "bootstrap",
      _NO, _NO, 0.2, 0.8, _NO, _NO),
     ("zerosearch", "all", "direct, untrained policy", 20, 180, 0.25, 0.95, 0.7, 1, 2, 1, 0.6, 3, "bootstrap",
      0.05, 0.65, 0.9, 0.98, 0.3, 0.9)],
    columns=CALIBRATION_COLUMNS)
_SHARES = {  # in the order of OUTCOMES
    ("direct", "nq"): (0.1, 0.0, 0.1, 0.0, 0.8, 0.0, 0.0), ("direct", "hotpotqa"): (0.3, 0.0, 0.1, 0.0, 0.6, 0.0, 0.0),
    ("zerosearch", "nq"): (0.6, 0.02, 0.0, 0.2, 0.0, 0.08, 0.1),
    ("zerosearch", "hotpotqa"): (0.5, 0.02, 0.0, 0.3, 0.0, 0.08, 0.1),
}
ENDS = pd.DataFrame([(*key, kind, round(50 * share), share) for key, shares in _SHARES.items()
                     for kind, share in zip(OUTCOMES, shares)], columns=["method", "dataset", "outcome", "n", "share"])
PASSES = pd.DataFrame(
    [(method, "average", 1, k, value, 140, value - 0.05, value + 0.05, 3)
     for method, values in (("search", (0.1, 0.15, 0.2)), ("zerosearch", (0.6, 0.7, 0.75)), ("untuned", (0.5, 0.72, 0.8)))
     for k, value in enumerate(values, 1)],
    columns=PASS_COLUMNS)
DRAWN = {
    "efficiency": lambda: figures.efficiency(AVERAGES, PREDICTIONS),
    "search_calibration": lambda: figures.search_calibration(CALIBRATION),
    "outcomes": lambda: figures.outcomes(ENDS),
    "pass_curves": lambda: figures.pass_curves(PASSES),
}
EMPTY = {
    "efficiency": lambda: figures.efficiency(AVERAGES.iloc[:0], PREDICTIONS),
    "efficiency, no tokens": lambda: figures.efficiency(AVERAGES, PREDICTIONS.drop(columns="n_tokens")),
    "efficiency, other methods": lambda: figures.efficiency(AVERAGES, PREDICTIONS.assign(method="other")),
    "search_calibration": lambda: figures.search_calibration(CALIBRATION.iloc[:0]),
    "search_calibration, sets only": lambda: figures.search_calibration(CALIBRATION.query("dataset == 'nq'")),
    "search_calibration, silent": lambda: figures.search_calibration(CALIBRATION.query("method == 'cot'")),
    "outcomes": lambda: figures.outcomes(ENDS.drop(columns="share")),
    "pass_curves": lambda: figures.pass_curves(PASSES.drop(columns="low")),
    "pass_curves, no samples": lambda: figures.pass_curves(PASSES.iloc[:0]),
}


def _said(figure):
    return figure.get_suptitle().replace("\n", " ")


def _small_print(figure):
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def _points(axes):
    """Return (x, y, filled) of all drawn markers, in their order."""
    lines = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    return [(*line.get_xydata()[0], line.get_markerfacecolor() != "white") for line in lines]


@pytest.mark.parametrize("name", DRAWN)
def test_all_text_fits_and_hides_no_other(name):
    figure = DRAWN[name]()
    canvas, box = FigureCanvasAgg(figure), figure.bbox
    canvas.draw()
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    parts = [*figure.texts, *legends, *(axes.xaxis.label for axes in figure.axes)]
    boxes = [part.get_window_extent(canvas.get_renderer()) for part in parts]
    inside = [text.get_window_extent() for axes in figure.axes for text in axes.texts if text.get_text()]
    assert all(b.x0 >= -2 and b.y0 >= -2 and b.x1 <= box.x1 + 2 and b.y1 <= box.y1 + 2 for b in [*boxes, *inside])
    assert not [pair for pair in combinations(boxes, 2) if pair[0].padded(-1).overlaps(pair[1].padded(-1))]


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_or_incomplete_table_is_a_readable_error(name):
    with pytest.raises(WorkbookError, match=r"^figure \w+.*: expected .*, found .*; run stage 04 first"):
        EMPTY[name]()


def test_efficiency_weighs_every_set_the_same_and_draws_intervals():
    figure = figures.efficiency(AVERAGES, PREDICTIONS)
    left, right = figure.axes
    assert _points(left) == [(0, 0.2, True), (1, 0.4, True), (2, 0.7, True)], "(1 + 3) / 2 searches, not 7 / 3"
    assert [x for x, _, _ in _points(right)] == [5, 20, 20]
    bars = [line.get_ydata() for line in right.lines if line.get_marker() in ("None", "")]
    assert np.array(bars) == pytest.approx(np.array([[0.1, 0.3], [0.3, 0.5], [0.6, 0.8]]))
    names = ["Direct answer", "Untrained, may search", "ZeroSearch"]
    assert [text.get_text() for text in left.texts if text.get_text()] == names
    assert _said(figure) == ("Highest EM: ZeroSearch 0.70 with 2.0 searches and 20 tokens a question; next "
                             "Untrained, may search 0.40 with 1.0 and 20")


def test_of_equal_methods_none_is_called_the_highest():
    equal = AVERAGES.assign(value=AVERAGES["value"].where(AVERAGES["method"] != "search", 0.7))
    assert _said(figures.efficiency(equal, PREDICTIONS)) == "Untrained, may search and ZeroSearch are equal at average EM 0.70"
    nobody = figures.efficiency(AVERAGES.assign(value=0.0, low=0.0, high=0.0), PREDICTIONS)
    assert _said(nobody) == "No method answers a question: average EM is 0.00 for all"


@pytest.mark.parametrize(("most", "scale"), [(100, "linear"), (101, "log")])
def test_the_axis_of_tokens_is_logarithmic_above_a_range_of_twenty(most, scale):
    longest = PREDICTIONS.assign(n_tokens=PREDICTIONS["n_tokens"].where(PREDICTIONS["method"] != "zerosearch", most))
    left, right = figures.efficiency(AVERAGES, longest).axes
    assert (left.get_xscale(), right.get_xscale()) == ("linear", scale)


def test_one_method_without_an_interval_or_a_token_is_drawn():
    one = AVERAGES.query("method == 'direct'").assign(low=_NO, high=_NO)
    figure = figures.efficiency(one, PREDICTIONS.assign(n_tokens=0))
    assert _points(figure.axes[1]) == [(0, 0.2, True)] and "next" not in _said(figure)


def test_twenty_crowded_names_hide_no_name_and_no_point():
    methods = [*style.LOOKS, *(f"an-arm-of-mine-{i}" for i in range(20 - len(style.LOOKS)))]
    values = 0.3 + 0.05 * np.cos(np.arange(20))
    averages = pd.DataFrame({"method": methods, "dataset": "average", "metric": "em", "value": values, "n": 9,
                             "low": values - 0.1, "high": values + 0.1})
    spent = pd.DataFrame({"method": methods, "dataset": "nq", "n_searches": [0, 3] * 10, "n_tokens": [50, 55] * 10})
    figure = figures.efficiency(averages, spent)
    FigureCanvasAgg(figure).draw()
    for axes, column in zip(figure.axes, ("n_searches", "n_tokens")):
        names = [text for text in axes.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in names]
        assert len(names) == 20
        assert not [1 for one, two in combinations(boxes, 2) if one.overlaps(two)]
        points = axes.transData.transform(np.stack([spent[column], values], axis=1))
        assert not [1 for box in boxes for point in points if box.contains(*point)]


def test_calibration_draws_known_hollow_unknown_filled_and_counts_questions():
    figure = figures.search_calibration(CALIBRATION)
    (axes,) = figure.axes
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["A perfect policy", *(style.LOOKS[m].label for m in ("search", "rejection", "zerosearch"))]
    drawn = [(x, round(y), filled) for x, y, filled in _points(axes)]
    assert drawn == [(0, 0, False), (1, 0, True), (1, 1, False), (0.9, 1, True), (0.5, 2, True),
                     (0.25, 3, False), (0.95, 3, True)], "no dot where there is no known question"
    intervals = [list(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 2.2]
    assert intervals == [[0.0, 0.0], [1.0, 1.0], [0.84, 1.0], [0.85, 0.94], [0.2, 0.8], [0.05, 0.65], [0.9, 0.98]]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["20 / 180", "0 / 1,200", "20 / 180", "questions\nknown / not"]


def test_calibration_says_who_tells_best_who_is_silent_and_who_was_asked():
    figure = figures.search_calibration(CALIBRATION)
    assert _said(figure) == ("Tells best when to search: ZeroSearch, for 95 % of what it does not know and 25 % of "
                             "what it does")
    assert "Never searching: Chain of thought." in _small_print(figure)
    assert "For Rejection sampling, ZeroSearch the untrained policy was asked." in _small_print(figure)
    mixed = "seeds and questions, of the questions alone (Wilson) after a single training and for shares of 0 or 1."
    assert mixed in _small_print(figure)
    trained = CALIBRATION.query("seeds == 3")
    own = _small_print(figures.search_calibration(trained))
    assert "95 % interval of training seeds and questions." in own and "Wilson" not in own
    assert mixed in _small_print(figures.search_calibration(trained.assign(searched_unknown=1.0)))
    always = CALIBRATION.query("method == 'search'")
    assert "95 % interval (Wilson)." in _small_print(figures.search_calibration(always))
    assert _said(figures.search_calibration(always)).startswith("No method searches more often where it must")


def test_calibration_without_questions_of_one_kind_compares_nothing():
    one = CALIBRATION.query("method == 'search'")
    none_known = one.assign(n_known=0, searched_known=_NO, known_low=_NO, known_high=_NO)
    said = "Nothing to compare: no question is answered right without a search"
    assert _said(figures.search_calibration(none_known)) == said
    all_known = one.assign(n_unknown=0, searched_unknown=_NO, unknown_low=_NO, unknown_high=_NO)
    said = "Nothing to compare: every question is answered right without a search"
    assert _said(figures.search_calibration(all_known)) == said


def test_outcomes_without_a_right_answer_name_no_best_method():
    wrong = ENDS.assign(share=ENDS["share"].where(ENDS["outcome"] != OUTCOMES[0], 0.0))
    assert _said(figures.outcomes(wrong)) == "No method answers any question right"


def test_outcomes_stack_to_one_in_a_fixed_order_and_weigh_sets_the_same():
    figure = figures.outcomes(ENDS)
    (axes,) = figure.axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == list(behaviour.OUTCOME_LOOKS) and set(legend) == set(OUTCOMES)
    bars = np.array([(bar.get_x(), bar.get_width()) for bar in axes.patches]).reshape(len(OUTCOMES), 2, 2)
    assert bars[:, :, 1].sum(axis=0) == pytest.approx([1, 1])
    assert bars[0, :, 1] == pytest.approx([0.2, 0.55]), "the mean of both sets"
    assert bars[1:, :, 0] == pytest.approx(bars[:-1].sum(axis=2)), "each begins where the one before ends"
    assert _said(figure) == "ZeroSearch: 55 % right; it fails most by misreading a passage that has the answer (25 %)"
    assert "n = 100 a method" in _small_print(figure)


def test_only_segments_above_six_per_cent_carry_their_number_and_it_can_be_read():
    (axes,) = figures.outcomes(ENDS).axes
    written = sorted(text.get_text() for text in axes.texts)
    assert written == sorted(["20 %", "55 %", "70 %", "10 %", "25 %", "8 %", "10 %"])
    on = {text.get_text(): text.get_color() for text in axes.texts}
    assert on["20 %"] == "white" and on["70 %"] == style.INK, "white on green, ink on light grey"


def test_the_order_of_the_table_changes_nothing():
    shuffled = ENDS.sample(frac=1, random_state=0)
    first, second = figures.outcomes(ENDS), figures.outcomes(shuffled)
    assert [bar.get_width() for bar in first.axes[0].patches] == [bar.get_width() for bar in second.axes[0].patches]


def test_all_right_has_no_failure_to_name():
    perfect = pd.DataFrame([("zerosearch", "nq", "right", 10, 1.0)], columns=ENDS.columns)
    assert _said(figures.outcomes(perfect)) == "ZeroSearch: 100 % right"


def test_pass_curves_draw_every_k_with_its_interval():
    figure = figures.pass_curves(PASSES)
    (axes,) = figure.axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert curves["ZeroSearch"] == [[1, 0.6], [2, 0.7], [3, 0.75]] and len(curves) == 3
    bands = [band.get_datalim(axes.transData).intervaly.tolist() for band in axes.collections]
    assert any(band == pytest.approx([0.55, 0.8]) for band in bands)
    assert _said(figure) == "ZeroSearch: 60 % right with one try, 75 % with 3; untrained policy: 10 % and 20 %"


def test_pass_curves_of_many_methods_draw_the_best_and_say_so():
    many = pd.concat([PASSES[PASSES["method"] == "search"].assign(method=f"own {i}", value=i / 20) for i in range(10)])
    figure = figures.pass_curves(many)
    assert [line.get_label() for line in figure.axes[0].lines] == [f"own {i}" for i in (9, 8, 7, 6, 5, 4, 3, 2)]
    assert "The best 8 of 10 methods are drawn." in _small_print(figure)


def test_outcomes_are_told_apart_by_colour():
    assert set(behaviour.OUTCOME_LOOKS) == set(OUTCOMES)
    colors = [to_hex(to_rgb(color)) for color, _ in behaviour.OUTCOME_LOOKS.values()]
    assert len(set(colors)) == len(OUTCOMES)


def test_metrics_keep_their_spelling_in_the_ability_card():
    card = pd.DataFrame([("forced_em", 0.1, 200), ("valid_query", 0.9, 200)], columns=["ability", "value", "n"])
    figure = figures.ability_card(card)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Forced EM", "Valid query"]
    assert _said(figure) == "Strongest: valid query (0.90); weakest: forced EM (0.10)"
    gate = pd.DataFrame([("forced_em", 0.0, 0.25)], columns=["ability", "least", "most"])
    gated = figures.ability_gate(card.assign(model="policy"), gate)
    assert [label.get_text() for label in gated.axes[0].get_yticklabels()] == ["Forced EM"]
