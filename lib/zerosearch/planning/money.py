"""What a run is expected to cost: rented time, paid searches, a paid judge; prices of the book, with their keys."""

from __future__ import annotations

from typing import Mapping

from zerosearch.costs import search_price, token_key
from zerosearch.planning.machines import Machine
from zerosearch.planning.workload import Workload, lengths
from zerosearch.prices import PriceBook
from zerosearch.profiles import Settings

CORE = "cpu_core"
JUDGE_PROMPT, JUDGE_REPLY = 150, 10  # tokens of a request besides its passages, of one passage's verdict: assumed


def dollars(
    settings: Settings, hours: Mapping[str, float], work: Workload, machine: Machine, book: PriceBook
) -> dict[str, float | None]:
    """Return item -> USD; None where the book has no price for it.

    The whole machine is rented for the whole time: that is how nodes are let.
    """
    total, items = sum(hours.values()), {}
    if machine.card is None:
        cores = settings.source.cores * settings.source.threads
        items[f"{cores} cores, {CORE}"] = total * cores * book.each(CORE, "USD/core-hour")
    else:
        key = machine.card.price
        priced = key in book.prices
        items[f"{machine.count} GPUs, {key or 'no price in the book'}"] = (
            total * machine.count * book.each(key, "USD/GPU-hour") if priced else None
        )
    for stage, count in work.paid.items():
        engine = settings.stage(stage)["retriever"]
        items[f"searches of stage {stage}, about {count:,.0f}"] = count * search_price(engine, book)
    if work.judged:
        items[f"judge of stage 01, about {work.judged:,.0f} requests"] = judge_usd(settings, work, book)
    return items


def judge_usd(settings: Settings, work: Workload, book: PriceBook) -> float | None:
    """Return what the judge of stage 01 costs by the stated prices, else by the book's; None without any."""
    values = settings.stage("01")
    k = values["passages_per_query"]
    tokens = {"prompt": JUDGE_PROMPT + k * lengths(values["policy_model"]).real, "generated": k * JUDGE_REPLY}
    total = 0.0
    for part, count in tokens.items():
        stated, key = values[f"judge_{part}_usd"], token_key(values["judge_model"], part)
        if stated < 0 and key not in book.prices:
            return None
        each = stated / 1e6 if stated >= 0 else book.each(key, "USD/token")
        total += work.judged * count * each
    return total
