"""Starting the processes that train a model together, and following them: ``accelerate launch`` as a child.

The notebook writes a job, starts the processes (``worker``) and shows their progress as it would its own.  They stand
below a ``guardian``: whatever becomes of the notebook, they end with it, and one that dies ends all.  Asked to stop,
the notebook leaves a sign in the job's folder; the processes finish the step, save it and end.  Called by
``together``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import torch

from zerosearch import artifacts, files
from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.interrupts import StopRequest

WORKER = "zerosearch.training.process"
PROGRESS, STOP, LOG, CONFIG, DONE = "progress.jsonl", "stop", "processes.log", "accelerate.yaml", "done.json"
FAILURE = "failure-{rank}.json"
MACHINES, MACHINE, MAIN = "ZEROSEARCH_MACHINES", "ZEROSEARCH_MACHINE", "ZEROSEARCH_MAIN"
_POLL_SECONDS, _LAST_LINES = 0.1, 15
_FIX = (
    "run the same command again: a training goes on from its last checkpoint; or take one process with "
    "--set layout.policy_gpus=1 (in stage 02 and --set layout.simulator_gpus=0)"
)
_GONE = ("Connection reset by peer", "Connection closed by peer")  # what is heard of a process that was killed
Show = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of a training.  count: of them.  rank: which one this is, 0 the first.  main: ADDRESS:PORT of the
    first, at which all meet; empty on a single machine, where a free port is taken.
    """

    count: int = 1
    rank: int = 0
    main: str = ""


def machines_of(environment: Mapping[str, str]) -> Machines:
    """Return what the environment says of the machines: ZEROSEARCH_MACHINES, _MACHINE and _MAIN; ConfigError if wrong."""
    values = {name: environment.get(name, "") for name in (MACHINES, MACHINE, MAIN)}
    count, rank = values[MACHINES] or "1", values[MACHINE] or "0"
    if not (count.isdigit() and rank.isdigit() and 0 <= int(rank) < int(count)):
        raise ConfigError(
            f"machines: expected {MACHINES} of 1 or more and {MACHINE} below it, found {count!r} and {rank!r}; set them "
            "anew, or unset both for one machine"
        )
    if int(count) > 1 and not values[MAIN].rpartition(":")[2].isdigit():
        raise ConfigError(
            f"machines: expected {MAIN}=ADDRESS:PORT of the first of {count} machines, found {values[MAIN]!r}; set it, "
            f"or unset {MACHINES}"
        )
    return Machines(int(count), int(rank), values[MAIN] if int(count) > 1 else "")


def config(processes: int, machines: Machines) -> dict[str, Any]:
    """Return accelerate's configuration: everything that it would otherwise take from the user's own file."""
    address, _, port = machines.main.rpartition(":")
    return {
        "compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "mixed_precision": "no",
        "num_processes": processes, "num_machines": machines.count, "machine_rank": machines.rank, "gpu_ids": "all",
        "main_process_ip": address or None, "main_process_port": int(port) if port else 0, "rdzv_backend": "static",
        "same_network": True, "use_cpu": False, "debug": False,
    }


def command(folder: Path, processes: int, machines: Machines, arguments: Sequence[str], threads: int = 1) -> list[str]:
    """Return the command that starts a machine's processes.

    folder: of the job, which has accelerate's configuration; the machine's own place among the others is an option.
    arguments: of the worker.  threads: of each process.  Without a GPU the same command starts processes on the CPU.
    """
    options = {"machine_rank": machines.rank, "num_processes": processes, "num_cpu_threads_per_process": threads}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(folder / CONFIG), "--multi_gpu", *given,
        "-m", WORKER, *arguments,
    ]


def check(
    processes: int, most: int, *, counted: str = "policy_gpus", things: str = "questions",
    setting: str = "03.questions_per_step",
) -> None:
    """Raise ConfigError for more processes than there are cards, than things to deal out, or than divide evenly.

    most: things of a step, of which every process must have one.  counted: what of the layout makes the processes.
    things, setting: their name, and the parameter that says how many there are.
    """
    machines = machines_of(os.environ)
    cards = torch.cuda.device_count() * machines.count
    if torch.cuda.is_available() and processes > cards:
        raise ConfigError(
            f"layout: expected {counted} of at most {cards}, the GPUs here, found {processes}; lower it with "
            f"--set layout.policy_gpus={cards} --set layout.simulator_gpus=0"
        )
    if processes > most or processes % machines.count:
        raise ConfigError(
            f"layout: expected {counted} of at most {most}, the {things} of a step, and a multiple of {machines.count}, "
            f"the machines, found {processes}; set layout.policy_gpus or {setting} anew"
        )


