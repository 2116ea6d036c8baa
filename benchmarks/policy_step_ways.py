"""The ways of ``policy_step.py``: each goes forward and backward over one batch of trajectories, gradients add up.

Ours are one update with its switches turned on one after the other.  TRL is its trainer's own ``training_step``, eight
rows a pass (its default), with trajectories in place of its sampling.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np
import torch
from datasets import Dataset
from policy_step_batches import GROUP, Batch, tokenizer_for_trl
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from zerosearch.training.batching import MicroBatch, make_micro_batches, trained_tokens
from zerosearch.training.losses import micro_batch_loss
from zerosearch.training.objective import policy_loss, token_logprobs
from zerosearch.training.packing import attending_alone

CLIP, ROWS = 0.2, 8  # ROWS: trajectories of one pass where they are taken as they come


@dataclass(frozen=True)
class Case:
    """One batch on one model.  reference: of the KL, None without it.  max_tokens: of one of our passes."""

    model: PreTrainedModel
    reference: PreTrainedModel | None
    batch: Batch
    kl_weight: float
    max_tokens: int


@dataclass(frozen=True)
class Way:
    """Our update with some of its switches on.

    scored: the head is applied to ``all`` tokens or to the ``policy``'s.  rows: ``arriving``, ``sorted`` or
    ``packed``.  skip_idle: without a KL, rows of advantage 0 are left out.  old_pass: one more forward pass for
    the log-probabilities that the sampler has reported already.
    """

    scored: str = "policy"
    rows: str = "packed"
    skip_idle: bool = False
    loss: str = "plain"
    old_pass: bool = False

    def __call__(self, case: Case) -> None:
        """Accumulate the gradient of the case."""
        batches = [b.to(case.model.device) for b in self.micro_batches(case)]
        with attending_alone(case.model) if self.rows == "packed" else nullcontext():
            if self.old_pass:
                batches = [replace(b, old_logp=_logps(case, b)) for b in batches]
            for batch in batches:
                self._loss(case, batch).backward()

    def micro_batches(self, case: Case) -> list[MicroBatch]:
        """Return the passes over a case's trajectories."""
        make = functools.partial(
            make_micro_batches, pad_id=0, skip_idle=self.skip_idle and case.reference is None,
            packed=self.rows == "packed",
        )
        if self.rows != "arriving":
            return make(case.batch.trajectories, case.batch.advantages, max_tokens=case.max_tokens)
        return _arriving(case.batch, make)

    def _loss(self, case: Case, batch: MicroBatch) -> torch.Tensor:
        if self.scored == "all":
            return _all_scored(case, batch)
        return micro_batch_loss(
            case.model, case.reference, batch, clip=CLIP, kl_weight=case.kl_weight, temperature=1.0, loss=self.loss
        )[0]


def _arriving(batch: Batch, make: Callable[..., list[MicroBatch]]) -> list[MicroBatch]:
    """Return passes of ROWS trajectories in the order in which they came."""
    total, made = sum(map(trained_tokens, batch.trajectories)), []
    for start in range(0, len(batch.trajectories), ROWS):
        chunk = batch.trajectories[start : start + ROWS]
        share = sum(map(trained_tokens, chunk)) / total
        for one in make(chunk, batch.advantages[start : start + ROWS], max_tokens=10**9):
            made.append(replace(one, weights=one.weights * share))
    return made


def _all_scored(case: Case, batch: MicroBatch) -> torch.Tensor:
    """Return the loss whose logits are made for every cell, those of prompts, passages and padding included."""

    def scored(model: PreTrainedModel) -> torch.Tensor:
        states = model.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        scores = torch.log_softmax(model.get_output_embeddings()(states).float(), dim=-1)
        return scores.flatten(0, 1)[batch.positions].gather(1, batch.targets.unsqueeze(1)).squeeze(1)

    ref_logp = None
    if case.reference is not None:
        with torch.no_grad():
            ref_logp = scored(case.reference)
    return policy_loss(
        scored(case.model), batch.old_logp, batch.advantages, batch.weights, clip=CLIP, ref_logp=ref_logp,
        kl_weight=case.kl_weight, rows=batch.rows,
    )[0]


@torch.no_grad()
def _logps(case: Case, batch: MicroBatch) -> torch.Tensor:
    return token_logprobs(case.model, batch.input_ids, batch.positions, batch.targets, segments=batch.segments)[0]


class Recorded(GRPOTrainer):
    """TRL's trainer on trajectories that exist already; padding, reference, loss and backward are its own."""

    def __init__(self, case: Case, folder: str, recompute: bool):
        batch = case.batch
        accumulated = -(-len(batch.trajectories) // ROWS)
        config = GRPOConfig(
            output_dir=folder, num_generations=GROUP, per_device_train_batch_size=ROWS,
            gradient_accumulation_steps=accumulated, beta=0.0, epsilon=CLIP, bf16=False, report_to=[],
            max_completion_length=max(len(t.token_ids) for t in batch.trajectories), disable_tqdm=True,
            gradient_checkpointing=recompute, use_cpu=case.model.device.type == "cpu", save_strategy="no",
            use_bias_correction_kl=False,  # plain k3, as ours
        )
        rows = Dataset.from_dict({"prompt": [""] * GROUP})
        super().__init__(case.model, _no_reward, config, rows, processing_class=tokenizer_for_trl())
        self.batch, self.current_gradient_accumulation_steps = batch, accumulated
        if case.reference is not None:  # a copy of the policy; by itself TRL would load one by its name
            self.beta, self.ref_model = case.kl_weight, case.reference
            add_fused_lm_head(self.ref_model, temperature=self.temperature)

    def accumulate(self) -> None:
        """Add up the gradient of the batch as TRL's loop does, without its optimiser."""
        rows = [{"prompt": ""}] * len(self.batch.trajectories)
        for _ in range(self.current_gradient_accumulation_steps):
            self.training_step(self.model, rows, None)

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        made = self.batch.trajectories
        asked, ids, mask = ([list(getattr(t, n)) for t in made] for n in ("prompt_ids", "token_ids", "loss_mask"))
        return asked, ids, [list(map(int, row)) for row in mask], [""] * len(made), None, {}, None, []

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        advantages = torch.from_numpy(self.batch.advantages.astype(np.float32))
        return batch | {"advantages": advantages.to(batch["prompt_ids"].device)}


def _no_reward(prompts: list[Any], **_: Any) -> list[float]:
    return [0.0] * len(prompts)


class TrlWay:
    """TRL as a way: its trainer is made once for a case."""

    def __init__(self, folder: str, recompute: bool):
        self.folder, self.recompute, self.trainer = folder, recompute, None

    def __call__(self, case: Case) -> None:
        """Accumulate the gradient of the case."""
        if self.trainer is None:
            self.trainer = Recorded(case, self.folder, self.recompute)
        if self.recompute:
            case.model.gradient_checkpointing_enable()
        try:
            self.trainer.accumulate()
        finally:
            case.model.gradient_checkpointing_disable()


TRL, TRL_KEPT, TRL_LIGER = "TRL as shipped", "TRL, activations kept", "TRL with liger-kernel"
BEST = "+ the fused loss"
OURS = {  # each has the switches of those before it, but for the last
    "all logits": Way("all", "arriving"),
    "+ the policy's logits alone": Way(rows="arriving"),
    "+ sorted by length": Way(rows="sorted"),
    "+ packed": Way(),
    "+ idle rows skipped": Way(skip_idle=True),
    BEST: Way(skip_idle=True, loss="fused"),
    "packed, with a pass for old log-probs": Way(old_pass=True),
}
