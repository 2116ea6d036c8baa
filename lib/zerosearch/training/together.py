"""Training in several processes, seen from the notebook: it starts them, follows them and has the model back.

Called by ``policy_together`` and ``simulator_sft`` where the layout asks for more than one process.
"""

from __future__ import annotations

import pickle
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

import pandas as pd
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import files
from zerosearch.artifacts import Stage
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.interrupts import Stopped
from zerosearch.microworld import models
from zerosearch.training import health, launching
from zerosearch.training.worker import BASE, JOB, TRAINED, Job

FOLDER = "checkpoints/processes"  # of the job; it goes with the checkpoints when the stage has finished


def train_together(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Stage, processes: int,
    writer: object | None = None,
) -> None:
    """Do a job in several processes and give the model the weights that they learned, in place.

    Files, checkpoints and numbers are those of one process, to rounding, and either goes on from the other's
    checkpoints.  writer: an engine of the notebook that leaves the GPU meanwhile.  Raises what the processes raise in
    words for users; WorkbookError with the end of their log when one dies.
    """
    folder = launching.fresh_folder(stage.path(FOLDER).absolute())
    (folder / JOB).write_bytes(pickle.dumps(job))
    models.save(model, tokenizer, folder / BASE)
    with off_the_card(model, writer):
        done = launching.run(
            folder, processes, [str(folder)],
            lambda row: stage.progress(row["done"], row["total"], row["message"], **row["metrics"]),
            max(1, torch.get_num_threads() // processes),
        )
    _raise_end(done, stage)
    take_weights(model, folder / TRAINED)
    shutil.rmtree(folder)


@contextmanager
def off_the_card(model: PreTrainedModel, writer: object | None) -> Iterator[None]:
    """Leave the GPU to the processes for the length of a block; nothing on a CPU.  Not yet measured on a GPU."""
    device = model.device
    if device.type != "cpu":
        if isinstance(writer, TransformersEngine):
            writer.sleep()
        model.to("cpu")
        torch.cuda.empty_cache()
    try:
        yield
    finally:
        if device.type != "cpu":
            model.to(device)


def take_weights(model: PreTrainedModel, path: Path) -> None:
    """Give a model the weights of a file, in the file's precision; evaluation mode, as after any training."""
    found = load_file(path)
    for name, parameter in model.named_parameters():
        parameter.data = found[name].to(parameter.device)
    model.eval()


def _raise_end(done: Mapping[str, Any], stage: Stage) -> None:
    """Raise what ended the processes before they were through, as one process would."""
    if done["kind"] == health.Collapsed.__name__:
        kept = stage.path(health.COLLAPSE)
        table = health.for_people(files.read_table(kept)) if kept.is_file() else pd.DataFrame()
        raise health.Collapsed(done["message"], table)
    if done["kind"] == Stopped.__name__:
        raise Stopped(done["message"])
