"""What a stage pays for while it works, and the limit that it keeps to.

``max_usd`` is kept *before* it is passed: the most that a request can still cost is set aside before it is
sent, and a request that could pass the limit is not sent.  A request that may have been billed although
its answer never came counts as billed.  What earlier attempts of the stage spent counts too: the ledger
keeps it, and the accounts that were set aside with them.

Only requests are counted, not the time of one's own machine.  Called by notebook 01.
"""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass
from typing import Any

from zerosearch.chat import Reply
from zerosearch.costs import requests_usd, search_price, token_key
from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.interrupts import GO_ON
from zerosearch.ledger import PAID, Ledger
from zerosearch.prices import PriceBook
from zerosearch.remote import Call, Purse, RemoteFailure
from zerosearch.retrievers.base import PAID_ENGINES

_AROUND = 64  # tokens of a chat template around a request, at most: its roles and their separators
_ROUNDING = 1e-9  # USD


class BudgetReached(WorkbookError):
    """The next request could cost more than is left of ``max_usd``; nothing was sent."""


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """USD for one token read (prompt) and one written (generated)."""

    prompt: float
    generated: float

    def of(self, n_prompt: int, n_generated: int) -> float:
        """Return the price of so many tokens."""
        return n_prompt * self.prompt + n_generated * self.generated


class Spending:
    """What one stage spends.  max_usd: limit of all its attempts together, 0 for none."""

    def __init__(self, ledger: Ledger, book: PriceBook, max_usd: float = 0.0):
        self.ledger, self.book, self.max_usd = ledger, book, max_usd
        self._lock, self._spent, self._reserved = threading.Lock(), None, 0.0

    @property
    def usd(self) -> float:
        """USD spent so far, earlier attempts included."""
        if self._spent is None:  # not before the first question: opening a record may still enter what it finds
            self._spent: float | None = sum(requests_usd(event, self.book) for event in self.ledger.all_events())
        return self._spent

    def purse_for_searches(self, engine: str) -> Purse | None:
        """Return what pays for an engine's searches, None for one that bills none."""
        return _Searches(self, engine) if engine in PAID_ENGINES else None

    def purse_for_tokens(self, role: str, model: str, prompt_usd: float, generated_usd: float) -> Purse:
        """Return what pays for a served model's tokens.  role: as in the ledger.

        prompt_usd, generated_usd: of a million tokens, where the price book does not know the model; below 0 for
        not known.  ConfigError where there is a limit and no price: it could not be kept.
        """
        keys = token_key(model, "prompt"), token_key(model, "generated")
        if all(key in self.book.prices for key in keys):
            return _Tokens(self, role, model, TokenPrices(*(self.book.each(key, "USD/token") for key in keys)), True)
        if self.max_usd and min(prompt_usd, generated_usd) < 0:
            raise ConfigError(
                f"max_usd: expected the prices of {model!r} in {self.book.path} ({' and '.join(keys)}), found none; "
                f"add them, or state them with --set 01.{role}_prompt_usd=... and --set 01.{role}_generated_usd=... "
                "(USD per million tokens, 0.0 for a server of your own)"
            )
        stated = TokenPrices(max(prompt_usd, 0.0) / 1e6, max(generated_usd, 0.0) / 1e6)
        return _Tokens(self, role, model, stated, False)

    def reserve(self, usd: float) -> bool:
        """Set an amount aside; False while requests under way may still give some back.  Raises BudgetReached."""
        with self._lock:
            if self.usd + self._reserved + usd <= (self.max_usd or math.inf) + _ROUNDING:
                self._reserved += usd
                return True
            if self._reserved > _ROUNDING:
                return False
            raise BudgetReached(
                f"max_usd: expected requests of this stage to cost {self.max_usd:.4f} USD at most, found "
                f"{self.usd:.4f} spent and up to {usd:.4f} for the next one, which was not sent; what was answered is "
                f"on record and is not paid again; raise it with --set 01.max_usd=..., and {GO_ON}"
            )

    def settle(self, reserved: float, spent: float) -> None:
        """Give back what was set aside for a request, and take what it did cost."""
        with self._lock:
            self._spent = self.usd + spent
            self._reserved = max(self._reserved - reserved, 0.0)


@dataclass(frozen=True, slots=True)
class _Searches:
    """Pays so much for every search.  An answer enters the ledger with its record, a lost one here."""

    spending: Spending
    engine: str

    def reserve(self, call: Call[Any]) -> bool:
        return self.spending.reserve(self._usd)

    def settle(self, call: Call[Any], ended: object) -> None:
        lost = isinstance(ended, RemoteFailure)
        billed = not lost or ended.may_be_billed  # type: ignore[attr-defined] - a failure, then
        if lost and billed:
            self.spending.ledger.event("queries", unit=PAID, engine=self.engine, fresh=0, cached=0, paid=1)
        self.spending.settle(self._usd, self._usd if billed else 0.0)

    @property
    def _usd(self) -> float:
        return search_price(self.engine, self.spending.book)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Pays for tokens read and written.  in_book: whether the price book has them; else the ledger gets the price."""

    spending: Spending
    role: str
    model: str
    prices: TokenPrices
    in_book: bool

    def reserve(self, call: Call[Any]) -> bool:
        return self.spending.reserve(self.prices.of(*_most(call)))

    def settle(self, call: Call[Any], ended: object) -> None:
        most, used = _most(call), (0, 0)
        if isinstance(ended, Reply):
            used = (ended.n_prompt, ended.n_generated) if ended.counted else most
        elif not isinstance(ended, RemoteFailure) or ended.may_be_billed:
            used = most
        if any(used):
            stated = {} if self.in_book else {"prompt_usd": self.prices.prompt, "generated_usd": self.prices.generated}
            amounts = dict(zip(("prompt", "generated"), used))
            self.spending.ledger.event("tokens", unit=PAID, role=self.role, model=self.model, **amounts, **stated)
        self.spending.settle(self.prices.of(*most), self.prices.of(*used))


def _most(call: Call[Any]) -> tuple[int, int]:
    """Return the most tokens that a request can be counted as: no token is shorter than a byte."""
    n_bytes = len(json.dumps(call.body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return n_bytes + _AROUND, int(call.body["max_tokens"])
