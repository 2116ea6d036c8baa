"""The ledger: what a stage used, written down as it happens, one JSON line per event.

Append-only and flushed at once, so a stage that is killed keeps the account of what it spent.  Three
kinds of events exist; prices are another module's work (``costs``).

An event may name its unit of work, a step or a part that is kept when a stage is cut off.  What will be
done again is taken out first and set aside (``keep``), so that a resumed stage counts every unit once.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from zerosearch.errors import unknown_name
from zerosearch.files import append_text, plain, write_atomic

if TYPE_CHECKING:
    import pandas as pd

LEDGER, ASIDE = "ledger.jsonl", "superseded"  # ASIDE: folder of accounts that no longer count
PAID = "paid"  # unit of what cost money when it happened: whatever is done again, it stays in the account
_STEP = "step "
FIELDS: dict[str, tuple[str, ...]] = {
    "queries": ("engine", "fresh", "cached", "paid"),
    "tokens": ("role", "model", "prompt", "generated"),
    "busy": ("role", "device", "seconds", "units"),
}
STATED = {"tokens": ("prompt_usd", "generated_usd")}  # may stand beside these: the price of one token
ROLES: dict[str, tuple[str, ...]] = {
    "tokens": ("policy", "simulator", "judge"),
    "busy": (
        "policy_rollout",
        "simulator",
        "retriever",
        "policy_training",
        "simulator_training",
        "evaluation",
    ),
}
AMOUNTS = ("fresh", "cached", "paid", "prompt", "generated", "seconds", "units")
PLACE = ("time", "stage", "arm", "seed", "kind")


class Ledger:
    """The open account of one stage.

    path: the stage's ``ledger.jsonl``.  stage, arm, seed: written into every line.
    """

    def __init__(self, path: Path, stage: str, arm: str | None = None, seed: int | None = None):
        self.path, self.place = Path(path), {"stage": stage, "arm": arm, "seed": seed}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n"):
            self._append("\n")  # a killed process left half a line: keep the next one apart from it

    def event(self, kind: str, unit: str | None = None, **fields: Any) -> None:
        """Append one event.

        unit: the step (``step_unit``) or part that it belongs to, PAID, or None for work that a cut-off stage repeats.
        queries: engine, fresh, cached, paid (counts).  tokens: role, model, prompt, generated (counts), and, where no
        price book has them, prompt_usd and generated_usd (of one token).
        busy: role, device ("cpu" or "cuda"), seconds (wall), units (cores or GPUs kept busy).
        Raises ConfigError for another kind or role, ValueError for fields or amounts that do not fit.
        """
        if kind not in FIELDS:
            raise unknown_name("ledger event", kind, tuple(FIELDS))
        if set(fields) - set(STATED.get(kind, ())) != set(FIELDS[kind]):
            raise ValueError(f"ledger {kind!r}: expected fields {FIELDS[kind]}, found {tuple(fields)}")
        if kind in ROLES and fields["role"] not in ROLES[kind]:
            raise unknown_name(f"ledger {kind!r} role", str(fields["role"]), ROLES[kind])
        amounts = (*AMOUNTS, *STATED["tokens"])
        negative = {name: fields[name] for name in amounts if name in fields and not fields[name] >= 0}
        if negative:
            raise ValueError(f"ledger {kind!r}: expected amounts of 0 or more, found {negative}")
        row = {"time": _now(), **self.place, "kind": kind, **fields, **({"unit": unit} if unit else {})}
        self._append(json.dumps(row, default=plain) + "\n")

    def keep(self, kept: Callable[[str | None], bool]) -> int:
        """Set aside the events whose unit is not kept, since that work will be done again; return how many.

        Queries that were paid for stay: the money is spent, and their repetition is replayed for nothing.
        """
        if not self.path.exists():
            return 0
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        stays = [kept(event.get("unit")) or event.get("paid", 0) > 0 for event in map(_event, lines)]
        gone = [line for line, stay in zip(lines, stays) if not stay]
        if gone:
            write_atomic(aside(self.path), "".join(gone))
            write_atomic(self.path, "".join(line for line, stay in zip(lines, stays) if stay))
        return len(gone)

    def keep_steps(self, last: int) -> int:
        """Keep, of the events that belong to steps, those up to step ``last``; return how many were set aside."""
        return self.keep(lambda unit: not (unit or "").startswith(_STEP) or int(unit.removeprefix(_STEP)) <= last)

    def units(self) -> set[str]:
        """Return the names of all units that were ever written, those of events set aside included."""
        return {event["unit"] for event in self.all_events() if "unit" in event}

    def all_events(self) -> list[dict[str, Any]]:
        """Return every event that was ever written, those set aside included."""
        paths = [self.path, *self.path.parent.glob(f"{ASIDE}/*-{LEDGER}")]
        return [event for path in paths if path.exists() for event in read_events(path)]

    def _append(self, line: str) -> None:
        append_text(self.path, line)


def step_unit(step: int) -> str:
    """Return the name of an optimiser step as a unit of work."""
    return f"{_STEP}{step}"


def aside(ledger: Path) -> Path:
    """Return a new name for lines of a ledger that no longer count; the time makes it one of its own."""
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace(":", "")
    return ledger.parent / ASIDE / f"{now}-{LEDGER}"


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of one ledger; a line cut off by a crash is passed over."""
    return [event for line in path.read_text(encoding="utf-8").split("\n") if (event := _event(line))]


def gather(folder: Path) -> pd.DataFrame:
    """Return the events of all ledgers below a run folder, one row each, ordered by time.

    Columns: time, stage ("03"), arm, seed, kind and the fields of all kinds (NaN where not of a kind).
    Accounts of attempts that were thrown away and events of work that was done again (``superseded/``) are left out.
    """
    import pandas as pd

    paths = [path for path in sorted(folder.rglob(LEDGER)) if ASIDE not in path.parts]
    events = [event for path in paths for event in read_events(path)]
    columns = list(dict.fromkeys([*PLACE, *(name for fields in FIELDS.values() for name in fields)]))
    columns += [name for name in STATED["tokens"] if any(name in event for event in events)]
    return pd.DataFrame(events, columns=columns).sort_values("time", kind="stable", ignore_index=True)


def _event(line: str) -> dict[str, Any]:
    """Return the event of one line, an empty one for a line that was cut off."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return {}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
