"""The arms of the comparison: what differs between two trained policies, and nothing else.

An arm names what answers the searches while its policy learns, whether the curriculum runs, how the policy
is asked and what is made of its trajectories.  Everything else (questions, steps, limits, optimiser, seeds)
is shared, so that a difference between two arms has one cause.  Adding an arm is adding one entry to
``ARMS``.  Nothing heavy is imported here: the command line asks for the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zerosearch.errors import unknown_name

RetrieverKind = Literal["simulator", "simulator-base", "simulator-prompted", "bm25", "self", "none"]
TrainerKind = Literal["rl", "sft", "rejection"]
PromptKind = Literal["policy", "r1", "direct"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train a policy.

    name: as written on the command line and in folder names.  label: as written in figures.
    retriever: what answers the searches during training (evaluation always uses a real engine):
    ``simulator`` is the tuned one of stage 02, ``simulator-base`` the same base without any tuning,
    ``simulator-prompted`` that base with examples from stage 01 before every search, ``bm25`` the real
    engine, ``self`` the policy itself, as it is at that step, ``none`` nothing: its policy never searches.
    curriculum: whether the noise probability follows the schedule; without it there is no noise.
    trainer: ``rl`` rewards what the policy samples, ``sft`` shows it golden answers, ``rejection`` shows
    it those of the base's own trajectories that were right.  prompt: how its policy is asked.
    """

    name: str
    label: str
    retriever: RetrieverKind
    curriculum: bool
    description: str
    trainer: TrainerKind = "rl"
    prompt: PromptKind = "policy"

    @property
    def simulated(self) -> bool:
        """Whether a model besides the policy writes the passages that its policy reads while it learns."""
        return self.retriever.startswith("simulator")

    @property
    def searches(self) -> bool:
        """Whether its policy learns to search, and may search when it is evaluated."""
        return self.retriever != "none"


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
        Arm(
            name="untuned", label="Untuned simulator", retriever="simulator-base", curriculum=True,
            description="as zerosearch, but its simulator was never tuned",
        ),
        Arm(
            name="prompted", label="Prompted simulator", retriever="simulator-prompted", curriculum=True,
            description="as zerosearch, but its simulator is the base with a few examples in its prompt",
        ),
        Arm(
            name="self-search", label="Self-search (SSRL)", retriever="self", curriculum=False,
            description="the policy writes the passages itself, from memory; judged with the real engine",
        ),
        Arm(
            name="r1", label="R1, no search", retriever="none", curriculum=False, prompt="r1",
            description="RL without search: thinks, and answers from memory",
        ),
        Arm(
            name="sft", label="SFT on answers", retriever="none", curriculum=False, trainer="sft", prompt="direct",
            description="no RL and no search: is shown questions with their golden answers",
        ),
        Arm(
            name="rejection", label="Rejection sampling", retriever="bm25", curriculum=False, trainer="rejection",
            description="no RL: is shown those of the base's searches on the real engine that ended in a right answer",
        ),
    )
}


def get_arm(name: str) -> Arm:
    """Return the arm of that name; ConfigError names the nearest one otherwise."""
    if name not in ARMS:
        raise unknown_name("arm", name, tuple(ARMS))
    return ARMS[name]
