"""The README's tables in Markdown: from a run's committed results, the model manifest or the library.

A function takes the folder of a reference run (``outputs/reference/<profile>``), or the manifest of the
base models, and returns the text between two markers.  A table that a run did not write says so; no number
of the README is written by hand.  Called by ``reference``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import pandas as pd

from zerosearch.training.health_rules import RULES

LABELS = {
    "direct": "Direct answer", "cot": "Chain of thought", "rag": "RAG (one search for the question)",
    "search": "Untrained policy with search", "forced": "Untrained policy, forced to search",
    "ra-agent": "RA-Agent (thought, action, observation)", "search-o1": "Search-o1 (condensed passages)",
    "own-search": "Untrained policy that searches its memory",
    "sft": "SFT arm (trained on golden answers, no search)", "r1": "R1 arm (RL without search)",
    "self-search": "Self-search arm (trained on its own passages)",
    "rejection": "Rejection arm (trained on its own right trajectories)",
    "search-r1": "Search-R1 arm (trained on the real engine)",
    "zerosearch": "ZeroSearch arm (trained on the simulator)",
    "prompted": "Prompted arm (trained on the simulator's base with examples)",
    "untuned": "Untuned arm (trained on the simulator's base)",
}
SETS = {
    "nq": "NQ", "triviaqa": "TriviaQA", "popqa": "PopQA", "hotpotqa": "HotpotQA", "2wikimultihopqa": "2Wiki",
    "musique": "MuSiQue", "bamboogle": "Bamboogle", "average": "average",
}
CONDITIONS = {
    "clean": "clean", "homonyms": "homonyms", "corrupt-0.25": "corrupted 0.25", "corrupt-0.5": "corrupted 0.5",
    "corrupt-0.75": "corrupted 0.75", "random": "random", "empty": "empty", "later": "later",
    "past": "later, past answers",
}
LOOPS = {  # of rollouts, ours first
    "asynchronous": "ours, each trajectory by itself", "synchronous, a thread per query": "in turns, all searches of a turn at once",
    "synchronous, 10 threads": "in turns, ten searches at a time (published)", "TRL, tools": "TRL's loop over tools",
}
WAYS = {  # of one optimiser step, each with the switches of those above it
    "TRL as shipped": "TRL's trainer as shipped", "TRL, activations kept": "TRL's trainer, activations kept",
    "all logits": "ours without any switch", "+ the policy's logits alone": "+ logits of the policy's tokens alone",
    "+ sorted by length": "+ passes sorted by length (`packing: padded`)", "+ packed": "+ no padding (`packing: packed`)",
    "+ idle rows skipped": "+ rows of advantage 0 left out, without a KL", "+ the fused loss": "+ `loss: fused`",
}
NOT_MEASURED = "(not measured in this run)"


def scores(folder: Path) -> str:
    """Return the table of EM per set and of the three averages, over all training seeds."""
    table = _read(folder / "04_evaluate-averages.csv")
    lines = [
        "| method | " + " | ".join(SETS.values()) + " | average F1 | average cover EM |",
        "|---|" + "---:|" * (len(SETS) + 2),
    ]
    for method in sorted(table["method"].unique(), key=list(LABELS).index):
        mine = table[table["method"] == method]
        cells = [_score(mine, name, "em", spread=name == "average") for name in SETS]
        cells += [_score(mine, "average", metric) for metric in ("f1", "cover_em")]
        lines.append(f"| {LABELS[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _score(table: pd.DataFrame, dataset: str, metric: str, *, spread: bool = False) -> str:
    rows = table[(table["dataset"] == dataset) & (table["metric"] == metric)]
    if rows.empty:
        return "–"
    row = rows.iloc[0]
    return f"**{row['value']:.3f}** [{row['low']:.3f}, {row['high']:.3f}]" if spread else f"{row['value']:.3f}"


def verdicts(folder: Path, method: str = "zerosearch") -> str:
    """Return the table of one method against every other: difference of average EM, corrected p, verdict."""
    table = _read(folder / "04_evaluate-verdicts.csv")
    table = table[(table["dataset"] == "average") & (table["metric"] == "em")]
    lines = [
        f"| `{method}` minus | difference of average EM | p | p after Holm | detectable | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name in LABELS:
        own = table[table["method_a"].eq(method) & table["method_b"].eq(name)]
        other = table[table["method_a"].eq(name) & table["method_b"].eq(method)]
        for row, sign in [*((r, 1) for r in own.itertuples()), *((r, -1) for r in other.itertuples())]:
            low, high = sorted((sign * row.low, sign * row.high))
            text = f"{sign * row.difference:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
            verdict = _turned(row.verdict) if sign < 0 else row.verdict
            chances = f"{_chance(row.p)} | {_chance(row.p_holm)}"
            lines.append(f"| `{name}` | {text} | {chances} | {row.detectable:.3f} | {verdict} |")
    return "\n".join(lines)


def _chance(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _turned(verdict: str) -> str:
    return {"better": "worse", "worse": "better"}.get(verdict, verdict)


def conditions(folder: Path) -> str:
    """Return the table of EM under every condition, with intervals."""
    path = folder / "04_evaluate-condition_averages.csv"
    if not path.is_file():
        return NOT_MEASURED
    table = _read(path)
    table["column"] = table["condition"].where(table["metric"] == "em", "past")
    names = [name for name in CONDITIONS if name in set(table["column"])]
    lines = ["| method | " + " | ".join(CONDITIONS[name] for name in names) + " |", "|---|" + "---:|" * len(names)]
    for method in [name for name in LABELS if name in set(table["method"])]:
        own = table[table["method"] == method].set_index("column")
        lines.append(f"| {LABELS[method]} | " + " | ".join(_share(own.loc[name]) for name in names) + " |")
    return "\n".join(lines)


def freshness(folder: Path) -> str:
    """Return the table of what the simulator and the real engines state about changed facts."""
    path = folder / "02_simulator-freshness.csv"
    if not path.is_file():
        return NOT_MEASURED
    lines = ["| asked for changed facts | states the new object | states the old one | facts |", "|---|---:|---:|---:|"]
    for source, own in _read(path).groupby("source", sort=False):
        rows = own.set_index("states")
        lines.append(f"| {source} | {_share(rows.loc['new'])} | {_share(rows.loc['old'])} | {rows.loc['new', 'n']} |")
    return "\n".join(lines)


def times(folder: Path) -> str:
    """Return the table of wall time and memory per stage; the training seeds of an arm share a line."""
    stages = pd.read_csv(folder / "stages.csv", keep_default_na=False)
    lines = ["| stage | seconds | peak memory, MiB |", "|---|---:|---:|"]
    for (stage, arm), rows in stages.groupby(["stage", "arm"], sort=False):
        name = " ".join(filter(None, (stage, arm, f"(each of {len(rows)} seeds, mean)" if len(rows) > 1 else "")))
        lines.append(f"| {name} | {rows['wall_seconds'].astype(float).mean():.0f} | {rows['peak_rss_mib'].max()} |")
    return "\n".join(lines)


def card(manifest: Mapping[str, Any]) -> str:
    """Return the gate of the main base: what it can do, and between which bounds it has to be."""
    rows = manifest.get("card")
    if not rows:
        return NOT_MEASURED
    lines = ["| ability of the base policy | measured | wanted | within |", "|---|---:|---:|---|"]
    for row in rows:
        name, within = str(row["ability"]).replace("_", " "), "yes" if row["passed"] else "no"
        lines.append(f"| {name} | {row['value']:.2f} | {row['least']:.2f} to {row['most']:.2f} | {within} |")
    return f"World version {manifest['world_version']}.\n\n" + "\n".join(lines)


def sentinels(manifest: Mapping[str, Any]) -> str:
    """Return the table of the two scripted policies: EM under every condition."""
    rows = manifest.get("sentinels")
    if not rows:
        return NOT_MEASURED
    table = pd.DataFrame(rows)
    names = [name for name in CONDITIONS if name in set(table["condition"])]
    lines = ["| scripted policy | " + " | ".join(CONDITIONS[n] for n in names) + " |", "|---|" + "---:|" * len(names)]
    for who, own in table.groupby("sentinel", sort=False):
        values = own.set_index("condition")
        cells = [_share(values.loc[name].rename({"em": "value"})) if name in values.index else "–" for name in names]
        lines.append(f"| {who} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def zoo(manifest: Mapping[str, Any]) -> str:
    """Return the table of the base models: family, size, and what their pretraining held."""
    if not manifest.get("card"):
        return NOT_MEASURED
    lines = [
        "| model | family | parameters | tokens read | of these search trajectories |", "|---|---|---:|---:|---:|",
    ]
    for name, entry in manifest["models"].items():
        family = f"{entry['family']}{', chat template' if entry['chat'] else ''}"
        amounts = f"{entry['parameters']:,} | {entry['tokens']:,} | {entry['trajectory_share']:.0%}".replace("%", " %")
        lines.append(f"| `micro/{name}` | {family} | {amounts} |")
    return "\n".join(lines)


def health() -> str:
    """Return the table of the collapse watch: every rule, where its bound comes from, and what to try."""
    lines = [
        "| metric | healthy | steps in a row | likely cause beyond it | what to try | where the bound comes from |",
        "|---|---|---:|---|---|---|",
    ]
    for rule in RULES:
        words = (rule.healthy(), str(rule.patience), rule.cause, rule.remedy.advice(), rule.evidence)
        cells = (f"`{rule.metric}`", *words)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(row: pd.Series) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def loops(path: Path) -> str:
    """Return trajectories per second of each loop by latency, and in brackets its ratio to the published loop."""
    if not path.is_file():
        return NOT_MEASURED
    table = pd.read_csv(path)
    medians = sorted(table["median_latency_seconds"].unique())
    rows = table.set_index(["loop", "median_latency_seconds"])
    lines = ["| loop | " + " | ".join(f"{m:g} s" if m else "at once" for m in medians) + " |", "|---|" + "---:|" * len(medians)]
    for loop, label in LOOPS.items():
        cells = [rows.loc[(loop, m)] for m in medians]
        shown = [f"{c['trajectories_per_second']:.1f} ({c['ratio']:.2f}×)" for c in cells]
        lines.append(f"| {label} | {' | '.join(shown)} |")
    return "\n".join(lines)


def exactness(path: Path) -> str:
    """Return, for each engine and type, the gap to the trainer in nats, and the shares of equal trajectories."""
    if not path.is_file():
        return NOT_MEASURED
    lines = [
        "| engine | type | trainer | mean | median | 99 % | most | same by the other loop | same with fewer at once |",
        "|---|---|---|" + "---:|" * 6,
    ]
    for row in pd.read_csv(path).to_dict("records"):
        gap = " | ".join(f"{row[name]:.1g}" for name in ("mean", "p50", "p99", "most"))
        same = " | ".join(f"{100 * row[name]:.1f} %" for name in ("same_loop", "same_batch"))
        lines.append(f"| {row['engine']} | {row['dtype']} | {row['trainer']} | {gap} | {same} |")
    return "\n".join(lines)


def algorithms(path: Path) -> str:
    """Return average EM and training reward of each algorithm: mean over the seeds, lowest to highest in brackets."""
    if not path.is_file():
        return NOT_MEASURED
    table = pd.read_csv(path)
    lines = [
        f"| `03.algorithm` | EM, untrained {table['em_before'].mean():.2f} | reward, first fifth of the steps | last fifth | "
        "seeds |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, own in table.groupby("algorithm", sort=False):
        cells = [_range(own[column]) for column in ("em_after", "reward_first_fifth", "reward_last_fifth")]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {len(own)} |")
    return "\n".join(lines)


def _range(values: pd.Series) -> str:
    return f"{values.mean():.2f} [{values.min():.2f}, {values.max():.2f}]"


def policy_step(path: Path) -> str:
    """Return tokens per second of one optimiser step by each way, and in brackets its ratio to TRL as shipped."""
    if not path.is_file():
        return NOT_MEASURED
    table = pd.read_csv(path)
    cases = list(table[["model", "kl_weight"]].drop_duplicates().itertuples(index=False, name=None))
    rows = table.set_index(["way", "model", "kl_weight"])
    heads = [f"`{model}`, {f'KL {weight:g}' if weight else 'no KL'}" for model, weight in cases]
    lines = ["| a step by | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(cases)]
    for way, label in WAYS.items():
        cells = [rows.loc[(way, *case)] for case in cases]
        shown = [f"{c['tokens_per_second']:,.0f} ({c['ratio']:.2f}×)" for c in cells]
        lines.append(f"| {label} | {' | '.join(shown)} |")
    return "\n".join(lines)
