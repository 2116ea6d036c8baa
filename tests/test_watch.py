"""watch.py, stalls.py and run_log.py: lines in run.log, silent stages, warnings, and a disk that fills up."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import time
from pathlib import Path
from typing import Any, Iterator

import nbformat
import psutil
import pytest
from fake_notebooks import notebook, write_all
from rich.console import Console

from zerosearch import artifacts, cli, profiles, stalls, watch
from zerosearch.console import Display, Line, estimate
from zerosearch.jobs import Board, Job
from zerosearch.pipeline import Planned
from zerosearch.processes import tree_rss_mib
from zerosearch.progress import Progress
from zerosearch.run_log import RunLog

SILENT = """import time
stage.progress(1, 2, "before the pause")
print("\\x1b[31mlast \\x07words\\x1b[0m", flush=True)
time.sleep(8)
stage.progress(2, 2)
time.sleep(2)"""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def at_work(tmp_path: Path) -> tuple[Watch, Clock, Board, io.StringIO]:
    """A watch over one running job, its clock, its board and what the terminal shows."""
    shown, clock, board = io.StringIO(), Clock(), Board(tmp_path)
    job = Job("03", "zerosearch", 0)
    display = Display([Planned(job, "not there yet")], {"03": 60.0}, Console(file=shown, soft_wrap=True))
    board.log(job).parent.mkdir(parents=True)
    board.log(job).write_text("first words\n")
    board.started(job)
    return Watch(display, tmp_path, profiles.read_profile("smoke"), "./run_all.sh", clock), clock, board, shown


Watch = watch.Watch


def test_a_line_of_the_log(tmp_path: Path) -> None:
    log = RunLog(tmp_path, clock=lambda: 1_700_000_000.4)
    log.write("a\x1b[31m b\r\nc\u202e d\x07")
    log.close()
    assert (tmp_path / "logs" / "run.log").read_text() == "2023-11-14T22:13:20Z a [31m b c d\n"


def test_the_log_is_bounded(tmp_path: Path) -> None:
    log = RunLog(tmp_path, largest_bytes=2000)
    for number in range(200):
        log.write(f"line {number} of two hundred")
    log.close()
    found = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in found] == ["run.log", "run.log.1"]
    assert all(path.stat().st_size <= 2000 for path in found) and "line 199 of" in found[0].read_text()


def test_a_log_that_cannot_be_written_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path)
    log.path.mkdir()
    log.write("lost")
    log.close()
    assert capsys.readouterr().err == ""


def test_an_alarm_rings_once_per_crossing() -> None:
    alarm = watch.Alarm(100.0)
    values = [150, 99, 80, 101, 120, 99, 125, 99, 50, 130, 90]
    assert [value for value in values if alarm.rings(value)] == [99, 99, 90]


def test_limits_come_from_the_needs_of_a_profile() -> None:
    smoke, node = (watch.Limits.of(profiles.read_profile(name)) for name in ("smoke", "a100_node"))
    assert (smoke.stall_seconds, smoke.disk_warn, smoke.disk_stop, smoke.memory_warn) == (600, 500, 200, 256)
    assert (node.stall_seconds, node.disk_warn, node.memory_warn) == (1800, 51200, pytest.approx(26214.4))


def test_one_heartbeat_a_minute(at_work: tuple[Watch, Clock, Board, io.StringIO]) -> None:
    watcher, clock, board, _ = at_work
    Progress(board.folder / "03_rl/zerosearch/seed0", "03").report(3, 12, "", None, {"reward": 0.25})
    with watcher:
        for _ in range(601):  # ten minutes of looks, one a second
            watcher.look(board)
            clock.seconds += 1
        clock.seconds += 190  # the machine was busy: what was missed is not made up for
        watcher.look(board)
        watcher.ended(0)
    lines = watcher.log.path.read_text().splitlines()
    beats = [line for line in lines if " heartbeat: " in line]
    assert len(beats) == 11
    wanted = r"Z heartbeat: 03_curriculum_rl_zerosearch_seed0 3/12 \(25 %\) · reward 0.25 \| memory \d+ MiB, "
    assert all(re.search(wanted + r"available \d+ MiB, free disk \d+ MiB$", line) for line in beats)
    assert " start: ./run_all.sh · profile smoke · python 3." in lines[0] and " limits: warns below" in lines[1]
    assert lines[2].endswith("03_curriculum_rl_zerosearch_seed0: running")
    assert lines[-1].endswith("end: finished, 13:11")


def test_a_silent_job_is_told_once_and_again_and_when_it_moves_on(
    at_work: tuple[Watch, Clock, Board, io.StringIO],
) -> None:
    watcher, clock, board, shown = at_work
    job, told = Job("03", "zerosearch", 0), []
    with watcher:
        for minute in range(32):
            watcher.look(board)
            told += [minute] * (shown.getvalue().count("is stalled") - len(told))
            clock.seconds += 60
        assert told == [10, 20, 30]
        assert watcher.display.lines(board)[0].state == "stalled"
        board.log(job).write_text("first words\nsecond words\n")
        watcher.look(board)
    text = shown.getvalue()
    assert f"not a word for 10:00, its processes are waiting for something; last words: first words\n  look: tail " in text
    assert f"kill {os.getpid()} (the same command then goes on" in text
    assert "stage 03 (03_curriculum_rl_zerosearch_seed0) moves on after 32:00 without a word" in text
    assert watcher.display.lines(board)[0].state == "running"
    log = watcher.log.path.read_text()
    assert log.count("warning: stage 03") == 4 and log.count("seed0: stalled") == 1


def test_a_terminal_shows_a_stalled_job_as_such(at_work: tuple[Watch, Clock, Board, io.StringIO]) -> None:
    watcher, clock, board, _ = at_work
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=200, highlight=False)
    watcher.display = Display(watcher.display.planned, {"03": 60.0}, console)
    watcher.display.stalled = watcher.stalls.stalled
    board.started(Job("03", "zerosearch", 0))  # of this call, not of an earlier one
    with watcher.display:
        for _ in range(13):
            watcher.look(board)
            clock.seconds += 60
    assert "\x1b[1;33mstalled\x1b[0m" in shown.getvalue()
    assert shown.getvalue().count("is stalled: not a word for 10:00") == 1


def test_a_stage_past_its_estimate_says_so() -> None:
    def times(state: str, seconds: float | None) -> str:
        return Line(Job("04"), state, seconds, 10.0, "").cells()[4]

    assert times("waiting", None) == "of about 0:10" and times("running", 9.0) == "0:09 of about 0:10"
    assert times("running", 75.0) == times("stalled", 75.0) == "1:15, longer than the 0:10 expected"
    assert times("done", 75.0) == "1:15"


def test_an_estimate_says_whose_work_it_is_about() -> None:
    def told(values: dict[str, str] | None = None, **more: Any) -> str:
        return estimate(profiles.load("smoke", values, **more))

    assert told() == told({"01.retriever_workers": "2", "03.steps": "12"}) == "about 4 min"
    assert told(questions_dir="q", corpus_file="c") == "about 4 min with the profile's own questions"
    other = "about 4 min with the profile's own parameters"
    assert told({"03.steps": "13"}) == told(arms=["search-r1"]) == told(seeds=[0, 1]) == other


def test_a_full_disk_after_the_last_job_stops_nothing(at_work: tuple[Watch, Clock, Board, io.StringIO]) -> None:
    watcher, _, board, shown = at_work
    watcher.limits = dataclasses.replace(watcher.limits, disk_stop=1e12)
    with pytest.raises(watch.OutOfSpace, match="the same command goes on from here"):
        watcher.look(board)
    watcher.look(board)  # the notebooks are saving: it is not raised again
    watcher.stopping = False
    board.ended(Job("03", "zerosearch", 0), "done")
    watcher.look(board)
    assert shown.getvalue().count("the run is being stopped") == 1


def test_progress_alone_is_a_sign_of_life(at_work: tuple[Watch, Clock, Board, io.StringIO]) -> None:
    watcher, clock, board, shown = at_work
    folder = board.folder / "03_rl/zerosearch/seed0"
    for done in range(5):
        Progress(folder, "03").report(done, 12, "", None, {})
        os.utime(folder / "progress.json", (time.time(), time.time() + done))
        watcher.look(board)
        clock.seconds += 9 * 60
    assert "stalled" not in shown.getvalue()


def test_little_memory_names_the_job_and_the_parameter(
    at_work: tuple[Watch, Clock, Board, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, clock, board, shown = at_work
    watcher.memory = watch.Alarm(1e12)
    for _ in range(30):
        watcher.look(board)
        clock.seconds += 1
    found = re.findall(r"memory: (\d+) MiB are available, most is held by stage 03 \(03_cur\w+\): (\d+) MiB", shown.getvalue())
    assert len(found) == 1 and "--set 03.questions_per_step=N); close other programs" in shown.getvalue()
    own = tree_rss_mib(os.getpid())
    assert int(found[0][0]) > 0 and int(found[0][1]) == pytest.approx(own, rel=0.2)


def test_every_parameter_that_makes_a_stage_smaller_exists() -> None:
    for stage, name in watch.SMALLER.items():
        assert name.startswith(f"{stage}.") and name[3:] in profiles.settable(stage)


def test_computing_is_told_from_waiting() -> None:
    waiting = psutil.Popen(["sleep", "30"])
    computing = psutil.Popen(["sh", "-c", "while :; do :; done"])
    try:
        assert stalls.is_computing(computing.pid, 1.0) and not stalls.is_computing(waiting.pid)
    finally:
        for process in (waiting, computing):
            process.kill()
            process.wait()
    assert not stalls.is_computing(waiting.pid)  # gone: nothing computes


# --- a real run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fake notebook 00 that pauses, a profile that loses patience after three seconds; the run's folder."""
    folder = tmp_path_factory.mktemp("watched")
    nbformat.write(notebook("00", SILENT), write_all(folder / "nb") / "00_micro_world.ipynb")
    text = (profiles.FOLDER / "smoke.yaml").read_text()
    (folder / "profiles").mkdir()
    (folder / "profiles" / "smoke.yaml").write_text(re.sub("stall_minutes: 10 ", "stall_minutes: 0.05 ", text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiles, "FOLDER", folder / "profiles")
        patch.setenv("ZEROSEARCH_NOTEBOOKS", str(folder / "nb"))
        patch.setenv("ZEROSEARCH_OUTPUTS", str(folder / "outputs"))
        yield folder / "outputs" / "night"


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--profile", "smoke", "--run", "night", "--only", "00"]
    with monkeypatch.context() as patch:
        patch.setattr(watch, "STOP_DISK_MIB", 1e12)
        assert cli.main(command) == 3
    shown = capsys.readouterr()
    assert "expected at least 1000000000000 MiB to stay free" in shown.err and "Traceback" not in shown.err
    assert "the same command goes on from here" in shown.err
    assert Board(run).living() == []
    assert "end: stopped by OutOfSpace" in (run / "logs" / "run.log").read_text()

    monkeypatch.setattr(watch, "LEAST_DISK_MIB", 1e12)
    assert cli.main(command) == 0
    shown = capsys.readouterr()
    assert len(re.findall("^disk: [0-9]+ MiB are left at ", shown.out, re.M)) == 1
    _check_stall(run, shown.out)


def _check_stall(folder: Path, shown: str) -> None:
    assert re.search("^00 micro world .* stalled ", shown, re.M)
    stalled = re.findall(r"stage 00 \(\S+\) is stalled: not a word for (0:0\d), its processes are waiting", shown)
    assert len(stalled) >= 2 and "; last words: [31mlast words [0m\n" in shown
    assert re.search(r"stage 00 \(\S+\) moves on after 0:0\d without a word", shown)
    lines = (folder / "logs" / "run.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \w", line) for line in lines)
    states = [line.split()[1:] for line in lines if "00_micro_world:" in line]
    told = [words[1] for words in states]  # on a slow machine the start of the kernel is a silence too
    assert len(told) >= 4 and told == ["running", *["stalled", "running"] * ((len(told) - 2) // 2), "done"]
    assert lines[-1].split(" end: ")[1].startswith("finished, ")
    assert "run.log" not in "".join(path.read_text() for path in folder.rglob(artifacts.MANIFEST))
