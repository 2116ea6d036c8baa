"""A small finished run with hand-made tables, for the tests of costs, report and figures."""

from __future__ import annotations

import pandas as pd

from zerosearch import artifacts, figures
from zerosearch.published import DATASETS

# Two steps of 10 trajectories: the simulator answers 30 searches, BM25 40, of which 10 from the cache.
EVENTS = {
    ("01", None, None): [
        ("busy", dict(role="policy_rollout", device="cpu", seconds=36.0, units=1)),
        ("queries", dict(engine="bm25", fresh=100, cached=0, paid=0)),
    ],
    ("02", None, None): [("busy", dict(role="simulator_training", device="cpu", seconds=72.0, units=1))],
    ("03", "zerosearch", 0): [
        ("busy", dict(role="policy_rollout", device="cpu", seconds=18.0, units=2)),
        ("busy", dict(role="simulator", device="cpu", seconds=18.0, units=1)),
        ("busy", dict(role="policy_training", device="cpu", seconds=36.0, units=1)),
        ("queries", dict(engine="simulator", fresh=30, cached=0, paid=0)),
        ("tokens", dict(role="simulator", model="micro/simulator-medium", prompt=900, generated=3000)),
    ],
    ("03", "search-r1", 0): [
        ("busy", dict(role="policy_rollout", device="cpu", seconds=36.0, units=1)),
        ("busy", dict(role="retriever", device="cpu", seconds=3.6, units=1)),
        ("busy", dict(role="policy_training", device="cpu", seconds=36.0, units=1)),
        ("queries", dict(engine="bm25", fresh=30, cached=10, paid=0)),
    ],
    ("04", None, None): [("busy", dict(role="evaluation", device="cpu", seconds=72.0, units=1))],
}
PARAMETERS = {"profile": "smoke", "steps": 2, "questions_per_step": 5, "group_size": 2}
HOSTILE = "<script>alert('x')</script> \x1b[31mred\x1b[0m & \u202egnp.exe"


def score_rows() -> pd.DataFrame:
    """Return scores of four methods on the seven sets, EM only."""
    levels = {"direct": 0.02, "search": 0.04, "search-r1": 0.72, "zerosearch": 0.70}
    rows = [(method, name, 0, "em", level, 100, max(0.0, level - 0.05), level + 0.05)
            for method, level in levels.items() for name in DATASETS]
    return pd.DataFrame(rows, columns=["method", "dataset", "seed", "metric", "value", "n", "low", "high"])


def metric_rows() -> pd.DataFrame:
    """Return two steps of two arms: 1 and 2 searches a trajectory, and 2 and 2."""
    rows = []
    for arm, searches in (("zerosearch", (1.0, 2.0)), ("search-r1", (2.0, 2.0))):
        for step, n_searches in enumerate(searches, 1):
            noise = 0.1 * step if arm == "zerosearch" else 0.0
            rows.append({"arm": arm, "seed": 0, "step": step, "reward_mean": 0.2 * step,
                         "searches_mean": n_searches, "noise_planned": noise, "noise_realised": noise,
                         "kl": 0.01 * step})
    return pd.DataFrame(rows)


def prediction_rows() -> pd.DataFrame:
    """Return two predictions, one right and one wrong, whose passages hold hostile text."""
    columns = {"method": "zerosearch", "seed": 0, "dataset": "nq", "golden_answers": ["Grey Harp"], "n_searches": 1,
               "n_tokens": 9, "stop_reason": "answer", "error": None}
    right = {"question_id": "nq/1", "question": "Who wrote it?", "transcript": f"<search>it</search>{HOSTILE}",
             "prediction": "Grey Harp", "em": 1.0}
    wrong = {"question_id": "nq/2", "question": HOSTILE, "transcript": "no idea", "prediction": HOSTILE, "em": 0.0}
    return pd.DataFrame([{**columns, **right}, {**columns, **wrong}])


def write(run: str) -> None:
    """Write stages 01 to 04 of a run, through the same calls as the notebooks."""
    for (number, arm, seed), events in EVENTS.items():
        stage = artifacts.open_stage(run, number, PARAMETERS, arm, seed)
        for kind, fields in events:
            stage.ledger.event(kind, **fields)
        if number == "03":
            own = metric_rows().query("arm == @arm")
            stage.write_jsonl(own.to_dict("records"), "metrics.jsonl")
            figures.save(figures.reward_curve(own), stage.figures / "reward.png")
        if number == "04":
            stage.write_table(score_rows(), "scores.parquet")
            stage.write_table(score_rows().rename(columns={"seed": "seeds"}).assign(seeds=1), "averages.csv")
            stage.write_table(prediction_rows(), "predictions.parquet")
            stage.write_table(pd.DataFrame({"winner": [HOSTILE]}), "comparisons.csv")
        stage.finish(steps=2, remark=HOSTILE)
