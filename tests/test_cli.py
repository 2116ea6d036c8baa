"""cli.py, pipeline.py, console.py and the Snakefile: options, plans, and a chain of six tiny notebooks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from fake_notebooks import notebook, write_all

from zerosearch import artifacts, cli, files, pipeline, processes, profiles
from zerosearch.errors import ConfigError
from zerosearch.jobs import Board, Job
from zerosearch.notebook_files import code_digest

CHAIN = ("--profile", "smoke", "--run", "chain", "--arms", "zerosearch,search-r1")


# --- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profil", "smoke"], "unknown '--profil'; did you mean '--profile'"),
        (["--seed=1"], "unknown '--seed'; did you mean '--seeds'"),
        (["smoke"], "expected named options only, found the word 'smoke'"),
        (["--seeds", "0,x"], "whole numbers separated by commas"),
        (["--seeds", "1,1"], "each once"),
        (["--arms", "a,,b"], "each once"),
        (["--only", "3"], "did you mean '03'"),
        (["--from", "03", "--only", "04"], "not allowed with"),
        (["--set", "03.steps"], "expected STAGE.NAME=VALUE"),
        (["--run"], "expected one argument"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cli.parse(arguments)


def test_all_options() -> None:
    options = cli.parse(
        [
            "--profile",
            "smoke",
            "--run",
            "x",
            "--seeds",
            "0,2",
            "--arms",
            "zerosearch,search-r1",
            "--from",
            "03",
            "--set",
            "03.steps=7",
            "--set",
            "02.steps=9",
            "--questions",
            "q",
            "--corpus",
            "c",
            "--dry-run",
        ]
    )
    assert (options.seeds, options.arms, options.from_stage) == ([0, 2], ["zerosearch", "search-r1"], "03")
    assert options.overrides == {"03.steps": "7", "02.steps": "9"} and options.dry_run
    assert options.questions == Path("q").resolve()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--profile", "labtop"], 2, "did you mean 'laptop'"),
        (["--arms", "search_r1"], 2, "did you mean 'search-r1'"),
        (["--set", "03.step=1"], 2, "did you mean 'steps'"),
        (["--run", "a/b"], 2, "expected a name of letters"),
        (["--questions", "nowhere"], 3, "expected both"),
        (["--clean", "nothing"], 2, "expected the name of a run"),
        (
            ["--profile", "smoke", "--questions", "no", "--corpus", "no"],
            3,
            "expected a folder with files named",
        ),
        (
            ["--only", "02", "--profile", "smoke"],
            2,
            "found no 00_micro_world/manifest.json, 01_collect/manifest.json",
        ),
    ],
)
def test_refusals_have_a_code_and_no_traceback(
    chain_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    for name, value in chain_environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(arguments) == code
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_an_unforeseen_error_goes_to_a_log(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise RuntimeError("surprise")

    monkeypatch.setattr(cli, "_list", fail)
    assert cli.main(["--list"]) == 1
    assert "RuntimeError: surprise; the traceback stands in" in capsys.readouterr().err
    assert "Traceback" in (outputs / "logs" / "cli.log").read_text()


def test_list(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_json(outputs / "mine" / "settings.json", {"profile": "smoke"})
    files.write_json(outputs / "mine" / "00_micro_world" / "manifest.json", {})
    assert cli.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("a100_node", "search-r1", "learning_rate=0.0005", "finished: 00"))


def test_clean(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_json(outputs / "mine" / "settings.json", {"profile": "smoke"})
    (outputs / "other").mkdir()
    (outputs / "latest").symlink_to("mine")
    assert cli.main(["--clean", "mine", "--dry-run"]) == 0 and (outputs / "mine").exists()
    assert cli.main(["--clean", "mine"]) == 0 and not (outputs / "mine").exists()
    assert not (outputs / "latest").is_symlink()
    assert cli.main(["--clean", "other"]) == 2 and (outputs / "other").exists()  # not a run's folder
    assert cli.main(["--clean", "reference"]) == 2


def test_a_forgotten_profile_does_not_redo_a_run(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_json(outputs / "mine" / "settings.json", {"profile": "smoke"})
    assert cli.main(["--run", "mine", "--dry-run"]) == 2
    assert "add --profile smoke" in capsys.readouterr().err


def test_one_command_at_a_time(tmp_path: Path) -> None:
    Board(tmp_path).own()
    with pipeline.RunLock(tmp_path):
        with pytest.raises(ConfigError, match=f"a command at work on it .process {os.getpid()}"):
            pipeline.RunLock(tmp_path).__enter__()
    with pipeline.RunLock(tmp_path):
        pass


def test_what_a_stage_alone_needs(tmp_path: Path) -> None:
    real_engine = {"arms": ["search-r1"], "seeds": [0], "retrievers": {"search-r1": "bm25"}}
    needed = pipeline.missing_inputs(tmp_path, real_engine, pipeline.Selection(only="03"))
    assert needed == ["00_micro_world/manifest.json", "01_collect/manifest.json"]
    untuned = {"arms": ["untuned"], "seeds": [0], "retrievers": {"untuned": "simulator-base"}}
    assert pipeline.missing_inputs(tmp_path, untuned, pipeline.Selection(only="03")) == needed  # it waits for no tuning
    retrievers = {"untuned": "simulator-base", "zerosearch": "simulator"}
    tuned = {"arms": list(retrievers), "seeds": [0], "retrievers": retrievers}
    assert "02_simulator/manifest.json" in pipeline.missing_inputs(tmp_path, tuned, pipeline.Selection(only="03"))
    assert len(pipeline.missing_inputs(tmp_path, real_engine, pipeline.Selection(only="04"))) == 2
    assert pipeline.missing_inputs(tmp_path, real_engine, pipeline.Selection()) == []


# --- the chain ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables that lead to fake notebooks and to a temporary outputs folder."""
    folder = tmp_path_factory.mktemp("chain")
    return {
        "ZEROSEARCH_NOTEBOOKS": str(write_all(folder / "nb")),
        "ZEROSEARCH_OUTPUTS": str(folder / "outputs"),
    }


