"""What one of the processes that train a policy together does.  Called by ``process``, with the folder of a job.

Every process opens a policy, an engine and a retriever of its own.  The first one writes into the stage's folder; the
others write into one that is thrown away.  What ends a process is told to the notebook in a file (see ``launching``).
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
from typing import Any, Mapping, Sequence

import pandas as pd
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import files
from zerosearch.curriculum import Curriculum
from zerosearch.engines.opening import open_text_engine
from zerosearch.interrupts import Stopped
from zerosearch.ledger import Ledger
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Question
from zerosearch.training import launching
from zerosearch.training.arm_setup import Opening, open_again
from zerosearch.training.asking import Asking
from zerosearch.training.health import Collapsed
from zerosearch.training.policy_rl import METRICS, train_policy
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.team import Team

JOB, POLICY, TRAINED = "job.pickle", "policy", "trained.safetensors"
PATIENCE = timedelta(hours=6)  # with each other: rollouts take long, and who has died ends all by other means
_TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")


@dataclass(frozen=True, slots=True)
class Job:
    """What a training needs beside its base policy, which stands in the job's folder.

    stage: folder of the stage.  place: of its ledger.  retriever: how it is opened, or one that can be pickled.
    engine_name, max_batch: of the engine.  threads: of each process.  The rest is the arguments of ``train_policy``.
    """

    stage: Path
    place: Mapping[str, Any]
    questions: Sequence[Question]
    tokenizer: PreTrainedTokenizerBase
    prompts: Prompts
    retriever: Opening | Retriever
    settings: RLSettings
    curriculum: Curriculum
    rollout_settings: RolloutSettings
    identity: Mapping[str, Any]
    asking: Asking
    engine_name: str = "transformers"
    max_batch: int = 256


class WorkerStage:
    """The stage's folder for the process that writes, a folder of its own for every other; see ``artifacts.Stage``."""

    def __init__(self, job: Job, folder: Path, team: Team):
        self.dir, self.told = job.stage, folder / launching.PROGRESS if team.leads else None
        if not team.leads:
            self.dir = Path(tempfile.mkdtemp(dir=folder))
            if (job.stage / METRICS).exists():
                shutil.copy(job.stage / METRICS, self.dir)  # the history that all go on from
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


def train(job: Job, folder: Path, team: Team) -> PreTrainedModel:
    """Train this process's copy of the policy with the others; return it."""
    policy, _ = models.load(str(folder / POLICY))
    engine = open_text_engine("transformers", policy, job.tokenizer, job.engine_name, job.max_batch)
    retriever = job.retriever
    if isinstance(retriever, Opening):
        retriever = open_again(retriever, (engine, job.prompts))
    train_policy(
        job.questions, policy, job.tokenizer, retriever, job.prompts, job.settings, WorkerStage(job, folder, team),
        curriculum=job.curriculum, rollout_settings=job.rollout_settings, engine=engine, identity=job.identity,
        asking=job.asking, team=team,
    )
    return policy


def work(folder: Path, team: Team) -> int:
    """Do a job; leave what came of it, and return the exit code: not 0 where the others cannot go on either."""
    return launching.telling(lambda: _work(folder, team), folder, team.rank)


def _work(folder: Path, team: Team) -> int:
    done: dict[str, Any] = {"kind": "trained"}
    try:
        job: Job = pickle.loads((folder / JOB).read_bytes())  # written by the notebook that started us
        policy = train(job, folder, team)
        if team.leads:
            weights = {name: weight.detach().cpu().contiguous() for name, weight in policy.named_parameters()}
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
