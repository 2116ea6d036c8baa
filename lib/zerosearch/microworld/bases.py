"""The shipped base models: verify that they belong to the recipes in the library, or rebuild them.

Models whose recipes differ in the last phase only are a family; one worker process builds it, from one
trunk.  Finished models wait in the stage's folder, each beside its manifest entry, until all are there;
only then do they take the place of the shipped ones.  So a rebuild that was cut off goes on with the
models that are missing, and ``data/micro_lm`` never holds models of two makings.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import pandas as pd
import torch

from zerosearch import artifacts, files
from zerosearch.errors import MissingInput, WorkbookError
from zerosearch.microworld import abilities, models, sentinels
from zerosearch.microworld.models import Measure
from zerosearch.microworld.pretrain import Recipe
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.microworld.world import WORLD_VERSION, build_questions, build_world

Manifest = dict[str, Any]
Entry = dict[str, Any]
MAIN_BASE = "llama-base"  # the base that the gate judges
BUILDING = "building"  # folder of the stage where finished models wait
WORKERS = 2
SENTINEL_QUESTIONS = 150  # per family, before the two-hop chains are chosen
_LOOK_EVERY = 2.0  # seconds between two looks at the workers


def verify() -> Manifest:
    """Return the manifest of data/micro_lm after checking the world version and all recipe digests.

    Raises MissingInput when a model or the manifest is absent or was made by another recipe, or when
    its abilities were measured in another version of the world.
    """
    manifest = models.manifest()
    found = manifest.get("world_version")
    if found != WORLD_VERSION:
        raise MissingInput(
            f"base models: expected those of world version {WORLD_VERSION} in {models.MICRO_FOLDER}, found "
            f"{'none' if found is None else f'version {found}'}; rebuild with `{models.REBUILD_COMMAND}`"
        )
    for name, recipe in models.RECIPES.items():
        entry = manifest["models"].get(name)
        if entry is None or not (models.MICRO_FOLDER / name / "model.safetensors").is_file():
            raise MissingInput(
                f"base model {name!r}: expected {models.MICRO_FOLDER / name} and its manifest entry, found none; "
                f"rebuild with `{models.REBUILD_COMMAND}`"
            )
        if entry["recipe_sha256"] != recipe.digest():
            raise MissingInput(
                f"base model {name!r}: expected one made by the recipe in the library ({recipe.digest()[:12]}), "
                f"found {entry['recipe_sha256'][:12]}; rebuild with `{models.REBUILD_COMMAND}`"
            )
    return manifest


def card_table(manifest: Manifest) -> pd.DataFrame:
    """Return the ability cards of all models: columns model, ability, value, n, meaning."""
    rows = [
        {"model": name, "ability": ability, **entry}
        for name, made in manifest["models"].items()
        for ability, entry in made["abilities"].items()
    ]
    return pd.DataFrame(rows, columns=["model", "ability", "value", "n", "meaning"])


# -- one family -----------------------------------------------------------------------------------


def families(recipes: Mapping[str, Recipe]) -> list[list[str]]:
    """Return the names in families (recipes that differ in the last phase only), the longest work first."""
    groups: dict[Recipe, list[str]] = {}
    for name, recipe in recipes.items():
        groups.setdefault(replace(recipe, phases=recipe.phases[:-1]), []).append(name)
    return sorted(groups.values(), key=lambda names: -_work(recipes, names))


def _work(recipes: Mapping[str, Recipe], names: Sequence[str]) -> float:
    """Return how long a family takes, in no unit: tokens times the width and depth of the model."""
    first = recipes[names[0]]
    tokens = sum(p.tokens for p in first.phases[:-1]) + sum(recipes[n].phases[-1].tokens for n in names)
    return tokens * first.n_layers * first.hidden_size**2


def build_family(
    names: Sequence[str], folder: Path, measure: Measure,
    on_progress: Callable[[str, float, float], None] | None = None, recipes: Mapping[str, Recipe] | None = None,
) -> dict[str, Entry]:
    """Build the models of one family into folder/<name>, one after the other; return their manifest entries.

    measure(model, tokenizer) -> ability figures.  on_progress(name, progress, loss) is called while they
    learn.  recipes: those of the library if None.  An entry is written as folder/<name>.json once its
    model is complete; a model with an entry of the same recipe is not built again.
    """
    recipes = models.RECIPES if recipes is None else recipes
    entries: dict[str, Entry] = {}
    trunk = None
    for name in names:
        path, digest = folder / f"{name}.json", recipes[name].digest()
        found = files.read_json(path) if path.is_file() else {}
        if found.get("recipe_sha256") == digest:
            entries[name] = found
            continue

        def report(progress: float, loss: float, seconds: float, name: str = name) -> None:
            if on_progress:
                on_progress(name, progress, loss)

        entries[name], trunk = models.build(recipes[name], folder / name, measure, report, trunk)
        files.write_json(path, entries[name])
    return entries


# -- all of them ----------------------------------------------------------------------------------


def rebuild(stage: artifacts.Stage, workers: int = WORKERS, cards: Mapping[str, Measure] = abilities.CARDS) -> Manifest:
    """Pretrain the whole zoo into data/micro_lm (about an hour with two workers) and return the manifest.

    workers: processes, one thread each.  cards: how a ``policy`` and a ``simulator`` are measured; functions
    of a module, so that a worker can import them.  WorkbookError when a worker fails; what is complete stays.
    """
    folder, recipes = stage.path(BUILDING), dict(models.RECIPES)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [({n: recipes[n] for n in names}, folder, cards[_role(names[0])]) for names in families(recipes)]
    _run_workers(jobs, workers, lambda: _report(stage, recipes, folder))
    entries = {name: files.read_json(folder / f"{name}.json") for name in recipes}
    made = {
        "world_version": WORLD_VERSION, "models": entries,
        "card": abilities.gate_rows(entries[MAIN_BASE]["abilities"]), "sentinels": _sentinel_rows(),
    }
    for name in recipes:
        files.save_folder(models.MICRO_FOLDER / name, lambda part, name=name: _copy(folder / name, part))
    files.write_json(models.MICRO_FOLDER / "manifest.json", made)
    shutil.rmtree(folder)
    return models.manifest()


def _role(name: str) -> str:
    return "simulator" if name.startswith("simulator") else "policy"


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _sentinel_rows() -> list[dict[str, Any]]:
    """Return the sentinel table of the default world: two-hop chains, five passages, every condition."""
    world = build_world()
    asked = [
        q for q in build_questions(world, SENTINEL_QUESTIONS, 0)
        if q.split == "eval" and q.metadata["kind"] == "chain" and len(q.metadata["hops"]) == 2
    ]
    table = sentinels.sentinel_table(asked, world.passages(), build_tokenizer(), k=5, seed=0)
    return table.to_dict("records")


def _report(stage: artifacts.Stage, recipes: Mapping[str, Recipe], folder: Path) -> None:
    """Say how far all models are together, and the loss of those that learn at the moment."""
    done, learning = 0.0, []
    for name, recipe in recipes.items():
        share, loss = 0.0, None
        if (folder / f"{name}.json").is_file():
            share = 1.0
        elif (path := folder / f"{name}.progress.json").is_file():
            at = files.read_json(path)
            share, loss = at["progress"], at["loss"]
        done += share * recipe.tokens / 1e6
        if loss is not None:
            learning.append(f"{name} {loss:.3f}")
    total = sum(recipe.tokens for recipe in recipes.values()) / 1e6
    stage.progress(round(done, 1), round(total, 1), "million tokens, loss of", ", ".join(learning) or "none yet")


# -- workers --------------------------------------------------------------------------------------

Job = tuple[dict[str, Recipe], Path, Measure]


def _run_workers(jobs: Sequence[Job], count: int, look: Callable[[], None]) -> None:
    """Run every job in a process of its own, at most count at a time; call look() every few seconds."""
    context = multiprocessing.get_context("spawn")  # a forked process would inherit torch's locks
    waiting, running = list(jobs), []
    try:
        while waiting or running:
            while waiting and len(running) < count:
                job = waiting.pop(0)
                process = context.Process(target=_build_in_process, args=job, daemon=True)
                process.start()
                running.append((process, job))
            wait([process.sentinel for process, _ in running], timeout=_LOOK_EVERY)
            look()
            for process, job in running:
                if process.exitcode:
                    raise _failure(job, process.exitcode)
            running = [(process, job) for process, job in running if process.exitcode is None]
    finally:  # also when the notebook is interrupted
        for process, _ in running:
            process.terminate()
            process.join()


def _build_in_process(recipes: dict[str, Recipe], folder: Path, measure: Measure) -> None:
    """Build one family; progress and errors stand in files beside the models."""
    torch.set_num_threads(1)
    _error_file(recipes, folder).unlink(missing_ok=True)
    parent = multiprocessing.parent_process()

    def report(name: str, progress: float, loss: float) -> None:
        if parent is not None and not parent.is_alive():
            raise SystemExit("the process that asked for these models is gone")
        files.write_json(folder / f"{name}.progress.json", {"progress": progress, "loss": loss, "at": time.time()})

    try:
        build_family(list(recipes), folder, measure, report, recipes)
    except Exception:
        files.write_atomic(_error_file(recipes, folder), traceback.format_exc())
        raise


def _error_file(recipes: Mapping[str, Recipe], folder: Path) -> Path:
    return folder / f"{next(iter(recipes))}.error.txt"


def _failure(job: Job, code: int) -> WorkbookError:
    names, path = ", ".join(job[0]), _error_file(job[0], job[1])
    said = path.read_text(encoding="utf-8").strip().splitlines() if path.is_file() else []
    reason = f"{said[-1]} (all of it in {path})" if said else f"its process ended with code {code}"
    return WorkbookError(
        f"base models {names}: expected them to be built, found: {reason}; mend that and go on with "
        f"`{models.REBUILD_COMMAND}`"
    )
