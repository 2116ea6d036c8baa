"""Toys shared by the training tests: a tiny random model, hand-made trajectories, a scripted world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from zerosearch.ledger import Ledger, read_events
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, StopReason, Trajectory


def toy_model(vocab_size: int = 60, seed: int = 0, **changes: Any) -> Qwen2ForCausalLM:
    """Return a random Qwen2 of hidden size 32 (float32, tied head), in evaluation mode."""
    settings = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 512, "tie_word_embeddings": True,
        "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=vocab_size, **(settings | changes))).float().eval()


def toy_question(index: int = 0, answer: str = "Silver Harbor", split: str = "train") -> Question:
    return Question(f"nq/{index:04d}", "nq", f"who directed film {index}", (answer,), split)  # type: ignore[arg-type]


def toy_trajectory(
    prompt: Sequence[int], tokens: Sequence[int], mask: Sequence[int], logprobs: Sequence[float] | None = None,
    *, index: int = 0, step: int = 1, sample: int = 0, stop: StopReason = "answer", answer: str | None = None,
) -> Trajectory:
    """Return a trajectory of given token ids; mask 1 marks the policy's own tokens."""
    values = logprobs if logprobs is not None else [-1.0 if own else 0.0 for own in mask]
    return Trajectory(
        toy_question(index), tuple(prompt), tuple(tokens), tuple(bool(m) for m in mask), tuple(values), (), stop,
        answer, step, sample, "engine down" if stop == "retriever_error" else None,
    )


def random_trajectories(count: int, seed: int = 0, vocab_size: int = 60) -> list[Trajectory]:
    """Return trajectories of mixed lengths: policy tokens, a retrieved block, policy tokens again."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        first, block, last = (int(rng.integers(1, high)) for high in (9, 20, 9))
        mask = [1] * first + [0] * block + [1] * last
        tokens = rng.integers(2, vocab_size, size=len(mask)).tolist()
        prompt = rng.integers(2, vocab_size, size=int(rng.integers(1, 12))).tolist()
        logprobs = [-float(rng.uniform(2.0, 6.0)) if own else 0.0 for own in mask]
        made.append(toy_trajectory(prompt, tokens, mask, logprobs, index=index))
    return made


class ScriptedRetriever:
    """Answers every query with the same k passages; fails for the queries it is told to fail on."""

    def __init__(self, name: str = "bm25", k: int = 2, noisy: bool | None = None, fail: Sequence[str] = ()):
        self.name, self.k, self.noisy, self.fail = name, k, noisy, set(fail)
        self.asked: list[SearchRequest] = []

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        self.asked += requests
        return [self._one(r) for r in requests]

    def _one(self, request: SearchRequest) -> Retrieval:
        if request.query in self.fail:
            return Retrieval(request, (), self.name, error="scripted failure")
        golden = request.question.golden_answers[0]
        passages = tuple(Passage(f"p{i}", "", f"Silver Harbor was directed by {golden}.") for i in range(self.k))
        return Retrieval(request, passages, self.name, noisy=self.noisy)


class FakeLedger:
    """Keeps events in memory."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})


class ToyLedger(Ledger):
    """The real ledger; its events at hand."""

    @property
    def events(self) -> list[dict[str, Any]]:
        return read_events(self.path)


class FakeStage:
    """A stage folder without manifest or hashes."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.dir, self.ledger = folder, ToyLedger(folder / "ledger.jsonl", "03")
        self.progressed: list[tuple[int, int]] = []

    def path(self, name: str) -> Path:
        return self.dir / name

    def write_table(self, table: pd.DataFrame, name: str) -> Path:
        table.to_parquet(self.dir / name, index=False)
        return self.dir / name

    def progress(self, done: int, total: int, message: str = "", **values: Any) -> None:
        self.progressed.append((done, total))


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
