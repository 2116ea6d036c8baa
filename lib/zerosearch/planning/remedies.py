"""The nearest run that fits: the shortest list of ``--set`` that the plan of a machine can hold.

Tried in an order: first what changes time alone, then what changes rounding, then what trains other weights or learns
less in a step, then smaller models.  What turns out not to be needed is taken back, so that every option of the answer
is necessary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Iterator, Mapping

from zerosearch.planning.shapes import shape_of, table
from zerosearch.profiles import LAYOUT, Settings

LORA_RANK = 16  # of the adapters that are proposed; peft's examples and TRL's take 8 to 32
# name -> what it goes with
FOLLOWS = {"03.simulator_model": "02.simulator_model", "04.policy_model": "03.policy_model"}
QUESTIONS = "03.questions_per_step"
Changes = dict[str, Any]  # names as in --set -> value
Fits = Callable[[Settings], bool]


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings with some values replaced; names as in --set."""
    stages = {stage: dict(values) for stage, values in settings.stages.items()}
    layout: dict[str, Any] = {}
    for key, value in changes.items():
        stage, _, name = key.partition(".")
        (layout if stage == LAYOUT else stages[stage])[name] = value
    return replace(settings, stages=stages, layout=replace(settings.layout, **layout))


def nearest(settings: Settings, fits: Fits, gpus: int) -> Changes | None:
    """Return the changes of the nearest run that fits, None when nothing that is tried helps.

    fits: says whether a run does.  gpus: cards that there are.
    """
    found = [hit for start in _engines(settings) if (hit := _first(settings, start, fits, gpus)) is not None]
    if not found:
        return None
    _, changes = min(found, key=lambda hit: hit[0])  # of equally many steps the one with the fewest other engines
    return _loosened(settings, _needed(settings, changes, fits), fits)


def _first(settings: Settings, start: Changes, fits: Fits, gpus: int) -> tuple[int, Changes] | None:
    """Return (steps taken, changes) of the first that fits on the way from a start."""
    changes = dict(start)
    for count, step in enumerate([{}, *_steps(settings, gpus)]):
        changes |= step
        if fits(changed(settings, changes)):
            return count, changes
    return None


def _needed(settings: Settings, changes: Changes, fits: Fits) -> Changes:
    """Return the changes without those that are not needed, the largest sacrifices taken back first."""
    for key in [name for name in reversed(list(changes)) if name not in FOLLOWS]:
        fewer = {name: value for name, value in changes.items() if key not in (name, FOLLOWS.get(name))}
        if fits(changed(settings, fewer)):
            changes = fewer
    return changes


def _loosened(settings: Settings, changes: Changes, fits: Fits) -> Changes:
    """Return the changes with each smaller batch as large as still fits, in steps of two."""
    for name in [name for name in (*_batch_sizes(settings), QUESTIONS) if name in changes]:
        while fits(changed(settings, changes | {name: 2 * changes[name]})):
            changes = changes | {name: 2 * changes[name]}
    return changes


def _steps(settings: Settings, gpus: int) -> Iterator[Changes]:
    """Yield changes to be added one after the other; later ones replace earlier ones of the same name."""
    layout = settings.layout
    if not settings.source.needs.gpus:  # a layout is for GPUs
        yield from _batches(settings)
        yield from _shorter_steps(settings)
        return
    if not layout.gradient_checkpointing:
        yield {f"{LAYOUT}.gradient_checkpointing": True}
    if layout.overlap:
        yield {f"{LAYOUT}.overlap": False}
    if not layout.sleep and not layout.simulator_gpus:
        yield {f"{LAYOUT}.sleep": True}
    yield from _batches(settings)
    if layout.precision == "float32":
        yield {f"{LAYOUT}.precision": "bf16"}
    yield from _cards(settings, gpus)
    if not layout.lora_rank:
        yield {f"{LAYOUT}.lora_rank": LORA_RANK}
    yield from _shorter_steps(settings)
    yield from _smaller_models(settings)


