"""Where everything is: run folders, stage folders, inputs from earlier stages, manifests.

The only module that builds paths below ``outputs/``.  A stage folder belongs to one attempt: an
attempt that was cut off is continued when its parameters and inputs are still the same, any other
opening starts with an empty folder (caches and old ledgers stay).  One process at a time works in it.
Called by every notebook.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from zerosearch import files, layouts
from zerosearch.environment import library_versions, machine, peak_rss_mib, source_version
from zerosearch.errors import ConfigError, MissingInput, unknown_name
from zerosearch.files import read_jsonl, read_table, replace_folder, write_atomic
from zerosearch.ledger import ASIDE, LEDGER, Ledger, aside, gather
from zerosearch.processes import FolderLock
from zerosearch.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MANIFEST",
    "MICRO_LM",
    "NOTEBOOKS",
    "OUTPUTS",
    "REPO",
    "STAGES",
    "Ledger",
    "Stage",
    "answers_dir",
    "base_models",
    "cache_dir",
    "notebook_path",
    "open_stage",
    "outputs_dir",
    "read_jsonl",
    "read_ledgers",
    "read_manifest",
    "read_table",
    "recorded_profile",
    "replace_folder",
    "require",
    "rerun_command",
    "run_dir",
    "shown",
    "stage_dir",
    "write_atomic",
]

REPO = Path(__file__).resolve().parents[2]
OUTPUTS = REPO / "outputs"
MICRO_LM = REPO / "data" / "micro_lm"  # the shipped models
STAGES = {
    "00": "00_micro_world",
    "01": "01_collect",
    "02": "02_simulator",
    "03": "03_rl",
    "04": "04_evaluate",
    "05": "05_cost",
}
NOTEBOOKS = {
    "00": "00_micro_world",
    "01": "01_collect_trajectories",
    "02": "02_simulator_sft",
    "03": "03_curriculum_rl",
    "04": "04_evaluate",
    "05": "05_cost_comparison",
}
PER_ARM = ("03",)  # stages with one folder per arm and seed
MANIFEST, ATTEMPT = "manifest.json", "attempt.json"
MANIFEST_KEYS = {"stage": str, "parameters": dict, "results": dict, "inputs": dict, "outputs": dict}
LOCK = ".stage.lock"
ANSWERS = "answers"  # folder below outputs/ that belongs to no run
_KEPT = ("cache", ASIDE, LOCK)  # names (by their beginning) that outlive an attempt
_NOT_RESULTS = ("cache", ASIDE, "checkpoints", LEDGER, ATTEMPT, MANIFEST, "progress.", LOCK)
# How fast and for how much money a stage works, whether it may ask (a replayed answer is the one that was given), and
# whether a collapse ends it:
# a change of these makes no other result of it.
FREE_PARAMETERS = frozenset({
    "max_usd", "retriever_mode", "retriever_workers", "retriever_per_second", "judge_workers", "judge_per_second",
    "simulator_workers", "watch",
})
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def outputs_dir() -> Path:
    """Return the folder of all runs: ``$ZEROSEARCH_OUTPUTS``, or ``outputs/`` in the project."""
    named = os.environ.get("ZEROSEARCH_OUTPUTS", "")
    return Path(named).expanduser().resolve() if named else OUTPUTS


def cache_dir() -> Path:
    """Return the folder of what all runs share and can be made again at any time (it need not exist)."""
    return outputs_dir() / ".cache"


def answers_dir() -> Path:
    """Return the folder in which all runs keep the answers of engines that are remote or cost money."""
    return outputs_dir() / ANSWERS


def notebook_path(stage: str) -> Path:
    """Return the source notebook of a stage: in ``$ZEROSEARCH_NOTEBOOKS`` (own copies) or ``notebooks/``."""
    named = os.environ.get("ZEROSEARCH_NOTEBOOKS", "")
    folder = Path(named).expanduser().resolve() if named else REPO / "notebooks"
    return folder / f"{NOTEBOOKS[stage]}.ipynb"


def run_dir(run: str) -> Path:
    """Return ``outputs/<run>``; ConfigError for a name that is no plain folder name."""
    if not _RUN_NAME.fullmatch(run) or run in ("latest", "reference", ANSWERS):
        raise ConfigError(
            f"run: expected a name of letters, digits, '_', '-' and '.' other than 'latest', 'reference' and "
            f"'{ANSWERS}' (kept for the newest run, the committed one and recorded answers), found {run!r}; choose "
            "another with `--run NAME`"
        )
    return outputs_dir() / run


def stage_dir(run: str, stage: str, arm: str | None = None, seed: int | None = None) -> Path:
    """Return the folder of a stage ("00" to "05"); stage 03 has one per arm and seed."""
    if stage not in STAGES:
        raise unknown_name("stage", stage, tuple(STAGES))
    if (stage in PER_ARM) != (arm is not None and seed is not None):
        wanted = "an arm and a seed" if stage in PER_ARM else "neither arm nor seed"
        raise ConfigError(f"stage {stage}: expected {wanted}, found arm={arm!r}, seed={seed!r}")
    folder = run_dir(run) / STAGES[stage]
    return folder / str(arm) / f"seed{seed}" if stage in PER_ARM else folder


def require(run: str, stage: str, name: str, arm: str | None = None, seed: int | None = None) -> Path:
    """Return an existing file or folder that another stage wrote.

    Raises MissingInput naming the file, the notebook and the command that make it.
    """
    path = stage_dir(run, stage, arm, seed) / name
    if path.exists():
        return path
    options = f" --arms {arm} --seeds {seed}" if arm is not None else ""
    command = f"./run_all.sh --run {run} --profile {_profile_of(run)}{options}"
    raise MissingInput(
        f"expected {shown(path)} from stage {stage}, found nothing there; make it with "
        f"notebooks/{NOTEBOOKS[stage]}.ipynb or `{command} --only {stage}` "
        f"(with everything before it: `{command}`)"
    )


def read_manifest(run: str, stage: str, arm: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Return the manifest of a finished stage; MissingInput when it has not finished, BadInput if damaged."""
    path = require(run, stage, MANIFEST, arm, seed)
    return files.read_object(path, MANIFEST_KEYS, rerun_command(run, stage))


