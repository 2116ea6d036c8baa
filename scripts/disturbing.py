"""One disturbed run: started, killed at a drawn moment, started again at once, compared with an undisturbed one.

Processes are ended by SIGKILL, so nothing can tidy up.  Everything that is started carries a mark in its
environment and stands in a session of its own.  Called by ``kill_test`` and by a test.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

import pandas as pd
import psutil
import traces

from zerosearch import artifacts, files, ledger
from zerosearch.comparing import facts, outputs
from zerosearch.errors import MissingInput, WorkbookError
from zerosearch.jobs import Board, Job

VICTIMS = ("all", "cli", "kernel", "runner", "snakemake")
FRACTIONS = (0.1, 0.9)  # of a stage's duration: the moment is drawn between them
MOST_CALLS, PATIENCE = 3, 7200.0  # calls after which a run counts as lost; seconds for one call
STEPS = ("metrics.jsonl", "sft_metrics.jsonl")
TIMED = ("figures/waiting.png",)  # drawings of wall time
AMOUNTS = ["fresh", "cached", "paid", "prompt", "generated"]  # of the ledger; seconds are never twice the same
ACCOUNT = ["stage", "arm", "seed", "kind", "engine", "role", "model"]


@dataclass(frozen=True, slots=True)
class Kill:
    """One planned kill.  fraction: of the job's duration in the undisturbed run.  victim: one of VICTIMS."""

    seed: int
    number: int
    job: Job
    fraction: float
    victim: str

    @property
    def run(self) -> str:
        """Return the name of the run that is disturbed."""
        return f"kill-{self.seed}-{self.number}"


@dataclass(frozen=True, slots=True)
class Disturbed:
    """What came of a kill.  moment: seconds after the job's start.  victim: who was killed in fact.

    exit_codes: of all calls in order.  seconds: of all calls together.  problems: everything in which the run is
    not like the undisturbed one.
    """

    kill: Kill
    moment: float
    victim: str
    exit_codes: tuple[int, ...]
    seconds: float
    problems: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Say whether the kill changed nothing and left nothing."""
        return not self.problems

    def text(self) -> str:
        """Return one line for the terminal."""
        kill = self.kill
        return (
            f"kill {kill.number} (seed {kill.seed}): {kill.job.name} after {self.moment:.1f} s, victim {self.victim}, "
            f"exit codes {' '.join(map(str, self.exit_codes))}, {self.seconds:.0f} s, "
            f"identical: {'yes' if self.identical else 'NO: ' + '; '.join(self.problems)}"
        )


@dataclass(frozen=True, slots=True)
class Commands:
    """Calls of the command line with the same options.  outputs: the folder of all runs."""

    options: tuple[str, ...]
    outputs: Path

    def start(self, run: str) -> subprocess.Popen[bytes]:
        """Start a call in a session of its own; what it prints is appended to ``<run>.log``."""
        words = [sys.executable, "-m", "zerosearch.cli", *self.options, "--run", run]
        self.temporary(run).mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ, "ZEROSEARCH_OUTPUTS": str(self.outputs), "TMPDIR": str(self.temporary(run)),
            traces.MARK: self.mark(run),
        }
        with self.log(run).open("ab") as log:
            return subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)

    def mark(self, run: str) -> str:
        """Return what the processes of a run carry in their environment."""
        return f"{self.outputs / run}"

    def log(self, run: str) -> Path:
        """Return the file with everything that the calls of a run printed."""
        return self.outputs / f"{run}.log"

    def temporary(self, run: str) -> Path:
        """Return the folder for the temporary files of a run."""
        return self.outputs / f"{run}.tmp"


def draw(count: int, seed: int, jobs: Sequence[Job]) -> list[Kill]:
    """Return ``count`` kills: every stage and every victim before one comes again, moments uniform."""
    rng = random.Random(seed)
    stages, victims = _rounds(rng, sorted({job.stage for job in jobs}), count), _rounds(rng, VICTIMS, count)
    kills = []
    for number, (stage, victim) in enumerate(zip(stages, victims, strict=True)):
        job = rng.choice([job for job in jobs if job.stage == stage])
        kills.append(Kill(seed, number, job, round(rng.uniform(*FRACTIONS), 3), victim))
    return kills


def _rounds(rng: random.Random, choices: Sequence[str], count: int) -> list[str]:
    """Return count choices in shuffled rounds."""
    found: list[str] = []
    while len(found) < count:
        found += rng.sample(list(choices), len(choices))
    return found[:count]


def durations(folder: Path, jobs: Sequence[Job]) -> dict[Job, float]:
    """Return how many seconds each job of a finished run took, by its notice board."""
    board, found = Board(folder), {}
    for job in jobs:
        status = board.status(job)
        if status is None or status.ended is None:
            raise MissingInput(
                f"{folder}: expected the times of {job.name} in logs/, found none; leave --reference out"
            )
        found[job] = status.ended - status.started
    return found


def disturb(commands: Commands, kill: Kill, seconds: float, undisturbed: str) -> Disturbed:
    """Carry out one kill and finish the run.  seconds: the job's duration in the run named undisturbed."""
    started = time.time()
    moment, victim, code = interrupt(commands, kill, seconds)
    codes = finish(commands, kill.run, code)
    problems = found_problems(commands, kill.run, codes, undisturbed)
    return Disturbed(kill, moment, victim, tuple(codes), time.time() - started, tuple(problems))


