"""Runs one notebook with one set of parameters: papermill, with its silent traps closed.

The notebook is inspected first: a parameter it does not have, one it has and nobody set, or one of
another type stops the run.  The kernel is this very interpreter, whatever kernels the user installed.
The executed copy, with outputs and the failing cell marked, is kept in every case.  Called by the
Snakefile as ``python -m zerosearch.notebook_runner``; torch is never imported in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Iterator, Mapping

import psutil
from rich.text import Text

from zerosearch import artifacts, files, jobs
from zerosearch.errors import ConfigError, MissingInput, WorkbookError, unknown_name
from zerosearch.interrupts import GO_ON, SIGNALS, Stopped
from zerosearch.layouts import LAYOUT_VARIABLE
from zerosearch.processes import ProcessId, alive
from zerosearch.stage_parameters import LOSS_VARIABLE, PACKING_VARIABLE
from zerosearch.temporary import noted_folder

START_TIMEOUT = 120  # seconds that a kernel may take to start on a busy machine
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")


class NotebookFailed(WorkbookError):
    """A notebook stopped; the message is its own error, or says in which cell it was."""


@dataclass(frozen=True)
class NotebookRun:
    """One execution.  source: the notebook.  executed: where its copy with outputs goes.  log: live text.

    loss, packing: how trainers compute (the profile's lines).  layout: what of the profile's is not the default.
    """

    source: Path
    executed: Path
    log: Path
    parameters: Mapping[str, Any]
    offline: bool = True
    loss: str = "plain"
    layout: Mapping[str, Any] = field(default_factory=dict)
    packing: str = "padded"


class KernelStop:
    """Passes a request to end on to the notebook: as its interrupt button would, and between two cells.

    A notebook in the middle of long work saves it and says so (see ``interrupts``).
    """

    requested = started = False  # started: the kernel is up and its first cell was sent

    @contextlib.contextmanager
    def taking_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM of this process for the length of a block; only the main thread may."""
        before = {number: signal.signal(number, self._pass_on) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def before_cell(self, **_: object) -> None:
        """Raise Stopped when nothing more is to be started: an idle kernel takes no notice of signals."""
        self.started = True
        if self.requested:
            raise Stopped(f"stopped as asked, between two cells; {GO_ON}")

    def _pass_on(self, *_: object) -> None:
        self.requested = True
        for kernel in psutil.Process().children() if self.started else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                kernel.send_signal(signal.SIGINT)


def run_notebook(run: NotebookRun, stop: KernelStop | None = None) -> None:
    """Check the parameters and execute the notebook in its own folder.

    Raises ConfigError for parameters that do not fit, NotebookFailed when a cell fails or the kernel
    dies, Stopped when ``stop`` was requested.  What the notebook prints appears in ``run.log`` at once.
    """
    stop = stop or KernelStop()
    check_parameters(run.source, run.parameters)
    import papermill
    from nbclient.exceptions import DeadKernelError

    run.executed.parent.mkdir(parents=True, exist_ok=True)
    run.log.parent.mkdir(parents=True, exist_ok=True)
    environment = kernel_environment(
        int(run.parameters.get("threads", 1)), run.offline, run.loss, run.layout, run.packing
    )
    with noted_folder(run.log) as folder, own_kernel(environment, folder), run.log.open("a", encoding="utf-8") as log:
        try:
            papermill.execute_notebook(
                run.source,
                run.executed,
                dict(run.parameters),
                kernel_name="python3",
                progress_bar=False,
                stdout_file=log,
                stderr_file=log,
                cwd=run.source.parent,
                start_timeout=START_TIMEOUT,
                on_cell_start=stop.before_cell,
            )
        except papermill.PapermillExecutionError as error:
            stack = Text.from_ansi("\n".join(error.traceback)).plain
            log.write(f"{stack}\n")
            place = f"{run.source.name} stopped in cell [{error.exec_count}]"
            if stop.requested:
                saved = error.evalue if error.ename == Stopped.__name__ else f"{place} as asked; {GO_ON}"
                raise Stopped(saved) from error
            for_users = stack.strip() == f"{error.ename}: {error.evalue}".strip()  # no stack: a WorkbookError
            where = "" if for_users else f"{place}: {error.ename}: "
            raise NotebookFailed(f"{where}{error.evalue}") from error
        except DeadKernelError as error:
            raise NotebookFailed(
                f"the Python process of {run.source.name} died, most often because memory ran out; free some "
                f"memory or set a smaller batch, then run the same command again"
            ) from error


def check_parameters(source: Path, given: Mapping[str, Any]) -> None:
    """Raise ConfigError unless given has exactly the notebook's parameters, each of its type."""
    declared = inspect_parameters(source)
    for name in given:
        if name not in declared:
            raise unknown_name(f"{source.name}: parameter", name, tuple(declared))
    unset = [name for name in declared if name not in given]
    if unset:
        raise ConfigError(
            f"{source.name}: expected a value for every parameter, found none for {', '.join(unset)}; add it "
            f"to lib/zerosearch/stage_parameters.py and to the profiles"
        )
    for name, value in given.items():
        wanted, found = declared[name], type(value).__name__
        if found != wanted and (wanted, found) != ("float", "int"):
            raise ConfigError(f"{source.name}: parameter {name}: expected {wanted}, found {found} {value!r}")


def inspect_parameters(source: Path) -> dict[str, str]:
    """Return {name: type name} of the parameters cell; ConfigError when there is none to be found."""
    if not source.is_file():
        raise MissingInput(
            f"expected the notebook {source}, found none; restore it with `git checkout notebooks`"
        )
    import papermill

    declared = papermill.inspect_notebook(source)
    if not declared:
        raise ConfigError(
            f"{source.name}: expected one cell tagged 'parameters' with `name: type = value` lines"
        )
    return {name: str(p["inferred_type_name"]) for name, p in declared.items()}


def kernel_environment(
    threads: int, offline: bool, loss: str = "plain", layout: Mapping[str, Any] = MappingProxyType({}),
    packing: str = "padded",
) -> dict[str, str]:
    """Return the environment variables of a notebook's process."""
    environment = {
        name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }
    environment |= {
        LOSS_VARIABLE: loss,
        LAYOUT_VARIABLE: json.dumps(dict(layout)) if layout else "",
        PACKING_VARIABLE: packing,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    return environment | ({name: "1" for name in OFFLINE} if offline else {})


@contextlib.contextmanager
def own_kernel(environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Make ``python3`` mean this interpreter, with these variables, for kernels started inside.

    A kernel named python3 in the user's folder may belong to another Python; ``JUPYTER_PATH`` comes
    before it.  A fresh IPython folder keeps the user's start-up scripts out.  folder: a temporary one.
    """
    before = dict(os.environ)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {
        "argv": command,
        "display_name": "Python 3",
        "language": "python",
        "metadata": {"debugger": False},
    }
    files.write_json(folder / "kernels" / "python3" / "kernel.json", spec)
    others = [os.environ["JUPYTER_PATH"]] if os.environ.get("JUPYTER_PATH") else []
    os.environ |= {
        **environment,
        "JUPYTER_PATH": os.pathsep.join([str(folder), *others]),
        "IPYTHONDIR": str(folder),
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main(arguments: list[str] | None = None) -> int:
    """Run one stage of a run as the Snakefile asks; return 0, or 1 when it failed."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--settings", type=Path, required=True, help="settings.json of the run")
    parser.add_argument("--stage", required=True, choices=tuple(artifacts.STAGES))
    parser.add_argument("--arm")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    settings = files.read_json(options.settings)
    job = jobs.Job(options.stage, options.arm, options.seed)
    board = jobs.Board(options.settings.resolve().parent)
    end_with(ProcessId.from_text(os.environ.get(jobs.OWNER_VARIABLE, "")))
    parameters = dict(settings["stages"][options.stage])
    if options.arm is not None:
        parameters |= {"arm": options.arm, "seed": options.seed}
    source = artifacts.notebook_path(options.stage)
    run = NotebookRun(
        source, board.notebook(job), board.log(job), parameters, settings["offline"], settings["loss"],
        settings.get("layout", {}), settings["packing"],
    )
    if job.name in settings.get("finished", ()) and artifacts.restore(settings["run"], job.stage, job.arm, job.seed):
        board.started(job)
        board.ended(job, "done")
        return 0
    stop = KernelStop()
    with stop.taking_signals():
        return _run_job(run, board, job, stop)


def end_with(owner: ProcessId | None, poll_seconds: float = 1.0) -> None:
    """End this process, and with it the kernel, soon after its owner (the command line) is gone.

    A command that is killed cannot stop its children; without this they would work on unseen and
    meet the next call in the same folder.  None: nobody owns it, e.g. when Snakemake is called by hand.
    """

    def watch() -> None:
        while alive(owner):
            time.sleep(poll_seconds)
        os._exit(1)  # the kernel notices that its parent is gone and ends too

    if owner is not None:
        threading.Thread(target=watch, daemon=True).start()


def _run_job(run: NotebookRun, board: jobs.Board, job: jobs.Job, stop: KernelStop) -> int:
    """Run the notebook and keep its state where the command line sees it."""
    run.log.parent.mkdir(parents=True, exist_ok=True)
    run.log.write_text(f"{json.dumps(dict(run.parameters))}\n", encoding="utf-8")
    board.started(job)
    try:
        run_notebook(run, stop)
    except Stopped as error:
        board.ended(job, "stopped", str(error))
        return 1
    except WorkbookError as error:
        board.ended(job, "failed", str(error))
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # the reader gets one sentence, the log gets the rest
        with run.log.open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        board.ended(job, "failed", f"{type(error).__name__}: {error}")
        return 1
    board.ended(job, "done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
