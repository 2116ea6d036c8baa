"""Temporary folders of processes that may be killed, and how the next command finds them.

A process that is killed cannot delete its temporary folder.  So its path is noted in the run's ``logs/``:
the next command on the run, which has the run for itself, deletes what such notes name.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Iterator

from zerosearch import files

PREFIX, NOTE = "zerosearch-", ".temporary"


@contextlib.contextmanager
def noted_folder(log: Path) -> Iterator[Path]:
    """Make a temporary folder, in which this process puts its other temporary files too.

    log: of whom it is made for; the note stands beside it.  Folder and note are gone afterwards.
    """
    folder, note, before = Path(tempfile.mkdtemp(prefix=PREFIX)), log.with_suffix(NOTE), tempfile.tempdir
    files.write_atomic(note, str(folder))
    tempfile.tempdir = str(folder)  # a kernel's connection file is made under a name that nobody keeps
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


def sweep(logs: Path) -> None:
    """Delete the folders that killed processes left; nobody may be at work on the run of these logs."""
    for note in logs.glob(f"*{NOTE}"):
        folder = Path(note.read_text(encoding="utf-8"))
        if folder.name.startswith(PREFIX):  # whatever a damaged note says, nothing else is deleted
            shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)