def interrupt(commands: Commands, kill: Kill, seconds: float) -> tuple[float, str, int]:
    """Start a call and kill; return the job's age at that moment in seconds, who was killed, and the exit code."""
    started, board = time.time(), Board(commands.outputs / kill.run)
    process = commands.start(kill.run)
    moment = _wait_for_moment(process, board, kill.job, started, kill.fraction * seconds)
    return moment, strike(process.pid, board, kill), process.wait(PATIENCE)


def finish(commands: Commands, run: str, code: int) -> list[int]:
    """Give the same command again, at once, until it ends with 0; return all exit codes, ``code`` the first."""
    codes = [code]
    while codes[-1] != 0 and len(codes) < MOST_CALLS:
        codes.append(commands.start(run).wait(PATIENCE))
    return codes


def found_problems(commands: Commands, run: str, codes: Sequence[int], undisturbed: str) -> list[str]:
    """Return what went wrong, differs, or was left behind."""
    problems = [*_call_problems(commands, run, codes), *traces.processes_left(commands.mark(run))]
    if codes[-1] == 0:
        problems += [*differences(undisturbed, run), *traces.temporary_left(commands.temporary(run))]
    return problems


def _wait_for_moment(
    process: subprocess.Popen[bytes], board: Board, job: Job, started: float, seconds: float
) -> float:
    """Wait until a job is so many seconds old, or ends before that; return how old it was."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        status = board.status(job)
        if status and status.started >= started:
            age = time.time() - status.started
            if age >= seconds or status.state != "running":
                return age
        time.sleep(0.02)
    raise WorkbookError(f"{job.name}: expected it to be at work, found the command at its end ({process.poll()})")


def strike(pid: int, board: Board, kill: Kill) -> str:
    """End the victim, or the next greater one when it is not there (a kernel before or after its job); return which.

    pid: of the command.
    """
    status = board.status(kill.job)
    runner = status.process.pid if status and status.state == "running" else 0
    family = {
        "kernel": [p for p in _children(runner) if "ipykernel_launcher" in " ".join(p.cmdline())],
        "runner": _existing(runner),
        "snakemake": [p for p in _children(pid) if "snakemake" in p.cmdline()],
        "cli": _existing(pid),
        "all": [*_existing(pid), *_children(pid, recursive=True)],  # parents first: none may see a child end
    }
    greater = list(family)[list(family).index(kill.victim):]
    victim = next(name for name in greater if family[name])
    for process in family[victim]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    return victim


def _existing(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid)] if pid and psutil.pid_exists(pid) else []


def _children(pid: int, recursive: bool = False) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive) if pid else []
    except psutil.NoSuchProcess:
        return []


def _call_problems(commands: Commands, run: str, codes: Sequence[int]) -> list[str]:
    """Return what was wrong with the calls themselves: codes, and a traceback on the terminal."""
    found = []
    if codes[0] not in (0, 1, -signal.SIGKILL):
        found.append(f"the killed call ended with code {codes[0]}")
    found += [f"call {number} ended with code {code}" for number, code in enumerate(codes[1:], 2) if code != 0]
    if "Traceback" in commands.log(run).read_text(encoding="utf-8", errors="replace"):
        found.append(f"a traceback in {commands.log(run)}")
    return found


def differences(undisturbed: str, run: str) -> list[str]:
    """Return everything in which a finished run is not like the undisturbed one, and what it left behind."""
    folders = artifacts.run_dir(undisturbed), artifacts.run_dir(run)
    made = facts.require_finished(undisturbed), facts.require_finished(run)
    scores = [files.sha256(folder / artifacts.STAGES["04"] / "scores.parquet") for folder in folders]
    return [
        *([] if scores[0] == scores[1] else ["scores.parquet differs"]),
        *_parameter_problems(*made),
        *(problem for stage in made[0] for problem in _stage_problems(stage, folders, made)),
        *step_problems(folders[1]),
        *ledger_problems(*folders),
        *traces.files_left(folders[1], folders[0]),
        *traces.locks_left(folders[1]),
    ]


def _parameter_problems(a: dict[str, facts.Manifest], b: dict[str, facts.Manifest]) -> list[str]:
    wanted, found = facts.parameters(a), facts.parameters(b)
    return [d for stage in wanted for d in facts.differing(wanted[stage], found.get(stage, {}), f"{stage}.")]


def _stage_problems(stage: str, folders: tuple[Path, Path], made: tuple[dict[str, Any], dict[str, Any]]) -> list[str]:
    """Return the files of a stage that differ, times left out; of stage 05, which prices seconds, only their names."""
    if stage not in made[1]:
        return [f"{stage} is missing"]
    manifests = made[0][stage], made[1][stage]
    if stage[:2] == "05":
        same = manifests[0]["outputs"].keys() == manifests[1]["outputs"].keys()
        return [] if same else [f"{stage} wrote other files"]
    found = outputs.compare(folders[0] / stage, folders[1] / stage, manifests, None)
    problems = [f"{stage}/{name} differs at {difference.where or 'its whole'}" for name, difference in found]
    wanted, digests = manifests[0]["outputs"], manifests[1]["outputs"]
    drawn = [n for n in wanted if n.startswith("figures/") and n not in TIMED and wanted[n] != digests.get(n)]
    changed = [name for name, digest in digests.items() if files.sha256(folders[1] / stage / name) != digest]
    return [
        *problems, *(f"{stage}/{name} differs" for name in drawn),
        *(f"{stage}/{name} is not what its manifest says" for name in changed),
    ]


def step_problems(folder: Path) -> list[str]:
    """Return the logs of trainings that do not hold every step exactly once, in order."""
    found = []
    for path in sorted(path for name in STEPS for path in folder.rglob(name)):
        steps = [row["step"] for row in files.read_jsonl(path)]
        if steps != list(range(1, len(steps) + 1)):
            found.append(f"{path.relative_to(folder)} holds the steps {steps}")
    return found


def ledger_problems(undisturbed: Path, folder: Path) -> list[str]:
    """Return the accounts of queries and tokens whose sums are not those of the undisturbed run."""
    wanted, found = _sums(undisturbed), _sums(folder)
    names = [name for name in dict.fromkeys([*wanted, *found]) if wanted.get(name) != found.get(name)]
    return [f"ledger {name}: {wanted.get(name)} / {found.get(name)}" for name in names]


def _sums(folder: Path) -> dict[str, dict[str, int]]:
    """Return the amounts of every account of a run's ledgers."""
    events = ledger.gather(folder)
    counted = events[events["kind"] != "busy"].assign(**{name: events[name].fillna(0) for name in AMOUNTS})
    sums = counted.groupby(ACCOUNT, dropna=False)[AMOUNTS].sum()
    return {
        " ".join(str(part) for part in key if pd.notna(part)):
            {name: int(amount) for name, amount in row.items() if amount > 0}
        for key, row in sums.iterrows()
    }