def _engines(settings: Settings) -> Iterator[Changes]:
    """Yield engines to start from: those given, vLLM's paged caches, our own without shares of a card kept for them."""
    yield {}
    if settings.source.needs.gpus:
        writing = ("01.engine", "03.rollout_engine", "04.engine")
        yield _other(settings, dict.fromkeys(writing, "vllm"))
        ours = dict.fromkeys((*writing, "02.engine"), "transformers")
        yield _other(settings, ours | {"03.simulator_replicas": 0})


def _other(settings: Settings, wanted: Changes) -> Changes:
    """Return what of these values the settings do not have."""
    return {name: value for name, value in wanted.items() if settings.stage(name[:2])[name[3:]] != value}


def _batches(settings: Settings) -> Iterator[Changes]:
    """Yield smaller batches, halved together until one row is left; stage 03 keeps its groups."""
    sizes = _batch_sizes(settings)
    while any(size > 1 for size in sizes.values()):
        sizes = {name: max(1, size // 2) for name, size in sizes.items()}
        yield dict(sizes)


def _batch_sizes(settings: Settings) -> dict[str, int]:
    """Return what may be computed in smaller pieces, name as in --set -> size; results do not depend on it."""
    found = {f"{stage}.batch_size": settings.stage(stage)["batch_size"] for stage in ("01", "04")}
    if settings.source.needs.gpus:
        found[f"{LAYOUT}.sft_rows"] = settings.layout.sft_rows or settings.stage("02")["batch_size"]
        found[f"{LAYOUT}.micro_batch_tokens"] = settings.layout.micro_batch_tokens
    return found


def _shorter_steps(settings: Settings) -> Iterator[Changes]:
    """Yield fewer questions in a step of stage 03, halved until 4 are left: less is learned in as many steps."""
    count = settings.stage("03")["questions_per_step"]
    while count > 4:
        count //= 2
        yield {QUESTIONS: count}


def _cards(settings: Settings, gpus: int) -> Iterator[Changes]:
    """Yield what uses more of the cards that are there: weights spread, and the simulator on cards of its own."""
    layout = settings.layout
    used = layout.policy_gpus + layout.simulator_gpus
    if gpus < used:  # the profile was made for a larger machine
        yield {f"{LAYOUT}.simulator_gpus": 0, f"{LAYOUT}.policy_gpus": gpus, f"{LAYOUT}.sleep": True}
    elif gpus > used:
        yield {f"{LAYOUT}.policy_gpus": layout.policy_gpus + gpus - used, f"{LAYOUT}.sharding": "fsdp"}
    if gpus > 1:
        half = gpus // 2
        yield {f"{LAYOUT}.policy_gpus": gpus - half, f"{LAYOUT}.simulator_gpus": half, f"{LAYOUT}.sharding": "fsdp"}


def _smaller_models(settings: Settings) -> Iterator[Changes]:
    """Yield the next smaller models of the committed table, of the same family; first simulators, then policies."""
    for leader in ("02.simulator_model", "03.policy_model", "01.policy_model"):
        names = [leader, *(name for name, other in FOLLOWS.items() if other == leader)]
        model = str(settings.stage(leader[:2])[leader[3:]])
        for smaller in smaller_than(model):
            yield {name: smaller for name in names}


def smaller_than(model: str) -> list[str]:
    """Return the smaller models of the table of the same maker, the largest first; base or instruct as this one."""
    own, suffix = shape_of(model), "-Instruct" if model.endswith("-Instruct") else ""
    if own is None:
        return []
    maker = model.split("/")[0]
    entries = [(entry["parameters"], name) for name, entry in table().items() if name.split("/")[0] == maker]
    return [name + suffix for count, name in sorted(entries, reverse=True) if count < own.parameters]


def sentence(changes: Changes | None) -> str:
    """Return the advice that ends a refusal."""
    if changes is None:
        return "nothing smaller that was tried fits; use a machine with more, or --profile laptop"
    options = " ".join(f"--set {name}={shown(value)}" for name, value in changes.items())
    return f"the nearest that fits: {options}"


def shown(value: object) -> str:
    """Return a value as it is written after ``--set NAME=``."""
    return str(value).lower() if isinstance(value, bool) else str(value)
