"""What a run costs: its ledgers, multiplied with a price book.

Two questions: what did *this* run use and what is that worth, and from how many queries on is a
simulator cheaper than an engine that is paid per search.

Money is USD, times are hours unless a name says otherwise.  Amounts come from append-only ledgers,
prices from a ``PriceBook``: nothing here measures, rounds or guesses.  Called by
``published_costs``, notebook 05 and the report.
"""

from __future__ import annotations

from typing import Mapping

import numpy as np
import pandas as pd

from zerosearch.errors import WorkbookError
from zerosearch.prices import PriceBook, Rates

GOOGLE = "Google (SerpAPI)"
COST_COLUMNS = ["stage", "arm", "seed", "kind", "role", "name", "quantity", "unit", "price_key",
                "unit_usd", "usd", "kwh"]
ENGINE_PRICES = {"serper": "serper_starter"}  # every other engine that charges is priced at Rates.search
ROLE_LABELS = {
    "policy_rollout": "policy rollouts",
    "policy_training": "policy training",
    "simulator": "simulator",
    "simulator_training": "simulator training",
    "retriever": "local engine",
    "evaluation": "evaluation",
    "queries": "paid searches",
    "judge": "judge",
}


def price_ledger(ledger: pd.DataFrame, book: PriceBook, rates: Rates = Rates()) -> pd.DataFrame:
    """Price every ledger event of a run, summed by stage, arm, seed, kind, role and name.

    ledger: the rows of ``artifacts.read_ledgers``, one an event ("queries", "tokens" or "busy").
    Returns COST_COLUMNS: quantity and unit as metered; usd; kwh (busy time at full power, an upper
    bound).  Local engines and local models have no price of their own: they are paid as busy time.
    """
    _check_ledger(ledger)
    rows = [row for event in ledger.to_dict("records") for row in _priced(event, book, rates)]
    table = pd.DataFrame(rows, columns=COST_COLUMNS)
    keys = ["stage", "arm", "seed", "kind", "role", "name", "unit", "price_key"]
    summed = table.groupby(keys, dropna=False, sort=True, as_index=False).agg(
        quantity=("quantity", "sum"), unit_usd=("unit_usd", "first"), usd=("usd", "sum"), kwh=("kwh", "sum")
    )
    return summed[COST_COLUMNS]


def _priced(event: Mapping[str, object], book: PriceBook, rates: Rates) -> list[dict[str, object]]:
    """Return the priced rows of one event: one for busy time and queries, two for tokens."""
    place = {"stage": str(event.get("stage"))[:2], "arm": event.get("arm"), "seed": event.get("seed"),
             "kind": event["kind"]}
    if event["kind"] == "busy":
        gpu = str(event["device"]).startswith("cuda")
        unit, key = ("GPU-hour", rates.gpu) if gpu else ("core-hour", rates.core)
        hours = float(event["seconds"]) * float(event["units"]) / 3600.0
        power, watts = (rates.gpu_power, "W/GPU") if gpu else ("cpu_core_power", "W/core")
        return [_cost_row(place, event["role"], event["device"], hours, unit, key, book,
                          kwh=hours * book.each(power, watts) / 1000.0)]
    if event["kind"] == "queries":
        engine, paid = str(event["engine"]), float(event["paid"])
        key = ENGINE_PRICES.get(engine, rates.search) if paid else None
        return [_cost_row(place, "queries", engine, paid, "search", key, book)]
    model = str(event["model"]).lower().replace("-", "_").replace("/", "_")
    return [
        _cost_row(place, event["role"], f"{event['model']} {part}", float(event[part]), "token",
                  f"{model}_{part}" if f"{model}_{part}" in book.prices else None, book)
        for part in ("prompt", "generated")
    ]


def _cost_row(
    place: Mapping[str, object], role: object, name: object, quantity: float, unit: str,
    price_key: str | None, book: PriceBook, kwh: float = 0.0,
) -> dict[str, object]:
    each = book.each(price_key, f"USD/{unit}") if price_key else 0.0
    return {**place, "role": role, "name": name, "quantity": quantity, "unit": unit,
            "price_key": price_key or "", "unit_usd": each, "usd": quantity * each, "kwh": kwh}


