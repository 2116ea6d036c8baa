"""What a run must not leave behind, and what a table of measurements says about where it was made.

Called by ``kill_test`` and ``soak``.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import datetime, timezone
from pathlib import Path

import psutil

from zerosearch import artifacts, pipeline
from zerosearch.environment import installed_version, machine, source_version
from zerosearch.errors import ConfigError

MARK = "ZEROSEARCH_MARK"  # in the environment of everything that a script starts
VERSIONS = ("torch", "transformers", "trl", "papermill", "snakemake")
# Names that belong to one call of the command and not to its results.
_OF_A_CALL = (".snakemake/", "logs/")
_OF_AN_ATTEMPT = "/superseded/"


def made_by() -> dict[str, str]:
    """Return the columns that every table starts with: date, machine, versions, commit."""
    here, source = machine(), source_version(artifacts.REPO)
    commit = str(source["commit"])[:12] + ("-dirty" if source["dirty"] else "")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{here['cpu']}, {here['n_cpus']} cores, {platform.platform()}",
        "versions": f"python {here['python']}, " + ", ".join(f"{name} {installed_version(name)}" for name in VERSIONS),
        "commit": commit,
    }


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes whose environment carries a mark, this process left out."""
    found = []
    for process in psutil.process_iter():
        try:
            carries = process.pid != os.getpid() and process.environ().get(MARK) == mark
            if carries and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def processes_left(mark: str, patience_seconds: float = 15.0) -> list[str]:
    """Return the command lines of marked processes that do not end in time."""
    deadline = time.monotonic() + patience_seconds
    while (found := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [f"process {p.pid} ({' '.join(p.cmdline()[1:4])}) is still there" for p in found if p.is_running()]


def files_left(folder: Path, undisturbed: Path) -> list[str]:
    """Return files of a finished run that another finished run does not have: temporary ones, checkpoints."""
    wanted = {path.relative_to(undisturbed).as_posix() for path in _files(undisturbed)}
    found = (path.relative_to(folder).as_posix() for path in _files(folder))
    mine = [name for name in found if not name.startswith(_OF_A_CALL) and _OF_AN_ATTEMPT not in name]
    return [f"{name} was left behind" for name in sorted(mine) if name not in wanted]


def locks_left(folder: Path) -> list[str]:
    """Return what keeps another command from working on a run, or makes Snakemake doubt it."""
    found = [f"Snakemake left {path.name}" for kind in ("locks", "incomplete")
             for path in (folder / ".snakemake" / kind).glob("*")]
    try:
        with pipeline.RunLock(folder):
            return found
    except ConfigError as error:
        return [*found, str(error)]


def temporary_left(folder: Path) -> list[str]:
    """Return what stands in a folder for temporary files; PyTorch's cache is one folder for ever, and is meant to stay."""
    found = (path.name for path in sorted(folder.iterdir()) if not path.name.startswith("torchinductor_"))
    return [f"temporary {name} was left behind" for name in found]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
