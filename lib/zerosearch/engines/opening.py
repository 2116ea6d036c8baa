"""From a loaded model to the engine that a stage asked for, ``transformers`` or ``vllm``."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import Sequence, get_args

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch.arithmetic import held_in
from zerosearch.engines.agreement import require_agreement
from zerosearch.engines.base import Engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.engines.vllm_engine import VllmEngine
from zerosearch.errors import unknown_name
from zerosearch.prompts import STOP_STRINGS
from zerosearch.stage_parameters import EngineKind

_last: weakref.ref[VllmEngine] | None = None


def open_text_engine(
    kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, max_batch: int = 256,
    stop_strings: Sequence[str] = STOP_STRINGS,
) -> Engine:
    """Return an engine of that kind over the model as it is now.

    A transformers engine follows the model when it is trained on; a vLLM engine has a copy of its weights and
    must be opened again.  One vLLM engine is open at a time: opening another closes the one before.  ConfigError for
    a model that the engine cannot compute.
    """
    if kind not in get_args(EngineKind):
        raise unknown_name("engine", kind, get_args(EngineKind))
    if kind == "transformers":
        engine = TransformersEngine(model, tokenizer, name, max_batch, stop_strings)
        require_agreement(engine)
        return engine
    return _open_vllm(model, tokenizer, name, max_batch, stop_strings)


def _open_vllm(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, max_batch: int, stop_strings: Sequence[str]
) -> VllmEngine:
    global _last
    if _last is not None and (before := _last()) is not None:
        before.close()
    with tempfile.TemporaryDirectory(prefix="zerosearch-vllm-") as folder:  # vLLM loads from files
        model.save_pretrained(Path(folder))
        held = torch.bfloat16 if held_in() == torch.bfloat16 else model.dtype  # of a model just trained: float32
        dtype = str(held).removeprefix("torch.")
        engine = VllmEngine(folder, tokenizer, name, max_batch, stop_strings, dtype=dtype)
    _last = weakref.ref(engine)
    return engine
