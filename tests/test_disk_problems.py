"""What the system refuses: a full disk, a read-only folder, a file in the way, too many open files.

Real conditions: a limit on the size of files (always), a small disk of its own where mounting is allowed,
folders without the right to write.  Each time one sentence with path and fix, nothing half written, the
old file as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pandas as pd
import pytest
import toy_run
from conftest_models import TOKENIZER, tiny_model

from zerosearch import artifacts, checks, cli, commands, files
from zerosearch.errors import DiskProblem
from zerosearch.microworld import models
from zerosearch.question_sets.own import Choice


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def ordinary_rights() -> Iterator[None]:
    """Take away the root user's licence to pass over file rights; others have none to begin with."""
    if os.geteuid() != 0:
        yield
        return
    library = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert library.capget(header, before) == 0
    without[:] = before[:]
    without[0] &= ~0b110  # effective: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert library.capset(header, without) == 0
    try:
        yield
    finally:
        assert library.capset(header, before) == 0


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be read but not written, with an old file in it."""
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "table.csv").write_text("old\n")
    folder.chmod(0o555)
    with ordinary_rights():
        yield folder
    folder.chmod(0o755)


# -- files.py -------------------------------------------------------------------------------------

LIMITED = """
import resource, signal, sys
from pathlib import Path
from zerosearch import files
from zerosearch.errors import DiskProblem
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
path = Path(sys.argv[1])
writers = {
    "json": lambda: files.write_json(path, "x" * 50_000),
    "folder": lambda: files.save_folder(path.parent / "folder", lambda f: (f / "weights").write_bytes(b"x" * 50_000)),
}
try:
    writers[sys.argv[2]]()
except DiskProblem as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["json", "folder"])
def test_a_limit_on_the_size_of_files(tmp_path: Path, kind: str) -> None:
    old = files.write_atomic(tmp_path / "x.json", "old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(old), kind], capture_output=True, text=True, check=True)
    place = old if kind == "json" else tmp_path / "folder"
    assert done.stdout.startswith(f"{place}: expected files of this size to be allowed, found: File too large; ")
    assert old.read_text() == "old" and names(tmp_path) == ["x.json"]


LOCKED = [".stage.lock", ".stage.lock.json", "attempt.json"]  # what a stage at work has in its folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB of its own; where mounting is not allowed the size of files is limited instead."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, before[1]))
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def big_table() -> pd.DataFrame:
    return pd.DataFrame({"text": [f"{number:0200d}" for number in range(5_000)]})


@pytest.mark.parametrize("name", ["table.csv", "table.parquet", "rows.jsonl", "model"])
def test_a_full_disk(small_disk: Path, name: str) -> None:
    """Also through pandas, pyarrow and safetensors, each of which reports a full disk in its own way."""
    files.write_atomic(small_disk / "old.txt", "old")
    rows = [{"text": os.urandom(500).hex()} for _ in range(1_000)]
    with pytest.raises(DiskProblem) as caught:
        if name == "model":
            models.save(tiny_model(), TOKENIZER, small_disk / name)
        elif name == "rows.jsonl":
            files.write_jsonl(small_disk / name, rows)
        else:
            files.write_table(small_disk / name, pd.DataFrame(rows))
    text = str(caught.value)
    assert text.startswith(f"{small_disk / name}: expected ")
    assert "`./run_all.sh --clean NAME`" in text or "`ulimit -f unlimited`" in text
    assert names(small_disk) == ["old.txt"] and (small_disk / "old.txt").read_text() == "old"


def test_a_stage_on_a_full_disk_says_so_in_a_notebook(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(small_disk))
    stage = artifacts.open_stage("mine", "01", {"profile": "smoke"})
    with pytest.raises(DiskProblem) as caught:
        stage.write_table(big_table().assign(text=[os.urandom(200).hex() for _ in range(5_000)]), "queries.parquet")
    (shown,) = caught.value._render_traceback_()
    assert shown.startswith(f"DiskProblem: {stage.dir / 'queries.parquet'}: expected ") and "\n" not in shown
    assert names(stage.dir) == LOCKED
    stage.release()


def test_a_folder_without_the_right_to_write(locked: Path) -> None:
    for write in (lambda: files.write_atomic(locked / "table.csv", "new"),
                  lambda: files.save_folder(locked / "model", lambda folder: None)):
        with pytest.raises(DiskProblem, match="Permission denied; give yourself the right with `chmod"):
            write()
    assert names(locked) == ["table.csv"] and (locked / "table.csv").read_text() == "old\n"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = files.write_json(tmp_path / "x.json", {})
    path.chmod(0)
    told = "x.json: expected to be permitted, found: Permission denied"
    with ordinary_rights(), pytest.raises(DiskProblem, match=told):
        files.read_json(path)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file/x.json", "expected a folder, found"),
        ("folder", "expected a file, found: Is a directory; remove or rename the folder"),
        ("n" * 300, "expected a name that the file system allows, found: File name too long"),
        ("loop/x.json", "remove or rename the file"),
    ],
)
def test_something_else_in_the_way(tmp_path: Path, place: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DiskProblem, match=words):
        files.write_json(tmp_path / place, {})
    assert names(tmp_path) == ["file", "folder", "loop"] and (tmp_path / "file").read_text() == "x"


