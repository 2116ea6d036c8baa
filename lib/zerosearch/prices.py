"""The price book: dated, sourced prices read from ``data/prices.yaml``.

A price without a unit, a date and a source is refused, because a dollar figure nobody can trace is
worth nothing.  This module knows nothing of runs or ledgers; ``costs`` multiplies.  Called by
``costs`` and notebook 05.
"""

from __future__ import annotations

import datetime as dt
import math
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

import yaml

from zerosearch.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

UNITS = ("USD/search", "USD/GPU-hour", "USD/core-hour", "USD/token", "W/GPU", "W/core")
NEEDED = {  # what notebook 05 looks up in every run: without one of these it would stop after all the work
    "serpapi_big_data": "USD/search", "a100_published": "USD/GPU-hour", "cpu_core": "USD/core-hour",
    "a100_power": "W/GPU", "cpu_core_power": "W/core", "qwen_max_prompt": "USD/token",
    "qwen_max_generated": "USD/token",
}
_REQUIRED = ("value", "unit", "date", "source")
_ALLOWED = (*_REQUIRED, "per", "note")


@dataclass(frozen=True, slots=True)
class Price:
    """One dated price.

    value: USD (or watts, for power) that buys ``per`` units.  unit: one of ``UNITS``.
    date: when the price was seen.  source: where.  each: the price of one unit.
    """

    key: str
    value: float
    unit: str
    date: dt.date
    source: str
    per: float = 1.0
    note: str = ""

    @property
    def each(self) -> float:
        """Return the price of one unit, in USD (or watts)."""
        return self.value / self.per


@dataclass(frozen=True, slots=True)
class Rates:
    """Which price of the book stands for a paid search, a GPU-hour and a core-hour."""

    search: str = "serpapi_big_data"
    gpu: str = "a100_published"
    core: str = "cpu_core"

    @property
    def gpu_power(self) -> str:
        """Name of the power entry that belongs to the GPU, e.g. ``a100_power``."""
        return self.gpu.split("_")[0] + "_power"


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices of one YAML file, looked up by key."""

    prices: Mapping[str, Price] = field(default_factory=dict)
    path: str = "data/prices.yaml"

    @classmethod
    def load(cls, path: str | Path) -> PriceBook:
        """Read and check a price book; ConfigError lists every bad entry at once."""
        path = Path(path)
        if not path.is_file():
            raise ConfigError(
                f"price book: expected a YAML file at {path}, found none; "
                "run `git checkout data/prices.yaml` or set price_book to your own file"
            )
        raw = _read_yaml(path)
        problems: list[str] = []
        prices = {key: _parse(key, entry, problems) for key, entry in raw.items()}
        if problems:
            raise ConfigError(f"price book {path}: " + "; ".join(problems) + f"; edit {path}")
        return cls({key: price for key, price in prices.items() if price}, str(path))

    def price(self, key: str, unit: str) -> Price:
        """Return the price called ``key``; ConfigError when it is missing or has another unit."""
        if key not in self.prices:
            hint = did_you_mean(key, [name for name, price in self.prices.items() if price.unit == unit])
            raise ConfigError(
                f"price book: expected a price {key!r} in {unit}, found none{hint}; "
                f"add it to {self.path} or name another one"
            )
        price = self.prices[key]
        if price.unit != unit:
            raise ConfigError(f"price {key!r}: expected a price in {unit}, found {price.unit}; "
                              f"choose another one of {self.path}")
        return price

    def missing(self) -> list[str]:
        """Return a complaint for each price of NEEDED that is absent or has another unit."""
        problems = []
        for key, unit in NEEDED.items():
            try:
                self.price(key, unit)
            except ConfigError as error:
                problems.append(str(error))
        return problems

    def each(self, key: str, unit: str) -> float:
        """Return the price of one unit (USD, or watts) of ``key``, checked to be in ``unit``."""
        return self.price(key, unit).each

    def table(self) -> pd.DataFrame:
        """Return one row a price: key, value, per, unit, each, date, source, note."""
        import pandas as pd  # the check before a run reads prices too, and needs no tables

        rows = [
            {"key": p.key, "value": p.value, "per": p.per, "unit": p.unit, "each": p.each,
             "date": p.date.isoformat(), "source": p.source, "note": p.note}
            for p in self.prices.values()
        ]
        return pd.DataFrame(rows, columns=["key", "value", "per", "unit", "each", "date", "source", "note"])


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date of month 13, bytes that are no text
        raise ConfigError(f"price book {path}: expected YAML in UTF-8, found: {error}; edit {path}") from error
    except OSError as error:
        raise ConfigError(
            f"price book {path}: expected a file that can be read, found: {error.strerror}; run `chmod u+r {path}`"
        ) from error
    if not isinstance(raw, dict) or not raw:
        raise ConfigError(f"price book {path}: expected entries `name: {{value, unit, date, source}}`, "
                          f"found {type(raw).__name__}; edit {path}")
    return raw


def _parse(key: str, entry: Any, problems: list[str]) -> Price | None:
    """Return one price, or None after adding every problem of the entry to ``problems``."""
    if not isinstance(entry, dict):
        problems.append(f"{key}: expected the fields {', '.join(_REQUIRED)}, found {reprlib.repr(entry)}")
        return None
    found = [f"{name} is missing" for name in _REQUIRED if entry.get(name) in (None, "")]
    found += [f"unknown field {name!r}" for name in entry if name not in _ALLOWED]
    for name in ("value", "per"):
        number = entry.get(name, 1.0)
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            found.append(f"{name} must be a number such as 1.0e-6, found {number!r}")
        elif not math.isfinite(number) or number < 0 or (name == "per" and number == 0):
            found.append(f"{name} must be finite and not negative (per: above 0), found {number!r}")
    if entry.get("unit") not in (None, "", *UNITS):
        found.append(f"unit must be one of {', '.join(UNITS)}, found {entry['unit']!r}")
    if not isinstance(entry.get("date"), (dt.date, type(None))):
        found.append(f"date must be YYYY-MM-DD, found {entry['date']!r}")
    problems += [f"{key}: {problem}" for problem in found]
    if found:
        return None
    return Price(key, float(entry["value"]), entry["unit"], entry["date"], str(entry["source"]),
                 per=float(entry.get("per", 1.0)), note=str(entry.get("note", "")))
