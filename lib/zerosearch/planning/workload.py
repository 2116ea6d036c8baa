"""How many tokens a run reads, writes and trains on, from its parameters and a few stated assumptions.

What nobody can know before a run is assumed, with where it comes from, and printed with the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from zerosearch.profiles import Settings
from zerosearch.question_sets.names import SETS
from zerosearch.training.arms import ARMS

SEARCHES = 2.0  # per trajectory; the paper's figure 2c shows 1.6 to 2.2 turns
TRAINED_SHARE = 0.35  # of a trajectory's tokens, written by the policy
LEARNED_SHARE = 0.6  # of a simulator's training text, the passages
BAMBOOGLE = 125  # questions of the one set that has fewer than the others


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens that are assumed, within a profile's limits.

    prompt: instructions and question.  message: thoughts and a query, or the answer.  simulated, real: one passage.
    simulator_prompt: what a simulator is asked.
    """

    prompt: int
    message: int
    simulated: int
    real: int
    simulator_prompt: int

    def words(self) -> str:
        """The assumption as shown with a plan."""
        return (
            f"{SEARCHES:g} searches a trajectory (figure 2c of the paper: 1.6 to 2.2); tokens: prompt {self.prompt}, "
            f"message {self.message}, passage {self.simulated} simulated and {self.real} real"
        )


# The template of about 100 tokens with a question; passages of the 30 words that the simulator is asked for, and of the
# 100 words that the published Wikipedia has.  Messages: an assumption.
PAPER = Lengths(prompt=150, message=120, simulated=50, real=150, simulator_prompt=150)
# Measured in outputs/reference/laptop/03_rl-metrics.csv: 130 tokens after the prompt with 1.7 searches.
MICRO = Lengths(prompt=50, message=12, simulated=12, real=12, simulator_prompt=50)


def lengths(model: str) -> Lengths:
    """Return what is assumed of the conversations of a model."""
    return MICRO if model.startswith("micro/") else PAPER


@dataclass(frozen=True, slots=True)
class Talk:
    """One trajectory of a stage, in tokens.

    prompt, observation: of one search.  searches: per trajectory.  written: by the policy.  longest: the row that
    memory must hold: all searches, one message of full length.
    """

    prompt: int
    observation: float
    searches: float
    written: float
    longest: int

    @property
    def read(self) -> float:
        """Tokens that the policy reads: prompt and passages."""
        return self.prompt + self.searches * self.observation

    @property
    def mean(self) -> float:
        """Tokens of an average trajectory."""
        return self.read + self.written


def talk(values: Mapping[str, Any], assumed: Lengths, passage: int) -> Talk:
    """Return the trajectory of a stage with these limits; passage: tokens of one."""
    limit, most = values["max_turn_tokens"], values["max_searches"]
    observation = min(values["max_observation_tokens"], values["passages_per_query"] * passage)
    searches, message = min(SEARCHES, most), min(assumed.message, limit)
    longest = assumed.prompt + most * (observation + message) + limit
    return Talk(assumed.prompt, observation, searches, (searches + 1) * message, int(longest))


@dataclass(frozen=True, slots=True)
class Workload:
    """The counts of a run.

    collected, trained, evaluated: trajectories of stages 01, 03 (of one arm and seed) and 04.  collect, train,
    evaluate: what one of them is.  jobs: arms and seeds of stage 03.  simulated: those of them that ask a simulator.
    lessons: texts of stage 02.  paid: stage -> searches of engines that bill.  judged: searches whose
    passages a model on a server labels.
    """

    collected: int
    trained: int
    evaluated: int
    collect: Talk
    train: Talk
    evaluate: Talk
    jobs: int
    simulated: int
    lessons: int
    paid: Mapping[str, float]
    judged: float


def workload(settings: Settings) -> Workload:
    """Return the counts of a run's settings."""
    values = {stage: settings.stage(stage) for stage in ("00", "01", "02", "03", "04")}
    one, three, four = values["01"], values["03"], values["04"]
    collected = one["n_questions"] * one["samples_per_question"]
    arms = [ARMS[name] for name in settings.arms]
    jobs = len(arms) * len(settings.seeds)
    assumed = lengths(three["policy_model"])
    passage = assumed.simulated if all(arm.simulated for arm in arms) else assumed.real
    collect, evaluate = talk(one, assumed, assumed.real), talk(four, assumed, assumed.real)
    train = talk(three, assumed, passage)
    methods = len(four["methods"].split(",")) + jobs
    evaluated = methods * (_questions(values["00"], four, settings) + _conditions(four))
    bills = {"01": collected * collect.searches, "04": evaluated * evaluate.searches}
    paid = {stage: count for stage, count in bills.items() if values[stage]["retriever"] == "serpapi"}
    judged = collected * collect.searches if one["judge_url"] else 0.0
    return Workload(
        collected, three["steps"] * three["questions_per_step"] * three["group_size"], evaluated, collect, train,
        evaluate, jobs, sum(arm.simulated for arm in arms) * len(settings.seeds),
        values["02"]["steps"] * values["02"]["batch_size"], paid, judged,
    )


def _questions(zero: Mapping[str, Any], four: Mapping[str, Any], settings: Settings) -> int:
    """Return the questions of the headline: of real sets at most what Bamboogle has in that one."""
    each = zero["eval_per_set"] if zero["questions_source"] or zero["questions_dir"] else zero["n_eval_questions"]
    each = min(filter(None, (each, four["questions_per_set"])), default=zero["n_eval_questions"])
    last = min(each, BAMBOOGLE) if zero["questions_source"] else each
    return (len(SETS) - 1) * each + last


def _conditions(four: Mapping[str, Any]) -> int:
    """Return the answers of one method under other searches than clean ones."""
    names = [name for name in four["conditions"].split(",") if name.strip()]
    return (len(names) + bool(names)) * four["questions_per_condition"] * len(SETS)
