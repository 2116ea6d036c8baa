"""The policy's training in several processes (see ``together``): what each of them is told, and what it opens for itself.

Called by ``arm_training`` where the layout asks for more than one process.
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any, Mapping, Sequence

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import files, layouts
from zerosearch.artifacts import Stage
from zerosearch.curriculum import Curriculum
from zerosearch.engines.base import Engine
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever, writing_engine
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Question
from zerosearch.training import checkpoints, launching
from zerosearch.training.arm_setup import Opening, open_again, opened_with
from zerosearch.training.asking import Asking
from zerosearch.training.policy_rl import METRICS, check_questions, history_table, train_policy
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.team import Team
from zerosearch.training.together import train_together
from zerosearch.training.worker import Job


def train_policy_together(
    questions: Sequence[Question], policy_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    retriever: Retriever, prompts: Prompts, settings: RLSettings, stage: Stage, *, curriculum: Curriculum,
    rollout_settings: RolloutSettings, engine: Engine | None = None, identity: Mapping[str, Any] | None = None,
    asking: Asking = Asking(),
) -> pd.DataFrame:
    """As ``policy_rl.train_policy``, in as many processes as the layout says; errors as in ``train_together``."""
    processes = layouts.in_force().policy_gpus
    checkpoints.require_base(policy_model)
    check_questions(questions, settings, curriculum, rollout_settings)
    launching.check(processes, settings.questions_per_step)
    work = partial(
        train_with_others, questions=questions, tokenizer=tokenizer, opening=how_to_open(retriever), prompts=prompts,
        settings=settings.resolved(), curriculum=curriculum, rollout_settings=rollout_settings,
        identity=dict(identity or {}), asking=asking, engine=engine_of(engine),
    )
    job = Job(stage.dir.absolute(), stage.ledger.place, METRICS, work)
    train_together(job, policy_model, tokenizer, stage, processes, writing_engine(retriever))
    return history_table(files.read_jsonl(stage.path(METRICS)))


def train_with_others(
    policy: PreTrainedModel, stage: Stage, team: Team, *, questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase, opening: Opening | Retriever, prompts: Prompts, settings: RLSettings,
    engine: tuple[str, int], **named: Any,
) -> None:
    """Train one process's copy of the policy with an engine and a retriever of its own.

    opening: how the retriever is opened, or one that could be pickled.  engine: see ``engine_of``.  named: of
    ``train_policy``, by the names there.
    """
    name, max_batch = engine
    writer = open_text_engine("transformers", policy, tokenizer, name, max_batch)
    retriever = open_again(opening, (writer, prompts)) if isinstance(opening, Opening) else opening
    train_policy(
        questions, policy, tokenizer, retriever, prompts, settings, stage, engine=writer, team=team, **named
    )


def how_to_open(retriever: Retriever) -> Opening | Retriever:
    """Return what tells another process how to open such a retriever; ConfigError for one that it could not have."""
    found = opened_with(retriever)
    if found is not None:
        return found
    try:
        pickle.dumps(retriever)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"training in several processes: expected a retriever of arm_setup.open_retriever, or one that can be pickled, "
            f"found {type(retriever).__name__}; train in one process with --set layout.policy_gpus=1"
        ) from error
    return retriever


def engine_of(engine: Engine | None) -> tuple[str, int]:
    """Return (name, rows at once) of the engine that every process opens for itself; ConfigError for another kind."""
    if engine is None:
        return "transformers", 256
    if not isinstance(engine, TransformersEngine):
        raise ConfigError(
            f"training in several processes: expected the engine transformers, found {type(engine).__name__}; add "
            "--set 03.rollout_engine=transformers, or train in one process with --set layout.policy_gpus=1"
        )
    return engine.name, engine.max_batch
