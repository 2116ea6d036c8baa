"""Policy RL from end to end: questions, a retriever and a base policy in, a trained policy out.

``train_policy`` joins the pieces (rollouts, reward, curriculum, ``PolicyTrainer``) and writes, while
it runs: one row per step in ``metrics.jsonl``, ledger events, sampled trajectories, checkpoints.
An interrupted run goes on from its last complete checkpoint and ends with the same numbers.
Called by ``arm_training``; evaluation is another stage's work.
"""

from __future__ import annotations

import copy
import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Iterator, Mapping, Protocol, Sequence

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl

from zerosearch import adapters, files, layouts
from zerosearch.artifacts import Stage
from zerosearch.curriculum import Curriculum
from zerosearch.engines.base import Engine
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.quantised import layout_here
from zerosearch.errors import ConfigError
from zerosearch.ledger import AMOUNTS, PAID, step_unit
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever, count_queries, served_model
from zerosearch.retrievers.by_policy import SELF
from zerosearch.rollout import RolloutSettings, trajectories_to_table
from zerosearch.rollout_async import roll_out
from zerosearch.schema import Question, Retrieval, ScoredTrajectory, Trajectory
from zerosearch.scoring import reward as reward_named
from zerosearch.scoring import score
from zerosearch.training import checkpoints, losses, packing, sharding
from zerosearch.training.asking import Asking
from zerosearch.training.health import Watcher
from zerosearch.training.laying import lay_out, reference_of, without_dropout
from zerosearch.training.overlap import Ahead, OnProgress, Rolled
from zerosearch.training.policy_trainer import (
    PolicyTrainer, RLSettings, ScoredBatch, Slot, StepReport, question_order,
)
from zerosearch.training.sampler import apart, check_sampler, follow, rest, rest_simulator
from zerosearch.training.step_metrics import StepSeconds, TimedRetriever, seconds_metrics
from zerosearch.training.team import ALONE, Team

ANSWERING = ("policy_rollout", "simulator", "retriever")  # what may answer searches; of several processes the first
METRICS, TRAJECTORIES = "metrics.jsonl", "trajectories.parquet"
CHECKPOINTS, PARTS = "checkpoints", "checkpoints/trajectory_parts"


def score_trajectories(trajectories: Sequence[Trajectory], reward: str = "f1") -> list[ScoredTrajectory]:
    """Return each trajectory with its reward and its metrics, all from its own answer (None scores 0)."""
    rewarded = reward_named(reward)
    scored = []
    for t in trajectories:
        golden = t.question.golden_answers
        values = score(t.answer, golden)
        scored.append(ScoredTrajectory(t, rewarded(t.answer, golden), values.em, values.cover_em, values.f1))
    return scored


def train_policy(
    questions: Sequence[Question],
    policy_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    retriever: Retriever,
    prompts: Prompts,
    settings: RLSettings,
    stage: Stage,
    *,
    curriculum: Curriculum,
    rollout_settings: RolloutSettings,
    engine: Engine | None = None,
    identity: Mapping[str, Any] | None = None,
    asking: Asking = Asking(),
    team: Team = ALONE,
) -> pd.DataFrame:
    """Train policy_model in place and return its history, one row per step (see ``step_metrics``).

    questions: training questions only; ValueError when an evaluation question is among them.
    retriever: a simulator or a real engine.  curriculum: noise probability per step; its length must
    be settings.steps.  Raises Collapsed where settings.watch says so.  engine: generates with policy_model's own weights; made here when None.
    identity: whatever else names this run (model name, input hashes); a checkpoint is resumed from
    only when it and all settings are the same.  asking: the prompt, and whether the policy may search.
    With ``layout.overlap`` batches are one update old, see ``overlap``; ConfigError without a correction.
    team: the processes that train together; each calls this with a model, an engine and a retriever of its own, and all
    but the first with a folder that is thrown away.
    """
    checkpoints.require_base(policy_model)
    check_questions(questions, settings, curriculum, rollout_settings)
    if problem := layouts.overlap_problem(layouts.in_force(), settings.correction.kind):
        raise ConfigError(problem)
    fingerprint = {
        **run_fingerprint(questions, policy_model, retriever.name, settings, curriculum, rollout_settings, asking),
        "identity": dict(identity or {}),
    }
    run = PolicyRun(stage, settings, curriculum, rollout_settings, prompts, TimedRetriever(retriever), asking, team)
    run.engine, run.policy = training_engine(engine, policy_model, tokenizer), policy_model
    run.device = policy_model.device.type
    reference = reference_of(policy_model) if settings.kl_weight > 0 else None
    lay_out(policy_model, settings.seed)
    without_dropout(policy_model)
    trained = run.learner(policy_model)
    with rolling_ahead(run, questions):
        run.trainer = trainer = PolicyTrainer(
            trained, tokenizer, questions, settings, stage.path(CHECKPOINTS), run.roll_out, run.on_step,
            reference=trained if reference is policy_model else reference,
            temperature=rollout_settings.temperature, fingerprint=fingerprint, ahead=run.ahead, team=team,
        )
        run.spread(reference)
        found = team.first(checkpoints.resume_point(stage.path(CHECKPOINTS), fingerprint) if team.leads else None)
        run.start(found[1] if found else 0)
        with checkpoints.under_training(trained):
            trainer.train_from(found, settings.steps)
            run.watcher.check()
    run.fetch()
    adapters.merge(policy_model)
    policy_model.eval()
    follow(run.engine, policy_model)
    run.join_trajectories()
    return run.table()


