"""The one door through which every arm is trained, whatever its trainer.  Called by notebook 03."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import layouts
from zerosearch.artifacts import Stage
from zerosearch.curriculum import Curriculum
from zerosearch.engines.base import Engine
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Question
from zerosearch.training.arms import Arm
from zerosearch.training.asking import asking_of
from zerosearch.training.policy_rl import train_policy
from zerosearch.training.policy_sft import tune_on_answers, tune_on_right_trajectories
from zerosearch.training.policy_together import train_policy_together
from zerosearch.training.policy_trainer import RLSettings

TRAINERS: dict[str, Callable[..., pd.DataFrame]] = {
    "rl": train_policy, "sft": tune_on_answers, "rejection": tune_on_right_trajectories,
}
"""An arm's ``trainer`` -> what trains its policy; a trainer of your own takes the arguments of ``train_policy``."""


def train_arm(
    arm: Arm, questions: Sequence[Question], policy_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
    retriever: Retriever, prompts: Prompts, settings: RLSettings, stage: Stage, *, curriculum: Curriculum,
    rollout_settings: RolloutSettings, engine: Engine | None = None, identity: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Train policy_model in place as the arm says and return its history, one row per step (see ``step_metrics``).

    retriever: from ``arm_setup.open_retriever``.  engine: generates with policy_model's own weights; an arm that
    searches itself needs the one that its retriever writes with, so that its tokens are counted.  Everything else
    as in ``policy_rl.train_policy``, for every arm: files, ledger, checkpoints, resuming.

    Where the layout in force asks for more than one process (``policy_gpus``), arms that learn by reinforcement start
    them and follow them: one for each GPU, or on a machine without one processes on the CPU.  The others take one.
    """
    several = arm.trainer == "rl" and layouts.in_force().policy_gpus > 1
    return (train_policy_together if several else TRAINERS[arm.trainer])(
        questions, policy_model, tokenizer, retriever, prompts, settings, stage, curriculum=curriculum,
        rollout_settings=rollout_settings, engine=engine, identity={"arm": arm.name, **(identity or {})},
        asking=asking_of(arm),
    )
