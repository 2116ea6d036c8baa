"""Every figure on a small hand-made table: what is drawn, how it is labelled, how it is saved."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import small_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from zerosearch import artifacts, figures, published, published_costs
from zerosearch.curriculum import Curriculum
from zerosearch.errors import WorkbookError
from zerosearch.figures import style
from zerosearch.figures.learning import running
from zerosearch.prices import PriceBook

BOOK = PriceBook.load(artifacts.REPO / "data" / "prices.yaml")
PUBLISHED = published.main_results()
SCORES, METRICS = small_run.score_rows(), small_run.metric_rows()
OPTIONS = published_costs.as_options(published_costs.published_costs(BOOK))
EDGES = pd.DataFrame(
    [("Ada Reed", "directed", "Grey Harp", "person", "film"),
     ("Grey Harp", "made_in", "Oldford", "film", "town")],
    columns=["source", "relation", "target", "source_kind", "target_kind"])
SCHEDULE = Curriculum(0, 0.5, 100).schedule()
CURVES = pd.DataFrame({"curve": "rising", "step": range(1, 101), "noise_probability": SCHEDULE})
LABELS = pd.DataFrame([("judge", "useful", 30, 0.3), ("judge", "misleading", 70, 0.7),
                       ("trajectory", "useful", 10, 0.1), ("trajectory", "misleading", 90, 0.9)],
                      columns=["label_kind", "label", "n", "share"])
QUALITY = pd.DataFrame([(w, k, m, v, 50, v - 0.05, v + 0.05) for k in ("useful", "misleading")
                        for m, b, a in (("golden_present", 0.2, 0.8), ("style_distance", 2.0, 1.5))
                        for w, v in (("before", b), ("after", a))],
                       columns=["when", "kind", "metric", "value", "n", "low", "high"])
CARD = pd.DataFrame([("policy", "copies_from_passage", 0.9, 200), ("simulator", "states_the_note", 0.3, 200)],
                    columns=["model", "ability", "value", "n"])
RECALL = pd.DataFrame([("nq", 0.9, 40), ("musique", 0.1, 40)], columns=["dataset", "recall", "n"])
TRIED = pd.DataFrame(
    [(method, 3, name, "em", level - fall * i, 140, level - fall * i - 0.08, level - fall * i + 0.05)
     for method, level, fall in (("forced", 0.2, 0.05), ("zerosearch", 0.8, 0.2), ("my-arm", 0.6, 0.1))
     for i, name in enumerate(("clean", "corrupt-0.5", "later"))],
    columns=["method", "seeds", "condition", "metric", "value", "n", "low", "high"])
SENTINELS = pd.DataFrame(
    [("notices every miss", "clean", 0.99), ("notices every miss", "corrupt-0.5", 0.8),
     ("notices no miss", "clean", 0.98), ("notices no miss", "corrupt-0.5", 0.3)],
    columns=["sentinel", "condition", "em"])
GATE = pd.DataFrame([("copies_from_passage", 0.9, 1.0)], columns=["ability", "least", "most"])
GAP = SENTINELS.assign(low=SENTINELS["em"] - 0.05, high=SENTINELS["em"] + 0.01, n=300)
PATH = pd.DataFrame([("director of Grey Harp", 1, "Grey Harp had as star Bo Ek.", "other_relation"),
                     ("director of Grey Harp", 2, "Grey Harp had as director Ada Reed.", "fact")],
                    columns=["query", "rank", "text", "kind"])
SEARCHES = pd.DataFrame({"method": ["direct"] * 4 + ["zerosearch"] * 4,
                         "n_searches": [0, 0, 0, 0, 1, 2, 2, 3]})
SPANS = pd.DataFrame(
    [("turn-synchronous", 0, "write", 0.0, 1.0), ("turn-synchronous", 0, "search", 1.0, 2.0),
     ("turn-synchronous", 0, "write", 4.0, 5.0), ("turn-synchronous", 1, "search", 1.0, 4.0),
     ("asynchronous", 0, "write", 0.0, 1.0), ("asynchronous", 0, "search", 1.0, 3.0)],
    columns=["loop", "trajectory", "doing", "start", "end"])
SPEEDS = pd.DataFrame(
    [("asynchronous", 0.0, 70.0, 1.0), ("synchronous, 10 threads", 0.0, 70.0, 1.0),
     ("asynchronous", 0.3, 63.0, 4.5), ("synchronous, 10 threads", 0.3, 14.0, 1.0)],
    columns=["loop", "median_latency_seconds", "trajectories_per_second", "ratio"])
STEPS = pd.DataFrame(
    [("micro/a", "TRL as shipped", 0.0, 3.0, 1.0), ("micro/a", "+ packed", 0.0, 1.0, 3.0),
     ("micro/a", "TRL as shipped", 0.1, 4.0, 1.0), ("micro/a", "+ packed", 0.1, 2.0, 2.0),
     ("micro/a", "TRL with liger-kernel", 0.0, np.nan, np.nan)],
    columns=["model", "way", "kl_weight", "median_seconds", "ratio"],
).assign(tokens=5_000, padding_share=0.4, policy_share=0.35)
MANIFESTS = [dict(stage="00_micro_world", arm=None, seed=None, wall_seconds=60.0, peak_rss_mib=512.0),
             dict(stage="03_rl", arm="zerosearch", seed=1, wall_seconds=120.0, peak_rss_mib=2048.0)]
LINES = published_costs.published_lines(BOOK)

DRAWN = {
    "scores_by_dataset": lambda: figures.scores_by_dataset(SCORES),
    "published_beside_ours": lambda: figures.published_beside_ours(SCORES, PUBLISHED),
    "scores_by_condition": lambda: figures.scores_by_condition(TRIED, SENTINELS),
    "searches_histogram": lambda: figures.searches_histogram(SEARCHES),
    "headline": lambda: figures.headline(SCORES, OPTIONS),
    "reward_curve": lambda: figures.reward_curve(METRICS),
    "training_panels": lambda: figures.training_panels(METRICS),
    "curriculum_curves": lambda: figures.curriculum_curves(CURVES),
    "label_stats": lambda: figures.label_stats(LABELS),
    "simulator_quality": lambda: figures.simulator_quality(QUALITY),
    "cost_bars": lambda: figures.cost_bars(OPTIONS),
    "break_even": lambda: figures.break_even(LINES, run_queries=64_000),
    "world_graph": lambda: figures.world_graph(EDGES, highlight=["Ada Reed", "Grey Harp"]),
    "retrieval_recall": lambda: figures.retrieval_recall(RECALL),
    "ability_card": lambda: figures.ability_card(CARD),
    "ability_gate": lambda: figures.ability_gate(CARD, GATE),
    "sentinel_gap": lambda: figures.sentinel_gap(GAP),
    "question_path": lambda: figures.question_path("Who directed Grey Harp?", PATH),
    "stage_times": lambda: figures.stage_times(MANIFESTS),
    "waiting": lambda: figures.waiting(SPANS),
    "rollout_speed": lambda: figures.rollout_speed(SPEEDS),
    "step_times": lambda: figures.step_times(STEPS),
}
EMPTY = {
    "scores_by_dataset": lambda: figures.scores_by_dataset(SCORES.iloc[:0]),
    "scores_by_dataset, other metric": lambda: figures.scores_by_dataset(SCORES, metric="f1"),
    "published_beside_ours": lambda: figures.published_beside_ours(SCORES, PUBLISHED, policy="GPT"),
    "scores_by_condition": lambda: figures.scores_by_condition(TRIED.assign(metric="past")),
    "searches_histogram": lambda: figures.searches_histogram(SEARCHES.query("method == 'direct'")),
    "headline": lambda: figures.headline(SCORES, OPTIONS.iloc[:0]),
    "reward_curve": lambda: figures.reward_curve(METRICS.drop(columns="reward_mean")),
    "training_panels": lambda: figures.training_panels(METRICS.iloc[:0]),
    "curriculum_curves": lambda: figures.curriculum_curves(CURVES.iloc[:0]),
    "label_stats": lambda: figures.label_stats(LABELS.iloc[:0]),
    "simulator_quality": lambda: figures.simulator_quality(QUALITY.iloc[:0]),
    "cost_bars": lambda: figures.cost_bars(OPTIONS.iloc[:0]),
    "break_even": lambda: figures.break_even(LINES.iloc[:0]),
    "world_graph": lambda: figures.world_graph(EDGES.iloc[:0]),
    "retrieval_recall": lambda: figures.retrieval_recall(RECALL.iloc[:0]),
    "ability_card": lambda: figures.ability_card(CARD.iloc[:0]),
    "ability_gate": lambda: figures.ability_gate(CARD, GATE.iloc[:0]),
    "sentinel_gap": lambda: figures.sentinel_gap(GAP.iloc[:0]),
    "question_path": lambda: figures.question_path("Who directed Grey Harp?", PATH.iloc[:0]),
    "stage_times": lambda: figures.stage_times([]),
    "waiting": lambda: figures.waiting(SPANS.iloc[:0]),
    "rollout_speed": lambda: figures.rollout_speed(SPEEDS.iloc[:0]),
}


def _visible(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def _markers(axes, color):
    """Return (x, y) of all markers of a colour."""
    lines = [line for line in axes.lines if line.get_marker() != "None" and len(line.get_xdata())]
    own = [line for line in lines if to_rgb(line.get_color()) == to_rgb(color)]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in own]


def test_every_figure_function_is_drawn_here():
    functions = {name for name in figures.__all__ if callable(getattr(figures, name))}
    helpers = {"WorkbookFigure", "average_scores", "look", "percent", "png_bytes", "save"}
    behaviour = {"efficiency", "outcomes", "pass_curves", "search_calibration"}  # drawn in test_figures_behaviour
    lessons = {"detectable_gap", "resampled_means", "verdict_intervals"}  # in test_figures_lessons
    kernels = {"loss_memory", "loss_times"}  # in test_kernels_appendix
    assert functions - helpers - behaviour - lessons - kernels == set(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_title_labels_and_text_fit_the_figure(name):
    figure = DRAWN[name]()
    assert len(figure.get_suptitle()) > 15
    if name not in ("world_graph", "question_path"):  # these have no axes
        labels = " ".join(axes.get_xlabel() + axes.get_ylabel() for axes in _visible(figure))
        assert re.search(r"\(.+\)|step|per ", labels), labels
        bottom = [axes for axes in _visible(figure) if axes.get_subplotspec().is_last_row()]
        assert all(axes.get_xlabel() for axes in bottom)
    canvas, box = FigureCanvasAgg(figure), figure.bbox
    canvas.draw()
    for text in [*figure.texts, figure._suptitle, *(t for axes in _visible(figure) for t in axes.texts)]:
        extent = text.get_window_extent(canvas.get_renderer())
        assert extent.x0 >= -2 and extent.x1 <= box.x1 + 2 and extent.y1 <= box.y1 + 2, text.get_text()


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_or_incomplete_table_is_a_readable_error(name):
    with pytest.raises(WorkbookError, match=r"^figure \w+.*: expected .*, found .*; run stage 0\d first"):
        EMPTY[name]()


def test_the_speed_of_our_loop_is_told_against_the_published_one():
    figure = figures.rollout_speed(SPEEDS)
    assert "published loop: 1 times at 0 s, 4.5 times at 0.3 s" in figure.get_suptitle().replace("\n", " ")
    names = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert names == {"asynchronous", "synchronous, 10 threads"}


def test_the_speed_of_a_step_is_told_against_trl():
    figure = figures.step_times(STEPS)
    assert "2.0 to 3.0 times as fast as TRL's trainer" in figure.get_suptitle().replace("\n", " ")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1.00", "3.00", "1.00", "2.00"] and len(axes.patches) == 4
    with pytest.raises(WorkbookError, match="found an empty table; run .*policy_step.py"):
        figures.step_times(STEPS.iloc[4:])


def test_waiting_is_what_lies_between_the_spans():
    # trajectory 0 is busy 3 of 5 s, trajectory 1 all of its 3 s: 2 of 8 s are waiting
    figure = figures.waiting(SPANS)
    assert "turn-synchronous 5.0 s (25% waiting), asynchronous 3.0 s (0% waiting)" in figure.get_suptitle().replace("\n", " ").replace(" %", "%")
    assert [len(axes.patches) for axes in figure.axes] == [4, 2]


def test_scores_are_drawn_where_they_belong():
    figure = figures.scores_by_dataset(SCORES)
    panels = {axes.get_title(loc="left"): axes for axes in _visible(figure)}
    assert list(panels) == list(style.DATASET_LABELS.values())
    names = [label.get_text() for label in panels["NQ"].get_yticklabels()]
    assert names == [style.LOOKS[m].label for m in ("direct", "search", "search-r1", "zerosearch")]
    assert _markers(panels["PopQA"], style.LOOKS["zerosearch"].color) == [(0.70, 3)]
    intervals = [tuple(line.get_xdata()) for line in panels["NQ"].lines if len(line.get_xdata()) == 2]
    assert (pytest.approx(0.65), pytest.approx(0.75)) in intervals
    assert "not clearly ahead of ZeroSearch" in figure.get_suptitle()


def test_average_is_over_sets_and_its_interval_combines_theirs():
    row = figures.average_scores(SCORES).set_index("method").loc["zerosearch"]
    assert row["value"] == pytest.approx(0.70) and row["n"] == 700
    assert row["high"] - row["value"] == pytest.approx(0.05 / np.sqrt(7))
    ready = pd.DataFrame([("zerosearch", "average", 0, "em", 0.5, 700, 0.4, 0.6)], columns=SCORES.columns)
    given = pd.concat([SCORES, ready])
    assert figures.average_scores(given).set_index("method").loc["zerosearch", "value"] == 0.5


def test_intervals_over_seeds_take_the_place_of_single_runs():
    twice = pd.concat([SCORES, SCORES.assign(seed=1, value=SCORES["value"] - 0.1)], ignore_index=True)
    averages = SCORES.drop(columns="seed").assign(seeds=2, value=SCORES["value"] - 0.05, low=0.11, high=0.97)
    averages = pd.concat([averages, averages[averages["dataset"] == "nq"].assign(dataset="average")], ignore_index=True)
    figure = figures.scores_by_dataset(twice, averages=averages)
    nq = next(axes for axes in _visible(figure) if axes.get_title(loc="left") == "NQ")
    drawn = {tuple(np.round(line.get_xdata(), 2).tolist()) for line in nq.lines if len(line.get_xdata()) == 2}
    single = {(0.02, -0.08), (0.04, -0.06), (0.72, 0.62), (0.70, 0.60)}
    assert drawn == {(0.11, 0.97)} | single, "one interval, single seeds as dots"
    row = figures.average_scores(averages).set_index("method").loc["zerosearch"]
    assert row[["value", "low", "high"]].tolist() == pytest.approx([0.65, 0.11, 0.97])
    assert figures.headline(averages, OPTIONS).get_suptitle().count("0.65") == 1


def test_conditions_are_a_line_each_and_the_later_world_stands_apart():
    figure = figures.scores_by_condition(TRIED, SENTINELS)
    (axes,) = figure.axes
    ticks = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    assert ticks == ["clean", "half corrupted", "later world"]
    own = [line for line in axes.lines if line.get_label() == "ZeroSearch, simulator"]
    assert own[0].get_xydata().tolist() == [[0.0, 0.8], [1.0, pytest.approx(0.6)]], "later is no point of the line"
    dashed = [line for line in axes.lines if str(line.get_label()).startswith("scripted")]
    assert [line.get_ydata().tolist() for line in dashed] == [[0.99, 0.8], [0.98, 0.3]]
    assert len(axes.collections) >= 3, "one band a method"
    said = figure.get_suptitle().replace("\n", " ")
    assert said == "From clean searches to half corrupted: EM ZeroSearch 0.80 to 0.60, my-arm 0.60 to 0.50"
    assert "questions and seeds" in figure.texts[-1].get_text().replace("\n", " ")
    alone = figures.scores_by_condition(TRIED[TRIED["condition"] != "clean"])
    assert "ZeroSearch 0.60" in alone.get_suptitle() and "Dashed" not in alone.texts[-1].get_text()


def test_published_values_are_hollow_without_interval_and_ours_are_filled():
    figure = figures.published_beside_ours(SCORES, PUBLISHED)
    ours, theirs = figure.axes
    assert ours.get_title(loc="left") == "Ours, measured" and "Published" in theirs.get_title(loc="left")
    hollow = [line for line in theirs.lines if line.get_marker() == "D" and len(line.get_xdata()) == 1]
    assert hollow and all(line.get_markerfacecolor() == "white" for line in hollow)
    assert not [line for line in theirs.lines if line.get_marker() == "None" and line.get_linewidth() > 2]
    assert theirs.get_facecolor() != ours.get_facecolor()
    blue = style.LOOKS["search-r1"].color
    assert 0.4060 in [round(x, 4) for x, _ in _markers(theirs, blue)]
    assert "72" in " ".join(text.get_text() for text in figure.texts)


def test_histogram_bars_are_shares_of_questions():
    figure = figures.searches_histogram(SEARCHES)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.0, 0.25, 0.5, 0.25]
    assert "2.0 times" in figure.get_suptitle() and "Direct answer" in figure.texts[-1].get_text()


def test_reward_curve_names_arms_and_tells_the_finding():
    figure = figures.reward_curve(METRICS)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["ZeroSearch, simulator", "Search-R1, real engine"]
    assert "0.20 to 0.40 (ZeroSearch)" in figure.get_suptitle().replace("\n", " ")


def test_running_mean_and_error_by_hand():
    means, errors = running(np.array([1.0, 2.0, 6.0]), 3)
    assert means.tolist() == [1.5, 3.0, 4.0]
    assert errors[1] == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))


def test_training_panels_show_plan_and_realised_noise_of_the_noisy_arm_only():
    figure = figures.training_panels(METRICS)
    noise = figure.axes[2]
    assert [text.get_text() for text in noise.get_legend().get_texts()] == ["planned", "realised share"]
    assert noise.lines[1].get_ydata().tolist() == pytest.approx([0.1, 0.2])
    quiet = figures.training_panels(METRICS.query("arm == 'search-r1'").assign(kl=None))
    assert "no noise in these runs" in [text.get_text() for text in quiet.axes[2].texts]


def test_scores_that_are_all_zero_have_no_leader():
    nobody = figures.scores_by_dataset(SCORES.assign(value=0.0, low=0.0, high=0.0))
    assert nobody.get_suptitle().replace("\n", " ") == "No method answers a question: average EM is 0.00 for all"
    assert "leads with" in figures.scores_by_dataset(SCORES).get_suptitle().replace("\n", " ")


def test_curriculum_title_gives_the_dose():
    figure = figures.curriculum_curves(CURVES)
    assert "ends at noise 0.50 but averages 0.197" in figure.get_suptitle()


def test_label_shares_stack_to_one():
    figure = figures.label_stats(LABELS)
    bars = figure.axes[0].patches
    assert sorted(round(bar.get_width(), 2) for bar in bars) == [0.1, 0.3, 0.7, 0.9]
    said = figure.get_suptitle().replace("\n", " ")
    assert said == "Labelled useful: 10 % by trajectory outcome, 30 % by judge per passage"


def test_quality_reports_the_share_that_moved_most_and_marks_other_scales():
    figure = figures.simulator_quality(QUALITY)
    assert "golden present" in figure.get_suptitle() and "0.20 → 0.80" in figure.get_suptitle()
    assert [axes.get_xlabel() for axes in _visible(figure)] == ["share (0 to 1)", "value"]


def test_quality_of_the_real_report_says_where_the_golden_answer_stands():
    said = figures.simulator_quality(QUALITY.replace("golden_present", "answer_present")).get_suptitle()
    assert "80 % of useful, 80 % of misleading" in said.replace("\n", " ")


def test_cost_bars_add_up_and_hatch_what_is_assumed():
    full = published_costs.full_costs(BOOK)
    figure = figures.cost_bars(full)
    widths = [bar for bar in figure.axes[0].patches if bar.get_width() > 0]
    assert sum(bar.get_width() for bar in widths) == pytest.approx(full["usd"].sum())
    assert sum(bar.get_hatch() is not None for bar in widths) == (full["basis"] == "assumption").sum()
    assert re.search(r"80\.9 % less", figure.get_suptitle())


def test_break_even_marks_every_crossing_on_logarithmic_axes():
    figure = figures.break_even(LINES, run_queries=64_000)
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in axes.texts] == ["1,931", "3,862", "7,724"]
    never = LINES.assign(break_even=np.inf)
    assert figures.break_even(never).get_suptitle() == "Simulating never gets cheaper at these prices"


def test_world_graph_names_every_entity_and_relation_and_is_the_same_every_time():
    first, second = (figures.world_graph(EDGES) for _ in range(2))
    words = {text.get_text() for text in first.axes[0].texts}
    assert {"Ada Reed", "Grey Harp", "Oldford", "directed", "made in"} <= words
    assert figures.png_bytes(first) == figures.png_bytes(second)


def test_ability_card_uses_wilson_intervals_when_the_table_has_none():
    axes = figures.ability_card(CARD).axes[0]
    low, high = style.wilson(0.9, 200)
    drawn = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert pytest.approx([low, high]) in drawn
    assert low == pytest.approx(0.8506, abs=1e-3) and high == pytest.approx(0.9343, abs=1e-3)


def test_stage_times_names_arms_and_sums_minutes():
    figure = figures.stage_times(MANIFESTS)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["00 micro world", "03 ZeroSearch, seed 1"]
    assert figure.get_suptitle() == "3.0 minutes in all, 2.0 GiB at most"


def test_headline_shows_scores_and_bills():
    figure = figures.headline(SCORES, OPTIONS)
    said = figure.get_suptitle().replace("\n", " ")
    assert said.endswith("EM 0.70; trained on the real engine 0.72, untrained 0.04")
    assert {"$587", "$70.80"} <= {text.get_text() for text in figure.axes[1].texts}


@pytest.mark.parametrize(("amount", "text"), [
    (586.67, "$587"), (17.7, "$17.70"), (0.0, "$0.00"), (0.0123, "$0.012"), (0.5, "$0.50"), (1301, "$1,301")])
def test_dollars_read_as_one_would_say_them(amount, text):
    assert style.usd(amount) == text


def test_save_writes_title_and_notes_into_the_png(tmp_path):
    figure = figures.published_beside_ours(SCORES, PUBLISHED)
    path = figures.save(figure, tmp_path / "a" / "b.png", dpi=80)
    with Image.open(path) as image:
        assert image.size[0] == pytest.approx(9.6 * 80, abs=1)
        assert image.info["Title"].startswith("ZeroSearch minus Search-R1")
        assert "arXiv 2505.04588" in image.info["Description"]
    assert [p.name for p in path.parent.iterdir()] == ["b.png"], "no temporary file is left"


def test_save_refuses_other_formats(tmp_path):
    with pytest.raises(WorkbookError, match="b.png"):
        figures.save(figures.label_stats(LABELS), tmp_path / "b.pdf")


def test_drawing_changes_no_global_state_and_ignores_the_callers_style():
    before = dict(matplotlib.rcParams)
    expected = figures.png_bytes(figures.label_stats(LABELS), dpi=60)
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert figures.png_bytes(figures.label_stats(LABELS), dpi=60) == expected


def test_a_figure_shows_itself_in_a_notebook():
    assert figures.label_stats(LABELS)._repr_png_().startswith(b"\x89PNG")


def test_looks_differ_in_colour_or_marker():
    looks = [(how.color, how.marker) for how in style.LOOKS.values()]
    assert len(set(looks)) == len(looks)
    assert figures.look("my-method", 3).label == "my-method"
