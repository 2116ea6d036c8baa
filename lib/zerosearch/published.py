"""The published numbers (arXiv 2505.04588) as tidy tables, read from ``data/published/``.

Values are shares in [0, 1] like our own scores; the CSV files keep the percentages as printed.
Nothing here is measured by this workbook.  Known caveats stand in ``data/published/README.md``.
Called by ``costs``, the figures of notebooks 04 and 05, and the report.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from zerosearch.errors import MissingInput

CITATION = "ZeroSearch, arXiv 2505.04588 (v2/v3)"
DATASETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
FOLDER = Path(__file__).resolve().parents[2] / "data" / "published"


def main_results(folder: Path = FOLDER) -> pd.DataFrame:
    """Return the main table: policy, method, dataset (seven and ``average``), value in [0, 1]."""
    return _tidy(_read(folder, "main_results.csv"), ["policy", "method"])


def simulators(folder: Path = FOLDER) -> pd.DataFrame:
    """Return the choice of simulator: version, engine, dataset, value in [0, 1] (Qwen2.5-3B)."""
    return _tidy(_read(folder, "simulators.csv"), ["version", "engine"])


def ablations(folder: Path = FOLDER) -> pd.DataFrame:
    """Return the ablations: ablation, policy, variant, value in [0, 1] (average over the sets)."""
    table = _read(folder, "ablations.csv")
    return table.assign(value=table.pop("average_em") / 100.0)


def cost_table(folder: Path = FOLDER) -> pd.DataFrame:
    """Return the published cost table as printed: engine, queries, hours, gpus, gpu_type, api_usd,
    gpu_usd, total_usd (USD)."""
    return _read(folder, "cost.csv")


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = Path(folder) / name
    if not path.is_file():
        raise MissingInput(f"published numbers: expected {path}, found none; "
                           f"run `git checkout data/published/{name}`")
    return pd.read_csv(path)


def _tidy(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    tidy = table.melt(id_vars=keys, var_name="dataset", value_name="value").dropna(subset="value")
    tidy["value"] = tidy["value"] / 100.0
    return tidy.reset_index(drop=True)
