"""Opening what an arm needs: its retriever and its noise schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from zerosearch.curriculum import Curriculum, constant
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers import open_engine
from zerosearch.retrievers.base import FailureLimit, Retriever
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.schema import Passage
from zerosearch.training.arms import Arm

SIMULATOR_TEMPERATURE = 0.8  # as in the published code


def open_retriever(
    arm: Arm, *, k: int, seed: int, passages: Sequence[Passage] = (), simulator: Path | str | None = None,
    max_new_tokens: int = 160,
) -> Retriever:
    """Return what an arm's policy searches while it learns, k passages per query.

    Training stops with the reason when more than a tenth of its searches fail (rule 10).

    passages: the corpus, for a real engine.  simulator: the model that writes passages, for an arm that
    searches one: the folder of the tuned one, or for ``untuned`` the name of its base.
    seed: of the run, keys the simulator's draws.  max_new_tokens: its budget for all passages together.
    """
    if not arm.simulated:
        return FailureLimit(open_engine(arm.retriever, passages, k))
    if simulator is None:
        raise ValueError(f"arm {arm.name!r}: expected the folder or name of its simulator, found none")
    model, tokenizer = models.load(str(simulator))
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    engine = TransformersEngine(model, tokenizer, name=arm.retriever, stop_strings=())
    retriever = SimulatorRetriever(engine, prompts, k, seed, SIMULATOR_TEMPERATURE, max_new_tokens)
    retriever.name = arm.retriever  # the ledger tells the tuned one, which cost a tuning, from its base
    return FailureLimit(retriever)


def open_curriculum(arm: Arm, steps: int, start: float, end: float, base: float) -> Curriculum:
    """Return the arm's noise schedule: the given one, or no noise for an arm without a curriculum."""
    return Curriculum(start, end, steps, base) if arm.curriculum else constant(0.0, steps)
