"""GRPO on trajectories: a subclass of TRL's GRPOTrainer whose rollouts are whole conversations.

What stays TRL's (and transformers'): the training loop, optimiser, gradient clipping, batching of
questions into groups, random state, saving and resuming.  What is replaced, and why:

- ``_generate_and_score_completions``: rollouts search, and need their question's record.  Rows of
  the data set carry the record's index, so nothing is looked up by text (questions may repeat).
- ``_prepare_inputs`` / ``training_step``: one generation batch is one optimiser step, taken in
  micro-batches of similar length.  A checkpoint can therefore never fall inside a generation batch.
- ``compute_loss``: log-probabilities of policy tokens alone, see ``objective`` and ``losses``.
- the reference model: a frozen copy of the policy as it was handed in, not one loaded by name.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import numpy as np
import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from zerosearch import seeds
from zerosearch.errors import ConfigError
from zerosearch.schema import Question, ScoredTrajectory
from zerosearch.training.advantages import group_advantages
from zerosearch.training.batching import MicroBatch, Normalisation, make_micro_batches
from zerosearch.training.checkpoints import MarkedCheckpoints
from zerosearch.training.correction import Correction
from zerosearch.training.losses import chosen_loss, micro_batch_loss
from zerosearch.training.objective import LossTerms
from zerosearch.training.packing import attending_alone, packs
from zerosearch.training.step_metrics import rollout_metrics, update_metrics


@dataclass(frozen=True, slots=True)
class RLSettings:
    """Settings of the optimisation itself (rollouts and curriculum have their own).

    steps: optimiser steps.  questions_per_step, group_size: questions, and trajectories per question.
    learning_rate: of AdamW; rises linearly over warmup_steps, then stays.  kl_weight: weight of the
    KL to the base; 0 drops the reference model.  clip: the ratio stays in [1 - clip, 1 + clip].
    seed: of the run; keys every draw.  advantage, normalisation: see those modules.
    save_every: steps between checkpoints.  max_grad_norm: gradient clip.  micro_batch_tokens: most
    tokens per forward pass, those of padding included; changes speed and memory, not the loss.
    kept_per_step: trajectories stored per step.  correction: of differences between sampler and trainer.
    loss, packing: see those modules; empty for what the profile says.
    """

    steps: int
    questions_per_step: int = 32
    group_size: int = 8
    learning_rate: float = 5e-4
    kl_weight: float = 1e-3
    clip: float = 0.2
    seed: int = 0
    save_every: int = 15
    reward: str = "f1"
    advantage: str = "grpo"
    normalisation: Normalisation = "token"
    warmup_steps: int = 2
    max_grad_norm: float = 1.0
    micro_batch_tokens: int = 4096
    kept_per_step: int = 16
    correction: Correction = Correction()
    loss: str = ""
    packing: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """One trajectory to be made: which question, at which step, which sample of its group."""

    question: Question
    step: int
    sample: int


@dataclass(frozen=True)
class ScoredBatch:
    """What came back for the slots of one step, in their order (B,), with the noise that was planned."""

    scored: Sequence[ScoredTrajectory]
    noise_planned: float


@dataclass(frozen=True)
class StepReport:
    """One finished step: its row for the metrics, and what was rolled out for it."""

    step: int
    metrics: dict[str, Any]
    scored: Sequence[ScoredTrajectory]
    advantages: np.ndarray


def question_order(n_questions: int, steps: int, per_step: int, seed: int) -> list[list[int]]:
    """Return, for every step, the indices of its questions: (steps, per_step), no repeats in a step.

    Each pass over the questions has its own permutation, keyed by (seed, pass); the remainder of a
    pass that does not fill a step is left for the next pass to draw again.  ConfigError when there
    are fewer questions than one step needs.
    """
    if n_questions < per_step:
        raise ConfigError(
            f"training questions: expected at least questions_per_step = {per_step}, found {n_questions}; "
            "lower it with --set 03.questions_per_step or provide more questions"
        )
    per_pass = n_questions // per_step
    order: list[list[int]] = []
    for number in range(math.ceil(steps / per_pass)):
        drawn = seeds.generator(seed, "question order", number).permutation(n_questions).tolist()
        order += [drawn[i * per_step : (i + 1) * per_step] for i in range(per_pass)]
    return order[:steps]


def trainer_arguments(settings: RLSettings, folder: Path) -> GRPOConfig:
    """Return TRL's configuration, with every default that would surprise set by hand."""
    batch = settings.questions_per_step * settings.group_size
    return GRPOConfig(
        output_dir=str(folder), max_steps=settings.steps, num_generations=settings.group_size,
        per_device_train_batch_size=batch, gradient_accumulation_steps=1, steps_per_generation=1,
        learning_rate=settings.learning_rate, weight_decay=0.0, max_grad_norm=settings.max_grad_norm,
        epsilon=settings.clip, beta=0.0,  # the KL is ours: see PolicyTrainer.reference
        use_bias_correction_kl=False,  # plain k3, as published; TRL's default would multiply it by the ratio
        bf16=False, gradient_checkpointing=False, use_cpu=not torch.cuda.is_available(),
        shuffle_dataset=False, dataloader_num_workers=0, dataloader_pin_memory=False,
        logging_strategy="steps", logging_steps=1, logging_nan_inf_filter=False, disable_tqdm=True,
        report_to=[],
        save_strategy="steps", save_steps=settings.save_every, save_total_limit=2,
        seed=settings.seed, data_seed=settings.seed,
    )


