"""The check before a run: packages, memory, disk, GPUs, notebooks, models, prices and the user's own files.

Nothing heavy is imported: versions are read from the installed distributions' records.  Every problem
is one sentence with the command that mends it; all of them are reported together.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import psutil
from packaging.requirements import Requirement

from zerosearch import artifacts, files, layouts, model_files, simulator_weights
from zerosearch.environment import installed_version, vllm_problem
from zerosearch.errors import WorkbookError, did_you_mean
from zerosearch.prices import PriceBook
from zerosearch.profiles import Needs, Settings
from zerosearch.question_sets.hub import SOURCES
from zerosearch.question_sets.own import Choice, check_own, check_source
from zerosearch.retrievers import DENSE_INSTALL, ENGINES, SERPAPI_KEY
from zerosearch.retrievers.base import PAID_ENGINES
from zerosearch.simulator_weights import Place
from zerosearch.stage_parameters import SERVED_MODELS

DISTRIBUTION = "zerosearch-workbook"
MAX_CORPUS_BYTES = 64 * 2**20  # of a larger corpus the beginning is checked before the run
NEED_CORPUS = ("bm25", "bm25_plain", "dense")  # engines that search the passages of the run
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
    """Return the notebooks that are not where the Snakefile expects them, or are damaged."""
    return [problem for stage in artifacts.STAGES for problem in _notebook(artifacts.notebook_path(stage))]


def _notebook(path: Path) -> list[str]:
    fix = "restore it with `git checkout notebooks`"
    if not path.is_file():
        return [f"notebook: expected {path}, found none; {fix}"]
    try:
        cells = files.read_object(path, {"cells": list, "metadata": dict}, fix)["cells"]
    except WorkbookError as error:
        return [f"notebook: {error}"]
    whole = all(isinstance(cell, dict) and {"cell_type", "metadata", "source"} <= set(cell) for cell in cells)
    wanted = "cells with a type, metadata and a source"
    return [] if whole else [f"notebook: {path}: expected {wanted}, found others; {fix}"]


def searches(settings: Settings, stages: Iterable[str]) -> dict[str, str]:
    """Return which real engine searches where in these stages: by parameter, or by arm that practises on it."""
    from zerosearch.training.arms import ARMS

    stages = set(stages)
    found = {f"{stage}.retriever": settings.stage(stage)["retriever"] for stage in ("01", "04") if stage in stages}
    if "03" in stages:
        found |= {f"arm {arm}": "bm25" for arm in settings.arms if ARMS[arm].retriever == "bm25"}
    return found


def question_problems(choice: Choice, engines: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return (problems, notes) of a reader's questions and passages: what stage 00 would say of them.

    Of a corpus over MAX_CORPUS_BYTES only the beginning is read; stage 00 reads the rest.  engines: the real ones that
    are asked, by place (see ``searches``); some have passages of their own.
    """
    if not (choice.brought or choice.corpus_file):
        return [], []
    if not choice.brought:
        return ["--questions and --corpus: expected both, found --corpus alone; add --questions DIR"], []
    needed = [place for place, engine in engines.items() if engine in NEED_CORPUS]
    if needed and not choice.corpus_file:
        return [_corpus_lacks(choice, needed)], []
    if problems := _path_problems(choice):
        return problems, []
    try:
        n_evaluated, share, notes = check_own(choice, MAX_CORPUS_BYTES)
    except WorkbookError as error:
        return [str(error)], []
    return [], [*notes, *(_coverage_notes(n_evaluated, share, Path(choice.corpus_file)) if n_evaluated else [])]


def _corpus_lacks(choice: Choice, needed: Sequence[str]) -> str:
    """Return the complaint about questions without passages.  needed: the places that search passages of the run."""
    own = [f"--set {place}=NAME" for place in needed if place.endswith(".retriever")]
    arms = [place.removeprefix("arm ") for place in needed if place.startswith("arm ")]
    engines = ", ".join(name for name in ENGINES if name not in NEED_CORPUS)
    ways = [f"an engine with passages of its own ({engines}) by {' and '.join(own)}"] if own else []
    ways += [f"--arms without {' and '.join(arms)}"] if arms else []
    return (
        f"--questions without --corpus: expected both, since {', '.join(needed)} search{'es' * (len(needed) == 1)} "
        f"passages of yours, found {choice.where} alone; add --corpus FILE, or choose {', and '.join(ways)}"
    )


def collection_problems(choice: Choice, offline: bool) -> tuple[list[str], list[str]]:
    """Return (problems, notes) of a collection of the hub: what must be fetched first, what will be downloaded.

    offline: nothing may be downloaded.
    """
    if not choice.questions_source:
        return [], []
    try:
        note = check_source(choice, offline)
    except WorkbookError as error:
        return [str(error)], []
    return [], [note] if note else []


