"""Fine-tuning the simulator: (useful | misleading, query, question, golden answer) -> passages.

The trainer is TRL's SFTTrainer; the subclass gives each learned token its own weight, because a wrong
word in the golden answer ruins a passage and a wrong article does not.  Only the passages are
learned, never the prompt.  Where the layout has several cards, as many processes learn (``together``).
Called by notebook 02.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Mapping, Sequence

import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer

from zerosearch import adapters, files, layouts
from zerosearch.arithmetic import computing
from zerosearch.artifacts import Stage
from zerosearch.errors import WorkbookError
from zerosearch.ledger import step_unit
from zerosearch.prompts import Prompts
from zerosearch.training import checkpoints, launching, losses, sharding
from zerosearch.training.checkpoints import MarkedCheckpoints
from zerosearch.training.laying import checkpointing_arguments, lay_out
from zerosearch.training.losses import chosen_loss, fused_cross_entropy
from zerosearch.training.objective import token_logprobs
from zerosearch.training.renaming import SimulatorExample
from zerosearch.training.simulator_data import Lesson, batched, collate, encode, lesson_plan, row_parts
from zerosearch.training.team import ALONE, Team
from zerosearch.training.together import train_together
from zerosearch.training.worker import Job

LOG, CHECKPOINTS = "sft_metrics.jsonl", "checkpoints"


@dataclass(frozen=True, slots=True)
class SFTSettings:
    """Settings of the fine-tuning.

    steps: optimiser steps of batch_size examples.  learning_rate: peak; rises over warmup_share of the
    steps, then falls along a cosine to 0.  golden_weight: weight in the loss of tokens of the golden
    answer, against 1.  rename_share: share of examples under new names.  max_length: tokens of prompt
    and passages.  save_every: steps between checkpoints.  loss: see ``losses``; empty for what the profile says.
    """

    steps: int
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    golden_weight: float = 4.0
    rename_share: float = 0.8
    max_length: int = 256
    seed: int = 0
    warmup_share: float = 0.05
    max_grad_norm: float = 1.0
    save_every: int = 100
    loss: str = ""


def weighted_nll(logp: torch.Tensor, weights: torch.Tensor, total: torch.Tensor | None = None) -> torch.Tensor:
    """Return the weighted mean of -logp, nats: sum(w * -logp) / sum(w).  logp, weights (N,).

    total: in the place of sum(w), for a part of a larger batch.
    """
    return -(weights * logp).sum() / (weights.sum() if total is None else total.to(weights.device))


def sft_arguments(settings: SFTSettings, folder: Path) -> SFTConfig:
    """Return TRL's configuration: the order of lessons is ours, so nothing is shuffled or cut there."""
    return SFTConfig(
        output_dir=str(folder), max_steps=settings.steps, per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=1, learning_rate=settings.learning_rate, weight_decay=0.0,
        lr_scheduler_type="cosine", warmup_steps=round(settings.warmup_share * settings.steps),
        max_grad_norm=settings.max_grad_norm, max_length=None, packing=False,
        dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False,
        train_sampling_strategy="sequential", dataloader_num_workers=0, dataloader_pin_memory=False,
        bf16=False, **checkpointing_arguments(), use_cpu=not torch.cuda.is_available(),
        logging_strategy="steps", logging_steps=1, logging_nan_inf_filter=False, disable_tqdm=True,
        report_to=[],
        save_strategy="steps", save_steps=settings.save_every, save_total_limit=1,
        seed=settings.seed, data_seed=settings.seed,
    )


