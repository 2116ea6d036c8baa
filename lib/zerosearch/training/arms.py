"""The arms of the comparison: what differs between two trained policies, and nothing else.

An arm names the retriever that the policy searches while it learns, and whether the curriculum
runs.  Everything else (questions, steps, rewards, optimiser, seeds) is shared, so that a difference
between two arms has one cause.  Adding an arm is adding one entry to ``ARMS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Sequence

from zerosearch.curriculum import Curriculum, constant
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import unknown_name
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers import open_engine
from zerosearch.retrievers.base import Retriever
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.schema import Passage

SIMULATOR_TEMPERATURE = 0.8  # as in the published code


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train a policy.

    name: as written on the command line and in folder names.  label: as written in figures.
    retriever: what answers the searches during training (evaluation always uses the real engine).
    curriculum: whether the noise probability follows the schedule; without it there is no noise.
    """

    name: str
    label: str
    retriever: Literal["simulator", "bm25"]
    curriculum: bool
    description: str


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(
            name="zerosearch", label="ZeroSearch", retriever="simulator", curriculum=True,
            description="searches the tuned simulator; the share of misleading answers rises",
        ),
        Arm(
            name="search-r1", label="Search-R1", retriever="bm25", curriculum=False,
            description="searches the real engine; no noise is added",
        ),
    )
}


def get_arm(name: str) -> Arm:
    """Return the arm of that name; ConfigError names the nearest one otherwise."""
    if name not in ARMS:
        raise unknown_name("arm", name, tuple(ARMS))
    return ARMS[name]


def open_retriever(
    arm: Arm, *, k: int, seed: int, passages: Sequence[Passage] = (), simulator: Path | None = None,
    max_new_tokens: int = 160,
) -> Retriever:
    """Return what an arm's policy searches while it learns, k passages per query.

    passages: the corpus, for a real engine.  simulator: folder of the tuned model, for the simulator.
    seed: of the run, keys the simulator's draws.  max_new_tokens: its budget for all passages together.
    """
    if arm.retriever != "simulator":
        return open_engine(arm.retriever, passages, k)
    if simulator is None:
        raise ValueError(f"arm {arm.name!r}: expected the folder of the tuned simulator, found none")
    model, tokenizer = models.load(str(simulator))
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    engine = TransformersEngine(model, tokenizer, name="simulator", stop_strings=())
    return SimulatorRetriever(engine, prompts, k, seed, SIMULATOR_TEMPERATURE, max_new_tokens)


def open_curriculum(arm: Arm, steps: int, start: float, end: float, base: float) -> Curriculum:
    """Return the arm's noise schedule: the given one, or no noise for an arm without a curriculum."""
    return Curriculum(start, end, steps, base) if arm.curriculum else constant(0.0, steps)
