"""Trajectories without padding: several in one row, and each of them sees itself alone.

A packed micro-batch is one row (1, L) of real tokens: position numbers restart at 0 with every trajectory, and the
attention of a layer is taken trajectory by trajectory, with no mask of L times L.  On a GPU the kernel is
flash-attention's for such rows, where the package is installed and the weights are in half precision; everywhere
else torch's attention runs once for each trajectory.  Losses and gradients are those of padded rows to rounding.

A model attends this way only inside ``attending_alone``, which an update stands in; a pass without a gradient sees to
it by itself (``objective.hidden_states``).  Rollouts with the same model find it as it was.  A profile
says which way (its line ``packing:``); notebooks started by hand are padded.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Iterator, Sequence, get_args

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from zerosearch.errors import ConfigError, unknown_name
from zerosearch.stage_parameters import PACKING_VARIABLE, Packing

PACKINGS = get_args(Packing)
SEGMENTED = "zerosearch_segments"  # the name of ``attend_segments`` among transformers' attention functions
# What a model may ask of its attention beside the causal product; none of it is done here.
_REFUSED = ("sliding_window", "softcap", "s_aux", "position_bias")


def chosen_packing(asked: str = "") -> str:
    """Return which way is used: the one asked for, else the profile's, else ``padded``.  ConfigError if unknown."""
    found = asked or os.environ.get(PACKING_VARIABLE) or PACKINGS[0]
    if found not in PACKINGS:
        raise unknown_name("packing", found, PACKINGS)
    return found


def packs(model: PreTrainedModel, asked: str = "") -> bool:
    """Say whether a model's trajectories are packed; ``auto`` packs where the model can.

    ConfigError where ``packed`` is asked for and the model cannot.
    """
    way = chosen_packing(asked)
    found = obstacle(model) if way != "padded" else ""
    if way == "packed" and found:
        raise ConfigError(
            f"packing: expected a model whose layers all attend to the whole text before them, found {found}; write "
            "`packing: padded` into the profile"
        )
    return way != "padded" and not found


def fingerprint(model: PreTrainedModel, asked: str = "") -> dict[str, str]:
    """Return what a checkpoint must remember of the choice: nothing of a padded one, as before there was a choice."""
    return {"packing": "packed"} if packs(model, asked) else {}


def obstacle(model: PreTrainedModel) -> str:
    """Return what keeps a model's rows from being packed, empty if nothing does."""
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"}:
        return "layers of kind " + ", ".join(sorted(layers - {"full_attention"}))
    if getattr(config, "layer_types", None) is None and getattr(config, "sliding_window", None):
        return f"a sliding window of {config.sliding_window} tokens"
    if not model._supports_attention_backend or not getattr(config, "is_causal", True):
        return f"{type(model).__name__}, whose attention cannot be exchanged"
    return _tried(model)


@torch.no_grad()
def _tried(model: PreTrainedModel) -> str:
    """Return what is wrong with three tokens packed as two texts, empty if each is as it is by itself."""
    ids, training = torch.tensor([[0, 1, 0]], device=model.device), model.training
    decoder = model.eval().get_decoder()
    try:
        alone = [decoder(input_ids=part, use_cache=False).last_hidden_state for part in (ids[:, :2], ids[:, 2:])]
        with attending_alone(model):
            packed = decoder(input_ids=ids, use_cache=False, **arguments(model, (2, 1), ids.device)).last_hidden_state
    except ConfigError as error:
        return str(error).split("found ")[1].split(";")[0]
    finally:
        model.train(training)
    gap, size = (packed - torch.cat(alone, dim=1)).float().norm(), packed.float().norm()
    return "" if gap <= (1e-4 if packed.dtype == torch.float32 else 3e-2) * size else "layers that see the text beside it"


@contextmanager
def attending_alone(model: PreTrainedModel) -> Iterator[None]:
    """Let a model attend within each trajectory of a packed row; afterwards it attends as before.

    The backward pass belongs inside too: where activations are computed again, so is attention.
    """
    decoder = model.get_decoder()
    before = decoder.config._attn_implementation
    half = decoder.dtype in (torch.float16, torch.bfloat16)
    flash = half and decoder.device.type == "cuda" and is_flash_attn_2_available()
    try:
        decoder.set_attn_implementation("flash_attention_2" if flash else SEGMENTED)
        yield
    finally:
        decoder.set_attn_implementation(before)


def arguments(model: PreTrainedModel, segments: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Return what a decoder is called with beside its tokens: nothing for padded rows (no segments).

    segments: length of each trajectory of a packed row, in their order.
    """
    if not segments:
        return {}
    places = torch.cat([torch.arange(n, device=device) for n in segments]).unsqueeze(0)
    name = model.get_decoder().config._attn_implementation
    if name == SEGMENTED:
        return {"position_ids": places, "segments": tuple(segments)}
    if name != "flash_attention_2":
        raise RuntimeError(f"expected a packed row inside attending_alone, found the model attending by {name!r}")
    ends = torch.tensor([0, *accumulate(segments)], dtype=torch.int32, device=device)
    limits = dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), ends) | dict.fromkeys(
        ("max_length_q", "max_length_k"), max(segments)
    )
    return {"position_ids": places, **limits}


def attend_segments(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor | None, *, segments: Sequence[int], dropout: float = 0.0,
    scaling: float | None = None, **others: Any,
) -> tuple[torch.Tensor, None]:
    """Return the causal attention (1, L, heads, D) of every segment by itself, as transformers wants it.

    query (1, heads, L, D); key, value (1, fewer or as many heads, L, D), rotated by their position numbers already.
    ConfigError for what some models add to attention and this does not: windows, caps, sinks, biases.
    """
    asked = [name for name in _REFUSED if others.get(name) is not None] + ["mask"] * (attention_mask is not None)
    if asked:
        raise ConfigError(
            f"packing: expected plain causal attention, found {', '.join(asked)} in {type(module).__name__}; write "
            "`packing: padded` into the profile"
        )
    shared = key.shape[1] < query.shape[1]
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=shared
        ).transpose(1, 2)
        for q, k, v in zip(*(states.split(list(segments), dim=2) for states in (query, key, value)), strict=True)
    ]
    return torch.cat(parts, dim=1), None


AttentionInterface.register(SEGMENTED, attend_segments)


def first_fit(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return the indices of lengths in bins of at most budget, longest first, each into the first with room.

    A length beyond the budget has a bin of its own.  Equal lengths keep their order.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        found = next((b for b, left in enumerate(room) if left >= lengths[index]), len(bins))
        if found == len(bins):
            bins.append([])
            room.append(budget)
        bins[found].append(index)
        room[found] -= lengths[index]
    return bins