_EVENT_NAMES = {"queries": ("engine",), "tokens": ("role", "model"), "busy": ("role", "device")}
_EVENT_AMOUNTS = {"queries": ("fresh", "cached", "paid"), "tokens": ("prompt", "generated"),
                  "busy": ("seconds", "units")}


def _check_ledger(ledger: pd.DataFrame) -> None:
    """Refuse an empty ledger, an unknown kind of event, a missing or a negative amount."""
    if ledger.empty or "kind" not in ledger:
        raise WorkbookError("ledger: expected events of kinds queries, tokens, busy, found none; "
                            "run the stages of this run first, e.g. `./run_all.sh --profile smoke`")
    unknown = sorted(set(ledger["kind"]) - set(_EVENT_NAMES))
    if unknown:
        raise WorkbookError(f"ledger: expected kinds {sorted(_EVENT_NAMES)}, found {unknown}; "
                            "remove these lines from ledger.jsonl or run that stage again")
    for kind, amounts in _EVENT_AMOUNTS.items():
        events = ledger[ledger["kind"] == kind].reindex(columns=[*_EVENT_NAMES[kind], *amounts])
        numbers = events[list(amounts)].apply(pd.to_numeric, errors="coerce")
        if events.isna().any(axis=None) or not (numbers >= 0).all(axis=None):
            raise WorkbookError(f"ledger: expected {kind!r} events with {', '.join(events.columns)}, amounts 0 "
                                "or more, found a missing, negative or unreadable one; run that stage again")


def usage(ledger: pd.DataFrame) -> pd.DataFrame:
    """Return the queries of a run: stage, arm, seed, engine, fresh, cached, paid (counts)."""
    _check_ledger(ledger)
    counts = ["fresh", "cached", "paid"]
    queries = ledger[ledger["kind"] == "queries"].reindex(columns=["stage", "arm", "seed", "engine", *counts])
    queries["stage"] = queries["stage"].astype(str).str[:2]
    summed = queries.groupby(["stage", "arm", "seed", "engine"], dropna=False, as_index=False)[counts].sum()
    return summed.astype(dict.fromkeys(counts, "int64"))


