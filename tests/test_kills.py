"""scripts/kill_test.py: its parts.  A chain that is killed for real: test_again_the_same."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import disturbing
import kill_test
import psutil
import pytest
import traces
from disturbing import Kill

from zerosearch import artifacts, files, profiles
from zerosearch.cli import run_settings
from zerosearch.jobs import Board, Job
from zerosearch.ledger import Ledger
from zerosearch.pipeline import RunLock

SEED = 0
JOBS = [*map(Job, ("00", "01", "02")), Job("03", "zerosearch", 0), Job("03", "search-r1", 0), Job("04"), Job("05")]


def test_every_stage_and_every_victim_before_one_comes_again() -> None:
    kills = disturbing.draw(10, SEED, JOBS)
    assert kills == disturbing.draw(10, SEED, JOBS) != disturbing.draw(10, 1, JOBS)
    assert len({kill.job.stage for kill in kills[:6]}) == 6 and len({kill.victim for kill in kills[:5]}) == 5
    assert set(Counter(kill.victim for kill in kills).values()) == {2}
    assert all(0.1 <= kill.fraction <= 0.9 for kill in kills)


def test_steps_are_counted_once(tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "a" / "metrics.jsonl", [{"step": step} for step in (1, 2, 3)])
    assert disturbing.step_problems(tmp_path) == []
    files.write_jsonl(tmp_path / "b" / "sft_metrics.jsonl", [{"step": step} for step in (1, 2, 2)])
    assert disturbing.step_problems(tmp_path) == ["b/sft_metrics.jsonl holds the steps [1, 2, 2]"]


def test_queries_counted_twice_are_seen(tmp_path: Path) -> None:
    for name, times in (("a", 1), ("b", 2)):
        ledger = Ledger(tmp_path / name / "ledger.jsonl", "03", "zerosearch", 0)
        for _ in range(times):
            ledger.event("queries", engine="bm25", fresh=3, cached=0, paid=0)
            ledger.event("busy", role="retriever", device="cpu", seconds=1.0, units=1)
    (problem,) = disturbing.ledger_problems(tmp_path / "a", tmp_path / "b")
    assert problem == "ledger 03 zerosearch 0 queries bm25: {'fresh': 3} / {'fresh': 6}"
    assert disturbing.ledger_problems(tmp_path / "a", tmp_path / "a") == []


def test_files_and_locks_left_behind_are_seen(tmp_path: Path) -> None:
    for run in ("good", "bad"):
        files.write_atomic(tmp_path / run / "00_micro_world" / "corpus.jsonl", "")
        files.write_atomic(tmp_path / run / "00_micro_world" / "superseded" / run, "")
        assert traces.locks_left(tmp_path / run) == []
    assert traces.files_left(tmp_path / "bad", tmp_path / "good") == []
    files.write_atomic(tmp_path / "bad" / "02_simulator" / ".x.part", "")
    assert traces.files_left(tmp_path / "bad", tmp_path / "good") == ["02_simulator/.x.part was left behind"]
    files.write_atomic(tmp_path / "bad" / ".snakemake" / "locks" / "0.input.lock", "")
    with RunLock(tmp_path / "bad"):
        code = f"import traces; from pathlib import Path; print(traces.locks_left(Path({str(tmp_path / 'bad')!r})))"
        words = [sys.executable, "-c", code]
        shown = subprocess.run(words, capture_output=True, text=True, cwd=artifacts.REPO / "scripts", check=True).stdout
    assert "Snakemake left 0.input.lock" in shown and "found a command at work on it" in shown


def test_marked_processes_are_found(tmp_path: Path) -> None:
    mark = str(tmp_path)
    child = subprocess.Popen(["sleep", "60"], env={**os.environ, traces.MARK: mark})
    try:
        deadline = time.monotonic() + 20
        while not traces.marked(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [process.pid for process in traces.marked(mark)] == [child.pid]
        assert traces.processes_left(mark, 0.0) == [f"process {child.pid} (60) is still there"]
    finally:
        child.kill()
        child.wait()
    assert traces.processes_left(mark) == []


def test_a_victim_that_is_not_there_is_replaced_by_the_next_greater_one(tmp_path: Path) -> None:
    """The notice board knows of no runner yet: neither kernel, runner nor Snakemake is there, so the command is killed."""
    process = psutil.Popen(["sleep", "60"], start_new_session=True)
    assert disturbing.strike(process.pid, Board(tmp_path), Kill(0, 0, Job("00"), 0.5, "kernel")) == "cli"
    assert process.wait(20) == -9


def test_settings_are_compared_without_the_name_of_the_run() -> None:
    def made(run: str, steps: str) -> dict[str, Any]:
        return files.through_json(run_settings(profiles.load("smoke", {"03.steps": steps}, run=run)))

    assert kill_test.settings_differences(made("a", "9"), made("b", "9")) == []
    (found,) = kill_test.settings_differences(made("a", "9"), made("b", "8"))
    assert found.startswith("stages ")


def test_wrong_options(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(outputs))  # the script sets it too: put back afterwards
    assert kill_test.main(["--kill", "3"]) == 2 and "did you mean '--kills'" in capsys.readouterr().err
    assert kill_test.main(["--reference", str(outputs / "none")]) == 2
    assert "run: expected one of (none yet), found 'none'" in capsys.readouterr().err


def test_a_report_is_taken_over(tmp_path: Path) -> None:
    kill = Kill(0, 3, Job("04"), 0.25, "cli")
    for identical, problems in ((True, ()), (False, ("scores.parquet differs",))):
        report = kill_test.Report(tmp_path / f"{identical}.csv", "--profile smoke")
        report.add(disturbing.Disturbed(kill, 1.0, "cli", (-9, 0), 60.0, problems))
    assert kill_test.Report(tmp_path / "True.csv", "--profile smoke").read() == {"kill-0-3": True}
    assert kill_test.Report(tmp_path / "True.csv", "--profile laptop").read() == {}
    assert kill_test.Report(tmp_path / "False.csv", "--profile smoke").read() == {}
