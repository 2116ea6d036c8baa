"""How far a number may lie from the reference, and which of the two levels of tolerance applies.

``SAME`` - same library versions, Python, platform, processor and device: rule 11 promises the same run, so
every number must be equal, digit by digit as the CSV shows it.

``OTHER`` - anything else.  Sums come out differently in the last bits there, a sampled token differs, and
from then on a training is another draw of the same experiment.  With h the half-width of the reference's 95 %
interval, a single run has a standard error of h / 1.96 and the difference of two runs one of sqrt(2) times that:

* a claim is one number: within sqrt(2) h, which holds for 95 % of the differences;
* a table holds many: within 2 h, 2.8 standard errors of the difference, or one in 200 by chance;
* never less than 0.05: the interval of a single training seed does not hold the luck of the training.

Where a table gives n and no interval, h is that of a share at its widest, 1.96 * 0.5 / sqrt(n), and for
searches per question, whose spread is about 1, twice that.  A count of what a policy happened to sample
(stages 01 and 02) may move by 4 sqrt(n), a count that the parameters decide (stages 00 and 04) not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, sqrt
from typing import Any, Mapping

from zerosearch.comparing import facts

COUNTS = ("n", "seeds", "seeds_a", "seeds_b")
SAMPLED_TABLES = ("01_", "02_")  # their counts depend on what the policy wrote
SPREADS = {"searches": 1.0}  # standard deviation of one observation; of a share at most 0.5
CURVE_TOLERANCE = 0.10  # mean of the last fifth of one training: a choice, twice the least tolerance
_ROUNDING = 1e-9  # a difference this far beyond the tolerance is arithmetic of this comparison


@dataclass(frozen=True, slots=True)
class Level:
    """One level of tolerance.  claim, row: multiples of h that are allowed; least: never less than this."""

    name: str
    claim: float
    row: float
    least: float

    @property
    def exact(self) -> bool:
        """True where numbers must be equal."""
        return self.claim == self.row == self.least == 0.0

    def describe(self) -> str:
        """Return the tolerances in words, as ``verify`` prints them."""
        if self.exact:
            return "every number equal, as the CSV shows it; trained weights bit by bit"
        return (
            f"claims within {self.claim:.2f} h, rows of tables within {self.row:g} h (h: half-width of the "
            f"reference's 95 % interval), at least {self.least:g}; the last fifth of each training curve within "
            f"{CURVE_TOLERANCE:g}; trained weights are not compared; files that the seed decides must be equal"
        )


SAME = Level("same machine", 0.0, 0.0, 0.0)
OTHER = Level("other machine", sqrt(2.0), 2.0, 0.05)


def choose(made_by: Mapping[str, Any], made: Mapping[str, facts.Manifest]) -> tuple[Level, str]:
    """Return the level that applies to a run and the reason in words.

    made_by: what the reference recorded; made: the manifests of the run.
    """
    if (n := facts.machines(made)) > 1:
        return OTHER, f"the stages of this run were made on {n} machines or installations"
    reasons = facts.machine_differences(made_by, facts.machine(made))
    if reasons:
        return OTHER, "reference / here: " + "; ".join(reasons)
    return SAME, "versions, Python, platform, processor and device are those of the reference"


def half_width(column: str, row: Mapping[str, float]) -> float:
    """Return half the 95 % interval of a row's number: given as low and high, or from its n; 0 without both."""
    low, high, n = (row.get(name, float("nan")) for name in ("low", "high", "n"))
    if not isnan(low) and not isnan(high):
        return (high - low) / 2.0
    return 0.0 if isnan(n) or n <= 0 else 1.96 * SPREADS.get(column, 0.5) / sqrt(n)


def of_row(level: Level, table: str, column: str, row: Mapping[str, float]) -> float:
    """Return how far a number of a table may lie from the reference.

    row: the reference's numbers of the same row by column, NaN where empty.
    """
    if level.exact:
        return 0.0
    if column in COUNTS:
        return 4.0 * sqrt(max(1.0, row[column])) if table.startswith(SAMPLED_TABLES) else 0.0
    return max(level.least, level.row * half_width(column, row))


def of_claim(level: Level, half: float, small: bool = False) -> float:
    """Return how far the number of a claim may lie from the reference; half: half-width of its interval.

    small: the number itself is of the size of the least tolerance, so its interval alone decides.
    """
    return 0.0 if level.exact else max(0.0 if small else level.least, level.claim * half)


def within(reference: float, found: float, tolerance: float) -> bool:
    """Say whether two numbers agree; two that are empty (NaN) do, one that is empty does not."""
    if isnan(reference) or isnan(found):
        return isnan(reference) and isnan(found)
    return reference == found if tolerance == 0.0 else abs(reference - found) <= tolerance + _ROUNDING
