"""The machine that a plan is held against: the GPUs that are here, or those that the profile states."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Mapping

import yaml

from zerosearch import artifacts
from zerosearch.errors import unknown_name
from zerosearch.profiles import Needs

TABLE = artifacts.REPO / "data" / "gpus.yaml"


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of GPU.  gib: its memory.  tflops, tflops32: dense bfloat16 and float32.  price: in the price book."""

    name: str
    gib: float
    tflops: float
    tflops32: float
    gb_per_second: float
    price: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run finds: cards, how many of them, and whether they were seen here or are what the profile states."""

    card: Card | None
    count: int
    here: bool

    @property
    def words(self) -> str:
        """The cards as shown in a plan."""
        if self.card is None:
            return "no GPU"
        stated = "" if self.here else ", as the profile states"
        return f"{self.count} x {self.card.name}, {self.card.gib:g} GiB each{stated}"


@lru_cache(maxsize=1)
def table() -> Mapping[str, Mapping[str, Any]]:
    """Return the committed cards by name."""
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def card(name: str) -> Card:
    """Return a card of the table; ConfigError with the nearest name for another one."""
    if name not in table():
        raise unknown_name("needs.gpu", name, tuple(table()))
    entry = table()[name]
    return Card(name, entry["gib"], entry["tflops"], entry["tflops32"], entry["gb_per_second"], entry["price"])


def found_cards() -> list[tuple[str, float]]:
    """Return (name, GiB) of every NVIDIA GPU that the driver lists; none without a driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = (line.rpartition(",") for line in listed.stdout.splitlines())
    return [(name.strip(), float(mib) / 1024) for name, _, mib in rows if mib.strip().isdigit()]


def machine_for(needs: Needs, seen: list[tuple[str, float]] | None = None) -> Machine:
    """Return the machine of a plan: of a profile that wants GPUs those that are here, else those that it states.

    seen: in place of ``found_cards``.  Of different cards the smallest counts.  A card that the table does not know
    is planned with its own memory and the speed of the profile's.
    """
    if not needs.gpus:
        return Machine(None, 0, True)
    stated = card(needs.gpu or "A100-80GB")
    cards = found_cards() if seen is None else seen
    if not cards:
        return Machine(stated, needs.gpus, False)
    name, gib = min(cards, key=lambda found: found[1])
    known = next((card(key) for key, entry in table().items() if _is(name, gib, entry)), None)
    like = known or stated
    price = like.price if known else ""
    return Machine(Card(name, round(gib, 1), like.tflops, like.tflops32, like.gb_per_second, price), len(cards), True)


def _is(name: str, gib: float, entry: Mapping[str, Any]) -> bool:
    """Say whether a card that the driver names is one of the table: its words as words, and about its memory."""
    words = name.replace("-", " ").split()
    return all(any(word == part for part in words) for word in entry["names"]) and abs(gib - entry["gib"]) < 4
