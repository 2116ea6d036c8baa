"""Do the same thing over and over and see that nothing grows: memory, open files, threads, processes, files.

    .venv/bin/python scripts/soak.py --cycles 100 --report benchmarks/soak-cycles.csv
    .venv/bin/python scripts/soak.py --chains 10 --report benchmarks/soak-chains.csv

A cycle is a rollout of 32 questions, twice each, with the shipped policy and the shipped simulator, its rewards,
and a BM25 search for everything that was asked, all in one process.  A chain is a whole run of profile smoke,
called in one driver process and deleted by ``--clean``; its temporary files and the user's folder are fresh ones,
so that whatever it leaves there is seen.

Exit codes: 0 nothing grew, 1 something did, 2 wrong option.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import growth
import traces
from growth import Figures

from zerosearch import artifacts
from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.options import Parser

QUESTIONS, SAMPLES, PASSAGES = 32, 2, 5
WARM_UP_CYCLES, WARM_UP_CHAINS = 10, 1
# Where libraries keep what they keep, unless it is below the user's folder.
USER_FOLDERS = ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "JUPYTER_RUNTIME_DIR",
                "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR", "HF_HOME")


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak as the options ask and return the exit code."""
    try:
        options = _parser().read(arguments)
        if (options.cycles is None) == (options.chains is None):
            raise ConfigError("soak: expected one of --cycles N and --chains N")
        least = 3 + (WARM_UP_CHAINS if options.cycles is None else WARM_UP_CYCLES)
        if (options.cycles or options.chains) < least:
            raise ConfigError(f"soak: expected {least} or more, the first are a warm-up")
        if options.cycles:
            return growth.verdict(soak_cycles(options.cycles), WARM_UP_CYCLES, options.report)
        return growth.verdict(soak_chains(options), WARM_UP_CHAINS, options.report)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 2


# -- cycles -----------------------------------------------------------------------------------------


def soak_cycles(count: int, questions: int = QUESTIONS) -> list[dict[str, float]]:
    """Return one row per cycle.  questions: asked in each."""
    cycle, rows = make_cycle(questions), []
    with _private_folders() as (temporary, working):
        for number in range(count):
            started = time.perf_counter()
            cycle(number)
            seconds = round(time.perf_counter() - started, 2)
            rows.append(growth.row(number, Figures.take(temporary, working), wall_seconds=seconds))
            if number % 10 == 0:
                print(f"cycle {number}: {rows[-1]['rss_mib']:.0f} MiB, {seconds:.1f} s", flush=True)
    return rows


def make_cycle(n_questions: int) -> Callable[[int], None]:
    """Return a function that does one cycle; its number keys the draws."""
    import torch

    from zerosearch.engines.transformers_engine import TransformersEngine
    from zerosearch.microworld import models
    from zerosearch.microworld.world import build_questions, build_world
    from zerosearch.prompts import Prompts
    from zerosearch.retrievers import open_engine
    from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
    from zerosearch.schema import SearchRequest
    from zerosearch.training.arm_setup import open_retriever
    from zerosearch.training.arms import ARMS
    from zerosearch.training.policy_rl import score_trajectories

    torch.set_num_threads(1)
    world = build_world()
    asked = [q for q in build_questions(world, 10, 400) if q.split == "train"]
    policy, tokenizer = models.load("micro/llama-base")
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    engine = TransformersEngine(policy, tokenizer)
    simulator = open_retriever(ARMS["zerosearch"], k=PASSAGES, seed=0, simulator="micro/simulator-medium")
    bm25, settings = open_engine("bm25", world.passages(), PASSAGES), RolloutSettings()

    def cycle(number: int) -> None:
        turned = [asked[(number * n_questions + i) % len(asked)] for i in range(n_questions)]
        requests = [RolloutRequest(q, number, s, 0.25, forced_prefix=prompts.forced_prefix)
                    for q in turned for s in range(SAMPLES)]
        made = rollout(requests, engine, simulator, prompts, settings)
        score_trajectories(made)
        searches = [SearchRequest(t.content, one.question) for one in made for t in one.turns if t.action == "search"]
        bm25.search([s for s in searches if s.query])

    return cycle


@contextlib.contextmanager
def _private_folders() -> Iterator[tuple[Path, Path]]:
    """Make the folder for temporary files and the working folder fresh ones, in which nobody else writes."""
    before = tempfile.tempdir, os.getcwd()
    with tempfile.TemporaryDirectory(prefix="zerosearch-soak-") as folder:
        temporary, working = Path(folder) / "temporary", Path(folder) / "working"
        temporary.mkdir()
        working.mkdir()
        tempfile.tempdir = str(temporary)
        os.chdir(working)
        try:
            yield temporary, working
        finally:
            tempfile.tempdir = before[0]
            os.chdir(before[1])


# -- chains -----------------------------------------------------------------------------------------


def soak_chains(options: Any) -> list[dict[str, float]]:
    """Return one row per chain, measured after it was deleted."""
    outputs = (options.outputs or artifacts.outputs_dir()).resolve()
    home, temporary = outputs / "soak-home", outputs / "soak-temporary"
    for folder in (home, temporary):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    _move_in(outputs, home, temporary)
    words = [word for text in options.overrides for word in ("--set", text)]
    rows = []
    for number in range(options.chains):
        peak, seconds = _one_chain(outputs, f"soak-{number}", words)
        left = len(traces.marked(str(outputs)))
        figures = Figures.take(temporary, home)
        rows.append(growth.row(number, figures, processes=left, peak_rss_mib=peak, wall_seconds=round(seconds, 1)))
        print(f"chain {number}: {rows[-1]}", flush=True)
    return rows


def _move_in(outputs: Path, home: Path, temporary: Path) -> None:
    """Point this process and its children to folders of their own, and mark them."""
    for name in USER_FOLDERS:
        os.environ.pop(name, None)
    os.environ |= {
        "ZEROSEARCH_OUTPUTS": str(outputs), "HOME": str(home), "TMPDIR": str(temporary), traces.MARK: str(outputs),
    }
    tempfile.tempdir = None  # read TMPDIR again


def _one_chain(outputs: Path, run: str, words: Sequence[str]) -> tuple[float, float]:
    """Make a run and delete it; return (peak memory of all its processes in MiB, seconds).

    Raises WorkbookError when it fails; what it printed stands in soak.log.
    """
    from zerosearch import cli

    started, log = time.perf_counter(), outputs / "soak.log"
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        code = cli.main(["--profile", "smoke", "--run", run, *words])
        seconds = time.perf_counter() - started
        calls = (outputs / run / "calls.jsonl").read_text(encoding="utf-8").splitlines() if code == 0 else []
        code = code or cli.main(["--clean", run])
    if code != 0:
        raise WorkbookError(f"chain {run}: expected exit code 0, found {code}; see {log}")
    return json.loads(calls[-1])["peak_rss_mib"], seconds


def _parser() -> Parser:
    parser = Parser(prog="python scripts/soak.py", allow_abbrev=False, description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cycles", type=int, metavar="N", help="rollouts in one process")
    add("--chains", type=int, metavar="N", help="whole runs of profile smoke in a row")
    add("--set", dest="overrides", action="append", default=[], metavar="STAGE.NAME=VALUE", help="of the chains")
    add("--outputs", type=Path, metavar="DIR", help="folder for the chains (default: outputs/)")
    add("--report", type=Path, metavar="FILE", help="table of all measurements, .csv; the plot stands beside it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
