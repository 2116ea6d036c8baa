"""temporary.py: temporary folders are deleted in the end, by the next command if their process was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zerosearch import temporary
from zerosearch.temporary import noted_folder
from zerosearch.pipeline import RunLock

HOLD = """import sys, time
from pathlib import Path
from zerosearch.temporary import noted_folder
with noted_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(60)"""


def test_nothing_is_left_after_an_ordinary_end(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with pytest.raises(RuntimeError), noted_folder(tmp_path / "logs" / "04_evaluate.log") as folder:
        assert tempfile.gettempdir() == str(folder) and folder.parent == Path(before)
        (folder / "more").write_text("")
        assert [path.name for path in (tmp_path / "logs").iterdir()] == ["04_evaluate.temporary"]
        raise RuntimeError
    assert not folder.exists() and tempfile.gettempdir() == before and not list((tmp_path / "logs").iterdir())


def test_the_next_command_deletes_what_a_killed_process_left(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "04_evaluate.log"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(log)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    assert folder.is_dir()
    with RunLock(tmp_path):
        assert not folder.exists() and not list((tmp_path / "logs").iterdir())


def test_a_damaged_note_deletes_nothing_else(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "a.temporary").write_text(str(mine))
    (tmp_path / "b.temporary").write_text("")
    temporary.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
