"""Row by row: a table of a run beside the table of the same name in the reference.

Tables are read as text, so that a key is what stands in the file; a column is a number where every cell
of the reference is one.  Columns about the machine are left out (``facts.is_machine_column``).  Rows that
only the run has are counted, not judged.  Called by ``verify`` and ``compare_runs``.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import pandas as pd

from zerosearch.comparing import tolerances
from zerosearch.comparing.facts import is_machine_column
from zerosearch.comparing.tolerances import Level
from zerosearch.errors import BadInput

PASS, DIFFERS, MISSING = "pass", "differs", "missing"
CURVES = "03_rl-metrics.csv"
CURVE_METRICS = ("reward_mean", "em", "f1")  # elsewhere a single step is another draw, their level is not
PLANNED = ("noise_planned", "learning_rate")  # decided by the parameters, whatever the policy does
IDENTIFYING = frozenset(
    "stage method method_a method_b arm dataset seed metric condition step when kind source states label label_kind "
    "label_trajectory label_judge model ability sentinel k option item outcome".split()
)


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: the finest grain that ``verify.csv`` shows.

    part: ``input``, ``table`` or ``claim``.  name: which file, table or claim.  row, column: where in a
    table (for the row as a whole the column that deviates most).  status: pass, differs or missing.
    reference, found: as text; tolerance: None where the two must be equal.
    """

    part: str
    name: str
    status: str
    row: str = ""
    column: str = ""
    reference: str = ""
    found: str = ""
    tolerance: float | None = None
    note: str = ""


def read(source: Path | bytes, name: str) -> pd.DataFrame:
    """Return a CSV file, or the bytes of one, as a table of texts; BadInput when it is none."""
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        return pd.read_csv(opened, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadInput(f"{name}: expected a CSV table, found {error}; run its stage again with --from") from error


def compare(name: str, reference: pd.DataFrame, found: pd.DataFrame | None, level: Level) -> list[Check]:
    """Return one check for every row of the reference's table; one in all when the run has no such table."""
    if found is None:
        return [Check("table", name, MISSING, note="the run has no such table")]
    if name == CURVES and not level.exact:
        return [*_rows(name, reference, found, level, PLANNED), *_curves(name, reference, found)]
    columns = [c for c in reference.columns if c not in IDENTIFYING and not is_machine_column(c)]
    return list(_rows(name, reference, found, level, columns))


def more_rows(reference: pd.DataFrame, found: pd.DataFrame) -> int:
    """Return how many rows of a run's table stand for something that the reference does not have."""
    columns = key_columns(reference, found)
    return len(set(keys(found, columns)) - set(keys(reference, columns)))


def key_columns(*tables: pd.DataFrame) -> list[str]:
    """Return the columns by which rows are matched: the identifying ones that all tables have."""
    return [c for c in tables[0].columns if c in IDENTIFYING and all(c in t.columns for t in tables)]


def keys(table: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the key of each row; one that stands there again, or has no columns, gets its number at the end."""
    seen: Counter[tuple[str, ...]] = Counter()
    made = []
    for key in zip(*(table[c] for c in columns), strict=True) if columns else [() for _ in range(len(table))]:
        made.append(key if columns and not seen[key] else (*key, f"row {seen[key] + 1}"))
        seen[key] += 1
    return made


def numbers(values: Mapping[str, str]) -> dict[str, float]:
    """Return the cells of a row that are numbers, NaN for empty ones."""
    made = {name: number(text) for name, text in values.items()}
    return {name: value for name, value in made.items() if value is not None}


def number(text: str) -> float | None:
    """Return a cell as a number: NaN when empty, None when it is another text."""
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return None


def _rows(
    name: str, reference: pd.DataFrame, found: pd.DataFrame, level: Level, columns: Sequence[str]
) -> Iterator[Check]:
    by = key_columns(reference, found)
    mine = dict(zip(keys(found, by), found.to_dict("records"), strict=True))
    for key, wanted in zip(keys(reference, by), reference.to_dict("records"), strict=True):
        row = " ".join(filter(None, key))
        if key not in mine:
            yield Check("table", name, MISSING, row, note="the run has no such row")
            continue
        cells = [_cell(name, row, c, wanted, mine[key], level) for c in columns if c in reference.columns]
        yield _worst(cells) if cells else Check("table", name, PASS, row)


def _cell(name: str, row: str, column: str, wanted: Mapping[str, str], mine: Mapping[str, str], level: Level) -> Check:
    """Compare one cell; a number by its tolerance, any other text by its letters."""
    if column not in mine:
        return Check("table", name, MISSING, row, column, wanted[column], note="the run has no such column")
    a, b = wanted[column], mine[column]
    expected, value, tolerance = number(a), number(b), None
    if expected is None or value is None:
        same = _same_text(column, a, b, level)
    else:
        if name == CURVES and not level.exact:
            tolerance = 1e-6  # planned columns, rounded to six digits
        else:
            tolerance = tolerances.of_row(level, name, column, numbers(wanted))
        same = tolerances.within(expected, value, tolerance)
    return Check("table", name, PASS if same else DIFFERS, row, column, a, b, tolerance)


def _same_text(column: str, a: str, b: str, level: Level) -> bool:
    """Elsewhere a winner may go unnamed where the interval just touches 0; another winner is a difference."""
    if column == "winner" and not level.exact:
        return a == b or not a or not b
    return a == b


def _worst(cells: Sequence[Check]) -> Check:
    """Return the cell that stands for its row: the first that does not pass, else the one nearest to its limit."""
    failed = [cell for cell in cells if cell.status != PASS]
    return failed[0] if failed else max(cells, key=_strain)


def _strain(cell: Check) -> float:
    return deviation(cell) / cell.tolerance if cell.tolerance else 0.0


def deviation(check: Check) -> float:
    """Return by how much a number differs from the reference; 0 for texts and empty cells."""
    a, b = number(check.reference), number(check.found)
    difference = abs(a - b) if a is not None and b is not None else 0.0
    return difference if difference == difference else 0.0


def _curves(name: str, reference: pd.DataFrame, found: pd.DataFrame) -> Iterator[Check]:
    """Compare the level that each training reached: means over the last fifth of its steps."""
    mine = dict(iter(found.groupby(["arm", "seed"], sort=False)))
    for (arm, seed), wanted in reference.groupby(["arm", "seed"], sort=False):
        row, own = f"{arm} {seed} last fifth", mine.get((arm, seed))
        for metric in CURVE_METRICS:
            if metric not in wanted.columns:
                continue
            if own is None or metric not in own.columns:
                yield Check("table", name, MISSING, row, metric, note="the run has no such curve")
                continue
            a, b = _last_fifth(wanted[metric]), _last_fifth(own[metric])
            same = tolerances.within(a, b, tolerances.CURVE_TOLERANCE)
            limit = tolerances.CURVE_TOLERANCE
            yield Check("table", name, PASS if same else DIFFERS, row, metric, f"{a:.6f}", f"{b:.6f}", limit)


def _last_fifth(values: pd.Series) -> float:
    return float(pd.to_numeric(values.tail(max(1, len(values) // 5)), errors="coerce").mean())
