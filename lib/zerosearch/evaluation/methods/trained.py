"""The trained policies: asked as in their training, judged with the real engine."""

from __future__ import annotations

from typing import Sequence

from zerosearch.evaluation.methods.base import Method
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest
from zerosearch.schema import Question
from zerosearch.training.arms import get_arm
from zerosearch.training.asking import asking_of


class Trained(Method):
    """A trained policy of one arm and seed.

    An arm that learned to search runs under exactly the conditions of ``search``; one that learned to answer
    from memory is shown the prompt of its training, and may not search.
    """

    name = "trained"

    @property
    def max_searches(self) -> int:
        """Searches allowed: those of the settings, or none for an arm that never searched."""
        return self.bench.settings.max_searches if get_arm(self.arm).searches else 0

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        asking = asking_of(get_arm(self.arm))
        return [asking.request(prompts, q) for q in questions]
