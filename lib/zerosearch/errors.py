"""Errors whose message is meant for users: what was expected, what was found, the command that fixes it.

Notebooks and commands print the message alone; the traceback goes to the log.
"""

from __future__ import annotations

import errno
from typing import Iterable, Sequence

from rapidfuzz import fuzz, process

from zerosearch.plain_text import clean

_DISK_ADVICE = {  # what the system refused -> (what was expected, the way out)
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), (
        "room on the disk", "free space with `./run_all.sh --clean NAME`, or point ZEROSEARCH_OUTPUTS at another disk",
    )),
    errno.EFBIG: (
        "files of this size to be allowed",
        "raise the limit with `ulimit -f unlimited`, or point ZEROSEARCH_OUTPUTS at another disk",
    ),
    errno.EROFS: ("a disk that can be written", "point ZEROSEARCH_OUTPUTS at a folder that can be written"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), (
        "to be permitted",
        "give yourself the right with `chmod -R u+rwX PATH`, or point ZEROSEARCH_OUTPUTS at a folder of yours",
    )),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), (
        "a folder", "remove or rename the file that stands in its place",
    )),
    errno.EISDIR: ("a file", "remove or rename the folder that stands in its place"),
    errno.ENAMETOOLONG: ("a name that the file system allows", "choose a shorter name with `--run NAME`"),
    errno.ELOOP: ("a file or folder", "remove the link that leads back to itself"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), (
        "fewer open files", "raise the limit with `ulimit -n 4096` and start again",
    )),
}


class WorkbookError(Exception):
    """Base of every error that a user can cause or mend; its text is fit for a terminal."""

    exit_code = 2  # of a command that this error ends

    def __str__(self) -> str:
        """Return the message with control characters as visible signs: it may quote files and models."""
        return clean(super().__str__())

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


class DiskProblem(WorkbookError):
    """The system refused to read or write: a full or read-only disk, a missing right, a file in the way."""

    exit_code = 3

    def __init__(self, path: object, error: OSError):
        wanted, advice = _DISK_ADVICE[error.errno or 0]
        super().__init__(f"{path}: expected {wanted}, found: {error.strerror}; {advice.replace('PATH', str(path))}")

    @staticmethod
    def explains(error: OSError) -> bool:
        """Say whether an error of the system is one that a user can mend."""
        return error.errno in _DISK_ADVICE


class NotReady(WorkbookError):
    """This machine or this folder lacks something that a run needs."""

    exit_code = 3


class RetrieverError(WorkbookError):
    """A retriever failed more often than its limit allows."""


class ServerProblem(RetrieverError):
    """A server that writes text could not be started or reached, or refused a request."""


def did_you_mean(found: str, choices: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the choice nearest to found, or nothing if none is near."""
    nearest = process.extractOne(found, list(choices), scorer=fuzz.ratio, score_cutoff=50)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def unknown_name(kind: str, found: str, choices: Sequence[str]) -> ConfigError:
    """Return the error for a name that is none of the choices, with the nearest one."""
    return ConfigError(
        f"{kind}: expected one of {', '.join(choices)}, found {found!r}{did_you_mean(found, choices)}"
    )
