"""How an arm's policy is asked: with the same prompt and the same right to search in training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest
from zerosearch.schema import Question
from zerosearch.training.arms import Arm, PromptKind


@dataclass(frozen=True, slots=True)
class Asking:
    """prompt: which wording.  searches: whether the policy may search; otherwise a search ends its trajectory."""

    prompt: PromptKind = "policy"
    searches: bool = True

    def text(self, prompts: Prompts, question: Question) -> str:
        """Return the prompt of a question."""
        wordings = {"policy": prompts.policy_prompt, "r1": prompts.r1_prompt, "direct": prompts.direct_prompt}
        return wordings[self.prompt](question.question)

    def request(
        self, prompts: Prompts, question: Question, step: int = 0, sample: int = 0, noise_probability: float = 0.0
    ) -> RolloutRequest:
        """Return the request for one trajectory; step and sample key its draws."""
        text = None if self.prompt == "policy" else self.text(prompts, question)
        return RolloutRequest(question, step, sample, noise_probability, text, None if self.searches else 0)


def asking_of(arm: Arm) -> Asking:
    """Return how an arm's policy is asked."""
    return Asking(arm.prompt, arm.searches)
