"""From a loaded model to one that is trained as the layout says (``layouts``), and back to a model as any other."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from zerosearch import adapters, layouts, seeds
from zerosearch.arithmetic import held_in


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the model that never trains."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def reference_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return the reference of the KL for a model that is about to be trained: its base, frozen.

    With adapters it is the model itself, to be asked with its adapters left out (see ``losses``): no second copy.
    In bfloat16 the copy computes as the trained model does, whose weights and sums between blocks are float32.
    """
    if layouts.in_force().lora_rank:
        return model
    copied = frozen_copy(model)
    if held_in() != torch.float32:
        copied.to(held_in()).get_input_embeddings().register_forward_hook(_as_float32)
    return copied


def lay_out(model: PreTrainedModel, seed: int) -> None:
    """Make a model ready for its optimiser, in place: adapters, or float32 weights.  seed: of the run."""
    rank = layouts.in_force().lora_rank
    if rank:
        adapters.add(model, rank, seeds.derive_seed(seed, "adapters") % 2**63)
    elif held_in() != torch.float32:
        model.float()


def without_dropout(model: PreTrainedModel) -> None:
    """Switch dropout off, in place: a policy's log-probs in training must be those that it was sampled with."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def checkpointing_arguments() -> dict[str, Any]:
    """Return what a trainer's configuration says of computing blocks again in the backward pass."""
    if not layouts.in_force().gradient_checkpointing:
        return {"gradient_checkpointing": False}
    return {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}


def _as_float32(_: torch.nn.Module, __: Any, embedded: torch.Tensor) -> torch.Tensor:
    return embedded.float()
