"""The notice board of a run: which notebook is at work, since when, and how it ended.

The notebook runner writes it, the command line reads it; small JSON files in ``<run>/logs/``.
"""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Mapping

from zerosearch import artifacts, files
from zerosearch.errors import WorkbookError
from zerosearch.processes import ProcessId, alive, this_process
from zerosearch.progress import Heartbeat, read_heartbeat

OWNER_VARIABLE = "ZEROSEARCH_OWNER"  # tells a runner which command line it belongs to
_PROCESS: dict[str, type | tuple[type, ...]] = {"pid": int, "created": (int, float)}
State = Literal["running", "done", "failed", "stopped"]  # stopped: asked to end, its work is saved


@dataclass(frozen=True, slots=True)
class Job:
    """One execution of one stage's notebook; arm and seed for stage 03 only."""

    stage: str
    arm: str | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Return e.g. ``03_curriculum_rl_zerosearch_seed0``, used in file names."""
        return "_".join(
            [artifacts.NOTEBOOKS[self.stage], *([self.arm, f"seed{self.seed}"] if self.arm else [])]
        )

    @property
    def folder(self) -> str:
        """Return the stage folder below the run's folder, e.g. ``03_rl/zerosearch/seed0``."""
        return "/".join([artifacts.STAGES[self.stage], *([self.arm, f"seed{self.seed}"] if self.arm else [])])

    @property
    def manifest(self) -> str:
        """Return the file that Snakemake waits for, below the run's folder."""
        return f"{self.folder}/{artifacts.MANIFEST}"


@dataclass(frozen=True, slots=True)
class Status:
    """How a job stands.  started, ended: seconds since 1970; message: why it ended so, for users; host: where."""

    state: State
    process: ProcessId
    started: float
    ended: float | None = None
    message: str = ""
    host: str = ""

    @property
    def gone(self) -> bool:
        """Whether it is said to run, but its process does not.  Of another machine's process nothing is known."""
        return self.state == "running" and self.here and not alive(self.process)

    @property
    def here(self) -> bool:
        """Whether its process is one of this machine: a cluster's jobs are not."""
        return self.host in ("", platform.node())

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end, or until now."""
        return (self.ended if self.ended is not None else time.time()) - self.started


class Board:
    """Statuses, logs and executed notebooks of one run folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def log(self, job: Job) -> Path:
        """Return the file that receives everything the notebook prints."""
        return self.folder / "logs" / f"{job.name}.log"

    def notebook(self, job: Job) -> Path:
        """Return where the executed copy of the notebook goes."""
        return self.folder / "notebooks" / f"{job.name}.ipynb"

    def status(self, job: Job) -> Status | None:
        """Return how a job stands, None when it never ran."""
        return self._read(self._status_file(job))

    def heartbeat(self, job: Job) -> Heartbeat | None:
        """Return the latest word of a job's notebook since its present start, None before the first."""
        status = self.status(job)
        try:
            return read_heartbeat(self.folder / job.folder, since=status.started if status else 0.0)
        except (WorkbookError, TypeError):  # damaged, or of another version: the stage writes a new one soon
            return None

    def started(self, job: Job) -> None:
        """Note that this process now runs the job."""
        self._write(job, Status("running", this_process(), time.time(), host=platform.node()))

    def ended(self, job: Job, state: State, message: str = "") -> None:
        """Note how the job ended."""
        before = self.status(job)
        begun = before.started if before else time.time()
        self._write(job, Status(state, this_process(), begun, time.time(), message, platform.node()))

    def own(self) -> None:
        """Note that this process (the command line) works on the run."""
        files.write_json(self._owner_file, asdict(this_process()))

    def owner(self) -> ProcessId | None:
        """Return the command that works on the run, as it noted itself."""
        return _process(files.find_object(self._owner_file, _PROCESS))

    def living(self) -> list[ProcessId]:
        """Return runners of an earlier command that are still at work."""
        statuses = (self._read(path) for path in sorted(self.folder.glob("logs/*.json")))
        return [s.process for s in statuses if s and s.state == "running" and s.here and alive(s.process)]

    @property
    def _owner_file(self) -> Path:
        return self.folder / "owner.json"

    def _status_file(self, job: Job) -> Path:
        return self.folder / "logs" / f"{job.name}.json"

    def _write(self, job: Job, status: Status) -> None:
        files.write_json(self._status_file(job), asdict(status))

    def _read(self, path: Path) -> Status | None:
        found = files.find_object(path, {"state": str, "process": dict, "started": (int, float)})
        process = _process(found["process"]) if found else None
        if found is None or process is None:
            return None
        ended, message, host = found.get("ended"), str(found.get("message", "")), str(found.get("host", ""))
        ended = ended if isinstance(ended, (int, float)) else None
        return Status(found["state"], process, found["started"], ended, message, host)  # type: ignore[arg-type]


def _process(found: Mapping[str, Any] | None) -> ProcessId | None:
    """Return the process of a record, None for a record that does not name one."""
    if found is None or not all(isinstance(found.get(name), kinds) for name, kinds in _PROCESS.items()):
        return None
    return ProcessId(found["pid"], found["created"])
