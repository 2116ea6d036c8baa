"""Facts about this machine and this installation, for manifests and for the check before a run."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

# Libraries whose version can change a number: they stand in every manifest.
LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "trl",
    "accelerate",
    "peft",
    "datasets",
    "evaluate",
    "bm25s",
    "PyStemmer",
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "papermill",
    "snakemake",
    "vllm",
    "triton",
    "torchao",
)


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that can change a number."""
    return {name: version for name in LIBRARIES if (version := installed_version(name))}


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, None when it is absent (nothing is imported)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def vllm_problem() -> str | None:
    """Return what the engine vllm lacks here, with the commands that mend it; None where vLLM is installed."""
    if importlib.util.find_spec("vllm") is not None:
        return None
    return (
        "expected the package vllm, found none; on a GPU install it with `ZEROSEARCH_EXTRAS=gpu ./run_all.sh`, on a CPU "
        "run `\"$(scripts/prepare_vllm.sh)\" -m zerosearch.cli` in place of `./run_all.sh`, with the same options"
    )


def machine() -> dict[str, Any]:
    """Return python, platform, cpu (the processor's name), n_cpus and device (``cpu``, or the GPU's name where
    torch uses one)."""
    torch = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor(),
        "n_cpus": usable_cpus(),
        "device": torch.cuda.get_device_name(0) if on_gpu else "cpu",
    }


def processor() -> str:
    """Return the processor's name: sums come out differently in the last bits on another one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def source_version(repository: Path) -> dict[str, Any]:
    """Return commit (None outside git) and dirty (True when tracked files differ from it)."""
    commit = _git(repository, "rev-parse", "HEAD")
    changed = _git(repository, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": bool(changed)}


def peak_rss_mib() -> float:
    """Return the largest resident memory of this process so far, MiB (0.0 on Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _git(repository: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