def read_ledgers(run: str) -> pd.DataFrame:
    """Return all ledger events of a run, one row each (see ``ledger.gather``)."""
    return gather(run_dir(run))


def open_stage(
    run: str, stage: str, parameters: Mapping[str, Any], arm: str | None = None, seed: int | None = None
) -> Stage:
    """Open a stage folder for writing; see ``Stage``.

    parameters: the values of the notebook's parameters cell.  A folder of a finished attempt, or of one
    with other parameters or inputs, is emptied first.
    """
    return Stage(run, stage, dict(parameters), arm, seed)


class Stage:
    """One stage at work: its folder, what it read, what it spent, how far it is.

    dir: the folder.  ledger: where spent queries, tokens and seconds are written.  resumed: True when
    an attempt that was cut off is being continued, so that checkpoints in the folder may be used.
    """

    def __init__(
        self,
        run: str,
        stage: str,
        parameters: dict[str, Any],
        arm: str | None = None,
        seed: int | None = None,
    ):
        self.run, self.stage, self.arm, self.seed = run, stage, arm, seed
        self.parameters = files.through_json(parameters)
        self.dir = stage_dir(run, stage, arm, seed)
        self._lock = FolderLock(self.dir / LOCK)
        self._lock.take(f"stage {stage} of run {run!r}")
        self.inputs: dict[str, str] = {}
        self.models = base_models(self.parameters)
        self.layout = layouts.in_force()
        self.resumed = self._continues()
        if not self.resumed:
            self._start_afresh()
        self._started, self._clock = _now(), time.perf_counter()
        self._write_attempt("running")
        self.ledger = Ledger(self.path(LEDGER), stage, arm, seed)
        self.ledger.keep(lambda unit: unit is not None)  # work without a unit is done again
        where = " ".join([STAGES[stage], *([arm, f"seed{seed}"] if arm is not None else [])])
        self._progress = Progress(self.dir, where)

    @property
    def figures(self) -> Path:
        """The folder for figures (made when first asked for)."""
        folder = self.path("figures")
        folder.mkdir(exist_ok=True)
        return folder

    def path(self, name: str) -> Path:
        """Return the path of a file of this stage."""
        return self.dir / name

    def require(self, stage: str, name: str, arm: str | None = None, seed: int | None = None) -> Path:
        """Like ``artifacts.require`` for this run; the input's hash goes into the manifest."""
        path = require(self.run, stage, name, arm, seed)
        self.inputs[path.relative_to(run_dir(self.run)).as_posix()] = files.sha256(path)
        self._write_attempt("running")
        return path

    def reads(self, path: Path) -> Path:
        """Return a file from outside the run after noting its hash, under its whole path, among the inputs."""
        self.inputs[str(path.absolute())] = files.sha256(path)
        self._write_attempt("running")
        return path

    def find(self, stage: str, name: str) -> Path | None:
        """Like ``require``, but None where that stage wrote no such file: some are made for some runs only."""
        there = (stage_dir(self.run, stage) / name).exists()
        return self.require(stage, name) if there else None

    def write_table(self, table: pd.DataFrame, name: str) -> Path:
        """Write a table as ``.parquet`` or ``.csv`` (by the name), whole or not at all."""
        return files.write_table(self.path(name), table)

    def write_json(self, obj: object, name: str) -> Path:
        """Write one JSON document."""
        return files.write_json(self.path(name), obj)

    def write_jsonl(self, rows: Iterable[object], name: str) -> Path:
        """Write one JSON document per line."""
        return files.write_jsonl(self.path(name), rows)

    def write_text(self, text: str, name: str) -> Path:
        """Write text as UTF-8."""
        return write_atomic(self.path(name), text)

    def save_model(self, save: Callable[[Path], object], name: str) -> Path:
        """Call ``save(folder)``, e.g. ``model.save_pretrained``, and show the folder once it is whole."""
        return files.save_folder(self.path(name), save)

    def progress(
        self, done: float, total: float, message: str = "", metric: str | None = None, **metrics: float
    ) -> None:
        """Say how far the stage is: done of total units, what is going on, the number that matters.

        metric: ready text such as ``"loss 0.123"``; or named numbers, e.g. ``reward=0.31``.  Prints a
        line every few seconds and leaves it in ``progress.json`` for the command line to show.
        """
        self._progress.report(done, total, message, metric, metrics)

    def finish(self, **results: Any) -> Path:
        """Declare the stage finished: write ``manifest.json`` and return its path.

        results: the numbers worth quoting.  Afterwards the folder belongs to a finished attempt.
        """
        self._progress.close()
        manifest = {
            "stage": STAGES[self.stage],
            "run": self.run,
            "arm": self.arm,
            "seed": self.seed,
            "parameters": self.parameters,
            "results": results,
            "started": self._started,
            "finished": _now(),
            "wall_seconds": round(time.perf_counter() - self._clock, 3),
            "resumed": self.resumed,
            "peak_rss_mib": round(peak_rss_mib(), 1),
            **machine(),
            **source_version(REPO),
            "versions": library_versions(),
            "inputs": self.inputs,
            "models": self.models,
            **({"layout": said} if (said := layouts.said(self.layout)) else {}),
            "outputs": self._output_hashes(),
        }
        path = files.write_json(self.path(MANIFEST), manifest)
        shutil.rmtree(self.path("checkpoints"), ignore_errors=True)  # the results are whole: they have served
        self._write_attempt("finished", manifest=manifest)  # last: killed before this, it is continued, not repeated
        self.release()
        return path

    def release(self) -> None:
        """Let other processes work in the folder; a stage that finishes, or a process that ends, does it by itself."""
        self._lock.free()

    def _continues(self) -> bool:
        """Say whether the folder holds a cut-off attempt with these parameters, models and unchanged inputs."""
        attempt = files.find_object(self.path(ATTEMPT), {"state": str, "parameters": dict, "inputs": dict})
        if attempt is None or attempt["state"] != "running":
            return False
        if _deciding(attempt["parameters"]) != _deciding(self.parameters):
            return False
        if attempt.get("models") != self.models or attempt.get("layout", {}) != self._deciding_layout():
            return False
        root = run_dir(self.run)
        inputs = ((root / name, digest) for name, digest in attempt["inputs"].items())
        return all(path.exists() and files.sha256(path) == digest for path, digest in inputs)

    def _start_afresh(self) -> None:
        """Empty the folder, keeping caches and setting the old ledger aside."""
        with files.disk_problems(self.dir):
            self.dir.mkdir(parents=True, exist_ok=True)
        ledger = self.path(LEDGER)
        if ledger.exists():
            aside(ledger).parent.mkdir(exist_ok=True)
            os.replace(ledger, aside(ledger))
        for path in self.dir.iterdir():
            if not path.name.startswith(_KEPT):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _write_attempt(self, state: str, **more: Any) -> None:
        attempt = {"state": state, "parameters": self.parameters, "inputs": self.inputs, "models": self.models}
        layout = self._deciding_layout()
        files.write_json(self.path(ATTEMPT), attempt | ({"layout": layout} if layout else {}) | more)

    def _deciding_layout(self) -> dict[str, Any]:
        return layouts.deciding(self.layout, self.stage)

    def _output_hashes(self) -> dict[str, str]:
        names = (p.relative_to(self.dir) for p in files.files_below(self.dir))
        results = (name for name in names if not name.parts[0].startswith(_NOT_RESULTS))
        return {name.as_posix(): files.sha256(self.dir / name) for name in results}


