"""What an engine must be for a policy to be trained with it, and how it keeps up with the updates.

An engine over the trained model itself writes with its present weights anyway.  One that holds a copy of them
(vLLM) is handed the present ones before every step's rollouts, or is refused where it cannot take them.  While
rollouts overlap the update (``overlap``) every engine writes with a copy.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import partial
from typing import Callable, Iterator

import torch
from transformers import PreTrainedModel

from zerosearch import adapters, layouts
from zerosearch.engines.base import Engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.retrievers.base import Retriever, writing_engine


def check_sampler(engine: Engine) -> None:
    """Raise ConfigError for an engine that a policy cannot be trained with.

    Its log-probs must be those of the whole distribution, and it must write with the policy's present weights.
    """
    if getattr(engine, "top_p", 1.0) < 1.0:
        raise ConfigError(
            f"policy training: expected an engine that samples from the whole distribution, found top_p "
            f"{engine.top_p}; set it to 1.0, since the trainer's log-probs are those of the whole distribution"
        )
    if getattr(engine, "holds_a_copy", False) and not getattr(engine, "takes_weights", False):
        raise ConfigError(
            f"policy training: expected an engine whose weights follow the updates, found {type(engine).__name__}, "
            "which has a copy of them (vLLM's CPU backend cannot take new weights: its packed ones stay); train with "
            "--set 03.rollout_engine=transformers, and collect and evaluate with --set 01.engine=vllm --set 04.engine=vllm"
        )


def follow(engine: Engine, model: PreTrainedModel) -> None:
    """Let an engine that holds a copy of the weights have the model's present ones."""
    if getattr(engine, "holds_a_copy", False):
        engine.take_weights(model)


@contextmanager
def apart(engine: Engine, policy: PreTrainedModel) -> Iterator[Callable[[], None]]:
    """Let an engine write with weights that stay as they are while policy learns; yield what renews them.

    Call that while nothing is being written.  An engine over the policy itself has a copy for the length of the block,
    which doubles what learns and shares what is frozen (the base of adapters).
    """
    if not isinstance(engine, TransformersEngine) or engine.model is not policy:
        yield partial(follow, engine, policy)
        return
    engine.model = copied = _copied(policy)
    try:
        yield partial(_renew, copied, policy)
    finally:
        engine.model = policy
        engine.release()


def _copied(policy: PreTrainedModel) -> PreTrainedModel:
    """Return a model of its own that learns nothing and shares the parameters that do not learn in policy either.

    Without gradient, so that autocast of one thread keeps no rounded weight of it for the other.
    """
    frozen = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return copy.deepcopy(policy, frozen).eval().requires_grad_(False)


def _renew(copied: PreTrainedModel, policy: PreTrainedModel) -> None:
    own = dict(copied.named_parameters())
    with torch.no_grad():
        for name, parameter in adapters.trained(policy).items():
            own[name].copy_(parameter)


def rest_simulator(retriever: Retriever, policy: PreTrainedModel) -> None:
    """Let a simulator in this process leave the GPU for the update where the layout says so; a search wakes it."""
    engine = writing_engine(retriever)
    if layouts.in_force().sleep and isinstance(engine, TransformersEngine) and engine.model is not policy:
        engine.sleep()


def rest(engine: Engine, *, spread: bool = False) -> None:
    """Let an engine that can sleep give its GPU memory to the update; ``follow`` or the next message wakes it.

    spread: whether what is trained is another model than the engine's, spread over processes.
    """
    if getattr(engine, "holds_a_copy", False) or (spread and isinstance(engine, TransformersEngine)):
        engine.sleep()