class SimulatorTrainer(MarkedCheckpoints, SFTTrainer):
    """SFTTrainer with one weight per learned token.

    lessons: in training order, steps * batch_size of them.  on_step: called with (step, row).  team: the processes that
    train together; each has all lessons, and the passes of a batch are dealt out among them (see ``team``).
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lessons: Sequence[Lesson],
        settings: SFTSettings, folder: Path, on_step: Any, fingerprint: Mapping[str, Any] | None = None,
        team: Team = ALONE,
    ):
        self.team, self.on_step, self.fingerprint = team, on_step, dict(fingerprint or {})
        self.loss = chosen_loss(settings.loss)
        rows = Dataset.from_list([asdict(lesson) for lesson in lessons])
        super().__init__(
            model=model, args=sft_arguments(settings, folder), processing_class=tokenizer, train_dataset=rows,
            data_collator=partial(collate, tokenizer=tokenizer),
        )
        self.remove_callback(PrinterCallback)

    def training_step(
        self, model: PreTrainedModel, inputs: dict[str, torch.Tensor], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Accumulate the gradient of one batch, in passes of as many texts as the layout says; return its loss.

        Of several processes each ends with the whole gradient, or with its part of it where the model is spread.
        """
        parts = row_parts(inputs, rows_of_a_pass(len(inputs["input_ids"]), self.team.size))
        if self.team.size == len(parts) == 1:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        made = [
            (index, self._learn(model, parts[-1 if index is None else index], inputs["weights"].sum(), index is not None))
            for index in self.team.deal([part["input_ids"].numel() for part in parts])
        ]
        if not sharding.is_spread(model):
            self.team.sum_gradients(model.parameters())
        found = self.team.in_order([(index, measured) for index, measured in made if index is not None])
        shares, logps = zip(*found, strict=True)
        self._note(torch.cat(logps), torch.cat([part["weights"] for part in parts]))
        return torch.stack(shares).sum().to(self.accelerator.device)

    def _learn(
        self, model: PreTrainedModel, part: dict[str, torch.Tensor], total: torch.Tensor, counts: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Go forward and backward; return (share in the loss, log-probabilities (N,)), detached and on the CPU.

        total: of all weights of the batch.  counts: False for a process that only keeps step, which adds nothing.
        """
        loss, logp = self._loss(model, self._prepare_inputs(part), total)
        self.accelerator.backward(loss if counts else 0.0 * loss)
        return loss.detach().cpu(), logp.cpu()

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict[str, torch.Tensor], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Return the weighted loss of one batch (see ``collate``); counts go to the log."""
        loss, logp = self._loss(model, inputs, inputs["weights"].sum())
        self._note(logp, inputs["weights"])
        return loss

    def _loss(
        self, model: PreTrainedModel, part: dict[str, torch.Tensor], total: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (share of a part in its batch's loss, log-probabilities (N,), detached).  total: of all weights."""
        weights, model = part["weights"], self.accelerator.unwrap_model(model)
        where = (part["input_ids"], part["positions"], part["targets"])

        def computed() -> tuple[torch.Tensor, torch.Tensor]:
            if self.loss == "fused":
                return fused_cross_entropy(model, *where, weights / total.to(weights.device))[:2]
            logp, _ = token_logprobs(model, *where)
            return weighted_nll(logp, weights, total), logp

        with computing(weights.device):
            loss, logp = sharding.entered(model, computed)
        return loss, logp.detach()

    def _note(self, logp: torch.Tensor, weights: torch.Tensor) -> None:
        golden = (weights != 1.0).to(logp.device)
        self._metrics["train"]["nll"].append(-logp.mean().item())
        if golden.any():
            self._metrics["train"]["nll_golden"].append(-logp[golden].mean().item())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Hand each step's numbers to ``on_step``."""
        super().log(logs, start_time)
        if "loss" in logs and "grad_norm" in logs:
            names = ("loss", "nll", "nll_golden", "grad_norm", "learning_rate")
            row = {name: float(logs[name]) for name in names if name in logs}
            self.on_step(self.state.global_step, row)


def rows_of_a_pass(batch_size: int, processes: int) -> int:
    """Return how many texts go through the model at once: what the layout says, and no more than a process's share."""
    share = -(-batch_size // processes)
    return min(layouts.in_force().sft_rows or share, share)


def tune_simulator(
    examples: Sequence[SimulatorExample],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    settings: SFTSettings,
    stage: Stage,
    *,
    identity: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Fine-tune the simulator in place and return its history, one row per step.

    examples: see ``simulator_data``; WorkbookError when there is none to learn from.  Columns: step,
    loss (weighted), nll and nll_golden (plain means over all and over golden-answer tokens, nats),
    grad_norm, learning_rate, seconds.  Resumes from a complete checkpoint of the same run.

    Learns in as many processes as the layout in force has cards, those of the simulator included: errors as in
    ``together.train_together``; ConfigError for more of them than texts of a batch.
    """
    checkpoints.require_base(model)
    layout = layouts.in_force()
    processes = layout.policy_gpus + layout.simulator_gpus
    work = partial(
        learn, lessons=make_lessons(examples, prompts, settings), tokenizer=tokenizer, settings=settings,
        identity=dict(identity or {}),
    )
    if processes == 1:
        return work(model, stage, ALONE)
    launching.check(
        processes, settings.batch_size, counted="policy_gpus + simulator_gpus", things="texts", setting="02.batch_size"
    )
    train_together(Job(stage.dir.absolute(), stage.ledger.place, LOG, work), model, tokenizer, stage, processes)
    return pd.DataFrame(files.read_jsonl(stage.path(LOG)))


def learn(
    model: PreTrainedModel, stage: Stage, team: Team, *, lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerBase,
    settings: SFTSettings, identity: Mapping[str, Any],
) -> pd.DataFrame:
    """Do what one process of the team has to do for ``tune_simulator``, alone all of it; return the history.

    A model that was spread stays so, its adapters beside its weights.
    """
    fingerprint = {
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("save_every", "loss")},
        **losses.fingerprint(settings.loss), **layouts.fingerprint(layouts.in_force(), "02"),
        "lessons": hashlib.sha256(repr([le.input_ids for le in lessons]).encode()).hexdigest(),
        "identity": dict(identity),
    }
    log = _Log(stage, settings, team)
    log.device = model.device.type
    lay_out(model, settings.seed)
    trainer = SimulatorTrainer(
        model, tokenizer, lessons, settings, stage.path(CHECKPOINTS), log.on_step, fingerprint, team
    )
    if team.size > 1 and layouts.in_force().sharding == "fsdp":
        sharding.spread(model, team.size)
    found = team.first(checkpoints.resume_point(stage.path(CHECKPOINTS), fingerprint) if team.leads else None)
    log.start(found[1] if found else 0)
    with checkpoints.under_training(model):
        trainer.train_from(found, settings.steps)
    if not sharding.is_spread(model):
        adapters.merge(model)
    model.eval()
    return pd.DataFrame(log.rows)


def make_lessons(
    examples: Sequence[SimulatorExample], prompts: Prompts, settings: SFTSettings
) -> list[Lesson]:
    """Return exactly steps * batch_size lessons in training order.

    Examples whose prompt alone fills max_length are left out; WorkbookError when nothing is left.
    """
    usable = [e for e in examples if e.passages and encode(e, prompts, 1.0, settings.max_length) is not None]
    if not usable:
        raise WorkbookError(
            f"simulator SFT: expected examples with prompts under {settings.max_length} tokens, found none among "
            f"{len(examples)}; collect more with --set 01.n_questions=1000 or raise --set 02.max_length=512"
        )
    count = settings.steps * settings.batch_size
    planned = lesson_plan(usable, count, settings.rename_share, settings.seed)
    made = [encode(e, prompts, settings.golden_weight, settings.max_length) for e in planned]
    # New names can make a prompt too long; then the first usable example takes the place.
    spare = encode(usable[0], prompts, settings.golden_weight, settings.max_length)
    return batched([lesson or spare for lesson in made], settings.batch_size, settings.seed)


class _Log:
    """Writes down the steps of one fine-tuning."""

    device = "cpu"

    def __init__(self, stage: Stage, settings: SFTSettings, team: Team):
        self.stage, self.settings, self.team, self.rows = stage, settings, team, []
        self._last = time.perf_counter()

    def start(self, done: int) -> None:
        self.stage.ledger.keep_steps(done)
        self.rows: list[dict[str, Any]] = checkpoints.cut_log(self.stage.path(LOG), done)
        self.stage.progress(done, self.settings.steps, "going on" if done else "first lessons")
        self._last = time.perf_counter()

    def on_step(self, step: int, row: dict[str, float]) -> None:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self.rows.append({"step": step, **row, "seconds": round(seconds, 4)})
        files.append_text(self.stage.path(LOG), json.dumps(self.rows[-1]) + "\n")
        units = 1 if self.device == "cuda" else torch.get_num_threads()
        self.stage.ledger.event(
            "busy", unit=step_unit(step), role="simulator_training", device=self.device, seconds=round(seconds, 4),
            units=units * self.team.size,
        )
        self.stage.progress(step, self.settings.steps, loss=row["loss"])
