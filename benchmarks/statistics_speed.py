"""How long scoring and statistics take on one core: 3,125 questions, 12 methods, 3 training seeds.

    python benchmarks/statistics_speed.py [--resamples 10000] [--repeats 3] [--out FILE]

Writes one line per step: CPU seconds (median, lowest, highest of the repeats), rows, resamples, machine,
versions, date.  The predictions are synthetic, keyed by a fixed seed; no file is read.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported: one core is what is measured

import argparse  # noqa: E402
import time  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Callable  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from zerosearch import environment, scoring  # noqa: E402
from zerosearch.evaluation import comparison, statistics, subsets  # noqa: E402

SIZES = dict.fromkeys(("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique"), 500) | {"bamboogle": 125}
ARMS = ("arm-a", "arm-b", "arm-c")
METHODS = (*(f"method-{i}" for i in range(9)), *ARMS)
SEEDS = (0, 1, 2)
LIBRARIES = ("numpy", "scipy", "pandas")


def main() -> None:
    """Measure every step and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--resamples", type=int, default=10_000, help="draws of the bootstrap, and sign patterns")
    parser.add_argument("--repeats", type=int, default=3, help="times that every step is measured")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"), help="the CSV to write")
    options = parser.parse_args()
    table = measure(options.resamples, options.repeats)
    table.to_csv(options.out, index=False)
    print(table[["step", "rows", "resamples", "cpu_seconds", "lowest", "highest"]].to_string(index=False))
    print("written to", options.out)


def measure(n_resamples: int, repeats: int) -> pd.DataFrame:
    """Return one row per step and one for all of them."""
    answers = synthetic_answers()
    predictions = scored(answers)
    pairs = statistics.arms_against_the_rest(predictions)
    rules = comparison.Rules(n_resamples=n_resamples)
    steps: dict[str, Callable[[], object]] = {
        "scoring": lambda: scored(answers),
        "score_table": lambda: statistics.score_table(predictions, n_resamples),
        "average_table": lambda: statistics.average_table(predictions, n_resamples),
        "comparison_table": lambda: statistics.comparison_table(predictions, pairs, n_resamples),
        "comparison_report": lambda: comparison.comparison_report(predictions, pairs, rules=rules),
        "subset_order": lambda: subsets.subset_order(predictions, "bamboogle", 72, n_resamples, pairs=pairs),
    }
    seconds = {name: [cpu_seconds(step) for _ in range(repeats)] for name, step in steps.items()}
    seconds["all"] = [sum(times) for times in zip(*seconds.values(), strict=True)]
    versions = {name: environment.installed_version(name) for name in LIBRARIES}
    machine = {key: environment.machine()[key] for key in ("python", "cpu")}
    about = {"rows": len(predictions), "resamples": n_resamples, "repeats": repeats, **machine, **versions}
    return pd.DataFrame([
        {
            "step": name, "cpu_seconds": round(float(np.median(times)), 3), "lowest": round(min(times), 3),
            "highest": round(max(times), 3), **about, "date": datetime.now(UTC).date().isoformat(),
        }
        for name, times in seconds.items()
    ])


def cpu_seconds(step: Callable[[], object]) -> float:
    """Return the CPU seconds of one call; other work on the machine does not count."""
    started = time.process_time()
    step()
    return time.process_time() - started


def synthetic_answers() -> pd.DataFrame:
    """Return one row per question, method and seed: a prediction of one to four words and two golden answers."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(40)])
    runs = [(method, seed) for method in METHODS for seed in SEEDS]
    parts = []
    for dataset, n in SIZES.items():
        golden = [[f"{words[i]} {words[j]}", f"The {words[i]}"] for i, j in rng.integers(0, 40, (n, 2))]
        for number, (method, seed) in enumerate(runs):
            right = rng.random(n) < 0.2 + 0.005 * number
            other = [" ".join(words[rng.integers(0, 40, rng.integers(1, 5))]) for _ in range(n)]
            prediction = [g[0] if hit else text for g, hit, text in zip(golden, right, other, strict=True)]
            parts.append(pd.DataFrame({
                "method": method, "arm": method if method in ARMS else "", "seed": seed, "dataset": dataset,
                "question_id": [f"{dataset}/{i}" for i in range(n)], "prediction": prediction, "golden_answers": golden,
            }))
    return pd.concat(parts, ignore_index=True)


def scored(answers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the columns em, cover_em and f1."""
    pairs = zip(answers["prediction"], answers["golden_answers"], strict=True)
    scores = [(s.em, s.cover_em, s.f1) for s in (scoring.score(p, g) for p, g in pairs)]
    return answers.assign(**dict(zip(statistics.METRICS, zip(*scores, strict=True), strict=True)))


if __name__ == "__main__":
    main()
