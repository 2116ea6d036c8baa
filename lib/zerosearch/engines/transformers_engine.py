"""Generation with a Hugging Face model in this process, on CPU or GPU.

Many short conversations at once: rows are right-padded and ragged, each with its own length, so that
no left padding is computed and a later turn only pays for its new tokens (the keys and values of a
conversation stay in the store under its key).  Finished rows leave the batch.  Draws are keyed by the
request's seed: the same whatever else is in the batch.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Hashable, Iterator, Sequence

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer

from zerosearch.arithmetic import computing
from zerosearch.engines.base import EngineCounts, Generation, GenerationRequest, GenerationStop
from zerosearch.engines.stopping import StopRule, end_ids
from zerosearch.heads import logits_of
from zerosearch.prompts import STOP_STRINGS

GROUPED = "zerosearch_grouped"


def grouped_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    attention_mask: torch.Tensor, scaling: float, softcap: float | None = None, sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention that never copies shared key/value heads (transformers' SDPA path does under a mask).

    query (B, H, Q, D); key, value (B, K, T, D) with H = K * G; attention_mask (B, 1, Q, T), additive.
    softcap: of the scores, Gemma's.  sliding_window: of the last keys that a query sees, Mistral's; None for all.
    Returns ((B, Q, H, D), None).
    """
    rows, n_heads, length, width = query.shape
    n_kv = key.shape[1]
    if sliding_window is not None and key.shape[2] > sliding_window:
        attention_mask = _windowed(attention_mask, sliding_window)
    grouped = query.reshape(rows, n_kv, n_heads // n_kv * length, width)
    scores = torch.matmul(grouped, key.transpose(2, 3)) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.view(rows, n_kv, n_heads // n_kv, length, -1) + attention_mask.unsqueeze(2)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = torch.matmul(weights.view(rows, n_kv, -1, key.shape[2]), value)
    return mixed.view(rows, n_heads, length, width).transpose(1, 2).contiguous(), None


def _windowed(mask: torch.Tensor, window: int) -> torch.Tensor:
    """Return an additive causal mask (B, 1, Q, T), keys at their positions, that shows a query its last keys alone."""
    last = (mask == 0).sum(dim=-1, keepdim=True) - 1
    old = torch.arange(mask.shape[-1], device=mask.device) <= last - window
    return mask.masked_fill(old, torch.finfo(mask.dtype).min)


AttentionInterface.register(GROUPED, grouped_attention)


class _RaggedLayer(DynamicLayer):
    """Keys and values (B, K, capacity, D) of one layer; new ones go to each row's own positions."""

    def __init__(self, shared: _Batch):
        super().__init__()
        self.shared = shared

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any):  # noqa: ANN201
        shared = self.shared
        if not self.is_initialized:
            shape = (key_states.shape[0], key_states.shape[1], shared.capacity, key_states.shape[3])
            self.keys, self.values = key_states.new_zeros(shape), value_states.new_zeros(shape)
            self.is_initialized = True
        rows = torch.arange(key_states.shape[0], device=key_states.device)[:, None]
        self.keys[rows, :, shared.positions] = key_states.transpose(1, 2)
        self.values[rows, :, shared.positions] = value_states.transpose(1, 2)
        return self.keys[:, :, : shared.visible], self.values[:, :, : shared.visible]


class _Batch:
    """The rows being generated: shared positions and sizes of all layers."""

    def __init__(self, n_layers: int, capacity: int):
        self.capacity, self.visible = capacity, 0
        self.positions = torch.zeros(0, 0, dtype=torch.long)
        self.layers = [_RaggedLayer(self) for _ in range(n_layers)]
        self.cache = Cache(layers=self.layers)

    def keep(self, rows: torch.Tensor) -> None:
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]


@dataclass
class _Stored:
    """Keys and values of one conversation: ids seen, and per layer (keys, values) of shape (K, length, D)."""

    ids: tuple[int, ...]
    layers: list[tuple[torch.Tensor, torch.Tensor]]


