"""Low-rank adapters (arXiv 2106.09685) inside a loaded model: added, left out for a while, saved, merged.

They are peft's, on all linear layers but the head, and stand in the model itself, so that whoever computes with it
computes with them.  Every function here takes a model without adapters too.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from zerosearch.errors import ConfigError

ALPHA = 32  # numerator of the scale ALPHA / rank of what adapters add; fixed, so that one learning rate suits all ranks
FILE = "adapter.safetensors"
_NAME, _BASE, _PARTS = "default", ".base_layer.", (".lora_A.", ".lora_B.")


def add(model: PreTrainedModel, rank: int, seed: int) -> None:
    """Give a model adapters that add nothing yet, and freeze everything else.

    Adapters are float32 whatever the weights are.  seed: of their first values; global generators are left as they are.
    ConfigError for a family that cannot have them.
    """
    from peft import LoraConfig, inject_adapter_in_model  # only a run with adapters needs it

    config = LoraConfig(r=rank, lora_alpha=ALPHA, lora_dropout=0.0, bias="none", target_modules="all-linear")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, _NAME)
        except ValueError as error:  # peft knows families that cannot have them
            raise _refused(model, str(error)) from error
    for layer in layers(model).values():
        if not hasattr(layer.get_base_layer(), "weight"):
            raise _refused(model, f"{type(layer.get_base_layer()).__name__}, whose weights are no linear layer")
    model.__dict__.pop("peft_config", None)  # peft's note, which outlives the merging
    for parameter in trained(model).values():
        parameter.data = parameter.data.float()


def layers(model: torch.nn.Module) -> dict[str, Any]:
    """Return the layers with an adapter, by name; nothing of peft is imported for a model without."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that learn, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@contextmanager
def left_out(model: PreTrainedModel) -> Iterator[None]:
    """Let a model compute as its base for the length of a block; one without adapters is not touched."""
    found, training = layers(model).values(), model.training
    for layer in found:
        layer.enable_adapters(False)
    if found:
        model.eval()
    try:
        yield
    finally:
        for layer in found:
            layer.enable_adapters(True)
        if found:
            model.train(training)


def present_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, weight) of the model as if its adapters were merged, under the names of its base, detached."""
    adapted = {id(layer.get_base_layer().weight): layer for layer in layers(model).values()}
    for name, parameter in model.named_parameters():
        if any(part in name for part in _PARTS):
            continue
        layer = adapted.get(id(parameter))
        yield name.replace(_BASE, "."), parameter.detach() if layer is None else _merged(layer)


def merge(model: PreTrainedModel) -> None:
    """Put what adapters learned into the weights and take the adapters out: a model as any other, in place."""
    found = layers(model)
    for name, layer in found.items():
        base = layer.get_base_layer()
        base.weight.data = _merged(layer)
        model.set_submodule(name, base)
    if found:
        model.requires_grad_(True)  # as it was loaded


def save(model: PreTrainedModel, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the adapters of a model to ``adapter.safetensors`` of a folder.

    weights: in the place of those in the model, which may be spread over processes.
    """
    chosen = trained(model) if weights is None else weights
    save_file({name: weight.detach().contiguous() for name, weight in chosen.items()}, folder / FILE)


def load(model: PreTrainedModel, folder: Path) -> None:
    """Give the adapters of a model the values of ``save``; ValueError when they are those of another model."""
    saved, own = load_file(folder / FILE), trained(model)
    if {n: t.shape for n, t in saved.items()} != {n: p.shape for n, p in own.items()}:
        raise ValueError(
            f"{folder / FILE}: expected {len(own)} adapter weights of this model, found {len(saved)} others"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


def _refused(model: PreTrainedModel, found: str) -> ConfigError:
    return ConfigError(
        f"adapters: expected a model of linear layers, found {type(model).__name__} with {found}; train all of it with "
        "--set layout.lora_rank=0, or choose another model"
    )


def _merged(layer: Any) -> torch.Tensor:
    """Return a layer's weight and what its adapter adds, added in float32 and rounded once."""
    weight = layer.get_base_layer().weight.detach()
    return (weight.float() + layer.get_delta_weight(_NAME).detach().float()).to(weight.dtype)
