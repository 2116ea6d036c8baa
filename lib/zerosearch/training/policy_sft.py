"""Training a policy without rewards: on golden answers (``sft``), or on its own right trajectories (``rejection``).

Both are fine-tuning by TRL's SFTTrainer on the tokens that a policy should write; prompts and passages are
read and masked, by the same code as in RL (``batching``).  Questions, their order, limits and optimiser are
those of RL too.  The rows of ``metrics.jsonl`` have RL's columns: before every update the policy answers that
step's questions once.  This is only measured, never learned from; what has no meaning here stays empty.
Called by ``arm_training``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import SFTTrainer

from zerosearch import adapters, collection
from zerosearch.arithmetic import computing
from zerosearch.artifacts import Stage
from zerosearch.curriculum import Curriculum
from zerosearch.engines.base import Engine
from zerosearch.errors import WorkbookError
from zerosearch.prompts import Prompts, prompt_ids
from zerosearch.retrievers.base import Retriever
from zerosearch.rollout import RolloutSettings, trajectories_to_table
from zerosearch.schema import Question, Trajectory
from zerosearch.scoring import em
from zerosearch.training import checkpoints
from zerosearch.training.asking import Asking
from zerosearch.training.batching import MicroBatch, make_micro_batches
from zerosearch.training.checkpoints import MarkedCheckpoints
from zerosearch.training.laying import lay_out
from zerosearch.training.losses import fused_cross_entropy
from zerosearch.training.objective import token_logprobs
from zerosearch.training.packing import packs
from zerosearch.training.policy_rl import CHECKPOINTS, PolicyRun, check_questions, run_fingerprint, training_engine
from zerosearch.training.policy_trainer import (
    RLSettings, ScoredBatch, Slot, StepReport, accumulate, question_order, short_rise,
)
from zerosearch.training.simulator_sft import SFTSettings, sft_arguments
from zerosearch.training.sampler import follow
from zerosearch.training.step_metrics import OF_SOME_ALGORITHMS, TimedRetriever, rollout_metrics

KEPT_PER_QUESTION = 2  # right trajectories of one question that rejection sampling learns from, at most
LESSONS = "lessons.parquet"
NOT_MEASURED = (
    "advantage_mean", "groups_with_spread", "kl", "clip_share", "logprob_gap", "logprob_gap_p50", "logprob_gap_p99",
    "effective_share", "dropped_share", *OF_SOME_ALGORITHMS,
)


class SupervisedTrainer(MarkedCheckpoints, SFTTrainer):
    """Trains a policy to write the masked tokens of given trajectories.

    lessons: per step, those that it learns from.  probe: (step) -> what the policy answers before the
    update of that step.  on_step: called with a StepReport after every update.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lessons: Sequence[Sequence[Trajectory]],
        settings: RLSettings, folder: Path, probe: Callable[[int], ScoredBatch],
        on_step: Callable[[StepReport], None], fingerprint: Mapping[str, Any] | None = None,
    ):
        settings = settings.resolved()
        self.lessons, self.settings, self.probe = lessons, settings, probe
        self.on_step, self.fingerprint = on_step, dict(fingerprint or {})
        self.training_seconds = self._entropy_sum = 0.0
        self.packed = packs(model, settings.packing)
        self._n_tokens = 0
        self._report: StepReport | None = None
        tuned = SFTSettings(
            settings.steps, batch_size=1, learning_rate=settings.learning_rate, seed=settings.seed,
            max_grad_norm=settings.max_grad_norm, save_every=settings.save_every,
        )
        for named in (model.config, model.generation_config):
            named.pad_token_id = tokenizer.pad_token_id  # as GRPOTrainer does; left to transformers it is a warning
        super().__init__(
            model=model, args=sft_arguments(tuned, folder), processing_class=tokenizer, data_collator=list,
            train_dataset=Dataset.from_dict({"step": list(range(1, settings.steps + 1))}),
        )
        self.remove_callback(PrinterCallback)

    def training_step(
        self, model: PreTrainedModel, inputs: list[dict[str, int]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Let the policy answer, then accumulate the gradient of the step's lessons; return their loss."""
        step = inputs[0]["step"]
        self._report = self._probed(step)
        lessons = self.lessons[step - 1]
        micro_batches = make_micro_batches(
            lessons, np.ones(len(lessons)), pad_id=self.processing_class.pad_token_id,
            max_tokens=self.settings.micro_batch_tokens, normalisation=self.settings.normalisation, packed=self.packed,
        )
        model.train()
        self._entropy_sum, self._n_tokens = 0.0, sum(len(b.targets) for b in micro_batches)
        return accumulate(self, model, micro_batches)

    def compute_loss(
        self, model: PreTrainedModel, inputs: MicroBatch, return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Return the weighted -log-probability of a micro-batch's trained tokens, nats."""
        where = (inputs.input_ids, inputs.positions, inputs.targets)
        with computing(inputs.input_ids.device):
            if self.settings.loss == "fused":
                loss, _, entropies = fused_cross_entropy(model, *where, inputs.weights, inputs.segments)
            else:
                logp, entropies = token_logprobs(model, *where, with_entropy=True, segments=inputs.segments)
                loss = -(inputs.weights * logp).sum()
        self._entropy_sum += float(entropies.sum())
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: transformers estimates them from batches of another form."""
        return 0

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Return the same schedule as in RL."""
        self.lr_scheduler = short_rise(optimizer or self.optimizer, self.settings.warmup_steps)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _probed(self, step: int) -> StepReport:
        batch = self.probe(step)
        nothing = np.full(len(batch.scored), np.nan)
        metrics = rollout_metrics(batch.scored, nothing, np.arange(len(batch.scored)), batch.noise_planned)
        return StepReport(step, metrics, batch.scored, nothing)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Complete the step's row with what the update measured, and hand it to ``on_step``."""
        super().log(logs, start_time)
        if self._report is None or "loss" not in logs:
            return
        report, self._report = self._report, None
        measured = {name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate")}
        measured |= {"entropy": self._entropy_sum / self._n_tokens, **dict.fromkeys(NOT_MEASURED)}
        self.on_step(replace(report, metrics={"step": report.step, **report.metrics, **measured}))


def tune_on_answers(
    questions: Sequence[Question], policy_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    retriever: Retriever, prompts: Prompts, settings: RLSettings, stage: Stage, *, curriculum: Curriculum,
    rollout_settings: RolloutSettings, engine: Engine | None = None, identity: Mapping[str, Any] | None = None,
    asking: Asking = Asking("direct", searches=False),
) -> pd.DataFrame:
    """Show the policy questions_per_step questions a step, each with its golden answer; return the history.

    Arguments, checks, files and resuming as in ``policy_rl.train_policy``.
    """
    checkpoints.require_base(policy_model)
    check_questions(questions, settings, curriculum, rollout_settings)
    order = question_order(len(questions), settings.steps, settings.questions_per_step, settings.seed)
    lessons = [[answer_lesson(questions[i], prompts, asking) for i in chunk] for chunk in order]
    run = PolicyRun(stage, settings, curriculum, rollout_settings, prompts, TimedRetriever(retriever), asking)
    run.engine = training_engine(engine, policy_model, tokenizer)
    return _supervise(run, lessons, questions, policy_model, tokenizer, identity)


def tune_on_right_trajectories(
    questions: Sequence[Question], policy_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    retriever: Retriever, prompts: Prompts, settings: RLSettings, stage: Stage, *, curriculum: Curriculum,
    rollout_settings: RolloutSettings, engine: Engine | None = None, identity: Mapping[str, Any] | None = None,
    asking: Asking = Asking(),
) -> pd.DataFrame:
    """Sample as many trajectories as RL would, all from the base; train on those that are right; return the history.

    Each of a step's questions is sampled group_size times.  The lessons are kept in ``lessons.parquet``; every
    step takes questions_per_step of them, or all if there are fewer, in passes over all of them.  Arguments,
    checks, files and resuming as in ``policy_rl.train_policy``; sampling that was cut off goes on after its
    last batch.  Raises WorkbookError when no trajectory is right.
    """
    checkpoints.require_base(policy_model)
    check_questions(questions, settings, curriculum, rollout_settings)
    run = PolicyRun(stage, settings, curriculum, rollout_settings, prompts, TimedRetriever(retriever), asking)
    run.engine = training_engine(engine, policy_model, tokenizer)
    order = question_order(len(questions), settings.steps, settings.questions_per_step, settings.seed)
    requests = [
        asking.request(prompts, questions[i], step, sample, curriculum.noise(step))
        for step, chunk in enumerate(order, 1) for i in chunk for sample in range(settings.group_size)
    ]
    size = settings.questions_per_step * settings.group_size
    sampled = collection.collect(requests, run.engine, retriever, prompts, rollout_settings, size, stage)
    kept = keep_right(sampled)
    if not kept:
        raise WorkbookError(
            f"rejection sampling: expected right trajectories among {len(sampled)}, found none; sample more with "
            f"--set 03.group_size={2 * settings.group_size}, or start from a policy that is sometimes right"
        )
    stage.write_table(trajectories_to_table(kept), LESSONS)
    taken = question_order(len(kept), settings.steps, min(settings.questions_per_step, len(kept)), settings.seed)
    lessons = [[kept[i] for i in chunk] for chunk in taken]
    return _supervise(run, lessons, questions, policy_model, tokenizer, identity)


def answer_lesson(question: Question, prompts: Prompts, asking: Asking) -> Trajectory:
    """Return the trajectory of a policy that answers a question at once with its canonical golden answer."""
    prompt, answer = asking.text(prompts, question), question.golden_answers[0]
    ids = tuple(prompts.tokenizer(prompts.answer_message(answer), add_special_tokens=False).input_ids)
    asked = tuple(prompt_ids(prompts.tokenizer, prompt))
    return Trajectory(question, asked, ids, (True,) * len(ids), (0.0,) * len(ids), (), "answer", answer)


def keep_right(trajectories: Sequence[Trajectory], per_question: int = KEPT_PER_QUESTION) -> list[Trajectory]:
    """Return the trajectories whose answer is right (EM 1), the first per_question different ones of each question."""
    kept: list[Trajectory] = []
    times: Counter[str] = Counter()
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for t in trajectories:
        key = (t.question.id, t.token_ids)
        right = em(t.answer, t.question.golden_answers) == 1.0
        if right and key not in seen and times[t.question.id] < per_question:
            kept.append(t)
            seen.add(key)
            times[t.question.id] += 1
    return kept


def _supervise(
    run: PolicyRun, lessons: Sequence[Sequence[Trajectory]], questions: Sequence[Question],
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, identity: Mapping[str, Any] | None,
) -> pd.DataFrame:
    """Train on the lessons and return the history; the run writes it down."""
    settings, folder = run.settings, run.stage.path(CHECKPOINTS)
    order = question_order(len(questions), settings.steps, settings.questions_per_step, settings.seed)

    def probe(step: int) -> ScoredBatch:
        return run.roll_out([Slot(questions[i], step, 0) for i in order[step - 1]])

    learned = [[(t.prompt_ids, t.token_ids, t.loss_mask) for t in step] for step in lessons]
    fingerprint = {
        **run_fingerprint(
            questions, model, run.retriever.name, settings, run.curriculum, run.rollout_settings, run.asking
        ),
        "lessons": hashlib.sha256(repr(learned).encode()).hexdigest(), "identity": dict(identity or {}),
    }
    run.device, run.policy = model.device.type, model
    lay_out(model, settings.seed)
    trainer = SupervisedTrainer(model, tokenizer, lessons, settings, folder, probe, run.on_step, fingerprint)
    run.trainer = trainer
    found = checkpoints.resume_point(folder, fingerprint)
    run.start(found[1] if found else 0)
    with checkpoints.under_training(model):
        trainer.train_from(found, settings.steps)
        run.watcher.check()
    adapters.merge(model)
    model.eval()
    follow(run.engine, model)
    run.join_trajectories()
    return run.table()
