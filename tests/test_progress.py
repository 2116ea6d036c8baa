"""progress.py: the line a reader sees, the file the command line reads, and time left."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerosearch import progress
from zerosearch.progress import Heartbeat, Progress, clock, read_heartbeat


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (3725, "1:02:05")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_line() -> None:
    assert (
        Heartbeat(12, 45, "training", "reward 0.31", 130).line()
        == "12/45 (27 %) · training · reward 0.31 · 2:10 left"
    )
    assert Heartbeat(1, 4, "", "", None).line() == "1/4 (25 %)"


def test_time_left_counts_only_work_done_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([100.0, 106.0, 112.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    report = Progress(tmp_path, "03_rl zerosearch seed0")
    report.report(30, 45, "", None, {"reward": 0.5})  # an attempt that goes on at step 30
    report.report(33, 45, "", None, {"reward": 0.51234})  # 3 steps in 6 s: 12 more take 24 s
    beat = read_heartbeat(tmp_path)
    assert beat is not None and beat.seconds_left == pytest.approx(24.0)
    assert capsys.readouterr().out.splitlines() == [
        "03_rl zerosearch seed0 30/45 (67 %) · reward 0.5",
        "03_rl zerosearch seed0 33/45 (73 %) · reward 0.512 · 0:24 left",
    ]
    report.report(45, 45, "done", "loss 1", {})
    report.close()
    assert read_heartbeat(tmp_path) is None


def test_lines_are_seldom_but_the_last_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Progress(tmp_path, "x")
    for done in range(1, 101):
        report.report(done, 100, "", None, {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) <= 3 and printed[-1].startswith("x 100/100")


def test_an_old_heartbeat_is_not_shown(tmp_path: Path) -> None:
    Progress(tmp_path, "x").report(1, 2, "", None, {})
    written = (tmp_path / progress.PROGRESS).stat().st_mtime
    assert read_heartbeat(tmp_path, since=written - 1) is not None
    assert read_heartbeat(tmp_path, since=written + 1) is None


@pytest.mark.parametrize("start", [(140, 22_400), (0, 1000), (10, 1000)])
def test_work_of_another_kind_is_timed_by_itself(
    start: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes of one loop say nothing about the next one, whether its total differs or it begins at the front."""
    times = iter([0.0, 600.0, 605.0, 615.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    report = Progress(tmp_path, "04_evaluate")
    report.report(0, 1000, "answers", None, {})
    report.report(1000, 1000, "answers", None, {})
    done, total = start
    report.report(done, total, "samples", None, {})
    report.report(done + 100, total, "samples", None, {})  # 100 in 10 s
    beat = read_heartbeat(tmp_path)
    assert beat is not None and beat.seconds_left == pytest.approx((total - done - 100) / 10)
