"""The losses that the trainers call, each in two ways: ``plain`` (torch, line by line) and ``fused`` (``kernels``).

``plain`` holds the logits of all trained tokens of a micro-batch at once and lets autograd go back through them;
``fused`` sweeps over them in chunks.  Both are the same formula: losses and gradients agree to rounding, and on two
runs that differ only in this the numbers drift apart as they would on another machine.  A profile says which
(its line ``loss:``); notebooks started by hand are plain.
"""

from __future__ import annotations

import os
from typing import Sequence, get_args

import torch
from transformers import PreTrainedModel

from zerosearch import adapters, kernels
from zerosearch.arithmetic import computing
from zerosearch.errors import ConfigError, unknown_name
from zerosearch.heads import scale_of, softcap_of
from zerosearch.stage_parameters import LOSS_VARIABLE, Loss
from zerosearch.training.batching import MicroBatch
from zerosearch.training.correction import Correction, importance_weights
from zerosearch.training.objective import LossTerms, hidden_states, loss_terms, policy_loss, token_logprobs
from zerosearch.training.sharding import entered

LOSSES = get_args(Loss)


def chosen_loss(asked: str = "") -> str:
    """Return which losses are used: the one asked for, else the profile's, else ``plain``.  ConfigError if unknown."""
    found = asked or os.environ.get(LOSS_VARIABLE) or LOSSES[0]
    if found not in LOSSES:
        raise unknown_name("loss", found, LOSSES)
    return found


def fingerprint(asked: str) -> dict[str, str]:
    """Return what a checkpoint must remember of the choice: nothing of a plain one, as before there was a choice."""
    found = chosen_loss(asked)
    return {} if found == "plain" else {"loss": found}


def head_of(model: PreTrainedModel) -> kernels.Head:
    """Return the head of a model; ConfigError where it is no plain linear layer (an adapter on it, say)."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, torch.nn.Linear):
        raise ConfigError(
            f"fused loss: expected a linear layer as the head of the policy, found {type(layer).__name__}; write "
            "`loss: plain` into the profile"
        )
    return kernels.Head(layer.weight, layer.bias, softcap_of(model.config), scale_of(model.config))


def micro_batch_loss(
    model: PreTrainedModel, reference: PreTrainedModel | None, batch: MicroBatch, *, clip: float, kl_weight: float,
    temperature: float, loss: str, correction: Correction = Correction(),
) -> tuple[torch.Tensor, LossTerms, float]:
    """Return (loss, terms, sum of entropies in nats) of one micro-batch of RL.

    reference: the model of the KL, asked without adapters; None without one.  temperature: sampled with.
    loss: one of LOSSES.  correction: of differences between sampler and trainer, see ``policy_loss``.
    """
    if loss == "fused":
        settings = kernels.PolicySettings(
            clip=clip, kl_weight=kl_weight, temperature=temperature,
            importance="token" if correction.kind == "token" else "none", importance_cap=correction.cap,
        )
        return _fused(model, reference, batch, settings, correction)
    ref_logp = None if reference is None else frozen_logp(reference, batch, temperature, loss)
    where = (batch.input_ids, batch.positions, batch.targets, temperature)
    logp, entropies = token_logprobs(model, *where, with_entropy=True, segments=batch.segments)
    total, terms = policy_loss(
        logp, batch.old_logp, batch.advantages, batch.weights, clip=clip, ref_logp=ref_logp, kl_weight=kl_weight,
        correction=correction, rows=batch.rows,
    )
    return total, terms, float(entropies.sum())


def _fused(
    model: PreTrainedModel, reference: PreTrainedModel | None, batch: MicroBatch, settings: kernels.PolicySettings,
    correction: Correction,
) -> tuple[torch.Tensor, LossTerms, float]:
    ref_logp = None if reference is None else frozen_logp(reference, batch, settings.temperature, "fused")
    states, head = hidden_states(model, batch.input_ids, batch.positions, batch.segments), head_of(model)
    advantages, importance, corrected = batch.advantages, None, correction.kind != "none"
    if correction.kind == "sequence":  # a token's weight needs all of its trajectory: one more sweep, forward only
        logp, _ = kernels.token_logps(states, head, batch.targets, temperature=settings.temperature)
        importance = importance_weights(logp, batch.old_logp, batch.rows, correction)
        advantages = advantages * importance
    tokens = kernels.PolicyTokens(
        batch.targets, advantages, weights=batch.weights, old_logp=None if corrected else batch.old_logp,
        sampler_logp=batch.old_logp, ref_logp=ref_logp,
    )
    found = kernels.policy_loss(states, head, tokens, settings)
    if importance is None:
        importance = importance_weights(found.logp, batch.old_logp, batch.rows, correction)
    sums = dict(zip(kernels.SUMS, found.sums.tolist(), strict=True))
    kl_sum, n_clipped = sums["kl"], int(sums["n_clipped"])
    terms = loss_terms(found.logp, batch.old_logp, importance, corrected=corrected, kl_sum=kl_sum, n_clipped=n_clipped)
    return found.loss, terms, sums["entropy"]


def frozen_logp(model: PreTrainedModel, batch: MicroBatch, temperature: float, loss: str) -> torch.Tensor:
    """Return the log-probabilities (N,) of a micro-batch's targets under a model that does not learn, nats.

    temperature, loss: as ``micro_batch_loss``.
    """
    with torch.no_grad():
        return entered(model, lambda: _frozen(model, batch, temperature, loss))


def _frozen(model: PreTrainedModel, batch: MicroBatch, temperature: float, loss: str) -> torch.Tensor:
    where = (batch.input_ids, batch.positions)
    with adapters.left_out(model), computing(batch.input_ids.device):
        if loss != "fused":
            return token_logprobs(model, *where, batch.targets, temperature, segments=batch.segments)[0]
        states = hidden_states(model, *where, batch.segments)
    return kernels.token_logps(states, head_of(model), batch.targets, temperature=temperature)[0]


def fused_cross_entropy(
    model: PreTrainedModel, input_ids: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor,
    weights: torch.Tensor, segments: Sequence[int] = (),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (sum of weights times -log-probability, log-probabilities (N,), entropies (N,)), nats.

    Arguments as ``objective.token_logprobs``; weights (N,) float32.  Only the loss has a gradient.
    """
    states = hidden_states(model, input_ids, positions, segments)
    return kernels.masked_cross_entropy(states, head_of(model), targets, weights=weights)
