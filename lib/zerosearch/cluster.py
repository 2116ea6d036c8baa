"""The chain on a Slurm cluster: what each stage asks for, and the words of Snakemake's executor.

Snakemake submits one job for each stage (stage 03: for each arm and seed) and looks when it has ended; what stands in
the run's folder is the same as without a cluster.  The folder, the project and its Python must lie where all nodes
see them.  sbatch takes the environment along (``--export=ALL``), so that keys of services stand in no job script.
"""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import asdict, dataclass
from typing import Any, Mapping, Sequence

from zerosearch.artifacts import STAGES
from zerosearch.environment import installed_version
from zerosearch.errors import ConfigError
from zerosearch.profiles import Settings

PLUGIN = "snakemake-executor-plugin-slurm"
INSTALL = "pip install -c constraints.txt -e '.[slurm]'"
MARGIN, LEAST_MINUTES = 3, 15  # times the expected duration; a job that a limit ends goes on by the same command
LOOK_SECONDS, LATENCY_SECONDS = 10, 60  # between looks at the queue, at least; a shared folder's delay
_ON_CPU, _ONE_GPU = ("00", "05"), ("01", "04")
_NAME = re.compile(r"[A-Za-z0-9_.,@+-]+")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one job asks Slurm for, in Snakemake's words: GPUs, memory, minutes until it is ended, CPU cores."""

    gpu: int
    mem_mb: int
    runtime: int
    cpus_per_task: int


def resources(settings: Settings, stage: str) -> Resources:
    """Return what a job of a stage asks for: the profile's needs, and its expected duration times a margin."""
    needs = settings.source.needs
    gpus = 0 if stage in _ON_CPU else min(1, needs.gpus) if stage in _ONE_GPU else needs.gpus
    minutes = math.ceil(MARGIN * settings.source.expected_seconds[stage] / 60)
    return Resources(gpus, math.ceil(needs.memory_gib * 1024), max(LEAST_MINUTES, minutes), settings.source.threads)


def described(settings: Settings, partition: str, account: str) -> dict[str, Any]:
    """Return what ``settings.json`` says of a cluster: its names, and the resources of each stage.

    ConfigError for a partition or an account that can be none.
    """
    for name, value in (("partition", partition), ("account", account)):
        if value and not _NAME.fullmatch(value):
            raise ConfigError(
                f"--slurm-{name}: expected a name of letters, digits and _ . , @ + -, found {value!r}; see `sinfo` for "
                "partitions, `sacctmgr show associations` for accounts"
            )
    asked = {stage: asdict(resources(settings, stage)) for stage in STAGES}
    return {"partition": partition, "account": account, "resources": asked}


def problems() -> list[str]:
    """Return what this machine lacks for submitting jobs."""
    found = []
    if installed_version(PLUGIN) is None:
        found.append(f"--executor slurm: expected the package {PLUGIN}, found none; install it with `{INSTALL}`")
    if shutil.which("sbatch") is None:
        found.append(
            "--executor slurm: expected Slurm's command sbatch, found none; run this on the cluster's login node"
        )
    return found


def resource_options(cluster: Mapping[str, Any], rules: Mapping[str, str]) -> list[str]:
    """Return Snakemake's option with the resources of every rule.  rules: stage -> name of its rule."""
    values = [
        f"{rules[stage]}:{name}={value}"
        for stage, asked in cluster["resources"].items() for name, value in asked.items() if name != "gpu" or value
    ]
    return ["--set-resources", *values]


def executor_options(jobs: int) -> list[str]:
    """Return Snakemake's options that send its jobs to Slurm.  jobs: at a time, at most."""
    return [
        "--executor", "slurm", "--jobs", str(jobs), "--latency-wait", str(LATENCY_SECONDS),
        "--slurm-init-seconds-before-status-checks", str(LOOK_SECONDS),
    ]


def default_resources(cluster: Mapping[str, Any]) -> list[str]:
    """Return partition and account as Snakemake's default resources, those that were given."""
    return [f"slurm_{name}={cluster[name]!r}" for name in ("partition", "account") if cluster[name]]


def lines(cluster: Mapping[str, Any], stages: Sequence[str]) -> list[str]:
    """Return a table of what the jobs of these stages ask for."""
    from zerosearch.planning.table import aligned  # prices come with tables, which no run needs before it starts

    where = [f"{name} {cluster[name]}" for name in ("partition", "account") if cluster[name]]
    head = f"jobs of Slurm ({', '.join(where) or 'its default partition and account'}), each at most"
    rows = [["stage", "GPUs", "memory MB", "minutes", "CPU cores"]]
    rows += [[stage, *map(str, cluster["resources"][stage].values())] for stage in stages]
    return [head, *aligned(rows, left=(0,))]
