"""The command line behind ``./run_all.sh``: options in, checked settings, Snakemake, results.

Everything a user can get wrong is found before the first notebook starts.  Exit codes: 0 finished,
1 a stage failed, 2 an option, value or file is wrong, 3 something is missing on this machine (or its disk is
full), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator, NoReturn, Sequence

from zerosearch import artifacts, checks, cluster, commands, console, files, layouts, pipeline, profiles, published_rows, watch
from zerosearch.errors import ConfigError, NotReady, did_you_mean, unknown_name
from zerosearch.notebook_files import code_digest
from zerosearch.options import Options, parse
from zerosearch.planning import fit
from zerosearch.plain_text import clean
from zerosearch.progress import clock
from zerosearch.question_sets.own import Choice


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the options ask and return the exit code; a user never sees a traceback."""

    def work() -> int:
        with _signals_as_interrupts():
            return _dispatch(parse(arguments))

    return commands.ended(work)


def _dispatch(options: Options) -> int:
    if options.list:
        return _list()
    if options.clean:
        return _clean(options.clean, options.dry_run)
    settings = _settings(options)
    if options.verify:
        from zerosearch import verify

        verify.reference_folder(settings.profile)  # before an hour of work: there is something to compare with
    folder = artifacts.run_dir(settings.run)
    _check_same_profile(options, folder)
    selection = pipeline.Selection(options.from_stage, options.only)
    on_cluster = _cluster(options, settings)
    problems, too_small, notes = _check(options, settings, folder, selection)
    _refuse(problems if options.dry_run else problems + too_small)
    print(clean("".join(f"note: {note}\n" for note in [*too_small, *notes])), end="")
    if options.dry_run:
        return _dry_run(settings, folder, selection, on_cluster)
    return _run(settings, folder, selection, options.command, on_cluster) or (_verify(settings) if options.verify else 0)


def _cluster(options: Options, settings: profiles.Settings) -> dict[str, Any] | None:
    """Return what a run's settings say of a cluster, None where notebooks run here."""
    if options.executor == "local" and (options.slurm_partition or options.slurm_account):
        raise ConfigError(
            "--slurm-partition and --slurm-account: expected --executor slurm with them, found a run on this machine; "
            "add it, or leave them out"
        )
    if options.executor == "local":
        return None
    return cluster.described(settings, options.slurm_partition or "", options.slurm_account or "")


def _check(
    options: Options, settings: profiles.Settings, folder: Path, selection: pipeline.Selection
) -> tuple[list[str], list[str], list[str]]:
    """Return (problems, what this machine lacks, notes) of a call: everything that can be known before it starts.

    What the machine lacks is no hindrance to a dry run: another one may have it.
    """
    stages = _stages_of(selection)
    choice = Choice.of(settings.stage("00"))
    data, notes = checks.question_problems(choice, checks.searches(settings, stages))
    not_there, downloads = checks.collection_problems(choice, settings.source.offline) if "00" in stages else ([], [])
    damaged, absent = checks.model_problems(settings, stages)
    absent += checks.engine_problems(settings, stages)
    problems = checks.package_problems() + checks.notebook_problems() + data + damaged
    problems += checks.server_problems(settings, stages) + checks.algorithm_problems(settings, stages)
    problems += checks.overlap_problems(settings, stages)
    problems += checks.price_book_problems(settings.stage("05")["price_book"])
    elsewhere = options.executor != "local"
    too_small, on_cards = _machine(settings, stages, folder, elsewhere)
    warning = "" if elsewhere else checks.memory_warning(settings.source.needs)
    notes += checks.money_notes(settings, stages)
    told = notes + downloads + ([warning] if warning and not too_small else [])
    return problems, too_small + absent + on_cards + not_there, told


