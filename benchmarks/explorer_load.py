"""How long the trajectory explorer takes to open: median of five loads in a headless Chromium.

    PYTHONPATH=lib .venv/bin/python benchmarks/explorer_load.py RUN     # a finished run with stage 03

Two pages of 2,000 trajectories: those that the run's trainings kept (repeated under new names where there
are fewer), and long ones made of random tokens, which no compression makes small.  The time is the page's
own ``performance.now()`` after its first picture.  Writes benchmarks/explorer_load.csv.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests"))  # the driver of the browser is the tests' own

import browsers  # noqa: E402

from zerosearch import artifacts, environment, explorer, files  # noqa: E402
from zerosearch.explorer_records import Record, Segment  # noqa: E402

N, LOADS = 2000, 5
LONG_TOKENS, VOCABULARY = 1500, 30_000


def of_run(run: str) -> list[Record]:
    """Return N records of a run's trainings."""
    made, _ = explorer._of_training(artifacts.run_dir(run), 0, 0)
    if not made:
        sys.exit(f"expected trajectories of stage 03 in run {run}, found none; run `./run_all.sh --run {run}`")
    return [replace(made[i % len(made)], key=f"{i}/{made[i % len(made)].key}") for i in range(N)]


def long_ones(made: list[Record]) -> list[Record]:
    """Return the records with LONG_TOKENS random tokens each, a third of them the policy's."""
    rng, third = np.random.default_rng(0), LONG_TOKENS // 3
    ids = rng.integers(0, VOCABULARY, (len(made), LONG_TOKENS))
    logprobs = -rng.exponential(1.0, (len(made), third))

    def spans(row: np.ndarray) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return tuple((f" word{i}", (int(i),)) for i in row)

    return [
        replace(record, segments=(
            Segment("policy", spans(row[:third]), tuple(chances), (False,) * third),
            Segment("inserted", spans(row[third:]), (), (False,) * (LONG_TOKENS - third)),
        )) for record, row, chances in zip(made, ids, logprobs)
    ]


def measured(browser: browsers.Browser, name: str, records: list[Record], folder: Path) -> dict[str, object]:
    """Return one row: size, and milliseconds of LOADS loads."""
    page = explorer.write(folder / f"{name}.html", records, name)
    times = []
    for _ in range(LOADS):
        browser.open(page)
        times.append(float(browser.value("document.documentElement.dataset.readyMs")))
    tokens = sum(len(s.spans) for r in records for s in r.segments) / len(records)
    size = page.stat().st_size
    return {"case": name, "trajectories": len(records), "tokens_each": round(tokens), "file_bytes": size,
            "bytes_each": round(size / len(records)), "ready_ms_median": statistics.median(times),
            "ready_ms_min": min(times), "ready_ms_max": max(times)}


def main() -> None:
    """Measure both pages and write the table."""
    program = browsers.find()
    if len(sys.argv) != 2 or program is None:
        sys.exit("usage: explorer_load.py RUN, with a Chromium on the path or named by ZEROSEARCH_BROWSER")
    made = of_run(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        browser = browsers.Browser(program, Path(name) / "profile")
        version = browser.send("Browser.getVersion")["product"]
        try:
            rows = [measured(browser, "run", made, Path(name)), measured(browser, "long", long_ones(made), Path(name))]
        finally:
            browser.close()
    facts = {"browser": version, **environment.machine(), "load_average": round(os.getloadavg()[0], 2),
             "date": datetime.now(timezone.utc).date().isoformat()}
    table = pd.DataFrame([row | facts for row in rows])
    files.write_table(REPO / "benchmarks" / "explorer_load.csv", table)
    print(table.T.to_string())


if __name__ == "__main__":
    main()
