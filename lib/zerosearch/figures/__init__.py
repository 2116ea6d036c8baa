"""Every figure of the workbook: a tidy table goes in, a matplotlib Figure comes out.

A figure's title states what its table shows, axes carry units, intervals are drawn and named, and
an empty or incomplete table ends in a ``WorkbookError`` that says which stage writes it.  Nothing
here reads a file or computes a score; ``save`` writes a PNG, complete or not at all.
"""

from zerosearch.figures.behaviour import efficiency, outcomes, pass_curves, search_calibration
from zerosearch.figures.instrument import ability_gate, question_path, sentinel_gap
from zerosearch.figures.kernel_lessons import loss_memory, loss_times, step_times
from zerosearch.figures.learning import curriculum_curves, reward_curve, training_panels
from zerosearch.figures.money import break_even, cost_bars, stage_times
from zerosearch.figures.scores import (
    average_scores, headline, published_beside_ours, scores_by_condition, scores_by_dataset, searches_histogram,
)
from zerosearch.figures.simulation import label_stats, simulator_quality
from zerosearch.figures.statistics_lessons import detectable_gap, resampled_means, verdict_intervals
from zerosearch.figures.style import METRIC_LABELS, WorkbookFigure, look, percent, png_bytes, save
from zerosearch.figures.waiting import rollout_speed, waiting
from zerosearch.figures.world import ability_card, retrieval_recall, world_graph

__all__ = [
    "METRIC_LABELS", "WorkbookFigure", "ability_card", "ability_gate", "average_scores", "break_even", "cost_bars",
    "curriculum_curves", "detectable_gap", "efficiency", "headline", "label_stats", "look", "loss_memory",
    "loss_times", "outcomes", "pass_curves",
    "percent", "png_bytes", "published_beside_ours", "question_path", "resampled_means", "retrieval_recall",
    "reward_curve", "rollout_speed", "save", "scores_by_condition", "scores_by_dataset", "search_calibration", "searches_histogram",
    "sentinel_gap", "simulator_quality", "stage_times", "step_times", "training_panels", "verdict_intervals", "waiting",
    "world_graph",
]
