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
from zerosearch.ledger import AMOUNTS, FIELDS
from zerosearch.prices import PriceBook, Rates

GOOGLE, PAID = "Google (SerpAPI)", "Same searches, paid"
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
    return [_token_row(place, event, part, book) for part in ("prompt", "generated")]


def _token_row(
    place: Mapping[str, object], event: Mapping[str, object], part: str, book: PriceBook
) -> dict[str, object]:
    """Return what the tokens read (prompt) or written (generated) cost: by the book, or as the event states."""
    key, stated = token_key(str(event["model"]), part), event.get(f"{part}_usd")
    row = _cost_row(place, event["role"], f"{event['model']} {part}", float(event[part]), "token",
                    key if key in book.prices else None, book)
    if key in book.prices or stated is None or np.isnan(stated):
        return row
    return row | {"unit_usd": float(stated), "usd": float(event[part]) * float(stated)}


def token_key(model: str, part: str) -> str:
    """Return the name under which a price book has the price of a model's token; part: prompt or generated."""
    return f"{model.lower().replace('-', '_').replace('/', '_')}_{part}"


def search_price(engine: str, book: PriceBook, rates: Rates = Rates()) -> float:
    """Return the USD that one search of an engine costs which bills searches."""
    return book.each(ENGINE_PRICES.get(engine, rates.search), "USD/search")


def requests_usd(event: Mapping[str, object], book: PriceBook, rates: Rates = Rates()) -> float:
    """Return the USD that a ledger event's requests to others cost; 0 for time of one's own machine."""
    if event.get("kind") not in ("queries", "tokens"):
        return 0.0
    return sum(float(row["usd"]) for row in _priced(event, book, rates))


def _cost_row(
    place: Mapping[str, object], role: object, name: object, quantity: float, unit: str,
    price_key: str | None, book: PriceBook, kwh: float = 0.0,
) -> dict[str, object]:
    each = book.each(price_key, f"USD/{unit}") if price_key else 0.0
    return {**place, "role": role, "name": name, "quantity": quantity, "unit": unit,
            "price_key": price_key or "", "unit_usd": each, "usd": quantity * each, "kwh": kwh}


def _check_ledger(ledger: pd.DataFrame) -> None:
    """Refuse an empty ledger, an unknown kind of event, a missing or a negative amount."""
    if ledger.empty or "kind" not in ledger:
        raise WorkbookError("ledger: expected events of kinds queries, tokens, busy, found none; "
                            "run the stages of this run first, e.g. `./run_all.sh --profile smoke`")
    unknown = sorted(set(ledger["kind"]) - set(FIELDS))
    if unknown:
        raise WorkbookError(f"ledger: expected kinds {sorted(FIELDS)}, found {unknown}; "
                            "remove these lines from ledger.jsonl or run that stage again")
    for kind, fields in FIELDS.items():
        events = ledger[ledger["kind"] == kind].reindex(columns=list(fields))
        amounts = events[[name for name in fields if name in AMOUNTS]]
        amounts = amounts.apply(pd.to_numeric, errors="coerce")
        if events.isna().any(axis=None) or not (amounts >= 0).all(axis=None):
            raise WorkbookError(f"ledger: expected {kind!r} events with {', '.join(fields)}, amounts 0 or "
                                "more, found a missing, negative or unreadable one; run that stage again")


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
    costs: pd.DataFrame, queries: pd.DataFrame, labels: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return what training each arm of this run cost: option, item, usd, basis ("measured").

    costs, queries: from ``price_ledger`` and ``usage``.  labels: arm -> name of its option, in the
    order wanted; without it, all arms.  Stages 01 and 02 (collection, simulator) are added, once, to
    every arm that searched the tuned simulator, stage 01 to one that was prompted with its pairs.  Several seeds are averaged.  Stage 00 and evaluation are the
    same for all arms and left out.
    """
    found = sorted(costs.loc[costs["stage"] == "03", "arm"].dropna().unique())
    options = []
    for arm, name in (labels or dict(zip(found, found))).items():
        items = _arm_items(costs, arm)
        asked = set(_asked(queries, arm)["engine"])
        if asked & {"simulator", "simulator-prompted"}:
            items |= {"collection": _stage_usd(costs, "01")}
        if "simulator" in asked:
            items |= {"simulator SFT": _stage_usd(costs, "02")}
        options += [(name, item, usd, "measured") for item, usd in items.items() if usd > 0]
    return pd.DataFrame(options, columns=["option", "item", "usd", "basis"])


def paid_option(
    costs: pd.DataFrame, queries: pd.DataFrame, arm: str, book: PriceBook, rates: Rates = Rates()
) -> pd.DataFrame:
    """Return what ``arm`` would have cost had every search of its training been paid at ``rates.search``.

    Same columns as ``run_options``: the policy's own work is "measured", the searches are "what if" and
    take the place of simulator, collection and local engine.  Cached answers would not be paid again.
    """
    asked = _asked(queries, arm)
    n_seeds = max(1, asked["seed"].nunique())
    bill = asked["fresh"].sum() / n_seeds * book.each(rates.search, "USD/search")
    policy = {item: usd for item, usd in _arm_items(costs, arm).items() if item.startswith("policy")}
    rows = [(PAID, "paid searches", bill, "what if")]
    rows += [(PAID, item, usd, "measured") for item, usd in policy.items()]
    return pd.DataFrame(rows, columns=["option", "item", "usd", "basis"])


def _asked(queries: pd.DataFrame, arm: str) -> pd.DataFrame:
    return queries[(queries["stage"] == "03") & (queries["arm"] == arm)]


def _stage_usd(costs: pd.DataFrame, stage: str) -> float:
    return float(costs.loc[costs["stage"] == stage, "usd"].sum())


def _arm_items(costs: pd.DataFrame, arm: str) -> dict[str, float]:
    """Return the mean bill of one seed of an arm's training, by item."""
    own = costs[(costs["stage"] == "03") & (costs["arm"] == arm)]
    sums = own.groupby("role")["usd"].sum() / max(1, own["seed"].nunique())
    return {ROLE_LABELS.get(str(role), str(role)): float(usd) for role, usd in sums.items() if usd > 0}


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
    own = _asked(queries, arm)
    n_queries = own.loc[own["engine"] == "simulator", "fresh"].sum()
    if n_queries == 0:
        raise WorkbookError(f"break-even: expected simulator queries in stage 03 of arm {arm!r}, found none; "
                            f"run `./run_all.sh --arms {arm} --only 03`")
    spent = costs[(costs["stage"] == "03") & (costs["arm"] == arm) & (costs["role"] == "simulator")]
    fixed = _stage_usd(costs, "01") + _stage_usd(costs, "02")
    price = book.each(rates.search, "USD/search")
    rows = [(GOOGLE, 0.0, price, "engine"),
            ("this run's simulator", fixed, float(spent["usd"].sum() / n_queries), "simulator")]
    return with_break_even(rows, price)


def with_break_even(rows: list[tuple[str, float, float, str]], price: float) -> pd.DataFrame:
    """Return cost lines (option, fixed_usd, per_query_usd, kind) with their break-even in queries."""
    table = pd.DataFrame(rows, columns=["option", "fixed_usd", "per_query_usd", "kind"])
    table["break_even"] = [
        break_even_queries(row.fixed_usd, row.per_query_usd, price) if row.kind == "simulator" else np.nan
        for row in table.itertuples()
    ]
    return table
