"""The committed reference results: small tables and figures of one finished run, and the README's tables.

``python -m zerosearch.reference RUN`` copies them to ``outputs/reference/<profile>`` and rewrites the
marked blocks of the README from them; a test fails when the README says anything else.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Callable, Iterator

import pandas as pd

from zerosearch import artifacts, files, readme_tables
from zerosearch.comparing import facts
from zerosearch.errors import MissingInput, WorkbookError

README = artifacts.REPO / "README.md"
REFERENCE = artifacts.REPO / "outputs" / "reference"
MADE_BY = "made_by.json"
SHOWN = ("full_table", "laptop", "smoke")  # references that the README shows
SCORE_COLUMNS = ["method", "dataset", "seed", "metric", "value", "n", "low", "high"]


def publish(run: str) -> Path:
    """Copy the small results of a finished run to outputs/reference/<profile>; return that folder.

    Of several training seeds only the lowest leaves its curves as pictures; all are in the tables.
    Raises MissingInput when stage 05 has not finished.
    """
    artifacts.require(run, "05", artifacts.MANIFEST)
    manifest = artifacts.read_manifest(run, "05")
    folder = REFERENCE / manifest["parameters"]["profile"]

    def write(temporary: Path) -> None:
        for name, make in tables(run).items():
            (temporary / name).write_bytes(make())
        if folder.name != "smoke":  # rough figures are not worth their bytes
            for name, path in _kept_files(artifacts.run_dir(run), ".png"):
                shutil.copyfile(path, temporary / name)
        made_by = json.dumps(_made_by(run), indent=1)
        (temporary / MADE_BY).write_text(made_by + "\n", encoding="utf-8")

    return files.save_folder(folder, write)


def tables(run: str) -> dict[str, Callable[[], bytes]]:
    """Return every table that a run leaves in the reference: its name there, and a call that makes the CSV.

    A call raises MissingInput when the stage that the table comes from has not finished.
    """
    root = artifacts.run_dir(run)
    made: dict[str, Callable[[], bytes]] = {name: path.read_bytes for name, path in _kept_files(root, ".csv")}
    for name, make in {"scores.csv": _scores, "03_rl-metrics.csv": _metrics, "stages.csv": _stages}.items():
        made[name] = partial(_csv, make, root)
    return made


def _csv(make: Callable[[Path], pd.DataFrame], root: Path) -> bytes:
    return make(root).to_csv(index=False, lineterminator="\n").encode("utf-8")


def _kept_files(root: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Yield the files of a run that are kept as they are, with their names in the reference."""
    for path in sorted(root.rglob(f"*{suffix}")):
        parts = path.relative_to(root).parts
        if path.name != "scores.csv" and not _left_out(root, parts):
            yield "-".join(part for part in parts if part != "figures"), path


def _made_by(run: str) -> dict[str, object]:
    """Return what ``verify`` needs to judge another run: the machine, the parameters, hashes of inputs."""
    made = facts.manifests(run)
    return {
        "started": artifacts.read_manifest(run, "05")["started"], **facts.machine(made),
        "parameters": facts.parameters(made), "hashes": facts.hashes(made),
    }


def _left_out(root: Path, parts: tuple[str, ...]) -> bool:
    """Say whether a file of a run is not kept: of no stage, a notebook's own, or a curve of a further seed."""
    if parts[0] != artifacts.STAGES["03"]:
        return len(parts) == 1 or "notebooks" in parts
    lowest = min((root / parts[0] / parts[1]).glob("seed*"), key=lambda folder: int(folder.name.removeprefix("seed")))
    return parts[2] != lowest.name


def _scores(root: Path) -> pd.DataFrame:
    return files.read_table(artifacts.require(root.name, "04", "scores.parquet"))[SCORE_COLUMNS].round(6)


