"""What policy_step.py measures on: a model by name, and ragged search trajectories for it.

``recorded``: the shipped policy plays the micro-world's training questions with its real engine, half of the trajectories
made to begin with a search; rewards are F1, advantages GRPO's.  ``log-normal``: prompts of 60 tokens, completions whose
lengths are drawn from a log-normal (sigma 0.6, at most 6 times the median), in which messages of the policy (35 % of the
tokens) take turns with retrieved text; tokens and advantages are drawn, and no row is idle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.microworld import models
from zerosearch.microworld.world import build_questions, build_world
from zerosearch.planning import shapes
from zerosearch.prompts import Prompts
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.schema import Question, Trajectory
from zerosearch.training.advantages import group_advantages
from zerosearch.training.batching import make_micro_batches, trained_tokens
from zerosearch.training.objective import token_logprobs
from zerosearch.training.policy_rl import score_trajectories

RECORDER = "micro/llama-base"
GROUP = 8
LIMITS = RolloutSettings(max_searches=5, max_turn_tokens=48, max_observation_tokens=160, max_total_tokens=1640)
SMALL = {  # a few million parameters, a vocabulary that is not tiny
    "model_type": "qwen2", "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 8192, "tie_word_embeddings": True,
}
POLICY_SHARE, MESSAGE, PROMPT = 0.35, 48, 60  # of the completion's tokens; tokens of a message, of a prompt


@dataclass(frozen=True)
class Batch:
    """The trajectories of one optimiser step, in groups of GROUP, with their advantages (B,)."""

    trajectories: Sequence[Trajectory]
    advantages: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every trajectory, its prompt included, (B,)."""
        return np.array([len(t.prompt_ids) + len(t.token_ids) for t in self.trajectories])

    @property
    def policy_share(self) -> float:
        """Share of trained tokens among those after the prompts, in [0, 1]."""
        return sum(map(trained_tokens, self.trajectories)) / sum(len(t.token_ids) for t in self.trajectories)

    @property
    def idle_share(self) -> float:
        """Share of trajectories of advantage 0, in [0, 1]."""
        return float((self.advantages == 0).mean())


def open_model(name: str, device: torch.device) -> PreTrainedModel:
    """Return a model: ``micro/...`` as shipped, ``random:small`` or ``random:NAME`` of data/model_shapes.yaml.

    float32 on a CPU, bfloat16 on a GPU.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    if not name.startswith("random:"):
        return models.load(name, dtype)[0].to(device)
    named = name.removeprefix("random:")
    table = {full.split("/")[-1]: entry["config"] for full, entry in shapes.table().items()}
    torch.manual_seed(0)
    config = AutoConfig.for_model(**(SMALL if named == "small" else table[named]))
    config.pad_token_id, config.eos_token_id = 0, 1
    return AutoModelForCausalLM.from_config(config, dtype=dtype).to(device)


def tokenizer_for_trl() -> PreTrainedTokenizerBase:
    """Return the tokenizer that TRL's trainer asks for; nothing is written or read with it."""
    return models.load_tokenizer(RECORDER)


def recorded(count: int) -> Batch:
    """Return trajectories of the shipped policy in the micro-world, GROUP of each training question."""
    policy, tokenizer = models.load(RECORDER)
    world, prompts = build_world(7), Prompts.load("micro", tokenizer)
    asked = [q for q in build_questions(world, 1, count // GROUP) if q.split == "train"]
    spread = asked[:: len(asked) // (count // GROUP)][: count // GROUP]
    requests = [
        RolloutRequest(q, 1, sample, forced_prefix=prompts.forced_prefix if sample % 2 else "")
        for q in spread for sample in range(GROUP)
    ]
    made = rollout(requests, TransformersEngine(policy, tokenizer), BM25Retriever(world.passages(), k=5), prompts, LIMITS)
    rewards = np.array([scored.reward for scored in score_trajectories(made)])
    return Batch(made, group_advantages(rewards, np.arange(len(made)) // GROUP))


def log_normal(count: int, median: int, vocabulary: int, seed: int = 0) -> Batch:
    """Return drawn trajectories of drawn lengths; vocabulary: the model's."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(median), 0.6, count), 8, 6 * median).astype(int)
    return Batch([_drawn(rng, n, vocabulary, i) for i, n in enumerate(lengths)], rng.normal(size=count))


def _drawn(rng: np.random.Generator, length: int, vocabulary: int, index: int) -> Trajectory:
    message = int(min(MESSAGE, max(2, POLICY_SHARE * length / 2)))  # at least two of them
    turn = round(message / POLICY_SHARE)
    mask = np.arange(length) % turn < message
    question = Question(f"drawn/{index}", "drawn", "", ("",))
    prompt, ids = (tuple(rng.integers(2, vocabulary, n).tolist()) for n in (PROMPT, length))
    return Trajectory(question, prompt, ids, tuple(mask.tolist()), (0.0,) * length, (), "length", None)


def on_policy(batch: Batch, model: PreTrainedModel) -> Batch:
    """Return the batch as if the model had sampled it: its own log-probabilities stand where the sampler's stood."""
    made = [replace(t, logprobs=_logps(t, model)) for t in batch.trajectories]
    return Batch(made, batch.advantages)


@torch.no_grad()
def _logps(trajectory: Trajectory, model: PreTrainedModel) -> tuple[float, ...]:
    (row,) = make_micro_batches([trajectory], np.ones(1), pad_id=0, max_tokens=1)
    row = row.to(model.device)
    logp = token_logprobs(model, row.input_ids, row.positions, row.targets)[0]
    values = np.zeros(len(trajectory.token_ids))
    values[np.flatnonzero(trajectory.loss_mask)] = logp.cpu().numpy()
    return tuple(values.tolist())
