"""The fault run, long form: 1,000 questions against a server that fails in eight ways at rates up to 50 %.

    PYTHONPATH=lib .venv/bin/python benchmarks/fault_run.py

Eight kinds of damage in equal shares: 429 with Retry-After, 500, silence, JSON cut short, another shape, bytes
that trickle, connections that are reset, and results that are empty (which is an answer).  One row per engine and
rate; in the rows ``killed`` the searching process gets SIGKILL five times at drawn moments and is started again.
``billed`` is the server's log, ``recorded`` what is on disk, ``ledger_paid`` what the ledger holds: they must agree.
``sent_twice`` counts answers that were on the wire when the process was killed and had to be asked for again.
``longest_seconds`` is the longest that one question took, ``deadline_seconds`` what it may take.
Writes benchmarks/fault_run.csv.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests"))  # the server that fails is the tests' own

import test_faults  # noqa: E402
from fault_server import FaultServer  # noqa: E402

from zerosearch import artifacts, environment, files, seeds  # noqa: E402

N, BATCH, KILLS, SEED = 1000, 64, 5, 0
RATES = (0.0, 0.1, 0.25, 0.5)
KINDS = ("busy", "server", "timeout", "deadline", "connection", "malformed")
TABLE = Path(__file__).with_suffix(".csv")


def undisturbed(name: str, rate: float, folder: Path) -> dict[str, Any]:
    """Return the row of a run that is left alone."""
    asked = test_faults.requests(N)
    with FaultServer(rate, SEED) as server:
        engine = test_faults.opened(name, server.url, folder)
        started = time.perf_counter()
        found = [r for at in range(0, N, BATCH) for r in engine.search(asked[at : at + BATCH])]
        seconds = time.perf_counter() - started
        failed = test_faults.check(found, asked)
        test_faults.check_bill(server, engine, folder)
        longest = max(r.wall_seconds for r in found)
        return row(name, rate, 0, server, folder, failed) | {"seconds": seconds, "longest_seconds": longest}


def killed(rate: float, folder: Path) -> dict[str, Any]:
    """Return the row of a run that is killed and started again, until it ends by itself."""
    with FaultServer(rate, SEED) as server:
        started = time.perf_counter()
        for number in range(KILLS):
            process = test_faults.start(server.url, folder, N)
            until = server.sent.total() + N // (KILLS + 1) * (0.5 + seeds.uniform(SEED, "kill", number))
            while server.sent.total() < until and process.poll() is None:
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert test_faults.start(server.url, folder, N).wait() == 0
        seconds = time.perf_counter() - started
        asked = test_faults.requests(N)
        engine = test_faults.opened("serpapi", server.url, folder, attempts=1)
        failed = Counter[str]()
        for request in asked:
            failed.update(() if engine.answers.get(test_faults.key_of(engine.identity, request.query)) else ("failed",))
        return row("serpapi", rate, KILLS, server, folder, failed) | {"seconds": seconds}


def row(
    name: str, rate: float, kills: int, server: FaultServer, folder: Path, failed: Counter[str]
) -> dict[str, Any]:
    """Return what the server's log, the record and the ledger say."""
    engine = test_faults.opened(name, server.url, folder)
    paid = test_faults.paid_in_ledger(folder)
    assert len(paid) == len(set(paid))
    return {
        "engine": name, "rate": rate, "kills": kills, "questions": N, "answered": N - failed.total(),
        "failed": failed.total(), **({} if kills else {kind: failed[kind] for kind in KINDS}),
        "requests": server.came.total(), "faults": server.faults.total(), "billed": server.billed.total(),
        "recorded": len(engine), "ledger_paid": len(paid) if engine.bills else None,
        "sent_twice": sum(times > 1 for times in server.sent.values()),
        "deadline_seconds": test_faults.PATIENCE["deadline_seconds"],
    }


def main() -> None:
    os.environ.update(NO_PROXY="127.0.0.1", SERPAPI_API_KEY="no-real-key")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in test_faults.ENGINES:
            for rate in RATES:
                rows.append(undisturbed(name, rate, Path(folder) / f"{name}-{rate}"))
                print(rows[-1], flush=True)
        for rate in RATES:
            rows.append(killed(rate, Path(folder) / f"killed-{rate}"))
            print(rows[-1], flush=True)
    about = {
        "cpu": environment.processor(), "httpx": environment.installed_version("httpx"),
        "diskcache": environment.installed_version("diskcache"), "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": environment.source_version(artifacts.REPO)["commit"],
    }
    files.write_table(TABLE, pd.DataFrame([made | about for made in rows]).round(2))


if __name__ == "__main__":
    main()