def _metrics(root: Path) -> pd.DataFrame:
    found = []
    for path in sorted(root.glob("03_rl/*/seed*/metrics.jsonl")):
        table = pd.DataFrame(files.read_jsonl(path))
        table.insert(0, "arm", path.parts[-3])
        table.insert(1, "seed", int(path.parts[-2].removeprefix("seed")))
        found.append(table)
    if not found:
        raise MissingInput(f"expected metrics.jsonl of a training below {root}, found none; run stage 03 of this run")
    return pd.concat(found, ignore_index=True).round(6)


def _stages(root: Path) -> pd.DataFrame:
    rows = []
    for path in sorted(root.rglob(artifacts.MANIFEST)):
        made = json.loads(path.read_text(encoding="utf-8"))
        rows.append(
            {
                "stage": made["stage"], "arm": made["arm"] or "", "seed": made["seed"] if made["arm"] else "",
                "wall_seconds": round(made["wall_seconds"], 1), "peak_rss_mib": round(made["peak_rss_mib"]),
            }
        )
    return pd.DataFrame([*rows, _whole_run(root)])


def _whole_run(root: Path) -> dict[str, object]:
    """Return the row of the run as a whole: first start to last end, highest memory of one notebook."""
    made = [json.loads(path.read_text(encoding="utf-8")) for path in root.rglob(artifacts.MANIFEST)]
    started = min(datetime.fromisoformat(m["started"]) for m in made)
    finished = max(datetime.fromisoformat(m["finished"]) for m in made)
    return {
        "stage": "whole run", "arm": "", "seed": "", "wall_seconds": round((finished - started).total_seconds(), 1),
        "peak_rss_mib": round(max(m["peak_rss_mib"] for m in made)),
    }


def fill(readme: str, blocks: dict[str, str]) -> str:
    """Return the README with each ``<!-- name:begin -->`` ... ``<!-- name:end -->`` block replaced."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in readme or end not in readme:
            raise MissingInput(f"README.md: expected the markers {begin} and {end}, found them missing")
        head, rest = readme.split(begin, 1)
        readme = f"{head}{begin}\n{block}\n{end}{rest.split(end, 1)[1]}"
    return readme


def blocks() -> dict[str, str]:
    """Return every block of the README that comes from the committed reference or the shipped models."""
    from zerosearch.microworld import models  # brings torch, which nothing else here needs

    full, laptop, smoke = (REFERENCE / name for name in SHOWN)
    shipped = models.manifest()
    return {
        "world-card": readme_tables.card(shipped), "world-sentinels": readme_tables.sentinels(shipped),
        "world-models": readme_tables.zoo(shipped),
        "full-scores": readme_tables.scores(full), "full-verdicts": readme_tables.verdicts(full),
        "full-conditions": readme_tables.conditions(full),
        "laptop-freshness": readme_tables.freshness(laptop),
        "health-rules": readme_tables.health(),
        "rollout-exactness": readme_tables.exactness(artifacts.REPO / "benchmarks" / "rollout_exactness.csv"),
        "rollout-loops": readme_tables.loops(artifacts.REPO / "benchmarks" / "rollout_throughput.csv"),
        "algorithms": readme_tables.algorithms(artifacts.REPO / "benchmarks" / "algorithms.csv"),
        "policy-step": readme_tables.policy_step(artifacts.REPO / "benchmarks" / "policy_step.csv"),
        "laptop-times": readme_tables.times(laptop), "smoke-times": readme_tables.times(smoke),
    }


def main(arguments: list[str]) -> int:
    """Publish the named run and rewrite the README; return the exit code."""
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            print("usage: python -m zerosearch.reference RUN   (a finished run below outputs/)")
            return 0 if arguments in (["--help"], ["-h"]) else 2
        print("published to", publish(arguments[0]))
        if all((REFERENCE / name / "scores.csv").is_file() for name in SHOWN):
            files.write_atomic(README, fill(README.read_text(encoding="utf-8"), blocks()))
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