class TransformersEngine:
    """Engine over a loaded causal LM; see the module's docstring.

    max_batch: rows at once.  stop_strings: generation of a row ends when one of them is complete.
    The model's weights may change between calls of ``release()``.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "transformers",
        max_batch: int = 256, stop_strings: Sequence[str] = STOP_STRINGS,
    ):
        self.model, self.tokenizer, self.name, self.max_batch = model, tokenizer, name, max_batch
        self.counts = EngineCounts()
        self._store: dict[Hashable, _Stored] = {}
        self._home: torch.device | None = None  # where the model belongs while it sleeps
        self._lock = threading.RLock()  # a policy that searches itself is asked from two threads
        ends = end_ids(model.config, getattr(model, "generation_config", None), tokenizer)
        self._rule = StopRule(tokenizer, stop_strings, ends)

    def release(self) -> None:
        """Forget all conversations."""
        self._store.clear()

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one Generation per request, in order; see engines/base.py.  One thread at a time gets in."""
        with self._lock, torch.no_grad():
            self._wake()
            with computing(self.model.device):
                return self._generate(requests)

    def sleep(self) -> None:
        """Move the model to the machine's memory until the next call; nothing on a CPU.  Not yet measured on a GPU."""
        with self._lock:
            if self.model.device.type != "cpu":
                self.release()
                self._home = self.model.device
                self.model.to("cpu")
                torch.cuda.empty_cache()

    def _wake(self) -> None:
        if self._home is not None:
            self.model.to(self._home)
            self._home = None

    def _generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        started = time.perf_counter()
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_ids))
        results: dict[int, Generation] = {}
        training = self.model.training
        self.model.eval()
        with self._attention():
            for start in range(0, len(order), self.max_batch):
                chunk = order[start : start + self.max_batch]
                for index, made in zip(chunk, self._generate_batch([requests[i] for i in chunk]), strict=True):
                    results[index] = made
        self.model.train(training)
        self.counts.seconds += time.perf_counter() - started
        return [results[i] for i in range(len(requests))]

    @contextmanager
    def _attention(self) -> Iterator[None]:
        config = self.model.config
        before = config._attn_implementation
        config._attn_implementation = GROUPED
        try:
            yield
        finally:
            config._attn_implementation = before

    def _generate_batch(self, requests: list[GenerationRequest]) -> list[Generation]:
        rows = [_Row(r, self._reusable(r)) for r in requests]
        batch = self._load(rows)
        logits = self._prefill(batch, rows)
        active = list(range(len(rows)))
        while active:
            self._sample(logits, [rows[i] for i in active])
            alive = [k for k, i in enumerate(active) if rows[i].stop_reason is None]
            if len(alive) < len(active):
                self._save(batch, [(k, rows[i]) for k, i in enumerate(active) if rows[i].stop_reason is not None])
                batch.keep(torch.tensor(alive, dtype=torch.long, device=self.model.device))
                active = [active[k] for k in alive]
            if active:
                logits = self._decode(batch, [rows[i] for i in active])
        return [Generation(tuple(r.ids), tuple(r.logprobs), r.stop_reason) for r in rows]

    def _reusable(self, request: GenerationRequest) -> _Stored | None:
        """Return what is stored for the conversation if the prompt really continues it."""
        stored = self._store.pop(request.key, None) if request.key is not None else None
        if stored is None or len(stored.ids) >= len(request.prompt_ids):
            return None
        return stored if request.prompt_ids[: len(stored.ids)] == stored.ids else None

    def _load(self, rows: list[_Row]) -> _Batch:
        capacity = max(len(r.request.prompt_ids) + r.request.max_new_tokens for r in rows)
        batch = _Batch(self.model.config.num_hidden_layers, capacity)
        for index, layer in enumerate(batch.layers):
            example = next((r.stored.layers[index][0] for r in rows if r.stored), None)
            if example is None:
                continue
            shape = (len(rows), example.shape[0], capacity, example.shape[2])
            layer.keys, layer.values = example.new_zeros(shape), example.new_zeros(shape)
            for i, row in enumerate(rows):
                if row.stored:
                    keys, values = row.stored.layers[index]
                    layer.keys[i, :, : keys.shape[1]], layer.values[i, :, : keys.shape[1]] = keys, values
            layer.is_initialized = True
        return batch

    def _prefill(self, batch: _Batch, rows: list[_Row]) -> torch.Tensor:
        new = [r.request.prompt_ids[r.n_cached :] for r in rows]
        width = max(len(ids) for ids in new)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        positions = np.zeros((len(rows), width), dtype=np.int64)
        for i, (row, fresh) in enumerate(zip(rows, new, strict=True)):
            ids[i, : len(fresh)] = fresh
            # Padding repeats the row's last token at its last position: it rewrites the same keys.
            ids[i, len(fresh) :] = fresh[-1]
            positions[i] = np.minimum(np.arange(width), len(fresh) - 1) + row.n_cached
            row.length = row.n_cached + len(fresh)
            self.counts.prompt += len(fresh)
            self.counts.cached += row.n_cached
        last = torch.tensor([len(fresh) - 1 for fresh in new], device=self.model.device)
        hidden = self._forward(batch, ids, positions)
        return logits_of(self.model, hidden[torch.arange(len(rows), device=hidden.device), last])

    def _decode(self, batch: _Batch, rows: list[_Row]) -> torch.Tensor:
        ids = np.array([[r.ids[-1]] for r in rows])
        positions = np.array([[r.length] for r in rows])
        for row in rows:
            row.length += 1
        return logits_of(self.model, self._forward(batch, ids, positions)[:, -1])

    def _forward(self, batch: _Batch, ids: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        """Return hidden states (B, Q, H) for ids (B, Q) placed at positions (B, Q)."""
        device = self.model.device
        batch.positions = torch.from_numpy(positions).to(device)
        batch.visible = int(positions.max()) + 1
        seen = torch.arange(batch.visible, device=device)[None, None, :] <= batch.positions[:, :, None]
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=device)
        mask.masked_fill_(~seen, torch.finfo(self.model.dtype).min)
        return self.model.base_model(
            input_ids=torch.from_numpy(ids).to(device), attention_mask=mask[:, None], position_ids=batch.positions,
            past_key_values=batch.cache, use_cache=True,
        ).last_hidden_state

    def _sample(self, logits: torch.Tensor, rows: list[_Row]) -> None:
        temperatures = torch.tensor([r.request.temperature or 1.0 for r in rows], device=logits.device)
        logps = torch.log_softmax(logits.float() / temperatures[:, None], dim=-1)
        draws = torch.tensor([r.draw() for r in rows], dtype=torch.float64, device=logits.device)
        cumulative = logps.double().exp().cumsum(-1)
        sampled = (cumulative <= draws[:, None] * cumulative[:, -1:]).sum(-1).clamp_max(logps.shape[1] - 1)
        greedy = torch.tensor([r.request.temperature == 0 for r in rows], device=logits.device)
        chosen = torch.where(greedy, logps.argmax(-1), sampled)
        picked = logps.gather(1, chosen[:, None])[:, 0].tolist()
        for row, token, logp in zip(rows, chosen.tolist(), picked, strict=True):
            row.ids.append(token)
            row.logprobs.append(logp)
            row.stop_reason = self._rule.reason(row.ids, row.request.max_new_tokens)
        self.counts.generated += len(rows)

    def _save(self, batch: _Batch, finished: list[tuple[int, _Row]]) -> None:
        for index, row in finished:
            if row.request.key is None:
                continue
            seen = (*row.request.prompt_ids, *row.ids)[: row.length]
            layers = [(x.keys[index, :, : row.length].clone(), x.values[index, :, : row.length].clone()) for x in batch.layers]
            self._store[row.request.key] = _Stored(seen, layers)


class _Row:
    """One request under way: tokens written so far, and how many tokens the cache holds (length)."""

    def __init__(self, request: GenerationRequest, stored: _Stored | None):
        self.request, self.stored = request, stored
        self.n_cached = self.length = len(stored.ids) if stored else 0
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.stop_reason: GenerationStop | None = None
        greedy = request.temperature == 0
        self._draws = None if greedy else np.random.Generator(np.random.Philox(key=request.seed)).random(request.max_new_tokens)

    def draw(self) -> float:
        """Return the uniform draw that belongs to the next position of this row."""
        return 0.0 if self._draws is None else float(self._draws[len(self.ids)])
