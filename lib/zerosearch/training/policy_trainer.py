"""Policy RL on trajectories: a subclass of TRL's GRPOTrainer whose rollouts are whole conversations.

What stays TRL's (and transformers'): the training loop, optimiser, gradient clipping, batching of
questions into groups, random state, saving and resuming.  What is replaced, and why:

- ``_generate_and_score_completions``: rollouts search, and need their question's record.  Rows of
  the data set carry the record's index, so nothing is looked up by text (questions may repeat).
- ``_prepare_inputs`` / ``training_step``: one generation batch is one optimiser step, taken in
  micro-batches of similar length.  A checkpoint can therefore never fall inside a generation batch.
- advantages: of GRPO, REINFORCE or PPO, see ``algorithms`` and ``credit``.
- ``compute_loss``: log-probabilities of policy tokens alone, see ``objective`` and ``losses``.
- the reference model: a frozen copy of the policy as it was handed in, not one loaded by name.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Mapping, Protocol, Sequence

import numpy as np
import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from zerosearch import layouts, seeds
from zerosearch.arithmetic import computing
from zerosearch.errors import ConfigError
from zerosearch.schema import Question, ScoredTrajectory
from zerosearch.training import algorithms, sharding
from zerosearch.training.batching import MicroBatch, Normalisation, weightless
from zerosearch.training.checkpoints import MarkedCheckpoints
from zerosearch.training.correction import Correction
from zerosearch.training.credit import Credit, Judges, Outcome, assign_credit
from zerosearch.training.critic import Critic
from zerosearch.training.health import WatchKind
from zerosearch.training.laying import checkpointing_arguments
from zerosearch.training.losses import chosen_loss, micro_batch_loss
from zerosearch.training.objective import LossTerms
from zerosearch.training.packing import attending_alone, chosen_packing, packs
from zerosearch.training.step_metrics import OF_SOME_ALGORITHMS, rollout_metrics, update_metrics
from zerosearch.training.team import ALONE, Team


@dataclass(frozen=True, slots=True)
class RLSettings:
    """Settings of the optimisation itself (rollouts and curriculum have their own).

    steps: optimiser steps.  questions_per_step, group_size: questions, and trajectories per question.
    learning_rate: of AdamW; rises linearly over warmup_steps, then stays.  kl_weight: weight of the
    KL to the base; 0 drops the reference model.  clip: the ratio stays in [1 - clip, 1 + clip].
    seed: of the run; keys every draw.  advantage, normalisation: see those modules.
    save_every: steps between checkpoints.  max_grad_norm: gradient clip.  micro_batch_tokens: most
    tokens per forward pass, those of padding included, 0 for what the profile says; changes speed and memory, not
    the loss.
    kept_per_step: trajectories stored per step.  correction: of differences between sampler and trainer.
    loss, packing: see ``losses`` and ``packing``; empty for what the profile says.
    watch: what a collapse does, see ``health``; changes no number of a step.
    algorithm: see ``algorithms``.  kl_in: ``loss`` or ``reward``; empty for what suits the algorithm.  advantage:
    another estimator than the algorithm's own; empty for its own, and always with a critic.
    critic_learning_rate, value_clip, gae_gamma, gae_lambda: of PPO alone, see ``critic``.

    Raises ConfigError for unknown names and for groups from which the algorithm cannot learn.
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
    advantage: str = ""
    normalisation: Normalisation = "token"
    warmup_steps: int = 2
    max_grad_norm: float = 1.0
    micro_batch_tokens: int = 0
    kept_per_step: int = 16
    correction: Correction = Correction()
    loss: str = ""
    packing: str = ""
    watch: WatchKind = "off"
    algorithm: str = "grpo"
    kl_in: str = ""
    critic_learning_rate: float = 1e-3
    value_clip: float = 0.5
    gae_gamma: float = 1.0
    gae_lambda: float = 1.0

    def __post_init__(self) -> None:
        problem = algorithms.problem_of({"algorithm": self.algorithm, "group_size": self.group_size})
        if self.advantage and not algorithms.get_algorithm(self.algorithm).advantage:
            problem = (
                f"advantage: expected none with the algorithm {self.algorithm}, whose critic estimates it, found "
                f"{self.advantage!r}; leave it out"
            )
        if problem:
            raise ConfigError(problem)
        algorithms.place_of_kl(self.algorithm, self.kl_in)

    @property
    def estimator(self) -> str:
        """The name of the estimator of advantages, see ``advantages``."""
        return self.advantage or algorithms.get_algorithm(self.algorithm).advantage

    @property
    def kl_place(self) -> str:
        """Where the KL stands: ``loss`` or ``reward``."""
        return algorithms.place_of_kl(self.algorithm, self.kl_in)

    def resolved(self) -> RLSettings:
        """Return the settings with what the profile says in the place of what they leave to it."""
        tokens = self.micro_batch_tokens or layouts.in_force().micro_batch_tokens
        loss, packing = chosen_loss(self.loss), chosen_packing(self.packing)
        return replace(self, loss=loss, packing=packing, micro_batch_tokens=tokens)


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


