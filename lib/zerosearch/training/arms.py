"""The arms of the comparison: what differs between two trained policies, and nothing else.

An arm names the retriever that the policy searches while it learns, and whether the curriculum
runs.  Everything else (questions, steps, rewards, optimiser, seeds) is shared, so that a difference
between two arms has one cause.  Adding an arm is adding one entry to ``ARMS``.  Nothing heavy is imported
here: the command line asks for the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zerosearch.errors import unknown_name


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train a policy.

    name: as written on the command line and in folder names.  label: as written in figures.
    retriever: what answers the searches during training (evaluation always uses a real engine):
    ``simulator`` is the tuned one of stage 02, ``simulator-base`` the same base without any tuning.
    curriculum: whether the noise probability follows the schedule; without it there is no noise.
    """

    name: str
    label: str
    retriever: Literal["simulator", "simulator-base", "bm25"]
    curriculum: bool
    description: str

    @property
    def simulated(self) -> bool:
        """Whether a model writes the passages that its policy reads while it learns."""
        return self.retriever != "bm25"


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
    )
}


def get_arm(name: str) -> Arm:
    """Return the arm of that name; ConfigError names the nearest one otherwise."""
    if name not in ARMS:
        raise unknown_name("arm", name, tuple(ARMS))
    return ARMS[name]