def run(folder: Path, processes: int, arguments: Sequence[str], show: Show, threads: int = 1) -> dict[str, Any]:
    """Start the processes of a job, follow them to their end; return what the first one left in ``done.json``.

    folder: of the job; log and progress go there.  show: called with every row of the progress.  Raises WorkbookError
    with the end of the log when a process dies; what a process says in words of its own is raised as it is said.
    """
    machines = machines_of(os.environ)
    files.write_json(folder / CONFIG, config(processes, machines))  # JSON is YAML
    given = command(folder, processes, machines, arguments, threads)
    for rank in range(1, machines.count):
        there = command(folder, processes, replace(machines, rank=rank), arguments, threads)
        print(f"on machine {rank} (same disk, same environment) run: {' '.join(there)}", flush=True)
    code = follow(given, folder, show)
    done = files.find_object(folder / DONE, {"kind": str})
    if code == 0 and done is not None:
        return done
    if said := failure(folder):
        raise WorkbookError(f"{said}; {_FIX}")
    raise WorkbookError(_complaint(folder, code))


def telling(work: Callable[[], int], folder: Path, rank: int) -> int:
    """Return the exit code of a process's work; leave what ended it for the notebook, its traceback in the log."""
    try:
        return work()
    except WorkbookError as error:
        told = str(error)
    except Exception as error:
        traceback.print_exc()
        found = f"process {rank} ended by {type(error).__name__}: {error}"
        if any(words in str(error) for words in _GONE):
            found = "one gone without a word (most often because memory ran out)"
        told = (
            f"training in several processes: expected all of them to finish, found {found}; what each said stands in "
            f"{artifacts.shown(folder / LOG)}"
        )
    files.write_json(folder / FAILURE.format(rank=rank), {"message": told})
    return 1


def failure(folder: Path) -> str:
    """Return what the first process that gave up has told; empty where none has."""
    paths = sorted(folder.glob(FAILURE.format(rank="*")), key=lambda path: path.stat().st_mtime_ns)
    return files.read_object(paths[0], {"message": str}, _FIX)["message"] if paths else ""


def follow(given: Sequence[str], folder: Path, show: Show) -> int:
    """Run a command below a guardian until it ends, and show its progress; return its exit code."""
    path = os.pathsep.join([str(artifacts.REPO / "lib"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (folder / LOG).open("ab") as said, StopRequest() as stop:
        guardian = subprocess.Popen(
            [sys.executable, "-m", "zerosearch.engines.guardian", *given], stdin=subprocess.PIPE, stdout=said,
            stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | {"PYTHONPATH": path},
        )
        shown = 0
        try:
            while (code := guardian.poll()) is None:
                shown = _show_new(folder / PROGRESS, shown, show)
                if stop.requested:
                    (folder / STOP).touch()
                time.sleep(_POLL_SECONDS)
            _show_new(folder / PROGRESS, shown, show)
            return code
        finally:
            guardian.stdin.close()  # type: ignore[union-attr] - its sign to end all that it started
            guardian.wait()


def fresh_folder(path: Path) -> Path:
    """Return an empty folder for a job: what one that was cut off left is of no use."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _show_new(path: Path, shown: int, show: Show) -> int:
    """Show the whole lines of a file after the first ``shown`` bytes; return how many are shown then."""
    if not path.exists():
        return shown
    with path.open("rb") as rows:
        rows.seek(shown)
        new = rows.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.splitlines():
        show(json.loads(line))
    return shown + len(whole)


def _complaint(folder: Path, code: int) -> str:
    log = folder / LOG
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    said = [line for line in lines if line.strip()][-_LAST_LINES:]
    return (
        f"training in several processes: expected all of them to finish, found exit code {code}; the log "
        f"{artifacts.shown(log)} ends with:\n" + "\n".join(f"  {line}" for line in said) + f"\n{_FIX}"
    )
