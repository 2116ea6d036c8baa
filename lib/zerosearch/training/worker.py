"""What one of the processes that train a model together does.  Called by ``process``, with the folder of a job.

Every process loads the model for itself; the job says which training follows.  The first one writes into the stage's
folder; the others write into one that is thrown away.  What ends a process is told to the notebook in a file (see
``launching``).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import pandas as pd
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import PreTrainedModel

from zerosearch import adapters, files
from zerosearch.interrupts import Stopped
from zerosearch.ledger import Ledger
from zerosearch.microworld import models
from zerosearch.training import launching, sharding
from zerosearch.training.health import Collapsed
from zerosearch.training.team import Team

JOB, BASE, TRAINED = "job.pickle", "base", "trained.safetensors"
PATIENCE = timedelta(hours=6)  # with each other: rollouts take long, and who has died ends all by other means
_TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")


@dataclass(frozen=True, slots=True)
class Job:
    """A training, but for its base model, which stands in the job's folder.

    stage: folder of the stage.  place: of its ledger.  history: file of the stage that a training goes on from.
    train: trains a model in place, given (model, stage, team); a function of a module, or ``partial`` of one, since it is
    pickled.
    """

    stage: Path
    place: Mapping[str, Any]
    history: str
    train: Callable[[PreTrainedModel, Any, Team], object]


class WorkerStage:
    """The stage's folder for the process that writes, a folder of its own for every other; see ``artifacts.Stage``."""

    def __init__(self, job: Job, folder: Path, team: Team):
        self.dir, self.told = job.stage, folder / launching.PROGRESS if team.leads else None
        if not team.leads:
            self.dir = Path(tempfile.mkdtemp(dir=folder))
            if (job.stage / job.history).exists():
                shutil.copy(job.stage / job.history, self.dir)
        self.ledger = Ledger(self.dir / "ledger.jsonl", **job.place)

    def path(self, name: str) -> Path:
        """Return the path of a file of the stage."""
        return self.dir / name

    def write_table(self, table: pd.DataFrame, name: str) -> Path:
        """Write a table, whole or not at all."""
        return files.write_table(self.path(name), table)

    def progress(self, done: float, total: float, message: str = "", **metrics: float) -> None:
        """Leave a row of progress for the notebook."""
        if self.told is not None:
            row = {"done": done, "total": total, "message": message, "metrics": metrics}
            files.append_text(self.told, json.dumps(row) + "\n")


def join(sign: Path | None = None) -> Team:
    """Meet the other processes; return this one's place among them.

    Afterwards nothing tells transformers and accelerate of the others.  sign: see ``Team``.
    """
    rank, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    for name in [*_TOLD, *(name for name in os.environ if name.startswith("ACCELERATE_"))]:
        os.environ.pop(name, None)
    return Team(rank, size, group, sign)


def work(folder: Path, team: Team) -> int:
    """Do a job; leave what came of it, and return the exit code: not 0 where the others cannot go on either."""
    return launching.telling(lambda: _work(folder, team), folder, team.rank)


def _work(folder: Path, team: Team) -> int:
    done: dict[str, Any] = {"kind": "trained"}
    try:
        job: Job = pickle.loads((folder / JOB).read_bytes())  # written by the notebook that started us
        model, _ = models.load(str(folder / BASE))
        job.train(model, WorkerStage(job, folder, team), team)
        weights = sharding.whole_weights(adapters.present_weights(model), kept=team.leads)
        if team.leads:
            save_file(weights, folder / TRAINED)
    except (Collapsed, Stopped) as end:  # all processes come to it together
        done = {"kind": type(end).__name__, "message": str(end)}
    if team.leads:
        files.write_json(folder / launching.DONE, done)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, meet the others, work, and part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    folder = parser.parse_args(arguments).job
    team = join(folder / launching.STOP)
    code = work(folder, team)
    if code == 0:
        dist.destroy_process_group()
    return code