def _deciding(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in FREE_PARAMETERS}


def restore(run: str, stage: str, arm: str | None = None, seed: int | None = None) -> bool:
    """Give a stage its manifest back that finished and whose command was killed before it took notice.

    Returns False, and changes nothing, unless it finished and every input and output is as it left them.
    """
    folder = stage_dir(run, stage, arm, seed)
    if not finished(run, stage, arm, seed):
        return False
    manifest = files.read_json(folder / ATTEMPT)["manifest"]
    hashed = [(run_dir(run) / name, digest) for name, digest in manifest["inputs"].items()]
    hashed += [(folder / name, digest) for name, digest in manifest["outputs"].items()]
    if not all(path.exists() and files.sha256(path) == digest for path, digest in hashed):
        return False
    files.write_json(folder / MANIFEST, manifest)
    return True


def finished(run: str, stage: str, arm: str | None = None, seed: int | None = None) -> bool:
    """Say whether the last attempt in a stage's folder finished, whatever became of its manifest."""
    attempt = files.find_object(stage_dir(run, stage, arm, seed) / ATTEMPT, {"state": str})
    return attempt is not None and attempt["state"] == "finished" and isinstance(attempt.get("manifest"), dict)


def base_models(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return SHA-256 of the weights of every shipped model that the parameters name as ``micro/NAME``."""
    named = {v for v in parameters.values() if isinstance(v, str) and v.startswith("micro/")}
    weights = {name: MICRO_LM / name.partition("/")[2] / "model.safetensors" for name in sorted(named)}
    return {name: files.sha256(path) for name, path in weights.items() if path.is_file()}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _profile_of(run: str) -> str:
    return recorded_profile(run) or "smoke"


def recorded_profile(run: str) -> str | None:
    """Return the profile a run was made with: of its settings, or else of a manifest; None for a new run."""
    settings = files.find_object(run_dir(run) / "settings.json", {"profile": str})
    if settings is not None:
        return settings["profile"]
    paths = sorted(path for stage in STAGES.values() for path in (run_dir(run) / stage).rglob(MANIFEST))
    made = (files.find_object(path, {"parameters": dict}) for path in paths)
    found = (manifest["parameters"].get("profile") for manifest in made if manifest is not None)
    return next((profile for profile in found if isinstance(profile, str)), None)


def rerun_command(run: str, stage: str) -> str:
    """Return the words that tell how a stage is run again, for messages about its damaged files."""
    profile = recorded_profile(run) or "NAME"
    return f"run its stage again with `./run_all.sh --run {run} --profile {profile} --from {stage}`"


def shown(path: Path) -> str:
    """Return a path as a reader would type it: relative to the project where it is inside."""
    return str(path.relative_to(REPO)) if path.is_relative_to(REPO) else str(path)