def _machine(
    settings: profiles.Settings, stages: list[str], folder: Path, elsewhere: bool
) -> tuple[list[str], list[str]]:
    """Return (what is too small, what engines and weights lack) for these stages; elsewhere: on a cluster's nodes.

    Of the nodes it is known what they are asked for, and no more.
    """
    needs = settings.source.needs
    if elsewhere:
        disk = checks.machine_problems(replace(needs, memory_gib=0.0, gpus=0), folder)
        too_small = [*cluster.problems(), *disk, *fit.problems(settings, stages, needs.memory_gib)]
        lacking = checks.text_engine_problems(settings, stages, needs.gpus)
        return too_small, lacking + checks.simulator_weights_problems(settings, stages, on_nodes=True)
    too_small = [*checks.machine_problems(needs, folder), *fit.problems(settings, stages, checks.usable_memory_gib())]
    lacking = checks.text_engine_problems(settings, stages)
    return too_small, lacking + checks.simulator_weights_problems(settings, stages)


def _stages_of(selection: pipeline.Selection) -> list[str]:
    """Return the stages that a call is about."""
    if selection.only:
        return [selection.only]
    return [stage for stage in artifacts.STAGES if stage >= (selection.from_stage or "")]


def _settings(options: Options) -> profiles.Settings:
    """Return the validated settings of a call; the run is named after its profile unless said otherwise."""
    profile = options.profile or (_profile_of(options.run) if options.verify else None) or "laptop"
    row = published_rows.overrides(options.row, profiles.read_profile(profile)) if options.row else {}
    settings = profiles.load(
        profile,
        {**row, **options.overrides},
        run=options.run or "-".join(filter(None, (profile, options.row))),
        arms=options.arms,
        seeds=options.seeds,
        questions_dir=str(options.questions) if isinstance(options.questions, Path) else "",
        corpus_file=str(options.corpus or ""),
        questions_source=options.questions if isinstance(options.questions, str) else "",
    )
    from zerosearch.training.arms import ARMS

    for arm in settings.arms:
        if arm not in ARMS:
            raise unknown_name("--arms", arm, tuple(ARMS))
    return settings


def _profile_of(run: str | None) -> str | None:
    """Return the profile that an existing run was made with; to verify it, its name is enough."""
    return artifacts.recorded_profile(run) if run else None


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise NotReady("\n".join(problems))


def _check_same_profile(options: Options, folder: Path) -> None:
    """A run keeps its profile: without this, forgetting --profile would redo it with another one."""
    if options.profile is None and not options.verify:
        made_with = artifacts.recorded_profile(folder.name)
        if made_with not in (None, "laptop"):
            raise ConfigError(
                f"run {folder.name!r}: expected the profile it was made with, {made_with!r}, found none "
                f"(which means laptop); add --profile {made_with}, or choose another name with --run"
            )


