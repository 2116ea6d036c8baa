"""A model's weights in shorter numbers, by torchao: in this process, or as options of vLLM, which does the same.

Only linear layers are touched, and not the head: it is often the embedding, and it decides every token.  A layer
whose sizes do not fit stays as it is.  torchao's habit to change torch's own settings on the way is switched off.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from transformers import PreTrainedModel

from zerosearch import layouts
from zerosearch.arithmetic import computing
from zerosearch.errors import ConfigError
from zerosearch.simulator_weights import AS_IS, AUTO, Place, settled

GROUPS = (128, 64, 32)  # weights that share a scale in w4a16: the largest that all layers fit
_FITS = {"int8": (1, 1), "w4a16": (GROUPS[-1], 16), "fp8": (16, 16)}  # what (inputs, outputs) are multiples of
_ON_A_CARD = {"int8": (8, 8)}  # its matrix units ask for more


def place_here(served: bool = False) -> Place:
    """Return where a simulator of this process writes, by the layout in force.  served: by vLLM."""
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    return Place(capability, layouts.in_force().precision == "bf16", served)


def asked_here(served: bool = False) -> str:
    """Return the numbers of a simulator's weights in this process; ConfigError, see ``settled``."""
    return settled(layouts.in_force().simulator_weights, place_here(served))


def layout_here() -> layouts.Layout:
    """Return the layout in force with what ``auto`` is here: a checkpoint is of one kind of weights."""
    return layouts.settled(layouts.in_force(), asked_here() if layouts.in_force().simulator_weights == AUTO else "")


def quantise(model: PreTrainedModel, kind: str) -> None:
    """Give a loaded model, in place, weights of this kind; ``as-is``: nothing happens.

    kind: from ``asked_here``.  ConfigError for a model in which no layer fits, or that does not compute with them here.
    """
    if kind == AS_IS:
        return
    chosen = _fitting(model, kind)
    from torchao.quantization import quantize_  # optional, and slow to import

    config = _config(kind, _group(chosen), model.device)
    try:
        quantize_(model, config, filter_fn=lambda module, name: name in chosen)
        with torch.no_grad(), computing(model.device):
            model(input_ids=torch.zeros(1, 2, dtype=torch.long, device=model.device), use_cache=False)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, ValueError) as error:  # of its kernels
        raise ConfigError(
            f"layout.simulator_weights={kind}: expected torchao to compute {type(model).__name__} with them on "
            f"{model.device.type}, found {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}; "
            f"choose with --set layout.simulator_weights={AS_IS}"
        ) from error


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the bytes that a model's weights take, shorter numbers with their scales; shared ones once."""
    return sum(_stored(parameter) for parameter in model.parameters())


def _stored(tensor: torch.Tensor) -> int:
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(_stored(getattr(tensor, name)) for name in names)


def vllm_arguments(model: PreTrainedModel, kind: str) -> dict[str, Any]:
    """Return vLLM's arguments for weights of this kind, which it makes while it loads: none for ``as-is``.

    fp8 is vLLM's own, the others torchao's.  ConfigError for a model in which no layer fits.
    """
    if kind == AS_IS:
        return {}
    layers = _fitting(model, kind)
    if kind == "fp8":
        return {"quantization": "fp8"}
    from torchao.core.config import config_to_dict

    config = config_to_dict(_config(kind, _group(layers), model.device))
    return {"quantization": "torchao", "hf_overrides": {"quantization_config_dict_json": json.dumps(config)}}


def vllm_options(model: PreTrainedModel, kind: str) -> list[str]:
    """Return ``vllm_arguments`` as options of its server's command line."""
    found = vllm_arguments(model, kind)
    options = [f"--{name.replace('_', '-')}" for name in found]
    values = [value if isinstance(value, str) else json.dumps(value) for value in found.values()]
    return [word for pair in zip(options, values, strict=True) for word in pair]


def _fitting(model: PreTrainedModel, kind: str) -> dict[str, torch.nn.Linear]:
    """Return the linear layers that weights of this kind fit, name -> layer, without the head; ConfigError for none."""
    inputs, outputs = (_ON_A_CARD if model.device.type == "cuda" else {}).get(kind, _FITS[kind])
    head = model.get_output_embeddings()
    linear = {name: layer for name, layer in model.named_modules() if type(layer) is torch.nn.Linear and layer is not head}
    found = {n: x for n, x in linear.items() if x.in_features % inputs == 0 and x.out_features % outputs == 0}
    if not found:
        raise ConfigError(
            f"layout.simulator_weights={kind}: expected linear layers with inputs in multiples of {inputs} and outputs in "
            f"multiples of {outputs}, found none in {type(model).__name__} of width {model.config.hidden_size}; use "
            f"--set layout.simulator_weights=int8, or {AS_IS}"
        )
    return found


def _group(layers: dict[str, torch.nn.Linear]) -> int:
    """Return how many weights share a scale: the most that the inputs of all layers are multiples of."""
    common = math.gcd(*(layer.in_features for layer in layers.values()))
    return next((size for size in GROUPS if common % size == 0), GROUPS[-1])


def _config(kind: str, group: int, device: torch.device) -> Any:
    """Return torchao's description of a kind of weights."""
    from torchao import quantization
    from torchao.utils import should_reduce_range

    if kind == "int8":  # without VNNI a CPU's sums of products overflow: seven bits then
        return quantization.Int8DynamicActivationInt8WeightConfig(
            set_inductor_config=False, reduce_range=should_reduce_range(device)
        )
    if kind == "fp8":
        return quantization.Float8DynamicActivationFloat8WeightConfig(
            granularity=quantization.PerRow(), set_inductor_config=False
        )
    if device.type == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
    return quantization.Int4WeightOnlyConfig(
        group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
    )
