"""Calls Snakemake for one run and tells how it goes.

Snakemake decides what is stale; here it is only asked (``plan``) and driven (``execute``), in a
process of its own, while the notice board in the run folder says which notebook is where.  One
command works on a run at a time (``RunLock``), so Snakemake's own lock is switched off.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from filelock import FileLock, Timeout

from zerosearch import artifacts, cluster, files, temporary
from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.jobs import OWNER_VARIABLE, Board, Job
from zerosearch.processes import ProcessId, alive, signal_process, stop_tree, this_process, tree_rss_mib

RULES = {
    "00": "micro_world",
    "01": "collect",
    "02": "simulator",
    "03": "train",
    "04": "evaluate",
    "05": "cost",
}
NEEDS = {  # stages that must be finished before a stage can run alone
    "00": (),
    "01": ("00",),
    "02": ("00", "01"),
    "03": ("00", "01", "02"),
    "04": ("00", "03"),
    "05": ("04",),
}
POLL_SECONDS, MEASURE_EVERY = 0.5, 4  # seconds; polls per measurement of memory
CUT_OFF, FORCED = "was cut off", "asked for"
_OUTPUT, _REASON = re.compile(r"^\s+output: (\S+)", re.M), re.compile(r"^\s+reason: (.+)$", re.M)


@dataclass(frozen=True)
class Selection:
    """Which stages are asked for.  from_stage: it and all later ones anew.  only: it alone, anew."""

    from_stage: str | None = None
    only: str | None = None


@dataclass(frozen=True)
class Planned:
    """One job and whether (and why) it will run."""

    job: Job
    reason: str | None  # None: it is up to date


@dataclass(frozen=True)
class Outcome:
    """How a call of Snakemake ended.  peak_rss_mib: of all its processes together, sampled."""

    exit_code: int
    peak_rss_mib: float


def all_jobs(settings: Mapping[str, Any]) -> list[Job]:
    """Return the jobs of a whole run in order; stage 03 once per arm and seed."""
    jobs = []
    for stage in artifacts.STAGES:
        if stage in artifacts.PER_ARM:
            jobs += [Job(stage, arm, seed) for arm in settings["arms"] for seed in settings["seeds"]]
        else:
            jobs.append(Job(stage))
    return jobs


def plan(folder: Path, settings_file: Path, selection: Selection) -> list[Planned]:
    """Return all jobs that the selection is about and what Snakemake would do with them.

    folder: the run's folder (made when absent).  Raises WorkbookError when Snakemake cannot plan.
    """
    settings = files.read_json(settings_file)
    jobs = [job for job in all_jobs(settings) if selection.only in (None, job.stage)]
    command = snakemake_command(folder, settings_file, selection, settings, dry_run=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorkbookError(f"Snakemake could not plan the run:\n{_indented(done.stdout + done.stderr)}")
    reasons = {}
    for block in re.split(r"^(?:local)?rule ", done.stdout, flags=re.M)[1:]:
        output, reason = _OUTPUT.search(block), _REASON.search(block)
        if output:
            absent = not (folder / output[1]).is_file()
            reasons[output[1]] = "not there yet" if absent else _plain_reason(reason[1] if reason else "")
    return [Planned(job, _own_reason(job, reasons.get(job.manifest), selection)) for job in jobs]


def _own_reason(job: Job, reason: str | None, selection: Selection) -> str | None:
    """Return the reason, told apart where Snakemake says "forced" of a job that was cut off."""
    forced = selection.only is not None or (selection.from_stage or "99") <= job.stage
    return CUT_OFF if reason == FORCED and not forced else reason


def execute(
    folder: Path, settings_file: Path, selection: Selection, watch: Callable[[Board], None]
) -> Outcome:
    """Run what is stale.

    watch: called about twice a second with the notice board.  Its own output goes to
    ``logs/snakemake.log``.  When this process is interrupted or watch raises a
    WorkbookError, the notebooks save what is under way (see
    ``_end_in_order``); however it ends, everything it started is ended.
    """
    settings = files.read_json(settings_file)
    board, log_file = Board(folder), folder / "logs" / "snakemake.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    board.own()
    command, peak, ticks = snakemake_command(folder, settings_file, selection, settings), 0.0, 0
    with log_file.open("w", encoding="utf-8") as log, temporary.noted_folder(log_file) as own:
        with _hearing_interrupts():
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **_environment(settings, own)},
            )
        try:
            while process.poll() is None:
                watch(board)
                peak = max(peak, tree_rss_mib(process.pid)) if ticks % MEASURE_EVERY == 0 else peak
                ticks += 1
                time.sleep(POLL_SECONDS)
        except (KeyboardInterrupt, WorkbookError):  # asked to end, or what watches found a reason
            _end_in_order(process, board, watch, settings)
            raise
        finally:
            if process.poll() is None:
                stop_tree(process.pid)
    watch(board)
    return Outcome(process.returncode, peak)


@contextlib.contextmanager
def _hearing_interrupts() -> Iterator[None]:
    """Let a process that is started inside hear SIGINT, which one that began in the background is deaf to for ever."""
    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if deaf:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _environment(settings: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return what Snakemake's environment says besides ours.  folder: a temporary one, of this machine.

    On a cluster neither belongs to the nodes: the process that owns a notebook here lives here.
    """
    return {} if settings.get("cluster") else {OWNER_VARIABLE: this_process().text(), "TMPDIR": str(folder)}


