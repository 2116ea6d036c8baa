"""When is a training no longer healthy?  One rule for each known way in which RL on searches collapses.

A rule looks at one column of ``metrics.jsonl``: its healthy range, for how many steps in a row it may be left,
what most likely went wrong and which option to change.  Rules are pure functions of the history, so a resumed
run counts on where it was.  ``evidence`` says where a bound comes from: from the committed references, whose
trainings of eight arms must stay silent with a wide margin, and from what others report.  No file is touched
here; see ``health`` for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Mapping, Sequence

import numpy as np

Side = Literal["low", "high", "finite"]
Relation = Literal["", "first", "best"]
Row = Mapping[str, Any]

BEGINNING = 3  # steps at the start whose mean a later one is compared with, at most


@dataclass(frozen=True, slots=True)
class Remedy:
    """An option of stage 03 to change: to so many times its present value (at least ``least``), or to ``value``."""

    option: str
    words: str
    times: float | None = None
    least: float = 0.0
    value: str = ""

    def advice(self) -> str:
        """Return the option in general, for a table."""
        return f"`--set 03.{self.option}={self.value}`: {self.words}"

    def command(self, present: Mapping[str, Any]) -> str:
        """Return what to add to the command.  present: the settings of the run by name."""
        if self.times is None:
            return f"--set 03.{self.option}={self.value}"
        now = present[self.option]
        value = max(self.least, self.times * now)
        return f"--set 03.{self.option}={int(value) if isinstance(now, int) else f'{value:.3g}'}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A healthy range of one metric.

    side: ``low`` rings below the limit, ``high`` above it, ``finite`` for what is no finite number.
    bound: the limit, in the metric's unit.  relation, share: with ``first``, the limit is share times the mean of
    the run's first steps where that is more lenient than the bound (a bound of inf below, or -inf above, leaves
    the relation alone); with ``best``, share times the highest mean over ``patience`` steps so far.
    patience: steps in a row that it takes.  cause: in one sentence.  evidence: where the numbers come from.
    """

    metric: str
    side: Side
    patience: int
    cause: str
    remedy: Remedy
    evidence: str
    bound: float = 0.0
    relation: Relation = ""
    share: float = 0.0

    def healthy(self) -> str:
        """Return the healthy range in words."""
        if self.side == "finite":
            return "a finite number"
        word = "at least" if self.side == "low" else "at most"
        if self.relation == "best":
            return f"{word} {self.share:g} × its best {self.patience} steps so far"
        related = f"{self.share:g} × its first steps"
        if not self.relation or math.isinf(self.bound):
            return f"{word} {related if self.relation else f'{self.bound:g}'}"
        return f"{word} {self.bound:g}, or {related} where that is {'less' if self.side == 'low' else 'more'}"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A rule that rings.  steps: the last ones, as many as its patience; found: their values; limit: in numbers."""

    rule: Rule
    steps: tuple[int, ...]
    found: tuple[float, ...]
    limit: float

    def text(self) -> str:
        """Return what was expected and what was found."""
        values = ", ".join(f"{value:.3g}" for value in self.found)
        first, last = self.steps[0], self.steps[-1]
        steps = f"step {last}" if first == last else f"steps {first} to {last}"
        limit = "" if self.rule.side == "finite" or not self.rule.relation else f" (here {self.limit:.3g})"
        return f"{self.rule.metric}: expected {self.rule.healthy()}{limit}, found {values} at {steps}"


_SLOWER = Remedy("learning_rate", "a tenth of it", times=0.1)
_HOLD = Remedy("kl_weight", "ten times as much, at least 0.01", times=10.0, least=0.01)
_FLOWN = "the updates are too large: weights or gradients have overflowed"

RULES: tuple[Rule, ...] = (  # causes before their consequences: the first that rings is told in full
    Rule(
        "loss", "finite", 1, _FLOWN, _SLOWER, "a number that is none reaches every weight with the next update",
    ),
    Rule(
        "grad_norm", "finite", 1, _FLOWN, _SLOWER, "as for the loss",
    ),
    Rule(
        "logprob_gap", "high", 3, "the sampler does not hold the trainer's weights, or computes in another precision",
        Remedy("rollout_engine", "let the trainer's own model write", value="transformers"),
        "references at most 4e-7 (float32); at 0.1 a ratio is off by a tenth, half of what the clip allows",
        bound=0.1,
    ),
    Rule(
        "effective_share", "low", 3, "a few tokens carry the update, since sampler and trainer disagree on them",
        Remedy("correction", "cap the ratios", value="token"),
        "1 where both agree; below 0.3 two thirds of the samples are lost", bound=0.3,
    ),
    Rule(
        "dropped_share", "high", 3, "most trajectories are dropped as too unlikely for the trainer",
        Remedy("correction", "cap tokens in place of dropping trajectories", value="token"),
        "0 without a correction; above one half most of the rollout is wasted", bound=0.5,
    ),
    Rule(
        "grad_norm", "high", 3, "the updates are too large and the policy is thrown about", _SLOWER,
        "references at most 0.37 in RL and 2.65 in the arm sft; clipped at 1, so that single spikes do no harm",
        bound=20.0,
    ),
    Rule(
        "kl", "high", 3, "the policy has run away from its base: the updates are too large or the KL holds too little",
        _SLOWER, "references at most 0.86 nats per token", bound=5.0,
    ),
    Rule(
        "empty_search_rate", "high", 3, "searches come back empty: the engine, the simulator or the queries are broken",
        Remedy("max_observation_tokens", "more room for passages that a simulator writes", times=2.0),
        "references at most 0.11 in their kept trajectories; elsewhere whole runs passed unnoticed on empty results",
        bound=0.5,
    ),
    Rule(
        "valid_action_rate", "low", 3, "the policy no longer closes its tags: the format is forgotten", _SLOWER,
        "references at least 0.81 in the 16 trajectories a step that they kept", bound=0.5, relation="first", share=0.5,
    ),
    Rule(
        "eos_rate", "low", 3, "messages run into the token limit: endless or repeated text", _SLOWER,
        "references at least 0.88 in the 16 trajectories a step that they kept", bound=0.5, relation="first", share=0.5,
    ),
    Rule(
        "policy_tokens_mean", "high", 3, "trajectories swell: repeated thoughts or searches that earn nothing", _HOLD,
        "references at most 2.0 times the first steps, since searches double",
        bound=-math.inf, relation="first", share=4.0,
    ),
    Rule(
        "policy_tokens_mean", "low", 5, "trajectories shrink to a bare guess: neither thought nor search pays", _HOLD,
        "references at least 0.55 times the first steps", bound=math.inf, relation="first", share=0.2,
    ),
    Rule(
        "entropy", "low", 3, "the policy always writes the same: the samples of a group are copies, nothing to compare",
        _HOLD, "references at least 0.043 nats, at 0.9 exact answers; 90 steps of search-r1 stay above 0.02",
        bound=0.005,
    ),
    Rule(
        "entropy", "high", 3, "the policy has become noise: the updates destroyed what it knew", _SLOWER,
        "references at most 1.6 times the first steps", bound=1.0, relation="first", share=3.0,
    ),
    Rule(
        "searches_mean", "low", 5, "the policy has given up searching: answering from memory earns as much", _HOLD,
        "references at least 0.37 times the first steps for five steps in a row, in an arm with a poor simulator",
        bound=math.inf, relation="first", share=0.1,
    ),
    Rule(
        "reward_mean", "low", 5, "the reward has collapsed: the policy has lost what it had learned", _SLOWER,
        "references at least 0.57 of their best five steps for five steps in a row", relation="best", share=0.25,
    ),
    Rule(
        "groups_with_spread", "low", 5,
        "all rewards of a group are equal: every answer is wrong, or every answer is right and nothing is left to learn",
        Remedy("group_size", "twice as many samples of a question", times=2.0),
        "references at least 0.09 at a single step; 0 means that no group teaches", bound=0.005,
    ),
)


def ringing(history: Sequence[Row], rules: Sequence[Rule] = RULES) -> list[Alarm]:
    """Return the alarms at the last step of a history, in the order of the rules."""
    found = (alarm(rule, history) for rule in rules)
    return [one for one in found if one is not None]


def began(history: Sequence[Row], rules: Sequence[Rule] = RULES) -> list[Alarm]:
    """Return the alarms of all steps, each when it first rang: one that goes on ringing is told once."""
    told: list[Alarm] = []
    before: set[Rule] = set()
    for end in range(1, len(history) + 1):
        now = ringing(history[:end], rules)
        told += [one for one in now if one.rule not in before]
        before = {one.rule for one in now}
    return told


def alarm(rule: Rule, history: Sequence[Row]) -> Alarm | None:
    """Return the alarm of one rule at the last step of a history, or None.

    A step at which the metric was not measured (None, NaN, no such column) neither counts nor breaks the row of
    steps; an alarm never begins at such a step.  For ``finite`` NaN is a finding.
    """
    measured = [(i, value) for i, row in enumerate(history, 1) if (value := _value(rule, row)) is not None]
    if len(measured) < rule.patience or measured[-1][0] != len(history):
        return None
    window = measured[-rule.patience :]
    limit = _limit(rule, np.array([value for _, value in measured[: -rule.patience]]))
    if not all(_outside(rule, value, limit) for _, value in window):
        return None
    steps = tuple(int(history[i - 1].get("step", i)) for i, _ in window)
    return Alarm(rule, steps, tuple(value for _, value in window), limit)


def _value(rule: Rule, row: Row) -> float | None:
    value = row.get(rule.metric)
    if value is None:
        return None
    return None if math.isnan(value) and rule.side != "finite" else float(value)


def _limit(rule: Rule, before: np.ndarray) -> float:
    """Return the limit in numbers; NaN, beyond which nothing lies, where there is nothing to compare with yet."""
    if not rule.relation:
        return rule.bound
    compared = before[:BEGINNING] if rule.relation == "first" else _means(before, rule.patience)
    if not len(compared):
        return math.nan
    with np.errstate(all="ignore"):  # a broken run may hold anything
        related = rule.share * float(compared.mean() if rule.relation == "first" else compared.max())
    if rule.relation == "best" or math.isnan(related):
        return related
    return min(rule.bound, related) if rule.side == "low" else max(rule.bound, related)


def _means(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of every stretch of so many values, (len(values) - width + 1,)."""
    with np.errstate(all="ignore"):
        return np.array([values[i : i + width].mean() for i in range(len(values) - width + 1)])


def _outside(rule: Rule, value: float, limit: float) -> bool:
    if rule.side == "finite":
        return not math.isfinite(value)
    return value < limit if rule.side == "low" else value > limit