def call(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zerosearch.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=900
    )


@pytest.fixture(scope="module")
def chain(chain_environment: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], Path]:
    """(how the first call of the whole chain ended, the run's folder)."""
    done = call(chain_environment, *CHAIN)
    return done, Path(chain_environment["ZEROSEARCH_OUTPUTS"]) / "chain"


def states(shown: str) -> dict[str, str]:
    """Return {stage or stage/arm: last state} of the lines that a call printed."""
    found = {}
    for line in shown.splitlines():
        if line[:2] in artifacts.STAGES and line[2:3] == " ":
            which = next((f"/{arm}" for arm in ("zerosearch", "search-r1") if f" {arm} seed" in line), "")
            found[line[:2] + which] = next(
                s for s in ("would run", "up to date", "running", "failed", "done") if s in line
            )
    return found


def test_the_whole_chain(chain: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = chain
    assert done.returncode == 0, done.stdout + done.stderr
    every = ["00", "01", "02", "03/zerosearch", "03/search-r1", "04", "05"]
    assert states(done.stdout) == {name: "done" for name in every}
    assert "report.html" in done.stdout and "scores.csv" in done.stdout and "finished in" in done.stdout
    assert sorted(path.name for path in (folder / "notebooks").iterdir()) == [
        "00_micro_world.ipynb",
        "01_collect_trajectories.ipynb",
        "02_simulator_sft.ipynb",
        "03_curriculum_rl_search-r1_seed0.ipynb",
        "03_curriculum_rl_zerosearch_seed0.ipynb",
        "04_evaluate.ipynb",
        "05_cost_comparison.ipynb",
    ]
    settings = files.read_json(folder / "settings.json")
    assert settings["stages"]["04"]["arms"] == "zerosearch,search-r1"
    assert (folder.parent / "latest").resolve() == folder
    note = json.loads((folder / "calls.jsonl").read_text())
    assert note["exit_code"] == 0 and len(note["notebooks"]) == 7 and note["peak_rss_mib"] > 50
    manifest = files.read_json(folder / "03_rl/search-r1/seed0/manifest.json")
    assert (manifest["arm"], manifest["parameters"]["profile"]) == ("search-r1", "smoke")
    assert "02_simulator" not in "".join(
        manifest["inputs"]
    )  # the real-engine arm never waits for the simulator


def stale(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, str] | None = None,
    selection: pipeline.Selection = pipeline.Selection(),
    seeds: tuple[int, ...] = (0,),
) -> set[str]:
    """Return the jobs that a call with these options would run, planned by Snakemake."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = profiles.load("smoke", overrides, run="chain", arms=["zerosearch", "search-r1"], seeds=seeds)
    folder = artifacts.run_dir("chain")
    file = files.write_json(folder.parent / "asked.json", cli.run_settings(settings))
    planned = pipeline.plan(folder, file, selection)
    short = {
        job: "/".join(filter(None, (job.stage, job.arm, str(job.seed) if job.seed else None)))
        for job in (item.job for item in planned)
    }
    return {short[item.job] for item in planned if item.reason}


@pytest.mark.parametrize(
    ("overrides", "selection", "jobs_to_run"),
    [
        ({"02.steps": "121"}, {}, "02 03/zerosearch 04 05"),
        ({"03.steps": "13"}, {}, "03/zerosearch 03/search-r1 04 05"),
        ({}, {"from_stage": "04"}, "04 05"),
        ({}, {"only": "02"}, "02"),
    ],
)
def test_what_would_run_again(
    chain: object,
    chain_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, str],
    selection: dict[str, str],
    jobs_to_run: str,
) -> None:
    found = stale(chain_environment, monkeypatch, overrides, pipeline.Selection(**selection))
    assert found == set(jobs_to_run.split())


def test_another_seed_trains_only_what_is_new(
    chain: object, chain_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stale(chain_environment, monkeypatch, seeds=(0, 1))
    assert found == {"03/zerosearch/1", "03/search-r1/1", "04", "05"}


def test_changed_code_runs_again(
    chain: object, chain_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(chain_environment["ZEROSEARCH_NOTEBOOKS"]) / "05_cost_comparison.ipynb"
    before = path.read_bytes()
    try:
        book = notebook("05")
        book.cells.append(nbformat.v4.new_code_cell("more = 1"))
        nbformat.write(book, path)
        assert stale(chain_environment, monkeypatch) == {"05"}
    finally:
        path.write_bytes(before)


def test_models_built_anew_run_what_names_them_again(
    chain: object, chain_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shipped = tmp_path / "micro_lm"
    shutil.copytree(artifacts.MICRO_LM, shipped)
    monkeypatch.setattr(artifacts, "MICRO_LM", shipped)
    assert stale(chain_environment, monkeypatch) == set()
    files.write_atomic(shipped / "simulator-medium" / "model.safetensors", b"other weights")
    assert stale(chain_environment, monkeypatch) == {"02", "03/zerosearch", "03/search-r1", "04", "05"}


def test_texts_outputs_and_exercises_are_not_code(tmp_path: Path) -> None:
    book, path = notebook("05"), tmp_path / "n.ipynb"
    nbformat.write(book, path)
    before = code_digest(path)
    book.cells.append(nbformat.v4.new_markdown_cell("A remark."))
    book.cells.append(nbformat.v4.new_code_cell("mine = 1", metadata={"tags": ["exercise"]}))
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="old")]
    nbformat.write(book, path)
    assert code_digest(path) == before
    book.cells[1].source += "\nmore = 1"
    nbformat.write(book, path)
    assert code_digest(path) != before


def test_a_dry_run_writes_nothing(chain_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": 1, "text": "x"}\n')
    corpus = ("--corpus", str(tmp_path / "c.jsonl"))
    done = call(chain_environment, "--profile", "a100_node", "--run", "never", "--dry-run", *corpus)
    assert done.returncode == 0 and "GPUs: expected 8" in done.stdout
    assert "hf download --repo-type dataset" in done.stdout  # its questions, which another machine may have
    assert set(states(done.stdout).values()) == {"would run"}
    assert not (Path(chain_environment["ZEROSEARCH_OUTPUTS"]) / "never").exists()


def test_a_finished_run_starts_nothing(chain: object, chain_environment: dict[str, str]) -> None:
    done = call(chain_environment, *CHAIN)
    assert done.returncode == 0 and "everything is up to date" in done.stdout


def test_a_finished_run_is_verified_and_the_exit_code_is_that_of_verify(
    chain: object, chain_environment: dict[str, str]
) -> None:
    """The fake chain wrote no tables, so they are missing beside the committed reference."""
    done = call(chain_environment, *CHAIN, "--verify")
    assert done.returncode == 1 and "outputs/chain against outputs/reference/smoke" in done.stdout, done.stderr
    assert "  missing  scores.csv: the run has no such table" in done.stdout
    assert (Path(chain_environment["ZEROSEARCH_OUTPUTS"]) / "chain" / "verify.csv").is_file()


def test_a_failure_shows_its_message_and_where_to_read_on(
    chain: object, chain_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = call(chain_environment, *CHAIN, "--set", "04.temperature=0.25")
    assert done.returncode == 1 and states(done.stdout)["04"] == "failed"
    assert (
        "failed: corpus.jsonl: expected passages, found nothing\n  corpus.jsonl:3: no text\n  log: "
        in done.stderr
    )
    assert "Traceback" not in done.stderr and "05" not in done.stderr.split("log:")[0]
    # with the old parameters again: the failed stage left nothing that could be taken for a result
    assert stale(chain_environment, monkeypatch) == {"04", "05"}


def test_a_killed_command_leaves_nothing_running_and_the_next_one_goes_on(
    chain: tuple[object, Path], chain_environment: dict[str, str]
) -> None:
    folder, environment = chain[1], {**os.environ, **chain_environment}
    slow = (*CHAIN, "--set", "03.noise_base=400")  # sleeps 30 s between two heartbeats, if it is not killed
    command = subprocess.Popen(
        [sys.executable, "-m", "zerosearch.cli", *slow], env=environment, stdout=subprocess.DEVNULL
    )
    log = folder / "03_rl/zerosearch/seed0/steps.log"
    stamp, deadline = log.stat().st_mtime, time.time() + 300
    while not (log.exists() and log.stat().st_mtime > stamp):
        assert time.time() < deadline
        time.sleep(0.1)
    status = Board(folder).status(Job("03", "zerosearch", 0))
    assert status is not None
    runner = psutil.Process(status.process.pid)
    family = [runner, *runner.children(recursive=True)]
    assert len(family) >= 2  # the runner and its kernel
    command.kill()  # SIGKILL: it has no chance to tell anyone
    command.wait()
    deadline = time.time() + 60
    while any(process.is_running() for process in family) and time.time() < deadline:
        time.sleep(0.2)
    assert not [process for process in family if process.is_running()]
    done = call(chain_environment, *slow)
    assert done.returncode == 0, done.stdout + done.stderr
    assert log.read_text() == "xx"  # the second attempt went on in the first one's folder
    found = states(done.stdout)
    assert found["02"] == "up to date" and found["03/zerosearch"] == found["04"] == found["05"] == "done"


@pytest.mark.parametrize("damage", [False, True])
def test_a_stage_that_finished_unnoticed_is_not_run_again(
    chain: tuple[object, Path], chain_environment: dict[str, str], damage: bool
) -> None:
    """Everything is killed between the manifest of stage 04 and Snakemake's notice of it."""
    folder, environment = chain[1], {**os.environ, **chain_environment}
    assert call(chain_environment, *CHAIN).returncode == 0
    manifest, result = folder / "04_evaluate/manifest.json", folder / "04_evaluate/scores.csv"
    old = manifest.stat().st_mtime
    words = [sys.executable, "-m", "zerosearch.cli", *CHAIN, "--from", "04"]
    command = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (manifest.is_file() and manifest.stat().st_mtime > old) and time.time() < deadline:
        time.sleep(0.01)
    for process in [psutil.Process(command.pid), *psutil.Process(command.pid).children(recursive=True)]:
        process.kill()
    command.wait()
    made = files.read_json(manifest)
    assert made["finished"] and list((folder / ".snakemake" / "incomplete").iterdir())
    if damage:
        result.write_text("changed")
    done = call(chain_environment, *CHAIN)
    assert done.returncode == 0 and states(done.stdout)["04"] == "done" and states(done.stdout)["03/search-r1"] == "up to date"
    again = files.read_json(manifest)
    assert (again != made) == damage and result.read_text() == "method,value\n"


