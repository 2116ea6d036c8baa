"""How every command ends: an exit code and at most one message on stderr, never a traceback.

Exit codes: 1 failed or unforeseen (the traceback goes to a log), 2 wrong option, value or file, 3 something is
missing on this machine or the system refused, 130 interrupted.  Called by ``cli``, ``verify`` and ``compare_runs``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Callable

from zerosearch import artifacts, files
from zerosearch.errors import DiskProblem, WorkbookError
from zerosearch.plain_text import clean

LOG = "cli.log"
INTERRUPTED = 130  # the exit code of a command that was asked to end


def ended(work: Callable[[], int]) -> int:
    """Return the exit code of work, or that of the error that ended it, told in one message."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may lack signs that a message has
            stream.reconfigure(errors="backslashreplace")
    try:
        return work()
    except WorkbookError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt as stop:  # its arguments: what was saved
        return complain("\n".join([*stop.args, "stopped; the same command goes on from here"]), INTERRUPTED)
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (what is still to be flushed goes nowhere)
        return 1
    except OSError as error:
        if DiskProblem.explains(error):
            return complain(str(DiskProblem(_place(error), error)), DiskProblem.exit_code)
        return _unforeseen(error)
    except Exception as error:
        return _unforeseen(error)


def complain(message: str, code: int) -> int:
    """Print a message on stderr, fit for a terminal, and return the exit code."""
    print(clean(message), file=sys.stderr, flush=True)
    return code


def _place(error: OSError) -> str:
    """Return the path that the system complained about, or where the outputs go."""
    name = error.filename2 or error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(artifacts.outputs_dir())


def _unforeseen(error: Exception) -> int:
    log = _keep_traceback(traceback.format_exc())
    where = f"the traceback stands in {log}" if log else "no folder could be written to keep the traceback"
    return complain(f"{type(error).__name__}: {error}; {where}", 1)


def _keep_traceback(text: str) -> Path | None:
    """Write the traceback below outputs/, or else in the temporary folder; None where neither can be written."""
    for folder in (artifacts.outputs_dir() / "logs", Path(tempfile.gettempdir()) / "zerosearch-logs"):
        try:
            return files.write_atomic(folder / LOG, text.encode("utf-8", errors="backslashreplace"))
        except (OSError, WorkbookError):
            continue
    return None
