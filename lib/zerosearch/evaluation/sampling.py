"""Several answers to each question, sampled: for pass@k, beside the greedy ones of the headline.

Each sample is drawn under a run seed of its own, which stands in its row with the temperature, and is
evaluated like any other run: batch by batch, resumable, every question exactly once.  Called by notebook 04.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Sequence

import pandas as pd

from zerosearch import seeds
from zerosearch.errors import ConfigError
from zerosearch.evaluation import runner
from zerosearch.evaluation.methods import Method
from zerosearch.parts import EventLog
from zerosearch.schema import Question


def evaluate_samples(
    methods: Sequence[Method], questions: Sequence[Question], n_samples: int, temperature: float, parts: Path,
    batch_size: int = 256, ledger: EventLog | None = None, on_progress: runner.Progress | None = None,
) -> pd.DataFrame:
    """Return rows as in ``predictions.parquet``, n_samples per method, seed and question, and ``sample`` from 0.

    temperature: above 0, else all samples would be the same (ConfigError).  parts, ledger, on_progress: as of
    ``runner.evaluate_all``; the policy of a method is loaded once for all its samples.
    """
    if n_samples < 1 or not temperature > 0.0:
        raise ConfigError(
            f"pass@k: expected at least one sample at a temperature above 0, found {n_samples} at {temperature}; use "
            "--set 04.samples_per_question=5 --set 04.sampling_temperature=1.0"
        )
    tables, total = [], len(methods) * n_samples * len(questions)
    for place, method in enumerate(methods):
        for sample in range(n_samples):
            before = (place * n_samples + sample) * len(questions)
            report = partial(_report, on_progress, before, total)
            drawn = sampled(method, sample, temperature)
            rows = runner.evaluate_all([drawn], questions, parts, batch_size, ledger, report)
            tables.append(rows.assign(sample=sample))
    return pd.concat(tables, ignore_index=True)


def sampled(method: Method, sample: int, temperature: float) -> Method:
    """Return the method as it is, but sampling, under a run seed of this sample alone."""
    settings = method.bench.settings
    own = seeds.derive_seed(settings.run_seed, "pass@k", sample) % 2**31  # a number that every table can hold
    bench = replace(method.bench, settings=replace(settings, temperature=temperature, run_seed=own))
    return replace(method, bench=bench)


def _report(on_progress: runner.Progress | None, before: int, total: int, label: str, done: int, _: int) -> None:
    if on_progress is not None:
        on_progress(f"{label}, sampled", before + done, total)