class Beside(Protocol):
    """What has something of its own in every checkpoint."""

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""

    def load(self, folder: Path) -> None:
        """Read it from a checkpoint of ``save``."""


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
    group = max(2, settings.group_size)
    arguments = GRPOConfig(
        output_dir=str(folder), max_steps=settings.steps, num_generations=group,
        per_device_train_batch_size=settings.questions_per_step * group, gradient_accumulation_steps=1, steps_per_generation=1,
        learning_rate=settings.learning_rate, weight_decay=0.0, max_grad_norm=settings.max_grad_norm,
        epsilon=settings.clip, beta=0.0,  # the KL is ours: see PolicyTrainer.reference
        use_bias_correction_kl=False,  # plain k3, as published; TRL's default would multiply it by the ratio
        bf16=False, **checkpointing_arguments(), use_cpu=not torch.cuda.is_available(),
        shuffle_dataset=False, dataloader_num_workers=0, dataloader_pin_memory=False,
        logging_strategy="steps", logging_steps=1, logging_nan_inf_filter=False, disable_tqdm=True,
        report_to=[],
        save_strategy="steps", save_steps=settings.save_every, save_total_limit=2,
        seed=settings.seed, data_seed=settings.seed,
    )
    # TRL refuses groups of one, but only its own advantages, which are not used, need more.
    arguments.num_generations = settings.group_size
    batch = settings.questions_per_step * settings.group_size
    arguments.per_device_train_batch_size = arguments.generation_batch_size = batch
    return arguments


def short_rise(optimizer: Any, warmup_steps: int) -> LambdaLR:
    """Return the schedule of all policies: a short linear rise that starts above zero, then constant."""
    return LambdaLR(optimizer, lambda done: min(1.0, (done + 1) / (warmup_steps + 1)))