def searches_per_trajectory(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the searches a trajectory really made in RL: arm, seed, searches, first, last, steps.

    metrics: the rows of metrics.jsonl with columns arm, seed, step, searches_mean.  Every step has
    equally many trajectories, so the mean over steps is the mean over trajectories.  first, last:
    mean of the first and of the last fifth of the steps.
    """
    if metrics.empty or "searches_mean" not in metrics:
        raise WorkbookError("metrics: expected rows with searches_mean, found none; "
                            "run stage 03 (notebooks/03_curriculum_rl.ipynb) first")
    rows = []
    for (arm, seed), part in metrics.sort_values("step").groupby(["arm", "seed"]):
        values = part["searches_mean"].to_numpy(dtype=float)
        fifth = max(1, len(values) // 5)
        rows.append((arm, seed, values.mean(), values[:fifth].mean(), values[-fifth:].mean(), len(values)))
    return pd.DataFrame(rows, columns=["arm", "seed", "searches", "first", "last", "steps"])


def run_options(
    costs: pd.DataFrame, queries: pd.DataFrame, book: PriceBook, labels: Mapping[str, str] | None = None,
    rates: Rates = Rates(),
) -> pd.DataFrame:
    """Return what training each arm of this run cost: option, item, usd, basis.

    costs, queries: from ``price_ledger`` and ``usage``.  Stage 01 and 02 (collection, simulator) are
    paid by every arm that searched a simulator, once.  An arm that trained on a local engine gets a
    second option, the same searches at the paid price (basis "what if").  Values of several seeds
    are averaged.  Evaluation is the same for all and left out.
    """
    labels = labels or {}
    options = []
    shared = costs[costs["stage"].isin(["01", "02"])]
    for arm in sorted(costs.loc[costs["stage"] == "03", "arm"].dropna().unique()):
        own = costs[(costs["stage"] == "03") & (costs["arm"] == arm)]
        asked = queries[(queries["stage"] == "03") & (queries["arm"] == arm)]
        n_seeds = max(1, own["seed"].nunique())
        items = own.groupby("role")["usd"].sum() / n_seeds
        name = labels.get(arm, arm)
        if (asked["engine"] == "simulator").any():
            once = shared.groupby("stage")["usd"].sum().rename({"01": "collection", "02": "simulator SFT"})
            items = pd.concat([items, once])
        else:
            bill = (asked["fresh"].sum() / n_seeds) * book.each(rates.search, "USD/search")
            options += _option(f"{name}, searches paid", items, "what if", {"paid searches": bill})
        options += _option(name, items, "measured")
    return pd.DataFrame(options, columns=["option", "item", "usd", "basis"])


def _option(
    name: str, items: pd.Series, basis: str, extra: Mapping[str, float] | None = None
) -> list[tuple[str, str, float, str]]:
    amounts = dict(extra or {})
    for role, usd in items.items():
        label = ROLE_LABELS.get(str(role), str(role))
        amounts[label] = amounts.get(label, 0.0) + float(usd)
    return [(name, item, usd, basis) for item, usd in amounts.items() if usd > 0 or item in (extra or {})]


def saved_share(options: pd.DataFrame, dear: str, cheap: str) -> float:
    """Return the share of option ``dear``'s bill that ``cheap`` saves (negative: it costs more).

    options: option, item, usd.  WorkbookError when an option is missing or the dear one is free.
    """
    totals = options.groupby("option")["usd"].sum()
    missing = [name for name in (dear, cheap) if name not in totals.index]
    if missing or totals[dear] == 0:
        raise WorkbookError(f"saving: expected options {dear!r} (not free) and {cheap!r}, found "
                            f"{totals.round(2).to_dict()}; run stage 03 of both arms, then notebook 05 again")
    return float(1.0 - totals[cheap] / totals[dear])


def break_even_queries(fixed_usd: float, per_query_usd: float, engine_usd: float) -> float:
    """Return the number of queries from which a simulator is cheaper than an engine paid per query.

    fixed_usd: paid once (GPU rental, collection, SFT).  per_query_usd: cost of one simulated query.
    engine_usd: price of one real query.  Infinite when simulating is not cheaper per query.
    """
    if min(fixed_usd, per_query_usd, engine_usd) < 0:
        raise WorkbookError(f"break-even: expected amounts of 0 or more, found {fixed_usd}, {per_query_usd}, "
                            f"{engine_usd}; correct the price book and run notebook 05 again")
    gain = engine_usd - per_query_usd
    return fixed_usd / gain if gain > 0 else float("inf")


def run_line(
    costs: pd.DataFrame, queries: pd.DataFrame, arm: str, book: PriceBook, rates: Rates = Rates()
) -> pd.DataFrame:
    """Return this run's simulator beside the paid engine, as ``published_lines`` does.

    fixed_usd: stages 01 and 02, once.  per_query_usd: the simulator's busy time in stage 03 of ``arm``
    over the queries it answered.  WorkbookError when that arm asked no simulator.
    """
    own = queries[(queries["stage"] == "03") & (queries["arm"] == arm)]
    n_queries = own.loc[own["engine"] == "simulator", "fresh"].sum()
    if n_queries == 0:
        raise WorkbookError(f"break-even: expected simulator queries in stage 03 of arm {arm!r}, found none; "
                            f"run `./run_all.sh --arms {arm} --only 03`")
    spent = costs[(costs["stage"] == "03") & (costs["arm"] == arm) & (costs["role"] == "simulator")]
    fixed = costs.loc[costs["stage"].isin(["01", "02"]), "usd"].sum()
    price = book.each(rates.search, "USD/search")
    rows = [(GOOGLE, 0.0, price, "engine"),
            ("this run's simulator", float(fixed), float(spent["usd"].sum() / n_queries), "simulator")]
    return with_break_even(rows, price)


def with_break_even(rows: list[tuple[str, float, float, str]], price: float) -> pd.DataFrame:
    """Return cost lines (option, fixed_usd, per_query_usd, kind) with their break-even in queries."""
    table = pd.DataFrame(rows, columns=["option", "fixed_usd", "per_query_usd", "kind"])
    table["break_even"] = [
        break_even_queries(row.fixed_usd, row.per_query_usd, price) if row.kind == "simulator" else np.nan
        for row in table.itertuples()
    ]
    return table
