"""The curriculum: how training progress becomes the chance that a search is answered misleadingly.

    p_i = p_s + (b^(i/m) - 1) / (b - 1) * (p_e - p_s)

i: the optimiser step, 1 to m; m: all steps; p_s and p_e: noise probability at the start and at the
end; b: how much of the rise is kept for late steps (published value 4; b -> 1 is a straight line).

Nothing here is random: the draw that turns a probability into a useful or a misleading answer is
made by the simulator, one for every search, keyed by (run seed, step, question, sample, turn).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PUBLISHED_BASE = 4.0


def noise_probability(
    step: int, total_steps: int, start: float, end: float, base: float = PUBLISHED_BASE
) -> float:
    """Return the noise probability of one optimiser step, in [0, 1].

    step: 1 to total_steps (0 gives ``start`` itself, the value before training).  start, end: in
    [0, 1]; an end below the start gives a falling ("reversed") curriculum.  base: above 0; 1 is
    the straight line that the formula tends to.  ValueError for anything else.
    """
    _check(step, total_steps, start, end, base)
    progress = step / total_steps
    if math.isclose(base, 1.0, abs_tol=1e-9):
        share = progress
    else:
        share = math.expm1(progress * math.log(base)) / (base - 1.0)  # (b^x - 1) / (b - 1)
    low, high = min(start, end), max(start, end)
    return min(max(start + share * (end - start), low), high)


def mean_rise(base: float = PUBLISHED_BASE) -> float:
    """Return the share of the rise that an average step has seen: 0.388 for base 4, 0.5 for base 1.

    It is the mean of (b^x - 1)/(b - 1) over x in [0, 1], that is 1/ln(b) - 1/(b - 1).  A curriculum
    from 0 to 0.5 therefore shows 0.194 noise on average: compare it with a constant 0.194, not 0.5.
    """
    if base <= 0.0:
        raise ValueError(f"curriculum base: expected a number above 0, found {base}")
    if math.isclose(base, 1.0, abs_tol=1e-6):
        return 0.5
    return 1.0 / math.log(base) - 1.0 / (base - 1.0)


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A noise schedule for one training run.

    start, end: noise probabilities in [0, 1].  total_steps: optimiser steps of the run.
    base: see ``noise_probability``.
    """

    start: float
    end: float
    total_steps: int
    base: float = PUBLISHED_BASE

    def __post_init__(self) -> None:
        _check(0, self.total_steps, self.start, self.end, self.base)

    def noise(self, step: int) -> float:
        """Return the noise probability of an optimiser step, 1 to total_steps."""
        return noise_probability(step, self.total_steps, self.start, self.end, self.base)

    def schedule(self) -> list[float]:
        """Return the noise probability of every step, from step 1 to the last."""
        return [self.noise(step) for step in range(1, self.total_steps + 1)]


def constant(probability: float, total_steps: int) -> Curriculum:
    """Return the schedule that stays at one noise probability (0 for a real engine)."""
    return Curriculum(start=probability, end=probability, total_steps=total_steps)


def _check(step: int, total_steps: int, start: float, end: float, base: float) -> None:
    if total_steps < 1:
        raise ValueError(f"curriculum: expected at least 1 step in total, found {total_steps}")
    if not 0 <= step <= total_steps:
        raise ValueError(f"curriculum: expected a step from 0 to {total_steps}, found {step}")
    for name, value in (("start", start), ("end", end)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"curriculum {name}: expected a probability in [0, 1], found {value}")
    if base <= 0.0:
        raise ValueError(f"curriculum base: expected a number above 0, found {base}")
