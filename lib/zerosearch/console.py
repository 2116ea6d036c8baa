"""What a run looks like in a terminal: one line per stage, the latest word of long ones, the end.

On a terminal the lines are redrawn in place; anywhere else (a file, continuous integration) a line
is printed when a stage changes its state, and every half minute while one is running.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zerosearch import artifacts, files
from zerosearch.jobs import Board, Job, Status
from zerosearch.pipeline import Planned
from zerosearch.plain_text import clean
from zerosearch.profiles import Settings
from zerosearch.progress import clock

QUIET_EVERY = 30.0  # seconds between lines about a running stage where nothing can be redrawn
STYLES = {
    "done": "green",
    "up to date": "green",
    "running": "bold cyan",
    "stalled": "bold yellow",
    "failed": "bold red",
    "stopped": "red",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One stage as it is shown.  seconds: elapsed; expected: by the profile, for this stage."""

    job: Job
    state: str
    seconds: float | None
    expected: float
    word: str

    def cells(self) -> list[str]:
        """Return number, name, arm and seed, state, time and the latest word."""
        word = clean(self.word)  # it may quote what a model wrote
        name = artifacts.NOTEBOOKS[self.job.stage][3:].replace("_", " ")
        which = f"{self.job.arm} seed {self.job.seed}" if self.job.arm else ""
        return [self.job.stage, name, which, self.state, self._times(), word]

    def _times(self) -> str:
        """Return the elapsed time and, of a stage that is not done, what was expected."""
        elapsed = clock(self.seconds) if self.seconds is not None else ""
        if self.state not in ("running", "stalled", "waiting"):
            return elapsed
        if self.seconds is not None and self.seconds >= self.expected + 1:
            return f"{elapsed}, longer than the {clock(self.expected)} expected"
        return f"{elapsed} of about {clock(self.expected)}".lstrip()

    def text(self) -> str:
        """Return the cells as one aligned line."""
        number, name, which, state, times, word = self.cells()
        return f"{number} {name:<21} {which:<18} {state:<10} {times:<19} {word}".rstrip()


class Display:
    """Shows the jobs of one call.  Use as a context manager; ``watch.Watch`` calls it.

    stalled: jobs that are to be shown as such instead of running.
    """

    def __init__(
        self, planned: Sequence[Planned], expected: Mapping[str, float], console: Console | None = None
    ):
        self.planned, self.expected = planned, expected
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.started = time.time()
        self.stalled: set[Job] = set()
        self.shown: dict[Job, tuple[str, float]] = {}  # job -> (state, when its line was last printed)
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> Display:
        """Start drawing."""
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def lines(self, board: Board) -> list[Line]:
        """Return how all jobs stand now."""
        return [self.line(planned, board) for planned in self.planned]

    def tell(self, text: str) -> None:
        """Print a paragraph that stays, above what is redrawn."""
        self.console.print(text, markup=False)

    def show(self, lines: Sequence[Line]) -> None:
        """Draw the jobs."""
        if self.live:
            self.live.update(_table(lines), refresh=True)
        else:
            self._print_changes(lines)

    def line(self, planned: Planned, board: Board) -> Line:
        """Return how one job stands now."""
        status, expected = self._status(planned.job, board), self.expected[planned.job.stage]
        if status is None:
            state = "waiting" if planned.reason else "up to date"
            return Line(planned.job, state, None, expected, planned.reason or "")
        state = "stopped" if status.gone else status.state
        beat = board.heartbeat(planned.job) if state == "running" else None
        shown = "stalled" if state == "running" and planned.job in self.stalled else state
        return Line(planned.job, shown, status.elapsed, expected, beat.line() if beat else "")

    def endings(self, board: Board) -> list[str]:
        """Return one paragraph for every job that failed, or was stopped."""
        found = []
        for planned in self.planned:
            status = self._status(planned.job, board)
            if status is None or status.state == "done":
                continue
            why = status.message or "its process was ended from outside (memory, or a signal)"
            found.append(
                f"stage {planned.job.stage} ({planned.job.name}) "
                f"{status.state if status.message else 'stopped'}: {why}\n"
                f"  log: {board.log(planned.job)}\n  notebook: {board.notebook(planned.job)}"
            )
        return found

    def _status(self, job: Job, board: Board) -> Status | None:
        """Return the job's status when it is of this call, not of an earlier one."""
        status = board.status(job)
        return status if status and status.started >= self.started else None

    def _print_changes(self, lines: Sequence[Line]) -> None:
        now = time.time()
        for line in lines:
            state, printed = self.shown.get(line.job, ("waiting", 0.0))
            due = line.state == "running" and now - printed >= QUIET_EVERY
            if line.state != state or due:
                self.shown[line.job] = (line.state, now)
                self.console.print(line.text(), markup=False)


def estimate(settings: Settings) -> str:
    """Return how long the profile takes, and of what this is true where the run does other work."""
    about, source = f"about {settings.source.needs.minutes:g} min", settings.source
    changed = {
        name for stage, values in settings.stages.items() for name, value in values.items()
        if value != source.stages[stage].get(name, "") and name not in artifacts.FREE_PARAMETERS
    }
    if changed & {"questions_dir", "questions_source", "corpus_file"}:
        return f"{about} with the profile's own questions"
    same = not changed and [*settings.arms] == source.arms and [*settings.seeds] == source.seeds
    return about if same else f"{about} with the profile's own parameters"


def plan_lines(planned: Sequence[Planned], expected: Mapping[str, float]) -> list[str]:
    """Return one line per job: what would run and why."""
    lines = []
    for item in planned:
        state = "would run" if item.reason else "up to date"
        why = f"{item.reason}, about {clock(expected[item.job.stage])}" if item.reason else ""
        lines.append(Line(item.job, state, None, 0.0, why).text())
    return lines


def results(folder: Path) -> list[str]:
    """Return where the results of a run are: report, scores, figures, executed notebooks."""
    scores, costs = folder / artifacts.STAGES["04"], folder / artifacts.STAGES["05"]
    wanted = [
        ("report", [folder / "report.html"]),
        ("reading", [folder / "trajectories.html"]),
        ("scores", sorted(scores.glob("scores.*"))),
        ("costs", sorted(costs.glob("costs.*"))),
        ("figures", sorted({path.parent for path in folder.rglob("figures/*.png")})),
        ("notebooks", [folder / "notebooks"]),
    ]
    return [f"  {name:<10}{path}" for name, paths in wanted for path in paths if path.exists()]


def run_states() -> list[str]:
    """Return one line per run folder: name, profile, finished stages."""
    lines = []
    for settings_file in sorted(artifacts.outputs_dir().glob("*/settings.json")):
        if settings_file.parent.is_symlink():
            continue  # outputs/latest, listed under its own name
        settings = files.find_object(settings_file, {"profile": str})
        done = [
            stage
            for stage, name in artifacts.STAGES.items()
            if any((settings_file.parent / name).rglob(artifacts.MANIFEST))
        ]
        profile = settings["profile"] if settings else "(damaged)"
        lines.append(clean(f"  {settings_file.parent.name:<16} profile {profile:<12} finished: {' '.join(done)}"))
    return lines


def _table(lines: Sequence[Line]) -> Table:
    table = Table.grid(padding=(0, 2))
    for line in lines:
        cells = line.cells()
        table.add_row(
            *(
                Text(cell, style=STYLES.get(line.state, "dim") if at == 3 else "")
                for at, cell in enumerate(cells)
            )
        )
    return table