def test_runs_side_by_side_do_not_touch(chain: tuple[object, Path], chain_environment: dict[str, str]) -> None:
    """Two runs at once, a third command of one's name, and a finished run beside them."""
    outputs, environment = chain[1].parent, {**os.environ, **chain_environment}
    finished = files.sha256(chain[1])
    words = [sys.executable, "-m", "zerosearch.cli", "--profile", "smoke", "--arms", "zerosearch", "--run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    both = {name: subprocess.Popen([*words, name], **pipes) for name in ("left", "right")}
    deadline = time.time() + 120
    while not (outputs / "left" / "owner.json").is_file() and time.time() < deadline:
        time.sleep(0.1)
    third = subprocess.run([*words, "left"], **{**pipes, "timeout": 60})
    assert third.returncode == 2 and f"a command at work on it (process {both['left'].pid})" in third.stderr
    assert "choose another name with `--run NAME`" in third.stderr
    for name, command in both.items():
        shown, error = command.communicate(timeout=300)
        assert command.returncode == 0, name + shown + error
    made = [sorted((outputs / name).glob("*/**/manifest.json")) for name in both]
    written = [[files.read_json(path)["outputs"] for path in paths] for paths in made]
    assert written[0] == written[1] and len(written[0]) == 6
    assert files.sha256(chain[1]) == finished


def test_interrupted_politely(chain: tuple[object, Path], chain_environment: dict[str, str]) -> None:
    folder, environment = chain[1], {**os.environ, **chain_environment}
    arguments = [*CHAIN, "--set", "03.noise_base=120"]
    command = subprocess.Popen(
        [sys.executable, "-m", "zerosearch.cli", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    board, job, before = Board(folder), Job("03", "zerosearch", 0), time.time()
    while not ((status := board.status(job)) and status.started > before and board.heartbeat(job)):
        assert time.time() < before + 300
        time.sleep(0.1)
    command.terminate()
    _, error = command.communicate(timeout=120)
    assert command.returncode == 130 and error.endswith("stopped; the same command goes on from here\n")
    assert "stopping: work under way is saved first" in error and "of 10 steps saved" in error
    status = board.status(job)
    assert status.state == "stopped" and "of 10 steps saved" in status.message and "Traceback" not in error
    assert not processes.alive(status.process) and not board.living()
    assert json.loads((folder / "calls.jsonl").read_text().splitlines()[-1])["exit_code"] == 130
