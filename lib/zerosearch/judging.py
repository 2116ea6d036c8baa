"""What judges that are language models have in common, whatever they judge.  Called by both of them."""

from __future__ import annotations

from collections import Counter
from typing import Iterable

from zerosearch.errors import WorkbookError
from zerosearch.remote import RemoteFailure

CHUNK = 32  # cases between two looks at the failures


class JudgeFailed(WorkbookError):
    """The judge cannot be used: wrong address or key, or it fails too often."""


def error_of(failure: RemoteFailure | None) -> str:
    """Return ``http <status>`` or the kind of a failure, empty for none."""
    if failure is None:
        return ""
    return f"http {failure.status}" if failure.status else failure.kind


def check_failures(errors: Iterable[str], total: int, max_share: float, judge: str, kept: str) -> None:
    """Raise JudgeFailed where more than max_share of all cases have failed.

    errors: of the cases asked so far, empty for a verdict.  total: cases to be asked.  judge: name and
    place.  kept: what is on the disk, for the message.
    """
    reasons = Counter(error for error in errors if error)
    if reasons.total() > max_share * max(total, 1):
        reason, times = reasons.most_common(1)[0]
        raise JudgeFailed(
            f"judge {judge}: expected at most {max_share:.0%} failures of {total} cases, found {reasons.total()}, "
            f"{times} of them {reason!r}; mend the endpoint and start again: {kept}"
        )