def _end_in_order(
    process: subprocess.Popen[bytes], board: Board, watch: Callable[[Board], None], settings: Mapping[str, Any]
) -> None:
    """Start no more notebooks, ask those at work to save and stop, and wait for them, but not for ever.

    Jobs of a cluster are cancelled by Snakemake; Slurm asks them to end and gives them its own time (KillWait).
    """
    grace_seconds = settings["grace_seconds"]
    limit = f"at most {grace_seconds / 60:g} min (again: at once)"
    print(f"stopping: work under way is saved first, {limit}", file=sys.stderr, flush=True)
    # Snakemake then waits for its running jobs, or cancels those of a cluster
    process.send_signal(signal.SIGINT if settings.get("cluster") else signal.SIGTERM)
    asked, deadline = set[ProcessId](), time.monotonic() + grace_seconds
    while process.poll() is None and time.monotonic() < deadline:
        for runner in set(board.living()) - asked:  # one may have just been started
            asked.add(runner)
            signal_process(runner.pid, signal.SIGTERM)
        watch(board)
        time.sleep(POLL_SECONDS)


def missing_inputs(folder: Path, settings: Mapping[str, Any], selection: Selection) -> list[str]:
    """Return the manifests that ``--only`` needs and that are not there, below the run's folder."""
    if selection.only is None:
        return []
    earlier = [job for job in all_jobs(settings) if job.stage in NEEDS[selection.only]]
    if selection.only == "03" and "simulator" not in settings["retrievers"].values():
        earlier = [job for job in earlier if job.stage != "02"]
    return [job.manifest for job in earlier if not (folder / job.manifest).is_file()]


def snakemake_command(
    folder: Path,
    settings_file: Path,
    selection: Selection,
    settings: Mapping[str, Any],
    dry_run: bool = False,
) -> list[str]:
    """Return the command line: a finished stage is told by its manifest, parameters and inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    on_cluster = settings.get("cluster")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(artifacts.REPO / "Snakefile"),
        "--directory",
        str(folder),
        "--configfile",
        str(settings_file),
        *([] if on_cluster and not dry_run else ["--cores", str(settings["cores"])]),
        "--rerun-triggers",
        "mtime",
        "params",
        "input",
        "--rerun-incomplete",
        "--nolock",
        "--scheduler",
        "greedy",
        "--default-resources",
        f"tmpdir={tempfile.gettempdir()!r}",  # of the notebooks; Snakemake itself gets a folder of its own
        *(cluster.default_resources(on_cluster) if on_cluster else []),
        *(cluster.resource_options(on_cluster, RULES) if on_cluster else []),
        *(["--dry-run"] if dry_run else cluster.executor_options(len(all_jobs(settings))) if on_cluster else []),
        "--nocolor",
    ]
    if selection.only:
        targets = [job.manifest for job in all_jobs(settings) if job.stage == selection.only]
        return [*command, "--force", "--allowed-rules", RULES[selection.only], "--", *targets]
    # Snakemake is content without an intermediate file as long as later ones exist, but here an absent
    # manifest is a stage that was cut off on its way to new results: the later ones are old.
    anew = [job.manifest for job in all_jobs(settings) if not (folder / job.manifest).is_file()]
    if selection.from_stage:
        anew += [RULES[stage] for stage in RULES if stage >= selection.from_stage]
    return [*command, "--forcerun", *anew] if anew else command


class RunLock:
    """Held while a command works on a run; the system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._lock = folder, FileLock(folder / ".run.lock")

    def __enter__(self) -> RunLock:
        """Take the lock, and end runners that a killed command left behind."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = Board(self.folder).owner()
            who = f" (process {owner.pid})" if alive(owner) else ""
            raise ConfigError(
                f"run {self.folder.name!r}: expected it to be free, found a command at work on it{who}; "
                f"wait for it, or choose another name with `--run NAME`"
            ) from None
        board = Board(self.folder)
        for _ in range(20):  # they end by themselves within seconds, see notebook_runner.end_with
            if not board.living():
                break
            time.sleep(0.25)
        for process in board.living():
            stop_tree(process.pid)
        temporary.sweep(self.folder / "logs")
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def finished_unnoticed(
    planned: Sequence[Planned], before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    """Return the names of jobs that had finished when their command was killed, before Snakemake took notice.

    before, now: the settings of that call and of this one.  Such a job would be run again for nothing; the
    runner gives it its manifest back instead.
    """
    kinds, now = ("stages", "code", "models"), files.through_json(now)
    same = [s for s in artifacts.STAGES if all(before.get(kind, {}).get(s) == now[kind][s] for kind in kinds)]
    jobs = [item.job for item in planned if item.reason == CUT_OFF and item.job.stage in same]
    return [job.name for job in jobs if artifacts.finished(now["run"], job.stage, job.arm, job.seed)]


def _plain_reason(reason: str) -> str:
    """Return Snakemake's reason in our words."""
    for theirs, ours in (
        ("Forced", FORCED),
        ("Params have changed", "parameters changed"),
        ("Code has changed", "code changed"),
        ("Input files updated", "an earlier stage runs again"),
        ("Set of input files", "other inputs"),
        ("Updated input", "an input is newer"),
    ):
        if theirs in reason:
            return ours
    return reason[:60]


def last_words(log: Path) -> str:
    """Return the end of a log, indented."""
    return _indented(log.read_text(encoding="utf-8", errors="replace"))


def _indented(text: str, lines: int = 15) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])