class PolicyTrainer(MarkedCheckpoints, GRPOTrainer):
    """Trains a policy on trajectories that ``roll_out`` makes for slots.

    roll_out: (slots) -> ScoredBatch, one trajectory per slot, same order.  on_step: called with a
    StepReport after every update.  reference: the base of the KL, see ``laying``; None without.
    fingerprint: names the run in its checkpoints.  ahead: rollouts under way that checkpoints keep; None without.
    team: the processes that train together; transformers is not told of them, every process runs its loop as if alone
    (see ``team``).
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
        ahead: Beside | None = None,
        team: Team = ALONE,
    ):
        settings, self.team = settings.resolved(), team
        self.questions, self.settings, self.reference = tuple(questions), settings, reference
        self.roll_out, self.on_step, self.fingerprint = roll_out, on_step, dict(fingerprint or {})
        self.sampling_temperature, self.packed = temperature, packs(model, settings.packing)
        self.critic, self.ahead = open_critic(model, settings), ahead
        self._report: StepReport | None = None
        self._credit = Credit([], np.zeros(0))
        self._measured: dict[str, float | None] = {}
        self._terms: list[LossTerms] = []
        self._entropies: list[float] = []
        self._judging_seconds = 0.0
        super().__init__(
            model=model, args=trainer_arguments(settings, folder), processing_class=tokenizer,
            reward_funcs=_scored_in_rollout, train_dataset=self._rows(),
        )
        self.remove_callback(PrinterCallback)
        if self.accelerator.num_processes > 1:
            raise ConfigError(
                f"policy RL: expected a process of its own, found one of {self.accelerator.num_processes} of accelerate's; "
                "start the notebook with python, and ask for processes with --set layout.policy_gpus=N"
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
        started = time.perf_counter()
        rewards = np.array([s.reward for s in batch.scored])
        outcome = Outcome([s.trajectory for s in batch.scored], rewards, np.arange(len(slots)) // group)
        judges = Judges(
            self.reference, self.critic, self.sampling_temperature, self.accelerator.device, self.team
        )
        credit = assign_credit(
            outcome, self.settings, judges, self.processing_class.pad_token_id, packed=self.packed
        )
        metrics = rollout_metrics(batch.scored, credit.advantages, outcome.groups, batch.noise_planned)
        self._report = StepReport(step, metrics, batch.scored, credit.advantages)
        self._credit, self._judging_seconds = credit, time.perf_counter() - started
        return credit.micro_batches

    def _prepare_inputs(self, generation_batch: list[dict[str, Any]]) -> list[MicroBatch]:
        return self._generate_and_score_completions(generation_batch)

    # ---- one optimiser step -------------------------------------------------------------------

    def training_step(
        self, model: PreTrainedModel, inputs: list[dict[str, Any]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Roll out, then accumulate the gradient of the whole batch; return its loss."""
        model.train()
        micro_batches = self._prepare_inputs(inputs)
        self._terms, self._entropies = [], []
        loss = accumulate(self, model, micro_batches, self.team)
        self.training_seconds += self._judging_seconds + self._teach_critic()
        return loss

    def _teach_critic(self) -> float:
        """Take the critic's own step, where there is one and something to learn from; return its wall seconds."""
        started, credit = time.perf_counter(), self._credit
        self._measured = dict(credit.measured)
        if self.critic is not None and credit.lessons:
            self._measured["value_loss"] = self.critic.learn(credit.micro_batches, credit.lessons, self.team)
        return time.perf_counter() - started

    def compute_loss(
        self, model: PreTrainedModel, inputs: MicroBatch, return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Return the loss of one micro-batch, weighted so that all of them sum to the batch's loss."""
        reference = self.reference if self.settings.kl_place == "loss" else None
        with computing(inputs.input_ids.device):
            loss, terms, entropy = sharding.entered(model, lambda: micro_batch_loss(
                model, reference, inputs, clip=self.settings.clip, kl_weight=self.settings.kl_weight,
                temperature=self.sampling_temperature, loss=self.settings.loss, correction=self.settings.correction,
            ))
        self._terms.append(terms)
        self._entropies.append(entropy)
        return loss

    def join_measures(self, own: Sequence[int | None]) -> None:
        """Put what all processes measured in the order of the micro-batches.  own: those of this process's passes."""
        made = zip(own, zip(self._terms, self._entropies, strict=True), strict=True)
        found = self.team.in_order([(index, measured) for index, measured in made if index is not None])
        self._terms, self._entropies = [terms for terms, _ in found], [entropy for _, entropy in found]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return the schedule: a short linear rise that starts above zero, then constant."""
        self.lr_scheduler = short_rise(optimizer or self.optimizer, self.settings.warmup_steps)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def save_beside(self, folder: Path) -> None:
        """Write the critic and the rollouts under way, where there are some, into a checkpoint."""
        for part in filter(None, (self.critic, self.ahead)):
            part.save(folder)

    def load_beside(self, folder: Path) -> None:
        """Read what ``save_beside`` wrote."""
        for part in filter(None, (self.critic, self.ahead)):
            part.load(folder)

    # ---- after the step -----------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete the step's row with what the update measured, and hand it to ``on_step``."""
        super().log(logs, start_time)
        if self._report is None or "loss" not in logs:
            return
        report, self._report = self._report, None
        measured = {name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate")}
        with_kl = self.reference is not None and self.settings.kl_place == "loss"
        measured |= update_metrics(self._terms, sum(self._entropies), with_kl)
        measured |= {**dict.fromkeys(OF_SOME_ALGORITHMS), **self._measured}
        row = {"step": report.step, **report.metrics, **measured}
        self.on_step(StepReport(report.step, row, report.scored, report.advantages))


def open_critic(policy: PreTrainedModel, settings: RLSettings) -> Critic | None:
    """Return the critic that the settings ask for, made from the policy before its training; None without one."""
    if algorithms.get_algorithm(settings.algorithm).advantage:
        return None
    return Critic(
        policy, learning_rate=settings.critic_learning_rate, warmup_steps=settings.warmup_steps,
        clip=settings.value_clip, max_grad_norm=settings.max_grad_norm,
    )


def accumulate(
    trainer: Any, model: PreTrainedModel, micro_batches: Sequence[MicroBatch], team: Team = ALONE
) -> torch.Tensor:
    """Add up the gradient of a batch, micro-batch by micro-batch; return its loss, detached.

    trainer: a transformers Trainer whose ``compute_loss`` weights micro-batches so that they sum to the batch;
    ``training_seconds`` is set on it.  team: whose processes share the passes; each of them ends with the whole
    gradient, or with its part of it where the model is spread.
    """
    started, device = time.perf_counter(), trainer.accelerator.device
    own, losses = team.deal([batch.input_ids.numel() for batch in micro_batches]), []
    packed = any(micro_batch.segments for micro_batch in micro_batches)
    with attending_alone(model) if packed else nullcontext():
        for index in own:
            micro_batch = weightless(micro_batches[-1]) if index is None else micro_batches[index]
            loss = trainer.compute_loss(model, micro_batch.to(device))
            trainer.accelerator.backward(loss)
            losses.append(loss.detach())
    total = torch.zeros((), device=device)
    for loss in losses if team.size == 1 else _joined_losses(trainer, model, own, losses, team):
        total += loss
    trainer.training_seconds = time.perf_counter() - started
    return total


def _joined_losses(
    trainer: Any, model: PreTrainedModel, own: Sequence[int | None], losses: Sequence[torch.Tensor], team: Team
) -> list[torch.Tensor]:
    """Sum the gradients over the processes, put together what they measured; return the loss of every micro-batch."""
    if not sharding.is_spread(model):
        team.sum_gradients(model.parameters())
    trainer.join_measures(own)
    values = [(index, float(loss)) for index, loss in zip(own, losses, strict=True) if index is not None]
    return [torch.tensor(value, device=trainer.accelerator.device) for value in team.in_order(values)]


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
