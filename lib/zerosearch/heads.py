"""From hidden states to logits, as each family of models does it: a linear layer, a factor, a cap.

Samplers and trainers ask the layers below the head themselves (``get_decoder``), so what a model does between its
head and its logits has to be done here.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# Where a model's configuration says what its head does beside the product: name -> the factor on the logits.
_SCALES = {
    "logit_scale": lambda x: x, "output_multiplier": lambda x: x, "lm_head_multiplier": lambda x: x,
    "logits_scaling": lambda x: 1.0 / x,
}


def scale_of(config: PreTrainedConfig) -> float:
    """Return the factor on the logits of a model's head, 1 for most families."""
    config = config.get_text_config()
    if config.model_type == "hyperclovax":  # multiplies by what others divide by
        return float(config.logits_scaling)
    given = ((name, getattr(config, name, None)) for name in _SCALES)
    return float(next((_SCALES[name](value) for name, value in given if value is not None), 1.0))


def softcap_of(config: PreTrainedConfig) -> float | None:
    """Return c where logits are c * tanh(logits / c), None for most families."""
    return getattr(config.get_text_config(), "final_logit_softcapping", None)


def logits_of(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """Return the logits (..., V) of last hidden states (..., H), as the whole model would."""
    logits = model.get_output_embeddings()(states)
    if (scale := scale_of(model.config)) != 1.0:
        logits = logits * scale
    cap = softcap_of(model.config)
    return logits if cap is None else torch.tanh(logits / cap) * cap
