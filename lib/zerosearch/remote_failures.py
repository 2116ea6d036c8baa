"""How a remote call fails: a closed set of kinds, and which of them another attempt, or a bill, may follow.

Called by ``remote``, whose names these are for everybody else.
"""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from zerosearch.errors import WorkbookError

FAILURES: dict[str, str] = {  # the closed set of kinds, and what each means
    "busy": "asked to come back later (HTTP 408, 409, 425, 429)",
    "server": "the server failed (HTTP 5xx)",
    "timeout": "no reply began in time",
    "deadline": "a reply began and was not complete in time",
    "connection": "refused, unreachable or broken off",
    "malformed": "the reply is not what the protocol says",
    "too_large": "the reply is larger than allowed",
    "rejected": "this very request is refused (HTTP 4xx); others may pass",
    "refused": "key, credit or address: no request can pass",
}
KEY, CREDIT = frozenset({401, 403}), 402  # statuses of a request that the account may not make
_PASSING = frozenset({"busy", "server", "timeout", "deadline", "connection", "malformed"})
_UNSURE = frozenset({"timeout", "deadline", "connection", "malformed", "too_large"})
_BUSY = frozenset({408, 409, 425, 429})


class RemoteRefused(WorkbookError):
    """No call to this service can succeed: wrong address, key refused, credit used up."""


class RemoteFailure(Exception):
    """A call that failed.

    kind: one of FAILURES.  status: HTTP status, None where there was none.  detail: what the server said,
    for people.  retry_after: seconds that the server asked for.  sent: False where nothing reached the server.
    """

    def __init__(
        self, kind: str, status: int | None = None, detail: str = "", retry_after: float = 0.0, sent: bool = True
    ):
        if kind not in FAILURES:
            raise ValueError(f"kind: expected one of {', '.join(FAILURES)}, found {kind!r}")
        self.kind, self.status, self.detail, self.retry_after, self.sent = kind, status, detail, retry_after, sent
        super().__init__(f"{kind} (HTTP {status})" if status else kind)

    @property
    def may_be_billed(self) -> bool:
        """Whether a service that bills may have billed this request, though its answer is lost."""
        return self.sent and self.kind in _UNSURE

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may succeed."""
        return self.kind in _PASSING


def kind_of(status: int) -> str:
    """Return the kind of an HTTP status other than 200."""
    if status in _BUSY:
        return "busy"
    if status >= 500:
        return "server"
    if status in KEY or status in (CREDIT, 404, 405) or status < 400:
        return "refused"
    return "rejected"


def seconds_to_wait(text: str) -> float:
    """Return the seconds of a Retry-After header, which may be a number or a date; 0 for anything else."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0