def run_settings(settings: profiles.Settings, on_cluster: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the Snakefile and the notebook runner read: ``settings.json`` of a run.

    on_cluster: see ``cluster.described``, None where notebooks run here.
    """
    from zerosearch.training.arms import ARMS

    source, served = settings.source, bool(settings.stage("03")["simulator_url"])  # a served one waits for no tuning
    layout = layouts.said(settings.layout)
    deciding = {stage: layouts.deciding(settings.layout, stage) for stage in artifacts.STAGES}
    return {
        "run": settings.run,
        "profile": settings.profile,
        "description": source.description,
        "arms": list(settings.arms),
        "seeds": list(settings.seeds),
        "cores": source.cores,
        "offline": source.offline,
        "loss": source.loss,
        "packing": source.packing,
        "grace_seconds": source.grace_seconds,
        "expected_seconds": source.expected_seconds,
        "python": sys.executable,
        "retrievers": {
            arm: "served" if served and ARMS[arm].simulated else ARMS[arm].retriever for arm in settings.arms
        },
        "code": {stage: code_digest(artifacts.notebook_path(stage)) for stage in artifacts.STAGES},
        "models": {stage: artifacts.base_models(settings.stage(stage)) for stage in artifacts.STAGES},
        "free_parameters": sorted(artifacts.FREE_PARAMETERS),
        "stages": {stage: _shared_parameters(settings, stage) for stage in artifacts.STAGES},
        **({"layout": layout, "deciding_layout": deciding} if layout else {}),
        **({"cluster": on_cluster} if on_cluster else {}),
    }


def _shared_parameters(settings: profiles.Settings, stage: str) -> dict[str, Any]:
    """Return a stage's parameters without those that tell its jobs apart."""
    fixed = ("arm", "seed") if stage in artifacts.PER_ARM else ()
    return {name: value for name, value in settings.stage(stage).items() if name not in fixed}


def _dry_run(
    settings: profiles.Settings, folder: Path, selection: pipeline.Selection, on_cluster: dict[str, Any] | None
) -> int:
    """Show what would run; nothing is written and a machine that is too small is only warned about."""
    with tempfile.TemporaryDirectory() as temporary:
        file = files.write_json(Path(temporary) / "settings.json", run_settings(settings, on_cluster))
        place = folder if folder.is_dir() else Path(temporary) / "run"
        _check_inputs(place, file, selection, settings)
        planned = pipeline.plan(place, file, selection)
    print(_headline(settings, folder))
    print("\n".join(console.plan_lines(planned, settings.source.expected_seconds)))
    print("dry run: nothing was started")
    if on_cluster:
        print("\n".join(cluster.lines(on_cluster, _stages_of(selection))))
    print("\n".join(_plan_lines(settings, folder, selection)))
    return 0


def _plan_lines(settings: profiles.Settings, folder: Path, selection: pipeline.Selection) -> list[str]:
    """Return what the run is expected to need, against what is here."""
    from zerosearch.planning import plan, table  # prices come with tables, which no run needs before it starts

    return table.lines(plan.make(settings, folder, checks.usable_memory_gib(), selected=_stages_of(selection)))


def _run(
    settings: profiles.Settings, folder: Path, selection: pipeline.Selection, command: str,
    on_cluster: dict[str, Any] | None,
) -> int:
    """Run what is stale and show it; return 0, or 1 when a stage failed."""
    started = time.time()
    with pipeline.RunLock(folder):
        file, wanted = folder / "settings.json", run_settings(settings, on_cluster)
        before = files.find_object(file, {"stages": dict, "code": dict, "models": dict}) or {}
        files.write_json(file, wanted)
        _check_inputs(folder, file, selection, settings)
        _point_latest(folder)
        print(_headline(settings, folder), flush=True)
        planned = pipeline.plan(folder, file, selection)
        files.write_json(file, wanted | {"finished": pipeline.finished_unnoticed(planned, before, wanted)})
        if not any(item.reason for item in planned):
            print("everything is up to date; results:\n" + "\n".join(console.results(folder)))
            return 0
        due = [item.job.name for item in planned if item.reason]
        with (
            console.Display(planned, settings.source.expected_seconds) as display,
            watch.Watch(display, folder, settings.source, command) as watcher,
        ):
            try:
                outcome = pipeline.execute(folder, file, selection, watcher.look)
            except KeyboardInterrupt:
                _note_call(folder, time.time() - started, pipeline.Outcome(commands.INTERRUPTED, 0.0), due)
                raise KeyboardInterrupt(*display.endings(pipeline.Board(folder))) from None
            except watch.OutOfSpace:
                _note_call(folder, time.time() - started, pipeline.Outcome(watch.OutOfSpace.exit_code, 0.0), due)
                raise
            watcher.ended(outcome.exit_code)
        failures = display.endings(pipeline.Board(folder))
        wall = time.time() - started
        _note_call(folder, wall, outcome, due)
    if outcome.exit_code != 0:
        message = (
            "\n".join(failures)
            or f"Snakemake stopped:\n{pipeline.last_words(folder / 'logs' / 'snakemake.log')}"
        )
        return commands.complain(f"{message}\nfinished stages are kept; the same command goes on from here", 1)
    print(f"finished in {clock(wall)}, at most {outcome.peak_rss_mib / 1024:.1f} GiB of memory; results:")
    print("\n".join(console.results(folder)))
    return 0


def _verify(settings: profiles.Settings) -> int:
    """Compare the finished run with the committed reference of its profile; 0 when everything agrees."""
    from zerosearch import verify

    return verify.verify(settings.run, settings.profile)


def _check_inputs(
    folder: Path, file: Path, selection: pipeline.Selection, settings: profiles.Settings
) -> None:
    """``--only`` needs finished earlier stages: say which one is not, and how to get it."""
    missing = pipeline.missing_inputs(folder, files.read_json(file), selection)
    if missing:
        raise ConfigError(
            f"--only {selection.only}: expected earlier stages to be finished, found no {', '.join(missing)} "
            f"in {folder}; run `./run_all.sh --run {settings.run} --profile {settings.profile}` first"
        )


def _headline(settings: profiles.Settings, folder: Path) -> str:
    seeds = ", ".join(map(str, settings.seeds))
    return (
        f"run {settings.run} · profile {settings.profile} ({console.estimate(settings)}) · "
        f"arms {', '.join(settings.arms)} · seeds {seeds} · {folder}"
    )


def _note_call(folder: Path, wall: float, outcome: pipeline.Outcome, started_jobs: list[str]) -> None:
    """Append one line about this call: when, how long, how much memory, which notebooks."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    row = {
        "time": now,
        "wall_seconds": round(wall, 1),
        "peak_rss_mib": round(outcome.peak_rss_mib),
        "exit_code": outcome.exit_code,
        "notebooks": started_jobs,
    }
    path = folder / "calls.jsonl"
    cut_off = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")  # by a full disk: keep the next line apart
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut_off + json.dumps(row) + "\n")


def _point_latest(folder: Path) -> None:
    """Make ``outputs/latest`` point at this run, where the file system has links."""
    link = folder.parent / ".latest.part"
    with contextlib.suppress(OSError):
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name, target_is_directory=True)
        os.replace(link, folder.parent / "latest")


def _list() -> int:
    from zerosearch.training.arms import ARMS

    print("profiles (--profile):")
    for name in profiles.names():
        source = profiles.read_profile(name)
        needs = source.needs
        print(f"  {name:<12} {source.description}")
        gpus = f"{needs.gpus} GPU{'s' if needs.gpus > 1 else ''}" if needs.gpus else "no GPU"
        print(f"  {'':<12} {needs.memory_gib:g} GiB memory, {gpus}, about {needs.minutes:g} minutes")
    print("arms (--arms):")
    print("\n".join(f"  {arm.name:<12} {arm.description}" for arm in ARMS.values()))
    print("stages (--from, --only) and their parameters (--set STAGE.NAME=VALUE; values of smoke):")
    for stage, notebook in artifacts.NOTEBOOKS.items():
        smoke = profiles.defaults(stage)
        print(f"  {notebook}: {', '.join(f'{name}={smoke[name]}' for name in profiles.settable(stage))}")
    print(f"  {profiles.LAYOUT}: {', '.join(f'{name}={value}' for name, value in asdict(profiles.Layout()).items())}")
    print(f"published rows (--row, with --profile a100_node): {', '.join(published_rows.rows())}")
    print("\n".join(["runs (--run, --clean):", *(console.run_states() or ["  none yet"])]))
    return 0


def _clean(name: str, dry_run: bool) -> int:
    """Delete one run's folder; the folder must be a run's, and nobody may be at work on it."""
    folder = artifacts.run_dir(name)
    known = [line.split()[0] for line in console.run_states()]
    parts = ("settings.json", *artifacts.STAGES.values())
    if not any((folder / part).exists() for part in parts):
        raise ConfigError(
            f"--clean: expected the name of a run, found {name!r}{did_you_mean(name, known)}; see --list"
        )
    with pipeline.RunLock(folder):
        freed = sum(
            path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
        )
        if not dry_run:
            latest = folder.parent / "latest"
            if latest.is_symlink() and latest.resolve() == folder.resolve():
                latest.unlink()
            shutil.rmtree(folder)
    print(f"{'would delete' if dry_run else 'deleted'} {folder}, {freed / 2**20:.0f} MiB")
    return 0


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Treat a request to end like Ctrl-C, so that notebooks save and end too.

    SIGTERM comes from a cluster that takes the machine back, SIGHUP from a terminal that is gone; whoever
    started this with ``nohup`` wants the latter ignored.
    """

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
