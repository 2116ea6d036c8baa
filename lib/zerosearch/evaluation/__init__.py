"""Evaluation with the real engine: methods produce predictions, the runner stores and counts them,
statistics turns them into scores with intervals.

    methods/       who answers: direct, cot, rag, search ..., and trained policies; template.py for your own
    runner.py      every question exactly once per method and seed, decoding settings in every row
    conditions.py  the engines of other searches: homonyms, corrupted, random, empty, a later world
    robustness.py  the same policies under these conditions
    statistics.py  bootstrap intervals over questions and seeds, and paired comparisons
    qa_metric/     EM, cover EM and F1 as one local module of the ``evaluate`` library
"""

from __future__ import annotations

from pathlib import Path

QA_METRIC = Path(__file__).parent / "qa_metric"
"""Folder to hand to ``evaluate.load(str(QA_METRIC))``; works without a network."""