@contextmanager
def rolling_ahead(run: PolicyRun, questions: Sequence[Question]) -> Iterator[None]:
    """Let a run make every batch one step ahead for the length of a block, where the layout says so."""
    if not layouts.in_force().overlap:
        yield
        return
    settings = run.settings
    order = question_order(len(questions), settings.steps, settings.questions_per_step, settings.seed)

    def slots_of(step: int) -> list[Slot]:
        return [Slot(questions[i], step, sample) for i in order[step - 1] for sample in range(settings.group_size)]

    with apart(run.engine, run.policy) as renew, Ahead(run.make, renew, slots_of, settings.steps) as run.ahead:
        yield


def training_engine(
    engine: Engine | None, policy_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Engine:
    """Return the engine that rolls out while policy_model is trained; ConfigError for one that cannot follow it."""
    if engine is None:
        return open_text_engine("transformers", policy_model, tokenizer, "transformers")
    check_sampler(engine)
    return engine


def run_fingerprint(
    questions: Sequence[Question], model: PreTrainedModel, retriever: str,
    settings: RLSettings, curriculum: Curriculum, rollout_settings: RolloutSettings, asking: Asking = Asking(),
) -> dict[str, Any]:
    """Return what a checkpoint must agree with to be resumed from: settings, prompt, questions, base weights.

    save_every, kept_per_step, micro_batch_tokens and watch change no result and are left out.
    """
    free = ("save_every", "kept_per_step", "micro_batch_tokens", "loss", "packing", "watch")
    asked = hashlib.sha256("\n".join(f"{q.id}\t{q.question}\t{q.golden_answers}" for q in questions).encode())
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        weights.update(name.encode())
        weights.update(parameter.detach().flatten()[:4096].float().cpu().numpy().tobytes())
    return {
        "settings": {k: v for k, v in asdict(settings).items() if k not in free},
        **losses.fingerprint(settings.loss), **packing.fingerprint(model, settings.packing),
        **layouts.fingerprint(layout_here(), "03"),
        "curriculum": asdict(curriculum), "rollout": asdict(rollout_settings), "retriever": retriever,
        "asking": asdict(asking), "questions": asked.hexdigest(), "base_weights": weights.hexdigest(),
    }


class TrainerUnderway(Protocol):
    """What a run asks of its trainer: wall seconds of the last update, and to be stopped."""

    training_seconds: float
    control: TrainerControl


class PolicyRun:
    """One training under way: makes rollouts for the trainer, writes down what each step gave."""

    engine: Engine
    trainer: TrainerUnderway
    device: str
    policy: PreTrainedModel
    trained: PreTrainedModel | None = None  # where what is trained is not the policy that writes, see ``learner``
    _rolled: Rolled

    def __init__(
        self, stage: Stage, settings: RLSettings, curriculum: Curriculum, rollout_settings: RolloutSettings,
        prompts: Prompts, retriever: TimedRetriever, asking: Asking = Asking(), team: Team = ALONE,
    ):
        self.stage, self.settings, self.curriculum = stage, settings, curriculum
        self.rollout_settings, self.prompts, self.retriever = rollout_settings, prompts, retriever
        self.asking, self.team = asking, team
        self.history: list[dict[str, Any]] = []
        self.watcher = Watcher(stage, settings.watch, settings.steps, asdict(settings) | asdict(rollout_settings))
        self.ahead: Ahead | None = None
        self._started = self._waited = 0.0

    def start(self, done: int) -> None:
        """Go back to what was written down by step ``done``, in every file; say where the run begins.

        Raises Collapsed when it would go on from a collapse, see ``health``.
        """
        self.stage.ledger.keep_steps(done)
        self.history = checkpoints.cut_log(self.stage.path(METRICS), done)
        for part in self.stage.path(PARTS).glob("step_*.parquet"):
            if int(part.stem.removeprefix("step_")) > done:
                part.unlink()
        self.watcher.start(self.history)
        self.stage.progress(done, self.settings.steps, "going on" if done else "first rollouts")

    def learner(self, policy: PreTrainedModel) -> PreTrainedModel:
        """Return the model that is trained: the policy, or where it is to be spread over the team a copy for that.

        Rollouts differ in their number of passes and cannot share a model that is spread: the policy stays whole, and
        has the trained weights of every step (``fetch``).
        """
        if self.team.size > 1 and layouts.in_force().sharding == "fsdp":
            self.trained = copy.deepcopy(policy)
        return self.trained or policy

    def spread(self, reference: PreTrainedModel | None) -> None:
        """Spread the copy that is trained over the team, where there is one, and the reference with it."""
        for model in (self.trained, reference) if self.trained is not None else ():
            if model is not None and model is not self.policy:
                sharding.spread(model, self.team.size)

    def fetch(self) -> None:
        """Give the policy the present weights of the model that is trained."""
        if self.trained is not None:
            sharding.copy_trained(self.trained, self.policy)

    def roll_out(self, slots: list[Slot]) -> ScoredBatch:
        """Return one scored trajectory per slot, all of one step, at that step's noise.

        Every process of the team makes those of some questions: a group stays together.
        """
        self._started = time.perf_counter()
        rolled = self._now(self._own(slots)) if self.ahead is None else self.ahead.take(slots[0].step)
        self._rolled, self._waited = rolled, time.perf_counter() - self._started
        scored = self.team.gather(score_trajectories(rolled.trajectories, self.settings.reward))
        return ScoredBatch([one for part in scored for one in part], rolled.noise)

    def _own(self, slots: list[Slot]) -> list[Slot]:
        """Return the slots of this process: whole groups, in their order."""
        if self.team.size == 1:
            return slots
        part, group = self.team.part(len(slots) // self.settings.group_size), self.settings.group_size
        return slots[part.start * group : part.stop * group]

    def _now(self, slots: list[Slot]) -> Rolled:
        started = time.perf_counter()
        self.fetch()
        follow(self.engine, self.policy)
        rolled = self.make(slots)
        rest(self.engine, spread=self.trained is not None)
        rest_simulator(self.retriever, self.policy)
        return replace(rolled, seconds=time.perf_counter() - started)

    def make(self, slots: list[Slot], on_progress: OnProgress | None = None) -> Rolled:
        """Return the rollouts of one step, written with the weights that the engine has, and what they took."""
        started = time.perf_counter()
        noise = self.curriculum.noise(slots[0].step)
        requests = [self.asking.request(self.prompts, s.question, s.step, s.sample, noise) for s in slots]
        trajectories = roll_out(
            requests, self.engine, self.retriever, self.prompts, self.rollout_settings, on_progress
        )
        (retrievals, searching), used = self.retriever.drain(), self.engine.counts.take()
        asked = retrieval_events(retrievals, served_model(self.retriever))
        seconds = time.perf_counter() - started
        return Rolled(
            trajectories, noise, used.prompt, used.generated, asked, _answering(retrievals), seconds, searching
        )

    def on_step(self, report: StepReport) -> None:
        """Write down one finished step: metrics row, ledger events, sampled trajectories, health, progress."""
        rolled = self._rolled
        seconds = StepSeconds(
            rollout=rolled.seconds - rolled.searching, simulator=rolled.searching,
            training=self.trainer.training_seconds, total=time.perf_counter() - self._started,
        )
        row = {**report.metrics, **self.team.first(seconds_metrics(seconds))}
        files.append_text(self.stage.path(METRICS), json.dumps(row) + "\n")
        self.history.append(row)
        self._meter(report.step, seconds)
        table = _report_table(report, self.settings.kept_per_step)
        files.write_table(self.stage.path(PARTS) / f"step_{report.step:06d}.parquet", table)
        self.stage.progress(
            report.step, self.settings.steps, self._look(report), reward=row["reward_mean"],
            searches=row["searches_mean"],
        )

    def _look(self, report: StepReport) -> str:
        """Watch the step; where it collapsed keep its trajectories, end the training if so wished, and say it."""
        alarms = self.watcher.look(self.history)
        if not alarms:
            return ""
        self.watcher.keep(_report_table(report, len(report.scored)))
        if self.settings.watch == "stop":
            self.trainer.control.should_save = self.trainer.control.should_training_stop = True
        return "unhealthy: " + ", ".join(dict.fromkeys(alarm.rule.metric for alarm in alarms))

    def _meter(self, step: int, seconds: StepSeconds) -> None:
        """Enter what a step used; of its rollouts' seconds those that were waited for: the others are an update's."""
        event, units = partial(self.stage.ledger.event, unit=step_unit(step)), self._units() * self.team.size
        rolled = self._rolled
        tokens = self._summed({"prompt": rolled.prompt, "generated": rolled.generated})
        event("tokens", role="policy", model=self.engine.name, **tokens)
        for fields in summed_events(self.team.gather(rolled.asked)):
            event(**fields)
        waited = 1.0 if self.ahead is None else min(1.0, self._waited / rolled.seconds)
        answering = min(self.team.gather(rolled.answering), key=ANSWERING.index)
        spent = ({"policy_rollout": waited * seconds.rollout}, {answering: waited * seconds.simulator},
                 {"policy_training": seconds.training})
        for one in spent:
            for role, wall in self._summed(one).items():  # of all processes: their mean, times the units of all
                event("busy", role=role, device=self.device, seconds=round(wall / self.team.size, 4), units=units)

    def _summed(self, amounts: Mapping[str, Any]) -> dict[str, Any]:
        """Return amounts added up over the processes of the team."""
        found = self.team.gather(amounts)
        return {name: sum(one[name] for one in found) for name in amounts}

    def _units(self) -> int:
        return 1 if self.device == "cuda" else torch.get_num_threads()

    def table(self) -> pd.DataFrame:
        """Return the history, see ``history_table``."""
        return history_table(self.history)

    def join_trajectories(self) -> None:
        """Write the sampled trajectories of all steps as one table."""
        folder = self.stage.path(PARTS)
        parts = sorted(folder.glob("step_*.parquet")) if folder.is_dir() else []
        if parts:
            tables = [pd.read_parquet(part) for part in parts]
            self.stage.write_table(pd.concat(tables, ignore_index=True), TRAJECTORIES)


def history_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of ``metrics.jsonl``, one row per step; what was not measured is NaN."""
    table = pd.DataFrame(rows)
    empty = table.columns[table.isna().all()]
    return table.astype(dict.fromkeys(empty, float))


def _report_table(report: StepReport, count: int) -> pd.DataFrame:
    """Return the first trajectories of a step with their rewards and advantages, one row each."""
    kept = report.scored[:count]
    table = trajectories_to_table([s.trajectory for s in kept])
    table["reward"], table["em"], table["f1"] = zip(*[(s.reward, s.em, s.f1) for s in kept], strict=True)
    table["advantage"] = report.advantages[: len(kept)]
    table["noise_planned"] = report.metrics["noise_planned"]
    return table


def _answering(retrievals: Sequence[Retrieval]) -> str:
    """Return the role of what answered the searches, for the seconds that it took."""
    if any(r.source == SELF for r in retrievals):
        return "policy_rollout"
    return "simulator" if any(r.n_generated_tokens for r in retrievals) else "retriever"


def retrieval_events(retrievals: Sequence[Retrieval], served: str = "") -> list[dict[str, Any]]:
    """Return the ledger events of some retrievals: queries by engine, and a simulator's tokens.

    served: the model's name on its server; what it wrote may be billed, and stays in the account.
    """
    events: list[dict[str, Any]] = []
    for counts in count_queries(retrievals):
        source = counts["engine"]
        mine = [r for r in retrievals if r.source == source]
        events.append({"kind": "queries", **counts})
        written = sum(r.n_generated_tokens for r in mine)
        tokens = {"prompt": sum(r.n_prompt_tokens for r in mine), "generated": written}
        if written:
            paid = {"unit": PAID} if served else {}
            events.append({"kind": "tokens", "role": "simulator", "model": served or source, **tokens, **paid})
    return events


def summed_events(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the events of several processes as one would have entered them: alike ones added up, in their order."""
    if len(parts) == 1:
        return [dict(event) for event in parts[0]]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in (event for part in parts for event in part):
        key = tuple((name, value) for name, value in event.items() if name not in AMOUNTS)
        known = found.setdefault(key, {**event, **{name: 0 for name in event if name in AMOUNTS}})
        known |= {name: known[name] + value for name, value in event.items() if name in AMOUNTS}
    return list(found.values())


def check_questions(
    questions: Sequence[Question], settings: RLSettings, curriculum: Curriculum,
    rollout_settings: RolloutSettings,
) -> None:
    """Refuse evaluation questions, a curriculum of another length, and greedy decoding (ValueError)."""
    evaluation = [q.id for q in questions if q.split != "train"]
    if evaluation:
        raise ValueError(f"policy training: expected training questions, found {evaluation[0]!r} of split 'eval'")
    if curriculum.total_steps != settings.steps:
        raise ValueError(f"curriculum: expected {settings.steps} steps, found {curriculum.total_steps}")
    if rollout_settings.temperature <= 0:
        raise ValueError("policy training: expected a sampling temperature above 0, found greedy decoding (0)")
