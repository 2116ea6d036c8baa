"""Training in several processes, seen from the notebook: it starts them, follows them and has the policy back.

Called by ``arm_training`` where the layout asks for more than one process.
"""

from __future__ import annotations

import pickle
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import pandas as pd
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import files, layouts
from zerosearch.artifacts import Stage
from zerosearch.curriculum import Curriculum
from zerosearch.engines.base import Engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.interrupts import Stopped
from zerosearch.microworld import models
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever, writing_engine
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Question
from zerosearch.training import checkpoints, health, launching
from zerosearch.training.arm_setup import Opening, opened_with
from zerosearch.training.asking import Asking
from zerosearch.training.policy_rl import CHECKPOINTS, METRICS, check_questions, history_table
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.worker import JOB, POLICY, TRAINED, Job

FOLDER = f"{CHECKPOINTS}/processes"  # of the job; it goes with the checkpoints when the stage has finished


def train_together(
    questions: Sequence[Question], policy_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    retriever: Retriever, prompts: Prompts, settings: RLSettings, stage: Stage, *, curriculum: Curriculum,
    rollout_settings: RolloutSettings, engine: Engine | None = None, identity: Mapping[str, Any] | None = None,
    asking: Asking = Asking(),
) -> pd.DataFrame:
    """As ``policy_rl.train_policy``, in as many processes as the layout says.

    Files, checkpoints and numbers are those of one process, to rounding, and either goes on from the other's
    checkpoints.  Raises what the processes raise in words for users; WorkbookError with the end of their log when one dies.
    """
    processes = layouts.in_force().policy_gpus
    checkpoints.require_base(policy_model)
    check_questions(questions, settings, curriculum, rollout_settings)
    launching.check(processes, settings.questions_per_step)
    job = Job(
        stage.dir.absolute(), stage.ledger.place, questions, tokenizer, prompts,
        how_to_open(retriever), settings.resolved(), curriculum, rollout_settings, dict(identity or {}), asking,
        *engine_of(engine),
    )
    folder = launching.fresh_folder(stage.path(FOLDER).absolute())
    (folder / JOB).write_bytes(pickle.dumps(job))
    models.save(policy_model, tokenizer, folder / POLICY)
    with off_the_card(policy_model, retriever):
        done = launching.run(
            folder, processes, [str(folder)],
            lambda row: stage.progress(row["done"], row["total"], row["message"], **row["metrics"]),
            max(1, torch.get_num_threads() // processes),
        )
    _raise_end(done, stage)
    take_weights(policy_model, folder / TRAINED)
    shutil.rmtree(folder)
    return history_table(files.read_jsonl(stage.path(METRICS)))


def how_to_open(retriever: Retriever) -> Opening | Retriever:
    """Return what tells another process how to open such a retriever; ConfigError for one that it could not have."""
    found = opened_with(retriever)
    if found is not None:
        return found
    try:
        pickle.dumps(retriever)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"training in several processes: expected a retriever of arm_setup.open_retriever, or one that can be pickled, "
            f"found {type(retriever).__name__}; train in one process with --set layout.policy_gpus=1"
        ) from error
    return retriever


def engine_of(engine: Engine | None) -> tuple[str, int]:
    """Return (name, rows at once) of the engine that every process opens for itself; ConfigError for another kind."""
    if engine is None:
        return "transformers", 256
    if not isinstance(engine, TransformersEngine):
        raise ConfigError(
            f"training in several processes: expected the engine transformers, found {type(engine).__name__}; add "
            "--set 03.rollout_engine=transformers, or train in one process with --set layout.policy_gpus=1"
        )
    return engine.name, engine.max_batch


@contextmanager
def off_the_card(policy: PreTrainedModel, retriever: Retriever) -> Iterator[None]:
    """Leave the GPU to the processes for the length of a block; nothing on a CPU.  Not yet measured on a GPU."""
    device = policy.device
    if device.type != "cpu":
        writer = writing_engine(retriever)
        if isinstance(writer, TransformersEngine):
            writer.sleep()
        policy.to("cpu")
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        if device.type != "cpu":
            policy.to(device)


def take_weights(policy: PreTrainedModel, path: Path) -> None:
    """Give a policy the weights of a file, in the file's precision; evaluation mode, as after any training."""
    found = load_file(path)
    for name, parameter in policy.named_parameters():
        parameter.data = found[name].to(parameter.device)
    policy.eval()


def _raise_end(done: Mapping[str, Any], stage: Stage) -> None:
    """Raise what ended the processes before they were through, as one process would."""
    if done["kind"] == health.Collapsed.__name__:
        kept = stage.path(health.COLLAPSE)
        table = health.for_people(files.read_table(kept)) if kept.is_file() else pd.DataFrame()
        raise health.Collapsed(done["message"], table)
    if done["kind"] == Stopped.__name__:
        raise Stopped(done["message"])
