"""The check before a run: packages, memory, disk, GPUs, notebooks and the user's own files.

Nothing heavy is imported: versions are read from the installed distributions' records.  Every problem
is one sentence with the command that mends it; all of them are reported together.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from zerosearch import artifacts
from zerosearch.environment import installed_version
from zerosearch.profiles import Needs

DISTRIBUTION = "zerosearch-workbook"
GIB = 2**30
_CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def package_problems() -> list[str]:
    """Return packages that are absent or have another version than the project asks for."""
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [
            f"packages: expected {DISTRIBUTION} to be installed, found none; run ./run_all.sh, it installs it"
        ]
    problems = []
    for requirement in map(Requirement, wanted):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problems.append(
                f"packages: expected {requirement.name}{requirement.specifier}, found {found or 'none'}; run "
                f"`pip install -c constraints.txt -e .` here, or delete .venv and run ./run_all.sh"
            )
    return problems


def machine_problems(needs: Needs, folder: Path) -> list[str]:
    """Return what this machine lacks for a profile: memory, free disk below folder, GPUs."""
    problems = []
    memory = usable_memory_gib()
    if memory < needs.memory_gib:
        problems.append(
            f"memory: expected {needs.memory_gib:g} GiB, found {memory:.1f}; use a smaller --profile"
        )
    disk = shutil.disk_usage(_existing(folder)).free / GIB
    if disk < needs.disk_gib:
        problems.append(
            f"disk: expected {needs.disk_gib:g} GiB free at {folder}, found {disk:.1f}; free some with "
            f"`--clean NAME` or point ZEROSEARCH_OUTPUTS at another disk"
        )
    gpus = gpu_count() if needs.gpus else 0
    if gpus < needs.gpus:
        problems.append(
            f"GPUs: expected {needs.gpus} NVIDIA GPUs, found {gpus}; use --profile laptop on this machine"
        )
    return problems


def memory_warning(needs: Needs) -> str | None:
    """Return a warning when other programs leave less memory than a profile needs."""
    free = psutil.virtual_memory().available / GIB
    if free >= needs.memory_gib:
        return None
    return f"memory: {needs.memory_gib:g} GiB are needed, {free:.1f} are free now; close other programs"


def notebook_problems() -> list[str]:
    """Return the notebooks that are not where the Snakefile expects them."""
    paths = [artifacts.notebook_path(stage) for stage in artifacts.STAGES]
    return [
        f"notebook: expected {path}, found none; restore it with `git checkout notebooks`"
        for path in paths
        if not path.is_file()
    ]


def question_problems(questions: Path | None, corpus: Path | None) -> list[str]:
    """Return what is wrong with ``--questions DIR`` and ``--corpus FILE``, as far as names show it."""
    if (questions is None) != (corpus is None):
        return [
            "--questions and --corpus: expected both (questions need passages to search), found one of them"
        ]
    problems = []
    if questions is not None and not (questions.is_dir() and any(questions.glob("*.jsonl"))):
        problems.append(
            f"--questions: expected a folder with files named <set>.jsonl, found none at {questions}"
        )
    if corpus is not None and not corpus.is_file():
        problems.append(
            f"--corpus: expected a passages file (id, title, text per line), found none at {corpus}"
        )
    return problems


def price_book_problems(price_book: str) -> list[str]:
    """Return a complaint when the price book (relative to the project) is not there."""
    path = artifacts.REPO / price_book
    return (
        []
        if path.is_file()
        else [f"05.price_book: expected a YAML file of dated prices, found none at {path}"]
    )


def usable_memory_gib() -> float:
    """Return the memory this process may use, GiB: the machine's, or its container's limit."""
    limits = [psutil.virtual_memory().total]
    for name in _CGROUP_FILES:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits) / GIB


def gpu_count() -> int:
    """Return how many NVIDIA GPUs the driver lists, 0 without a driver."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)
