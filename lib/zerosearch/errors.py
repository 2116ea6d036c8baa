"""Errors whose message is meant for users: what was expected, what was found, the command that fixes it.

Notebooks and commands print the message alone; the traceback goes to the log.
"""

from __future__ import annotations

from typing import Iterable, Sequence

from rapidfuzz import fuzz, process


class WorkbookError(Exception):
    """Base of every error that a user can cause or mend."""

    def _render_traceback_(self) -> list[str]:
        """Return what Jupyter shows for this error: its message, no stack of library calls."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(WorkbookError):
    """An option, profile, key or value that does not exist or has the wrong type."""


class MissingInput(WorkbookError):
    """A file that an earlier stage (or the installation) should have written."""


class BadInput(WorkbookError):
    """A user's file with problems; all of them at once, each with file and line."""

    def __init__(self, message: str, problems: Sequence[str] = ()):
        self.problems = tuple(problems)
        super().__init__("\n".join([message, *(f"  {p}" for p in self.problems)]))


class RetrieverError(WorkbookError):
    """A retriever failed more often than its limit allows."""


def did_you_mean(found: str, choices: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the choice nearest to found, or nothing if none is near."""
    nearest = process.extractOne(found, list(choices), scorer=fuzz.ratio, score_cutoff=50)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def unknown_name(kind: str, found: str, choices: Sequence[str]) -> ConfigError:
    """Return the error for a name that is none of the choices, with the nearest one."""
    return ConfigError(
        f"{kind}: expected one of {', '.join(choices)}, found {found!r}{did_you_mean(found, choices)}"
    )
