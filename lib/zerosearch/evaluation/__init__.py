"""Evaluation with the real engine: methods produce predictions, the runner stores and counts them,
statistics turns them into scores with intervals.

    methods/          who answers: direct, cot, rag, search ..., and trained policies; template.py for your own
    runner.py         every question exactly once per method and seed, decoding settings in every row
    kept.py           whole trajectories of a draw of the questions, for reading
    row_facts.py      columns of a row that no score shows: valid actions, searches needed, where it failed
    conditions.py     the engines of other searches: homonyms, corrupted, random, empty, a later world
    robustness.py     the same policies under these conditions
    blocks.py         predictions as paired values, refused where they are not paired
    resampling.py     bootstrap draws over questions and seeds
    statistics.py     scores with intervals over questions and seeds, and paired differences
    paired_tests.py   McNemar, sign flips, Welch over seeds, Holm
    precision.py      standard error, t interval, equivalence and detectable difference in closed form
    comparison.py     one report on pairs of methods, with verdicts in plain words
    subsets.py        what fewer questions would have said
    overlap.py        training questions that come back in the evaluation
    calibration.py    does a policy search when it must?
    sampling.py       several sampled answers to each question; pass_at_k.py estimates pass@k from them
    judge.py          a language model as a second judge; verdict_store.py keeps its verdicts, judged.py shows them
    recorded_runs.py  recorded Search-R1 runs, and why their scores differ from ours
    qa_metric/        EM, cover EM and F1 as one local module of the ``evaluate`` library
"""

from __future__ import annotations

from pathlib import Path

QA_METRIC = Path(__file__).parent / "qa_metric"
"""Folder to hand to ``evaluate.load(str(QA_METRIC))``; works without a network."""
