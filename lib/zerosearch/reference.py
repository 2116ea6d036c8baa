"""The committed reference results: small tables and figures of one finished run, and the README's tables.

``python -m zerosearch.reference RUN`` copies them to ``outputs/reference/<profile>`` and rewrites the
marked blocks of the README from them; a test fails when the README says anything else.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import datetime
from pathlib import Path

import pandas as pd

from zerosearch import artifacts, files, readme_tables
from zerosearch.errors import MissingInput, WorkbookError
from zerosearch.microworld import models

README = artifacts.REPO / "README.md"
REFERENCE = artifacts.REPO / "outputs" / "reference"
SCORE_COLUMNS = ["method", "dataset", "seed", "metric", "value", "n", "low", "high"]


def publish(run: str) -> Path:
    """Copy the small results of a finished run to outputs/reference/<profile>; return that folder.

    Of several training seeds only the lowest leaves its curves as pictures; all are in the tables.
    Raises MissingInput when stage 05 has not finished.
    """
    root = artifacts.run_dir(run)
    artifacts.require(run, "05", artifacts.MANIFEST)
    manifest = artifacts.read_manifest(run, "05")
    folder = REFERENCE / manifest["parameters"]["profile"]
    kinds = (".csv",) if folder.name == "smoke" else (".csv", ".png")  # rough figures are not worth their bytes

    def write(temporary: Path) -> None:
        scores = files.read_table(artifacts.require(run, "04", "scores.parquet"))
        scores[SCORE_COLUMNS].round(6).to_csv(temporary / "scores.csv", index=False, lineterminator="\n")
        for path in sorted(root.rglob("*")):
            parts = path.relative_to(root).parts
            if path.suffix in kinds and path.name != "scores.csv" and not _left_out(root, parts):
                name = "-".join(part for part in parts if part != "figures")
                shutil.copyfile(path, temporary / name)
        _metrics(root).to_csv(temporary / "03_rl-metrics.csv", index=False, lineterminator="\n")
        _stages(root).to_csv(temporary / "stages.csv", index=False, lineterminator="\n")
        kept = ("versions", "python", "started", "cores", "device")
        made_by = {key: manifest[key] for key in kept if key in manifest}
        (temporary / "made_by.json").write_text(json.dumps(made_by, indent=1) + "\n", encoding="utf-8")

    return files.save_folder(folder, write)


def _left_out(root: Path, parts: tuple[str, ...]) -> bool:
    """Say whether a file of a run is not kept: a notebook's own, or a curve of a further training seed."""
    if parts[0] != artifacts.STAGES["03"]:
        return "notebooks" in parts
    lowest = min((root / parts[0] / parts[1]).glob("seed*"), key=lambda folder: int(folder.name.removeprefix("seed")))
    return parts[2] != lowest.name


def _metrics(root: Path) -> pd.DataFrame:
    tables = []
    for path in sorted(root.glob("03_rl/*/seed*/metrics.jsonl")):
        table = pd.DataFrame(files.read_jsonl(path))
        table.insert(0, "arm", path.parts[-3])
        table.insert(1, "seed", int(path.parts[-2].removeprefix("seed")))
        tables.append(table)
    return pd.concat(tables, ignore_index=True).round(6)


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
    laptop, smoke, shipped = REFERENCE / "laptop", REFERENCE / "smoke", models.manifest()
    return {
        "world-card": readme_tables.card(shipped), "world-sentinels": readme_tables.sentinels(shipped),
        "world-models": readme_tables.zoo(shipped),
        "laptop-scores": readme_tables.scores(laptop), "laptop-differences": readme_tables.differences(laptop),
        "laptop-conditions": readme_tables.conditions(laptop), "laptop-freshness": readme_tables.freshness(laptop),
        "laptop-times": readme_tables.times(laptop),
        "smoke-scores": readme_tables.scores(smoke), "smoke-times": readme_tables.times(smoke),
    }


def main(arguments: list[str]) -> int:
    """Publish the named run and rewrite the README; return the exit code."""
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            print("usage: python -m zerosearch.reference RUN   (a finished run below outputs/)")
            return 0 if arguments in (["--help"], ["-h"]) else 2
        print("published to", publish(arguments[0]))
        if all((REFERENCE / name / "scores.csv").is_file() for name in ("laptop", "smoke")):
            files.write_atomic(README, fill(README.read_text(encoding="utf-8"), blocks()))
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