def _path_problems(choice: Choice) -> list[str]:
    """Return what is not where the options say."""
    problems = []
    if choice.questions_dir and not Path(choice.questions_dir).is_dir():
        problems.append(
            f"--questions: expected a folder with files named <set>.jsonl, found none at {choice.questions_dir}; give "
            f"a folder, or one of {', '.join(SOURCES)}{did_you_mean(Path(choice.questions_dir).name, SOURCES)}"
        )
    if choice.corpus_file and not Path(choice.corpus_file).is_file():
        problems.append(
            f"--corpus: expected a passages file (id, title, text per line), found none at {choice.corpus_file}; "
            "give a file"
        )
    return problems


def _coverage_notes(n_evaluated: int, share: float, corpus: Path) -> list[str]:
    """Return a note about evaluation questions that no passage answers; those can only be guessed."""
    part = "the beginning of " if corpus.stat().st_size > MAX_CORPUS_BYTES else ""
    if share == 1.0:
        return []
    return [
        f"--corpus: a golden answer of {share:.0%} of the {n_evaluated:,} evaluation questions stands in a passage of "
        f"{part}{corpus}; the others cannot be found by searching"
    ]


def model_problems(settings: Settings, stages: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (damaged, absent) models that these stages name: files to mend, and hub models to download first.

    Shipped models that the run itself builds anew are not looked at.
    """
    stages = list(stages)
    named: dict[str, list[str]] = {}
    for stage in stages:
        for name, value in settings.stage(stage).items():
            if name.endswith("_model") and name not in SERVED_MODELS:
                named.setdefault(value, []).append(f"{stage}.{name}")
    rebuilt = "00" in stages and settings.stage("00")["rebuild_models"]
    damaged: list[str] = []
    absent: list[str] = []
    for model, places in named.items():
        if rebuilt and model in model_files.shipped():
            continue
        on_disk = model.startswith("micro/") or model_files.is_path(model)
        found = model_files.name_problems(model, settings.source.offline)
        (damaged if on_disk else absent).extend(f"{', '.join(places)}: {problem}" for problem in found)
    return damaged, absent


_SERVERS = (  # of models: stage, parameter with the address, parameter with the model's name there
    ("01", "judge_url", "judge_model"), ("03", "simulator_url", "simulator_name"), ("04", "judge_url", "judge_model"),
)


def server_problems(settings: Settings, stages: Iterable[str]) -> list[str]:
    """Return what is wrong with the addresses of models on servers: no address, or no name of a model with one."""
    problems = []
    for stage, url, name in _SERVERS:
        values = settings.stage(stage)
        if stage not in stages or not values[url]:
            continue
        from zerosearch.remote import Service  # slow to import, and needed by few runs

        for address in values[url].split(","):
            try:
                Service(f"{stage}.{url}", address.strip())
            except WorkbookError as error:
                problems.append(str(error))
        if not values[name]:
            problems.append(
                f"{stage}.{name}: expected the name of the model at {stage}.{url}, found none; "
                f"give it with --set {stage}.{name}=NAME"
            )
    return problems


def engine_problems(settings: Settings, stages: Iterable[str]) -> list[str]:
    """Return what the real engines of stages 01 and 04 lack here: a key, an address, the packages of an extra."""
    return [problem for stage in ("01", "04") if stage in stages for problem in _engine(stage, settings.stage(stage))]


def _engine(stage: str, values: Mapping[str, Any]) -> list[str]:
    name, lacks = values["retriever"], ""
    if values["retriever_mode"] == "replay":
        return []
    if name == "serpapi" and not os.environ.get(SERPAPI_KEY):
        lacks = f"a key in the environment variable {SERPAPI_KEY}, found none; set it with `export {SERPAPI_KEY}=...`"
    if name == "wikipedia" and not values["retriever_url"]:
        lacks = (
            f"the address of a server in {stage}.retriever_url, found none; start one with `python -m "
            f"zerosearch.retrievers.server --corpus FILE` and add --set {stage}.retriever_url=http://127.0.0.1:8000"
        )
    absent = [package for package in ("sentence-transformers", "faiss-cpu") if not installed_version(package)]
    if name == "dense" and absent:
        lacks = f"the extra 'dense', found no {' and no '.join(absent)}; install it with `{DENSE_INSTALL}`"
    other = f"or use another engine, e.g. --set {stage}.retriever=bm25"
    return [f"{stage}.retriever {name}: expected {lacks}, {other}"] if lacks else []


def text_engine_problems(
    settings: Settings, stages: Iterable[str], gpus: int | None = None
) -> list[str]:
    """Return what stages that are to generate text with vLLM lack: the package, and for training a GPU.

    gpus: how many there are where the notebooks run; None to ask the driver of this machine.
    """
    asking = [
        f"{stage}.{name} {value}" for stage in stages for name, value in settings.stage(stage).items()
        if (name in ("engine", "rollout_engine") and value == "vllm") or (name == "simulator_replicas" and value)
    ]
    if settings.layout.simulator_gpus and "03" in stages and serves_simulator(settings):
        asking.append(f"layout.simulator_gpus {settings.layout.simulator_gpus}")
    problem = vllm_problem() if asking else None
    problems = [f"{', '.join(asking)}: {problem}"] if problem else []
    if "03.rollout_engine vllm" in asking and not (gpu_count() if gpus is None else gpus):
        problems.append(
            "03.rollout_engine vllm: expected an NVIDIA GPU, since vLLM's CPU backend cannot take the weights of an "
            "update, found none; train with --set 03.rollout_engine=transformers"
        )
    return problems


def serves_simulator(settings: Settings) -> bool:
    """Say whether an arm of the run searches a simulator that is not on a server already."""
    from zerosearch.training.arms import ARMS

    return not settings.stage("03")["simulator_url"] and any(ARMS[arm].simulated for arm in settings.arms)


def simulator_weights_problems(settings: Settings, stages: Iterable[str], on_nodes: bool = False) -> list[str]:
    """Return why stage 03 cannot hold its simulator's weights in the numbers of the layout.

    on_nodes: of a cluster, whose cards are not known here; else on this machine.
    """
    from zerosearch.training.arms import ARMS

    if "03" not in stages or not any(ARMS[arm].simulated for arm in settings.arms):
        return []
    values = settings.stage("03")
    if on_nodes and not values["simulator_url"]:
        return []
    place = Place(card_capability(), settings.layout.precision == "bf16", bool(values["simulator_replicas"] or settings.layout.simulator_gpus))
    problem = simulator_weights.problem(settings.layout, place, bool(values["simulator_url"]))
    return [problem] if problem else []


def algorithm_problems(settings: Settings, stages: Iterable[str]) -> list[str]:
    """Return why the algorithm of stage 03 could learn nothing from groups of this size, where an arm is trained by it."""
    from zerosearch.training.algorithms import problem_of
    from zerosearch.training.arms import ARMS

    problem = problem_of(settings.stage("03"))
    return [problem] if problem and "03" in stages and any(ARMS[arm].trainer == "rl" for arm in settings.arms) else []


def overlap_problems(settings: Settings, stages: Iterable[str]) -> list[str]:
    """Return why the layout's overlap cannot be trained with, where an arm is trained on its own trajectories."""
    from zerosearch.training.arms import ARMS

    problem = layouts.overlap_problem(settings.layout, settings.stage("03")["correction"])
    return [problem] if problem and "03" in stages and any(ARMS[arm].trainer == "rl" for arm in settings.arms) else []


def money_notes(settings: Settings, stages: Iterable[str]) -> list[str]:
    """Return a note where a limit of money was given to a stage in which nothing bills."""
    values = settings.stage("01")
    asks = values["retriever_mode"] == "live" and values["retriever"] in PAID_ENGINES
    if "01" not in stages or not values["max_usd"] or asks or values["judge_url"]:
        return []
    who = f"searches by {values['retriever']}{' from the record' * (values['retriever_mode'] == 'replay')}"
    return [
        f"01.max_usd: nothing in stage 01 bills: {who} cost nothing and no judge is asked; the limit of "
        f"{values['max_usd']:g} USD changes nothing"
    ]


def price_book_problems(price_book: str) -> list[str]:
    """Return what is wrong with the price book (relative to the project): absent, not YAML, bad or missing entries."""
    path = artifacts.REPO / price_book
    if not path.is_file():
        return [
            f"05.price_book: expected a YAML file of dated prices, found none at {path}; restore data/prices.yaml "
            "with `git checkout data/prices.yaml`, or give another file with --set 05.price_book=FILE"
        ]
    try:
        return [f"05.price_book: {problem}" for problem in PriceBook.load(path).missing()]
    except WorkbookError as error:
        return [f"05.price_book: {error}"]


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


def card_capability() -> tuple[int, int] | None:
    """Return the compute capability of the first NVIDIA GPU that the driver lists, None without one."""
    asked = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        listed = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return None
    major, dot, minor = listed[0].partition(".") if listed else ("", "", "")
    return (int(major), int(minor)) if dot and major.isdecimal() and minor.isdecimal() else None


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return folder if folder.exists() else _existing(folder.parent)
