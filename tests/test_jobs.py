"""jobs.py, processes.py: names of jobs, statuses on the notice board, processes told apart and ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from zerosearch import processes
from zerosearch.jobs import Board, Job
from zerosearch.processes import ProcessId


def test_names() -> None:
    assert Job("01").name == "01_collect_trajectories" and Job("01").manifest == "01_collect/manifest.json"
    trained = Job("03", "search-r1", 2)
    assert trained.name == "03_curriculum_rl_search-r1_seed2"
    assert trained.manifest == "03_rl/search-r1/seed2/manifest.json"


def test_a_job_on_the_board(tmp_path: Path) -> None:
    board, job = Board(tmp_path), Job("04")
    assert board.status(job) is None and board.owner() is None and board.living() == []
    board.started(job)
    status = board.status(job)
    assert status is not None and status.state == "running" and status.process == processes.this_process()
    assert board.living() == [processes.this_process()]
    board.ended(job, "failed", "no passages")
    status = board.status(job)
    assert status is not None and (status.state, status.message) == ("failed", "no passages")
    assert status.elapsed >= 0 and board.living() == []
    board.own()
    assert board.owner() == processes.this_process()


def test_a_process_id_used_again_is_another_process() -> None:
    here = processes.this_process()
    assert ProcessId.from_text(here.text()) == here and ProcessId.from_text("") is None
    assert (
        processes.alive(here) and not processes.alive(ProcessId(here.pid, here.created - 100)) and not processes.alive(None)
    )


def test_a_family_is_measured_and_ended() -> None:
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent])
    deadline = time.time() + 20
    while not (family := psutil.Process(process.pid).children()) and time.time() < deadline:
        time.sleep(0.05)
    assert processes.tree_rss_mib(process.pid) > 5
    processes.stop_tree(process.pid)
    process.wait(timeout=10)
    assert family and not family[0].is_running()
    processes.stop_tree(process.pid)  # a second time: nothing to do