def short_rise(optimizer: Any, warmup_steps: int) -> LambdaLR:
    """Return the schedule of all policies: a short linear rise that starts above zero, then constant."""
    return LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / (warmup_steps + 1)))


class PolicyTrainer(MarkedCheckpoints, GRPOTrainer):
    """Trains a policy on trajectories that ``roll_out`` makes for slots.

    roll_out: (slots) -> ScoredBatch, one trajectory per slot, same order.  on_step: called with a
    StepReport after every update.  reference: frozen copy of the base model, None without KL.
    fingerprint: names the run in its checkpoints.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        questions: Sequence[Question],
        settings: RLSettings,
        folder: Path,
        roll_out: Callable[[list[Slot]], ScoredBatch],
        on_step: Callable[[StepReport], None],
        reference: PreTrainedModel | None = None,
        temperature: float = 1.0,
        fingerprint: Mapping[str, Any] | None = None,
    ):
        settings = replace(settings, loss=chosen_loss(settings.loss))
        self.questions, self.settings, self.reference = tuple(questions), settings, reference
        self.roll_out, self.on_step, self.fingerprint = roll_out, on_step, dict(fingerprint or {})
        self.sampling_temperature, self.packed = temperature, packs(model, settings.packing)
        self._report: StepReport | None = None
        self._terms: list[LossTerms] = []
        self._entropy_sum = 0.0
        super().__init__(
            model=model, args=trainer_arguments(settings, folder), processing_class=tokenizer,
            reward_funcs=_scored_in_rollout, train_dataset=self._rows(),
        )
        self.remove_callback(PrinterCallback)
        if self.accelerator.num_processes > 1:
            raise ConfigError(
                f"policy RL: expected one process, found {self.accelerator.num_processes}; start it with python, "
                "not with accelerate launch or torchrun"
            )

    def _rows(self) -> Dataset:
        """Return one row per (step, question): the order of training, written down."""
        s = self.settings
        order = question_order(len(self.questions), s.steps, s.questions_per_step, s.seed)
        steps = [step for step, chunk in enumerate(order, 1) for _ in chunk]
        indices = [index for chunk in order for index in chunk]
        return Dataset.from_dict({"prompt": [""] * len(steps), "step": steps, "question": indices})

    # ---- one generation batch -----------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> list[MicroBatch]:
        """Return the micro-batches of one step; in the rows each question stands group_size times."""
        group = self.settings.group_size
        slots = [Slot(self.questions[r["question"]], r["step"], i % group) for i, r in enumerate(inputs)]
        step = self.state.global_step + 1
        if any(slot.step != step for slot in slots):
            found = sorted({slot.step for slot in slots})
            raise RuntimeError(f"expected rows of step {step}, found rows of steps {found}")
        batch = self.roll_out(slots)
        _check_order(slots, batch.scored)
        groups = np.arange(len(slots)) // group
        trajectories = [s.trajectory for s in batch.scored]
        valid = np.array([t.stop_reason != "retriever_error" for t in trajectories])
        rewards = np.array([s.reward for s in batch.scored])
        advantages = group_advantages(rewards, groups, self.settings.advantage, valid)
        metrics = rollout_metrics(batch.scored, advantages, groups, batch.noise_planned)
        self._report = StepReport(step, metrics, batch.scored, advantages)
        return make_micro_batches(
            trajectories, advantages, pad_id=self.processing_class.pad_token_id,
            max_tokens=self.settings.micro_batch_tokens, normalisation=self.settings.normalisation,
            skip_idle=self.reference is None, packed=self.packed,
        )

    def _prepare_inputs(self, generation_batch: list[dict[str, Any]]) -> list[MicroBatch]:
        return self._generate_and_score_completions(generation_batch)

    # ---- one optimiser step -------------------------------------------------------------------

    def training_step(
        self, model: PreTrainedModel, inputs: list[dict[str, Any]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Roll out, then accumulate the gradient of the whole batch; return its loss."""
        model.train()
        micro_batches = self._prepare_inputs(inputs)
        self._terms, self._entropy_sum = [], 0.0
        return accumulate(self, model, micro_batches)

    def compute_loss(
        self, model: PreTrainedModel, inputs: MicroBatch, return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Return the loss of one micro-batch, weighted so that all of them sum to the batch's loss."""
        loss, terms, entropy = micro_batch_loss(
            model, self.reference, inputs, clip=self.settings.clip, kl_weight=self.settings.kl_weight,
            temperature=self.sampling_temperature, loss=self.settings.loss, correction=self.settings.correction,
        )
        self._terms.append(terms)
        self._entropy_sum += entropy
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return the schedule: a short linear rise that starts above zero, then constant."""
        self.lr_scheduler = short_rise(optimizer or self.optimizer, self.settings.warmup_steps)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- after the step -----------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete the step's row with what the update measured, and hand it to ``on_step``."""
        super().log(logs, start_time)
        if self._report is None or "loss" not in logs:
            return
        report, self._report = self._report, None
        measured = {name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate")}
        measured |= update_metrics(self._terms, self._entropy_sum, self.reference is not None)
        row = {"step": report.step, **report.metrics, **measured}
        self.on_step(StepReport(report.step, row, report.scored, report.advantages))


def accumulate(trainer: Any, model: PreTrainedModel, micro_batches: Sequence[MicroBatch]) -> torch.Tensor:
    """Add up the gradient of a batch, micro-batch by micro-batch; return its loss, detached.

    trainer: a transformers Trainer whose ``compute_loss`` weights micro-batches so that they sum to the batch;
    ``training_seconds`` is set on it.
    """
    started, device = time.perf_counter(), trainer.accelerator.device
    total = torch.zeros((), device=device)
    packed = any(micro_batch.segments for micro_batch in micro_batches)
    with attending_alone(model) if packed else nullcontext():
        for micro_batch in micro_batches:
            loss = trainer.compute_loss(model, micro_batch.to(device))
            trainer.accelerator.backward(loss)
            total += loss.detach()
    trainer.training_seconds = time.perf_counter() - started
    return total


def _scored_in_rollout(**_: Any) -> list[float]:
    """Stand where TRL wants a reward function; rewards come with the trajectories instead."""
    raise RuntimeError("expected rewards to come with the rollouts, found a call of TRL's reward path")


def _check_order(slots: Sequence[Slot], scored: Sequence[ScoredTrajectory]) -> None:
    """Refuse trajectories that are not those asked for, one by one: a row travels with its record."""
    wanted = [(s.question.id, s.step, s.sample) for s in slots]
    found = [(s.trajectory.question.id, s.trajectory.step, s.trajectory.sample) for s in scored]
    if wanted != found:
        differs = (i for i, (w, f) in enumerate(zip(wanted, found)) if w != f)
        first = next(differs, min(len(wanted), len(found)))
        raise RuntimeError(f"expected one trajectory per row in order, found a different one at row {first}")
