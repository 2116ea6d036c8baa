"""The sentences a reader would check by hand: averages, winners, the simulator, the room, the ability card.

A claim is made only where its table exists in the reference and in the run; a row that the run lacks is
``missing``.  Tolerances: ``tolerances.of_claim``.  Called by ``verify``.
"""

from __future__ import annotations

from math import hypot, nan
from typing import Iterator, Mapping

import pandas as pd

from zerosearch.comparing import tolerances
from zerosearch.comparing.tables import DIFFERS, MISSING, PASS, Check, numbers
from zerosearch.comparing.tolerances import Level

Tables = Mapping[str, pd.DataFrame]
Row = dict[str, str]
AVERAGES, COMPARISONS = "04_evaluate-averages.csv", "04_evaluate-comparisons.csv"
QUALITY, SENTINELS = "02_simulator-quality.csv", "00_micro_world-sentinels.csv"
ABILITIES = "00_micro_world-ability_card.csv"
ARM, BASELINE = "zerosearch", "forced"
QUALITY_METRICS = ("answer_present", "names_the_entity", "format_valid", "style_distance")
NOTICES, BELIEVES = "notices every miss", "notices no miss"


def compare(reference: Tables, found: Tables, level: Level) -> list[Check]:
    """Return one check per claim, in the order of the README."""
    makers = {
        AVERAGES: _averages, COMPARISONS: _comparisons, QUALITY: _quality, SENTINELS: _room, ABILITIES: _abilities,
    }
    both = [name for name in makers if name in reference and name in found]
    return [check for name in both for check in makers[name](reference[name], found[name], level)]


def _averages(reference: pd.DataFrame, found: pd.DataFrame, level: Level) -> Iterator[Check]:
    mine = {row["method"]: row for row in _of_average_em(found)}
    for row in _of_average_em(reference):
        yield _number(f"average EM of {row['method']}", row, mine.get(row["method"]), "value", level)


def _comparisons(reference: pd.DataFrame, found: pd.DataFrame, level: Level) -> Iterator[Check]:
    """The winner that each difference names, and the sentence that carries the workbook: training helped."""
    mine = {(row["method_a"], row["method_b"]): row for row in _of_average_em(found)}
    for row in _of_average_em(reference):
        a, b = row["method_a"], row["method_b"]
        name, own = f"winner of {a} against {b}", mine.get((a, b))
        if (a, b) == (ARM, BASELINE) and row["winner"] == ARM:
            yield _above_the_baseline(row, own)
        if own is None:
            yield Check("claim", name, MISSING, reference=row["winner"] or "none")
            continue
        same = row["winner"] == own["winner"]
        winners = row["winner"] or "none", own["winner"] or "none"
        yield Check("claim", name, PASS if same else DIFFERS, reference=winners[0], found=winners[1])


def _above_the_baseline(row: Row, own: Row | None) -> Check:
    """The same at both levels: the interval of the difference lies above 0."""
    name, wanted = f"{ARM} above {BASELINE}, interval excludes 0", _difference(row)
    if own is None:
        return Check("claim", name, MISSING, reference=wanted)
    above = numbers(own).get("low", nan) > 0.0
    return Check("claim", name, PASS if above else DIFFERS, reference=wanted, found=_difference(own))


def _difference(row: Row) -> str:
    values = numbers(row)
    return f"{values.get('difference', nan):+.3f} [{values.get('low', nan):+.3f}, {values.get('high', nan):+.3f}]"


def _quality(reference: pd.DataFrame, found: pd.DataFrame, level: Level) -> Iterator[Check]:
    mine = {(r["when"], r["kind"], r["metric"]): r for r in found.to_dict("records")}
    for row in reference.to_dict("records"):
        if row["when"] == "after" and row["metric"] in QUALITY_METRICS:
            name = f"tuned simulator, {row['kind']}: {row['metric']}"
            yield _number(name, row, mine.get((row["when"], row["kind"], row["metric"])), "value", level)


def _room(reference: pd.DataFrame, found: pd.DataFrame, level: Level) -> Iterator[Check]:
    """What judging passages is worth under each condition: EM of one scripted policy minus the other's."""
    wanted, mine = _gaps(reference), _gaps(found)
    for condition, (gap, half) in wanted.items():
        name = f"sentinel gap, {condition}"
        if condition not in mine:
            yield Check("claim", name, MISSING, reference=f"{gap:.3f}")
            continue
        tolerance, value = tolerances.of_claim(level, half), mine[condition][0]
        status = PASS if tolerances.within(gap, value, tolerance) else DIFFERS
        yield Check("claim", name, status, reference=f"{gap:.3f}", found=f"{value:.3f}", tolerance=tolerance)


def _gaps(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return {condition: (gap in EM, half-width of its interval)}."""
    rows = {(row["sentinel"], row["condition"]): numbers(row) for row in table.to_dict("records")}
    made = {}
    for condition in table["condition"].drop_duplicates():
        best, worst = rows.get((NOTICES, condition)), rows.get((BELIEVES, condition))
        if best and worst:
            half = hypot(tolerances.half_width("em", best), tolerances.half_width("em", worst))
            made[condition] = (best["em"] - worst["em"], half)
    return made


def _abilities(reference: pd.DataFrame, found: pd.DataFrame, level: Level) -> Iterator[Check]:
    """One claim per model: all its abilities; the first that deviates is the one that is shown."""
    mine = {(row["model"], row["ability"]): row for row in found.to_dict("records")}
    for model, rows in reference.groupby("model", sort=False):
        checks = [
            _number(f"ability card of {model}", row, mine.get((model, row["ability"])), "value", level, row["ability"])
            for row in rows.to_dict("records")
        ]
        failed = [check for check in checks if check.status != PASS]
        yield failed[0] if failed else Check("claim", f"ability card of {model}", PASS, note=f"{len(rows)} abilities")


def _number(name: str, row: Row, own: Row | None, column: str, level: Level, note: str = "") -> Check:
    """Compare one number of two rows; its tolerance comes from the interval of the reference."""
    if own is None:
        return Check("claim", name, MISSING, reference=row[column], note=note)
    values = numbers(row)
    half, small = tolerances.half_width(column, values), row.get("metric") == "style_distance"
    tolerance = tolerances.of_claim(level, half, small)
    same = tolerances.within(values.get(column, nan), numbers(own).get(column, nan), tolerance)
    status = PASS if same else DIFFERS
    return Check("claim", name, status, "", column, row[column], own[column], tolerance, note)


def _of_average_em(table: pd.DataFrame) -> list[Row]:
    return table[(table["dataset"] == "average") & (table["metric"] == "em")].to_dict("records")
