"""A Slurm of one machine, for tests: its commands as one program, called by their names, that really runs the jobs.

``sbatch`` notes its arguments and its environment's variables, starts the job and prints its number; ``srun`` runs a
step; ``sacct`` tells states; ``scancel`` asks a job to end, as Slurm does: its steps get SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "squeue", "scancel", "sinfo", "sacctmgr", "sshare")
FOLDER = "FAKE_SLURM"  # variable with the folder of jobs


def install(folder: Path) -> dict[str, str]:
    """Make the commands in folder/bin; return the environment variables that lead to them."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name in COMMANDS:
        script = commands / name
        script.write_text(f"#!/bin/sh\nexec {sys.executable} {__file__} {name} \"$@\"\n")
        script.chmod(0o755)
    return {FOLDER: str(folder), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}


def jobs(folder: Path) -> list[dict]:
    """Return what sbatch was given, in order."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.job"))]


def sbatch(folder: Path, arguments: list[str]) -> int:
    """Start a job."""
    number = str(len(list(folder.glob("*.job"))) + 1)
    wrapped = [word.removeprefix("--wrap=") for word in arguments if word.startswith("--wrap=")]
    wrapped += [arguments[at + 1] for at, word in enumerate(arguments) if word == "--wrap"]
    place = arguments[arguments.index("-D") + 1]
    noted = {"arguments": arguments, "environment": sorted(os.environ)}
    (folder / f"{number}.job").write_text(json.dumps(noted))
    command = f"({wrapped[0]}) >{folder}/{number}.out 2>&1; echo $? >{folder}/{number}.rc"
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=place, start_new_session=True, env=os.environ | {"SLURM_JOB_ID": number},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    (folder / f"{number}.pid").write_text(str(process.pid))
    print(number)
    return 0


def state(folder: Path, number: str) -> str:
    """Return a job's state in Slurm's words."""
    if (folder / f"{number}.cancelled").exists():
        return "CANCELLED"
    code = folder / f"{number}.rc"
    if not code.exists():
        return "RUNNING"
    return "COMPLETED" if code.read_text().strip() == "0" else "FAILED"


def main(name: str, arguments: list[str]) -> int:
    """Be one of Slurm's commands."""
    folder = Path(os.environ[FOLDER])
    if name == "sbatch":
        return sbatch(folder, arguments)
    if name == "srun":
        step = next(at for at, word in enumerate(arguments) if not word.startswith("-"))
        os.execvp(arguments[step], arguments[step:])
    if name == "sacct" and "--parsable2" in arguments:
        print("".join(f"{path.stem}|{state(folder, path.stem)}\n" for path in folder.glob("*.job")), end="")
    if name == "scancel":
        for number in filter(str.isdecimal, arguments):
            (folder / f"{number}.cancelled").touch()
            os.killpg(int((folder / f"{number}.pid").read_text()), signal.SIGTERM)
    if name == "sinfo":
        print("PARTITION\nmain*")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
