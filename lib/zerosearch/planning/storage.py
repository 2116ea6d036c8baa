"""Downloads and disk of a run: weights of the hub, checkpoints while a stage trains, models that are kept.

Our trainers save float32 weights and Adam's two moments, and keep the last two checkpoints of a training (one of the
simulator's tuning); a third is on disk while it is written.  A finished stage deletes them.
"""

from __future__ import annotations

from typing import Mapping

from zerosearch.planning.phases import Models
from zerosearch.planning.shapes import BYTES, Shape, at_hand
from zerosearch.profiles import Settings

GIB = 2**30
QUESTIONS = {"flashrag": 0.7, "zerosearch": 0.1, "search-r1": 0.1}  # GiB of a collection's files: an assumption
KEPT = {"02": 1, "03": 2}  # checkpoints that a training keeps


def downloads(settings: Settings, found: Models) -> dict[str, float]:
    """Return what is fetched first, name -> GiB: models that are not on this machine, and questions."""
    sizes = {found.names[place]: shape for place, shape in found.shapes.items()}
    missing = {name: shape.download() / GIB for name, shape in sizes.items() if not at_hand(name)}
    source = settings.stage("00")["questions_source"]
    return missing | ({f"questions of {source}": QUESTIONS[source]} if source else {})


def checkpoint(shape: Shape, settings: Settings) -> int:
    """Return the bytes of one checkpoint: weights and moments of what is trained (``training/checkpoints.py``)."""
    rank = settings.layout.lora_rank
    return (shape.lora(rank) if rank else shape.parameters) * 12


def disk(settings: Settings, sizes: Mapping[str, Shape]) -> dict[str, float]:
    """Return what a run puts on its disk besides downloads, name -> GiB.

    Checkpoints are those of the largest stage: stages come one after the other, and so do trainings on GPUs.
    """
    jobs = len(settings.arms) * len(settings.seeds)
    places = {"02": ("02.simulator_model", 1, 1), "03": ("03.policy_model", jobs, min(jobs, settings.source.cores))}
    found, most = {}, 0.0
    for stage, (place, count, at_once) in places.items():
        if place not in sizes:
            continue
        shape = sizes[place]
        size = BYTES["bf16" if settings.layout.lora_rank else "float32"]
        found[f"models of stage {stage}"] = count * shape.parameters * size / GIB
        most = max(most, (KEPT[stage] + 1) * at_once * checkpoint(shape, settings) / GIB)
    return found | {"checkpoints while training": most}
