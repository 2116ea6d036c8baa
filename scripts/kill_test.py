"""Kill runs at drawn moments and see that the same command, given again at once, ends with the same results.

One run of a profile is left undisturbed.  Every other one is killed (SIGKILL: a notebook's kernel, its runner,
Snakemake, the command, or all of them) at a moment drawn inside a drawn stage, and started again without
waiting.  It must then end with the same bytes in scores.parquet, the same tables but for times, every step
and every query counted once, and leave no process, lock or temporary file.

    .venv/bin/python scripts/kill_test.py --kills 10 --seed 0 --report benchmarks/kills.csv

Exit codes: 0 all identical, 1 one is not, 2 wrong option.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import pandas as pd
import traces
from disturbing import Commands, Disturbed, Kill, disturb, draw, durations

from zerosearch import artifacts, cli, files, pipeline, profiles
from zerosearch.comparing import facts
from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.jobs import Job
from zerosearch.options import Parser

UNDISTURBED = "undisturbed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the test as the options ask and return the exit code."""
    try:
        options = _parser().read(arguments)
        return run(options)
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.  settings: text that says what the runs are made of, for the report."""

    commands: Commands
    undisturbed: str
    settings: str
    seconds: Mapping[Job, float]
    kills: tuple[Kill, ...]


def run(options: Any) -> int:
    """Make the undisturbed run if there is none, carry out the kills, and report; 0 when all are identical."""
    plan = make_plan(options)
    report = Report(options.report, plan.settings)
    known = report.read() if options.resume else {}
    todo = [kill for kill in plan.kills if kill.run not in known]
    for kill in plan.kills:
        print(f"planned {kill.number}: {kill.job.name} at {kill.fraction:.0%}, victim {kill.victim}"
              f"{'' if kill in todo else ' (done before)'}", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        made = list(pool.map(lambda kill: _one(plan, kill, report), todo))
    n_same = sum(one.identical for one in made) + sum(map(bool, known.values()))
    print(f"{n_same} of {len(plan.kills)} identical; {options.report or 'no report asked for'}")
    return 0 if n_same == len(plan.kills) else 1


def make_plan(options: Any) -> Plan:
    """Return the kills with the run that they are measured by; it is made here when none is named."""
    reference = options.reference.resolve() if options.reference else None
    folder = (reference.parent if reference else options.outputs or artifacts.outputs_dir()).resolve()
    os.environ["ZEROSEARCH_OUTPUTS"] = str(folder)  # this process compares runs there
    folder.mkdir(parents=True, exist_ok=True)
    overrides = dict(text.partition("=")[::2] for text in options.overrides)
    name = reference.name if reference else UNDISTURBED
    settings = cli.run_settings(profiles.load(options.profile, overrides, run=name))
    words = ["--profile", options.profile, *(word for text in options.overrides for word in ("--set", text))]
    commands = Commands(tuple(words), folder)
    if reference:
        _check_same(settings, reference)
    elif (code := commands.start(name).wait()) != 0:
        raise WorkbookError(f"the undisturbed run ended with code {code}; see {commands.log(name)}")
    jobs = pipeline.all_jobs(settings)
    seconds = durations(artifacts.run_dir(name), jobs)
    return Plan(commands, name, " ".join(words), seconds, tuple(draw(options.kills, options.seed, jobs)))


def _check_same(settings: Mapping[str, Any], reference: Path) -> None:
    """Raise ConfigError unless a finished run was made with these settings."""
    facts.require_finished(reference.name)
    differing = settings_differences(settings, files.read_json(reference / "settings.json"))
    if differing:
        raise ConfigError(
            f"--reference {reference}: expected a run with the same settings, found {'; '.join(differing)[:400]}; leave "
            f"--reference out, or give the options that it was made with"
        )


def settings_differences(settings: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the keys in which the settings of two runs differ, with both values; names of runs are left out."""
    return facts.differing(_comparable(settings), _comparable(found))


def _comparable(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a run as texts, without its name and its interpreter's path."""
    kept = {name: value for name, value in files.through_json(settings).items() if name not in ("run", "python")}
    kept["stages"] = {s: {n: v for n, v in values.items() if n != "run"} for s, values in kept["stages"].items()}
    return {name: json.dumps(value, sort_keys=True) for name, value in kept.items()}


def _one(plan: Plan, kill: Kill, report: Report) -> Disturbed:
    """Carry out one kill, print and report it; a run that is identical is deleted."""
    _forget(plan.commands, kill.run)
    made = disturb(plan.commands, kill, plan.seconds[kill.job], plan.undisturbed)
    report.add(made)
    print(made.text(), flush=True)
    if made.identical:
        _forget(plan.commands, kill.run)
    return made


def _forget(commands: Commands, run: str) -> None:
    """Delete a run and what belongs to it."""
    for folder in (commands.outputs / run, commands.temporary(run)):
        shutil.rmtree(folder, ignore_errors=True)
    commands.log(run).unlink(missing_ok=True)


class Report:
    """The table of all kills, written anew after each; file None keeps it in memory only."""

    def __init__(self, file: Path | None, settings: str):
        self.file, self.settings, self.rows = file, settings, []
        self._lock = threading.Lock()

    def read(self) -> dict[str, bool]:
        """Take over the identical kills of an earlier report with these settings; return {run: True}."""
        if self.file and self.file.is_file():
            table = files.read_table(self.file)
            self.rows = table[(table["settings"] == self.settings) & table["identical"]].to_dict("records")
        return {f"kill-{row['seed']}-{row['kill']}": True for row in self.rows}

    def add(self, made: Disturbed) -> None:
        """Add a kill and write the table."""
        kill = made.kill
        row = {
            **traces.made_by(), "settings": self.settings, "seed": kill.seed, "kill": kill.number,
            "stage": kill.job.name, "fraction": kill.fraction, "moment_seconds": round(made.moment, 2),
            "victim": made.victim, "exit_codes": " ".join(map(str, made.exit_codes)),
            "wall_seconds": round(made.seconds, 1), "identical": made.identical, "problems": "; ".join(made.problems),
        }
        with self._lock:
            self.rows.append(row)
            if self.file:
                files.write_table(self.file, pd.DataFrame(self.rows).sort_values(["seed", "kill"]))


def _parser() -> Parser:
    parser = Parser(prog="python scripts/kill_test.py", allow_abbrev=False, description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--kills", type=int, default=10, metavar="N", help="disturbed runs (default: 10)")
    add("--seed", type=int, default=0, metavar="N", help="of the draws of stage, moment and victim")
    add("--profile", default="smoke", metavar="NAME")
    add("--set", dest="overrides", action="append", default=[], metavar="STAGE.NAME=VALUE", help="as of ./run_all.sh")
    add("--outputs", type=Path, metavar="DIR", help="folder for the runs (default: outputs/)")
    add("--reference", type=Path, metavar="RUN_DIR", help="a finished run with these settings in the place of a new one")
    add("--jobs", type=int, default=1, choices=(1, 2), help="disturbed runs at a time")
    add("--report", type=Path, metavar="FILE", help="table of the kills, .csv")
    add("--resume", action="store_true", help="do not repeat identical kills of the report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