def test_too_many_open_files(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(open(os.devnull))  # noqa: SIM115
        with pytest.raises(DiskProblem, match="Too many open files; raise the limit with `ulimit -n 4096`"):
            files.write_json(tmp_path / "x.json", {})
    finally:
        for file in held:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert names(tmp_path) == []


def test_other_errors_of_the_system_are_not_explained_away(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        files.write_via(tmp_path / "x", fail)
    assert not isinstance(caught.value, DiskProblem)


def test_a_reader_s_file_without_the_right_to_read(tmp_path: Path) -> None:
    questions, corpus = tmp_path / "questions", tmp_path / "corpus.jsonl"
    questions.mkdir()
    (questions / "nq.jsonl").write_text("{}\n")
    corpus.write_text("damaged\n")
    (questions / "nq.jsonl").chmod(0)
    with ordinary_rights():
        problems, _ = checks.question_problems(Choice(str(questions), str(corpus)))
    assert f"`chmod u+r {questions / 'nq.jsonl'}`" in problems[0]
    assert f"{corpus}:1: expected a JSON object" in problems[0]


# -- the command line -----------------------------------------------------------------------------


def test_the_command_line_with_outputs_that_cannot_be_written(
    locked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(locked))
    assert cli.main(["--profile", "smoke"]) == 3
    error = capsys.readouterr().err
    assert str(locked / "smoke") in error and "Permission denied" in error and "ZEROSEARCH_OUTPUTS" in error
    assert names(locked) == ["table.csv"]


@pytest.mark.parametrize("outputs", ["/proc/outputs", "/dev/null/outputs"])
def test_the_command_line_with_outputs_that_no_rights_help_with(
    outputs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", outputs)
    assert cli.main(["--profile", "smoke"]) == 3
    error = capsys.readouterr().err
    assert outputs.split("/")[1] in error and "; " in error and "Traceback" not in error


def test_the_log_of_a_traceback_goes_elsewhere_when_outputs_cannot_be_written(
    tmp_path: Path, locked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise RuntimeError("surprise\x1b[2J")

    spare = tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(locked))
    monkeypatch.setattr(commands.tempfile, "tempdir", str(spare))
    assert commands.ended(fail) == 1
    log = spare / "zerosearch-logs" / "cli.log"
    assert f"RuntimeError: surprise␛[2J; the traceback stands in {log}" in capsys.readouterr().err
    assert "Traceback" in log.read_text()
    monkeypatch.setattr(commands.tempfile, "tempdir", str(locked))
    assert commands.ended(fail) == 1
    assert "no folder could be written to keep the traceback" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough(outputs: Path) -> None:
    command = f"{sys.executable} -m zerosearch.cli --list | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "profiles (--profile):\n" and done.stderr == ""


def test_a_terminal_that_lacks_signs(outputs: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "ZEROSEARCH_OUTPUTS": str(outputs)}
    command = [sys.executable, "-m", "zerosearch.cli", "--profile", "smoke", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0 and "\\xb7 profile smoke" in done.stdout


def test_a_run_on_a_full_disk_leaves_the_finished_one_as_it_is(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the run is opened: its second stage writes nothing, and can be gone on with."""
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(small_disk))
    stage = artifacts.open_stage("one", "00", toy_run.PARAMETERS)
    stage.write_jsonl([{"id": "1", "text": "A fact."}], "corpus.jsonl")
    stage.finish()
    before = files.sha256(stage.dir)
    second = artifacts.open_stage("one", "01", toy_run.PARAMETERS)
    with pytest.raises(DiskProblem):
        second.write_jsonl([{"text": "x" * 1_000}] * 1_000, "rows.jsonl")
    assert files.sha256(stage.dir) == before and names(second.dir) == LOCKED
    again = artifacts.open_stage("one", "01", toy_run.PARAMETERS)
    assert again.resumed
    again.release()
