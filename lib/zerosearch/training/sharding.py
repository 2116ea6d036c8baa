"""A model whose weights, gradients and optimiser are spread over the processes that train it (FSDP2, torch's own).

Blocks are gathered one at a time; embeddings, norm and head, which stand outside of them, once per pass: whoever
computes with such a model does it inside ``entered``, since samplers and losses ask decoder and head themselves and
never the whole model.  Gradients are summed over the processes, as ``team`` wants them.  Checkpoints hold whole
tensors: they are those of one process.  Every function takes a model that is not spread too.
"""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any, Callable, Iterable, Mapping, TypeVar

import torch
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

T = TypeVar("T")
_ENTER, _INSIDE = "_zerosearch_enter", "_zerosearch_inside"


def spread(model: PreTrainedModel, size: int) -> None:
    """Spread a model over ``size`` processes, in place.  All processes call it with the same model."""
    mesh = init_device_mesh(model.device.type, (size,))
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    setattr(model, _ENTER, MethodType(lambda _, work: work(), model))
    learns = any(parameter.requires_grad for parameter in model.parameters())
    fully_shard(model, mesh=mesh, reshard_after_forward=not learns)  # no backward pass would give it back
    register_fsdp_forward_method(model, _ENTER)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no mean


def blocks(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the layers of a model that are gathered one at a time: those that its family says must not be split."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def is_spread(model: torch.nn.Module) -> bool:
    """Say whether a model is spread over processes."""
    return isinstance(model, FSDPModule)


def entered(model: PreTrainedModel, work: Callable[[], T]) -> T:
    """Return what ``work`` makes while the weights outside of the blocks are whole; tensors in it may be sent back."""
    if not is_spread(model) or getattr(model, _INSIDE, False):
        return work()
    setattr(model, _INSIDE, True)
    try:
        return getattr(model, _ENTER)(work)
    finally:
        setattr(model, _INSIDE, False)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as one process would have it, detached.  All processes call it."""
    return tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def _kept(tensor: torch.Tensor, kept: bool) -> torch.Tensor | None:
    found = whole(tensor)
    return found.cpu() if kept else None


def part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor, which all processes have, spread as ``like`` is."""
    if not isinstance(like, DTensor):
        return tensor
    there = tensor.to(device=like.device, dtype=like.dtype)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def copy_trained(source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Give a whole model the trained weights of one of the same make that is spread.  All processes call it."""
    for (name, own), (found, parameter) in zip(target.named_parameters(), source.named_parameters(), strict=True):
        if name != found:
            raise RuntimeError(f"expected two models of one make, found {found} in the place of {name}")
        if parameter.requires_grad:
            own.copy_(whole(parameter))


def whole_weights(named: Iterable[tuple[str, torch.Tensor]], *, kept: bool) -> dict[str, torch.Tensor]:
    """Return weights by name, whole and on the CPU.  All processes call it.

    kept: False gives none of them, for a process that only helps to put them together: the memory of a machine would
    otherwise have to hold them as often as it has processes.
    """
    found = ((name, _kept(weight, kept)) for name, weight in named)
    return {name: weight.contiguous() for name, weight in found if weight is not None}


@torch.no_grad()
def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Give a model the weights that the safetensors of a folder hold; those of other names stay."""
    own = dict(model.named_parameters())
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            own[name].copy_(part_of(tensor, own[name]))


def whole_state(optimiser: torch.optim.Optimizer, *, kept: bool) -> dict[str, Any]:
    """Return the state of an optimiser as that of one process would be.  All processes call it.

    kept: see ``whole_weights``; None stands for every tensor then.
    """
    state = optimiser.state_dict()
    made = {
        index: {name: _kept(value, kept) if isinstance(value, torch.Tensor) else value for name, value in own.items()}
        for index, own in state["state"].items()
    }
    return {"state": made, "param_groups": state["param_groups"]}


def load_state(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimiser over parameters that may be spread the state of ``whole_state``."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    made = {
        index: {
            name: part_of(value, parameters[index]) if getattr(value, "shape", ()) == parameters[index].shape else value
            for name, value in own.items()
        }
        for index, own in state["state"].items()
    }
    optimiser.load_state_dict({"state": made, "param_groups": state["param_groups"]})
