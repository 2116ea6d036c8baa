"""TRL's own loop over tools, on the engine of the benchmark: a row of rollout_throughput.py.

The loop is ``GRPOTrainer._tool_call_loop`` as it is: all trajectories write, then the tools of all of them are
called one after the other, then all write again.  What it writes with is our vLLM engine in place of TRL's, so that
seeds, closing tags and the limit of a message are the same for every row of the table: TRL's own colocated engine
draws from one generator, writes on after a closing tag and does not run on vLLM's CPU backend, since it copies weights in
before it generates.  Its asynchronous rollout worker (``trl.experimental.async_grpo``) has no row on a CPU: it needs a
server that takes weights over NCCL.  The micro-models write ``<search>`` and no JSON, so the tokenizer is told how a call is read.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Sequence

import torch
from datasets import Dataset
from transformers import PreTrainedModel
from trl import GRPOConfig, GRPOTrainer

from zerosearch import seeds
from zerosearch.engines.base import Engine, GenerationRequest
from zerosearch.prompts import Prompts, parse_action
from zerosearch.retrievers.base import Retriever
from zerosearch.rollout import RolloutRequest, RolloutSettings
from zerosearch.schema import SearchRequest

_TEMPLATE = (  # a call is rendered for TRL's check of the template alone: what the policy writes is never rendered
    "{% for m in messages %}{% if m.role == 'tool' %}{{ m.content }}{% else %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endif %}{% endfor %}"
)


def search(query: str) -> str:
    """Search for a query.

    Args:
        query: what to search for.
    """
    raise NotImplementedError(query)  # every row has its own, which knows the row


def as_message(tokenizer: Any, ids: Sequence[int], prefix: Any = None, tools: Any = None) -> dict[str, Any]:
    """Return what the policy wrote as a message of a chat, its search as a tool call."""
    text = tokenizer.decode(ids, skip_special_tokens=False)
    action, query = parse_action(text)
    calls = [{"type": "function", "function": {"name": "search", "arguments": {"query": query}}}]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if action == "search" else {})}


class ToolLoop(GRPOTrainer):
    """TRL's trainer, of which only the making of trajectories is used."""

    def __init__(
        self, model: PreTrainedModel, engine: Engine, prompts: Prompts, settings: RolloutSettings, folder: str
    ):
        self.writer, self.prompts, self.limits = engine, prompts, settings
        tokenizer = prompts.tokenizer
        tokenizer.chat_template, tokenizer.response_template = _TEMPLATE, {"defaults": {"role": "assistant"}}
        tokenizer.parse_response = partial(as_message, tokenizer)
        config = GRPOConfig(
            output_dir=folder, num_generations=2, per_device_train_batch_size=2, bf16=False, report_to=[],
            max_completion_length=settings.max_total_tokens, max_tool_calling_iterations=settings.max_searches,
            use_cpu=not torch.cuda.is_available(), disable_tqdm=True, save_strategy="no",
        )
        rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "x"}]] * 2})
        super().__init__(model, lambda **_: [0.0], config, rows, processing_class=tokenizer, tools=[search])

    def roll_out(self, requests: Sequence[RolloutRequest], retriever: Retriever) -> tuple[list[list[int]], list[list[int]], int]:
        """Return (token ids after the prompt, their mask, searches) of every request."""
        self.requests, self.turns = requests, dict.fromkeys(range(len(requests)), 0)
        self._sync_tool_dicts = [{"search": partial(self._searched, row, retriever)} for row in range(len(requests))]
        self._async_tool_dicts = [{} for _ in requests]
        asked = [self.prompts.policy_prompt(r.question.question) + (r.forced_prefix or "") for r in requests]
        _, ids, mask, *_ = self._generate([[{"role": "user", "content": text}] for text in asked])
        self.writer.release()
        return ids, mask, sum(self.turns.values())

    def _searched(self, row: int, retriever: Retriever, query: str) -> str:
        asked = self.requests[row]
        request = SearchRequest(query, asked.question, asked.step, asked.sample, self.turns[row])
        self.turns[row] += 1
        found = retriever.search([request])[0]
        return self.prompts.observation(found.passages, self.limits.max_observation_tokens)

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any, num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Write one message with the benchmark's engine, as in the other loops."""
        made = self.writer.generate([
            GenerationRequest(tuple(ids), seeds.derive_seed(0, "trl", row, *ids), self.limits.max_turn_tokens)
            for row, ids in enumerate(prompt_ids)
        ])
        return [list(m.token_ids) for m in made], [list(m.logprobs) for m in made]
