"""In which numbers models are held and compute: the word ``precision`` of the layout in force (see ``layouts``)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import ContextManager

import torch

from zerosearch import layouts


def held_in() -> torch.dtype:
    """Return the type that models are loaded in; a trainer gives float32 to the weights that it trains."""
    return torch.bfloat16 if layouts.in_force().precision == "bf16" else torch.float32


def computing(device: torch.device) -> ContextManager[object]:
    """Return a block in which models compute on a device: autocast to bfloat16, or as their weights are.

    Samplers and trainers both compute in it, so that their log-probs are those of one function.
    """
    if layouts.in_force().precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
