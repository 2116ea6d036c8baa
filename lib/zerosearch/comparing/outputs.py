"""What two runs wrote in one stage: which files differ, and the first row of a table that does.

A file whose recorded hash is the same is the same.  A table with another hash is read, because it may hold
times; only what is not about the machine counts.  Figures are drawn from tables and are not compared.
Called by ``compare_runs``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import pandas as pd

from zerosearch import artifacts, files, rollout
from zerosearch.comparing import trajectories
from zerosearch.comparing.facts import Manifest, is_machine_column
from zerosearch.comparing.trajectories import Decode, Difference
from zerosearch.errors import BadInput, MissingInput
from zerosearch.schema import Trajectory

TRAJECTORIES, METRICS = "trajectories.parquet", "metrics.jsonl"
# What was written first comes first; the rest of a stage follows from it.
FIRST = ("corpus.jsonl", "questions.jsonl", TRAJECTORIES, METRICS, "sft_metrics.jsonl", "predictions.parquet",
         "condition_predictions.parquet")
LABELS = ("step", "method", "arm", "seed", "condition", "question_id", "trajectory_id", "turn", "sample", "id")


def compare(a: Path, b: Path, made: tuple[Manifest, Manifest], decode: Decode | None) -> list[tuple[str, Difference]]:
    """Return (file name, first difference) for every file of a stage that differs, what came first at the front.

    a, b: the two folders of the stage.  made: their manifests.  decode: see ``trajectories.first_difference``.
    """
    ours, theirs = made[0]["outputs"], made[1]["outputs"]
    names = [name for name in dict.fromkeys([*ours, *theirs]) if not name.startswith("figures/")]
    found = []
    for name in sorted(names, key=_order):
        if name not in ours or name not in theirs:
            found.append((name, Difference(0, "", (f"only {'A' if name in ours else 'B'} wrote it",))))
        elif ours[name] != theirs[name] and (difference := _inside(a / name, b / name, decode)):
            found.append((name, difference))
    return sorted(found, key=_by_step)


def _order(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def _by_step(item: tuple[str, Difference]) -> float:
    """Trajectories and metrics of a training are one story: the earlier step first, a trajectory before its mean."""
    return item[1].step if item[0] in (TRAJECTORIES, METRICS) else float("inf")


def _inside(a: Path, b: Path, decode: Decode | None) -> Difference | None:
    """Return the first difference inside two files of other hashes; None when only times differ."""
    if a.suffix not in (".jsonl", ".parquet", ".csv"):
        return Difference(0, "", (f"{files.sha256(_there(a))[:12]}… / {files.sha256(_there(b))[:12]}…",))
    ours, theirs = _read(a), _read(b)
    if a.name == TRAJECTORIES:
        found = trajectories.first_difference(_records(ours, a), _records(theirs, b), decode)
        return found or _first_row(ours.drop(columns="turns"), theirs.drop(columns="turns"))
    return _first_row(ours, theirs)


def _records(table: pd.DataFrame, path: Path) -> list[Trajectory]:
    try:
        return rollout.table_to_trajectories(table)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: expected trajectories, found {error!r}; run its stage again with --from") from error


def _there(path: Path) -> Path:
    if path.is_file():
        return path
    raise MissingInput(
        f"expected {path}, which the stage's manifest lists, found nothing there; run this stage of the run again "
        f"with `./run_all.sh --run {path.relative_to(artifacts.outputs_dir()).parts[0]} --from STAGE`"
    )


def _read(path: Path) -> pd.DataFrame:
    file = _there(path)
    try:
        return pd.DataFrame(files.read_jsonl(file)) if path.suffix == ".jsonl" else files.read_table(file)
    except (ValueError, OSError) as error:
        found = str(error)[:200]
        raise BadInput(f"{path}: expected a table, found {found}; run its stage again with --from") from error


def _first_row(a: pd.DataFrame, b: pd.DataFrame) -> Difference | None:
    """Return the first row in which two tables differ, row beside row, columns about the machine left out."""
    columns = [c for c in a.columns if not is_machine_column(c)]
    if columns != [c for c in b.columns if not is_machine_column(c)]:
        return Difference(0, "", (f"columns {', '.join(a.columns)} / {', '.join(b.columns)}",))
    for number, (one, other) in enumerate(zip(_rows(a, columns), _rows(b, columns))):
        if one != other:
            step = int(a["step"].iloc[number]) if "step" in columns else 0
            return Difference(step, _label(one, number), tuple(_cells(a, b, number, one, other)))
    return None if len(a) == len(b) else Difference(0, "", (f"{len(a)} / {len(b)} rows, the first of them the same",))


def _rows(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield each row as texts that are equal exactly when the values are."""
    for row in table[columns].to_dict("records"):
        yield {name: json.dumps(value, default=files.plain, ensure_ascii=False) for name, value in row.items()}


def _label(row: Mapping[str, str], number: int) -> str:
    """Name a row by those identifying cells that are not empty."""
    named = ", ".join(f"{name} {text}" for name in LABELS if (text := row.get(name, "").strip('"')))
    return f"row {number + 1}{f' ({named})' if named else ''}"


def _cells(
    a: pd.DataFrame, b: pd.DataFrame, number: int, one: Mapping[str, str], other: Mapping[str, str]
) -> Iterator[str]:
    differing = [name for name in one if one[name] != other[name]]
    names = ", ".join(differing[:8]) + (" …" if len(differing) > 8 else "")
    yield f"{len(differing)} of {len(one)} columns differ: {names}"
    if "transcript" in differing and all(name not in differing for name in LABELS):
        yield trajectories.transcript_difference(*(str(table["transcript"].iloc[number]) for table in (a, b)))
    else:
        yield f"{differing[0]}: {one[differing[0]][:160]} / {other[differing[0]][:160]}"
