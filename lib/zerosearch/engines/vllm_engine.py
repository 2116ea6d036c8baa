"""Generation with vLLM in this process: continuous batching, prefix cache, token ids in and out.

What equals the transformers engine: the stop rule, greedy continuations, and log-probs at the sampling
temperature (in float32 up to rounding).  What does not: the draws.  vLLM draws with its own generator for
each request, from the same seed; they too are the same whatever else is in the batch, but another sample of
the same distribution.  Nothing is cut from that distribution (no top-k, no top-p), and sampling defaults
that a model folder brings are not read.

On its CPU backend weights cannot be changed after loading (the packed copies stay stale, and log-probs are
off by more than 1), so an engine is made for one set of weights and closed.  On a GPU it shares the device with
the trained model: it takes a part of the memory, sleeps during the update and takes the new weights after it.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Hashable, Iterable, Iterator, Sequence

import numpy as np
import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from zerosearch.adapters import present_weights
from zerosearch.engines.base import EngineCounts, Generation, GenerationRequest
from zerosearch.engines.gpu_memory import ENGINE_SHARE
from zerosearch.engines.stopping import StopRule, end_ids
from zerosearch.environment import vllm_problem
from zerosearch.errors import BadInput, ConfigError, NotReady
from zerosearch.prompts import STOP_STRINGS

CPU_BLOCK_TOKENS = 32  # tokens per block of the prefix cache: vLLM's 128 on CPU is longer than most of our turns
CPU_STEP_TOKENS = 8192  # tokens of one step, at least
CPU_HEAD_SIZES = frozenset((32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512))  # of vLLM's attention on a CPU
_GPU_OPTIONS = {  # memory is shared with the model of the trainer, and with a simulator
    "gpu_memory_utilization": ENGINE_SHARE, "enable_sleep_mode": True,
}
# oneDNN keeps compiled code for each number of tokens it has met, 1,024 of them if not told otherwise: about 0.5 GB
# that fills up over 20,000 trajectories, and brings no speed (scripts/soak_rollouts.py, rollout_throughput.py).
CPU_CACHE = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
_ENVIRONMENT = {  # what vLLM and oneDNN read when they are first used; values that are already set are kept
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1", **CPU_CACHE,
}


def require_vllm() -> None:
    """Raise NotReady where vLLM is not installed."""
    if (problem := vllm_problem()) is not None:
        raise NotReady(f"engine vllm: {problem}")


@dataclass(slots=True)
class _Open:
    """A continuation under way."""

    handle: Hashable
    request: GenerationRequest
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class VllmEngine:
    """Engine, and stepping engine, over the model of a folder; see the module's docstring.

    max_batch: continuations at work at once; others wait.  stop_strings: a message ends when one is complete.
    dtype: float32, or bfloat16.  cache_mib: memory for keys and values on a CPU.  Safe to call from several
    threads: ``generate`` of one thread does not lose what ``step`` of another waits for.
    """

    top_p = 1.0
    holds_a_copy = True  # of the weights: it does not follow a model that is trained on

    def __init__(
        self, folder: str | Path, tokenizer: PreTrainedTokenizerBase, name: str = "vllm", max_batch: int = 256,
        stop_strings: Sequence[str] = STOP_STRINGS, *, dtype: str = "float32", cache_mib: int = 512,
    ):
        require_vllm()
        config = AutoConfig.from_pretrained(folder)
        check_head_size(config, name)
        self.tokenizer, self.name, self.counts = tokenizer, name, EngineCounts()
        self._rule = StopRule(tokenizer, stop_strings, end_ids(config, _generation_config(folder), tokenizer))
        self._lock, self._open, self._serial = threading.RLock(), dict[str, _Open](), 0
        self._finished: dict[Hashable, Generation] = {}
        self._asleep = False
        longest = getattr(config, "max_position_embeddings", 0)
        self._engine = _load(folder, max_batch, dtype, cache_mib, longest)
        self._longest = self._engine.model_config.max_model_len

    def add(self, handle: Hashable, request: GenerationRequest) -> None:
        """See ``SteppingEngine``.  BadInput when prompt and budget are longer than the model's context."""
        with self._lock:
            self._add(handle, request)

    def step(self) -> list[tuple[Hashable, Generation]]:
        """See ``SteppingEngine``."""
        with self._lock:
            self._advance()
            finished, self._finished = self._finished, {}
            return list(finished.items())

    def abort(self, handles: Iterable[Hashable]) -> None:
        """See ``SteppingEngine``."""
        with self._lock:
            wanted = set(handles)
            self._engine.abort_request(gone := [key for key, o in self._open.items() if o.handle in wanted])
            for key in gone:
                del self._open[key]
            self._finished = {h: made for h, made in self._finished.items() if h not in wanted}

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one Generation per request, in order; see engines/base.py."""
        with self._lock:
            mine = [(id(requests), i) for i in range(len(requests))]
            for handle, request in zip(mine, requests, strict=True):
                self._add(handle, request)
            while not all(handle in self._finished for handle in mine):
                self._advance()
            return [self._finished.pop(handle) for handle in mine]

    def release(self) -> None:
        """Forget what was computed for earlier conversations, so that the next batch starts as the first did."""
        with self._lock:
            self._engine.reset_prefix_cache()

    @property
    def takes_weights(self) -> bool:
        """Whether ``take_weights`` works here: on a GPU.  On a CPU the packed copies would stay as they are."""
        return torch.cuda.is_available()

    def take_weights(self, model: PreTrainedModel) -> None:
        """Wake up and copy the model's present weights in, name by name as TRL's colocated engine does.

        Adapters come as what they make of the weights.  ConfigError on a CPU.  Not yet measured on a GPU.
        """
        if not self.takes_weights:
            raise ConfigError(
                f"model {self.name!r}: expected a GPU, since vLLM's CPU backend cannot take new weights, found none; "
                "open another engine over the changed model, or use the engine transformers"
            )
        with self._lock:
            if self._asleep:
                self._engine.wake_up()
            self._asleep = False
            self._engine.apply_model(lambda inside: inside.load_weights(present_weights(model)))
            self._engine.reset_prefix_cache()

    def sleep(self) -> None:
        """Give the GPU's memory back until ``take_weights``; nothing on a CPU.  Not yet measured on a GPU."""
        with self._lock:
            if self.takes_weights and not self._asleep:
                self._engine.sleep(level=1)
                self._asleep = True

    def close(self) -> None:
        """Free the model's memory; the engine cannot be used after it."""
        with self._lock:
            if self._engine is None:
                return
            self._engine.engine_core.shutdown()
            self._engine, self._open = None, {}
            gc.collect()

    def _add(self, handle: Hashable, request: GenerationRequest) -> None:
        needed = len(request.prompt_ids) + request.max_new_tokens
        if needed > self._longest:
            raise BadInput(
                f"model {self.name!r}: expected prompt and message within its {self._longest} tokens, found {needed}; "
                "lower max_searches, max_turn_tokens or max_observation_tokens"
            )
        started = time.perf_counter()
        self._serial += 1
        key = str(self._serial)
        self._open[key] = _Open(handle, request)
        self._engine.add_request(key, {"prompt_token_ids": list(request.prompt_ids)}, self._parameters(request))
        self.counts.seconds += time.perf_counter() - started

    def _parameters(self, request: GenerationRequest) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        rule = self._rule
        return SamplingParams(
            temperature=request.temperature, seed=request.seed % 2**63, max_tokens=request.max_new_tokens, logprobs=0,
            stop_token_ids=[*rule.end_ids, *rule.single], detokenize=False,
            output_kind=RequestOutputKind.DELTA if rule.stop_strings else RequestOutputKind.FINAL_ONLY,
        )

    def _advance(self) -> None:
        """Let vLLM compute one step; keep what ended in it."""
        if not self._open:
            return
        started, ended = time.perf_counter(), []
        for output in self._engine.step():
            if (work := self._open.get(output.request_id)) is not None and self._take(work, output):
                ended.append(output.request_id)
                if not output.finished:  # a tag of several tokens: vLLM does not look for those
                    self._engine.abort_request([output.request_id])
        for key in ended:
            work = self._open.pop(key)
            stop = self._rule.reason(work.ids, work.request.max_new_tokens) or "length"
            self._finished[work.handle] = Generation(tuple(work.ids), tuple(work.logprobs), stop)
        self.counts.seconds += time.perf_counter() - started

    def _take(self, work: _Open, output: Any) -> bool:
        """Append what vLLM sampled, up to where the message ends; say whether it has ended."""
        if not work.ids:
            cached = output.num_cached_tokens or 0
            self.counts.prompt += len(work.request.prompt_ids) - cached
            self.counts.cached += cached
        made = output.outputs[0]
        for token, logprobs in zip(made.token_ids, made.logprobs, strict=True):
            work.ids.append(token)
            work.logprobs.append(float(logprobs[token].logprob))
            self.counts.generated += 1
            if self._rule.reason(work.ids, work.request.max_new_tokens) is not None:
                return True
        return bool(output.finished)


def _generation_config(folder: str | Path) -> GenerationConfig | None:
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:  # a model need not have one
        return None


def _load(folder: str | Path, max_batch: int, dtype: str, cache_mib: int, longest: int) -> Any:
    """Return vLLM's engine over a folder; global generators and settings are left as they were."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _let_vllm_look_at_llvmlite()
    # In a notebook sys.stdout is no file, and loading asks for its number.
    with _untouched_generators(), redirect_stdout(sys.__stdout__ or sys.stdout):
        from vllm import EngineArgs, LLMEngine

        on_cpu = not torch.cuda.is_available()
        device = _cpu_options(cache_mib, longest) if on_cpu else _GPU_OPTIONS
        return LLMEngine.from_engine_args(EngineArgs(
            model=str(folder), skip_tokenizer_init=True, dtype=dtype, enforce_eager=on_cpu, max_num_seqs=max_batch,
            enable_prefix_caching=True, generation_config="vllm", logprobs_mode="processed_logprobs",
            disable_log_stats=True, **device,
        ))


def check_head_size(config: PreTrainedConfig, name: str) -> None:
    """Raise ConfigError for a model whose attention heads vLLM cannot compute on a CPU."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if not torch.cuda.is_available() and size not in CPU_HEAD_SIZES:
        raise ConfigError(
            f"model {name!r}: expected attention heads of {', '.join(map(str, sorted(CPU_HEAD_SIZES)))} for vLLM on a "
            f"CPU, found {size}; use the engine transformers for this model"
        )


def _cpu_options(cache_mib: int, longest: int) -> dict[str, Any]:
    """Return what differs on a CPU.

    Prompts are read whole: after a part of one, vLLM turns the request's generator back, which generators
    of a CPU cannot do.
    """
    return {
        "block_size": CPU_BLOCK_TOKENS, "kv_cache_memory_bytes": cache_mib * 2**20, "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(CPU_STEP_TOKENS, longest),
    }


def _let_vllm_look_at_llvmlite() -> None:
    """vLLM 0.31 reads ``__dict__`` of everything in every loaded module, which llvmlite takes for a C function."""
    if (ffi := sys.modules.get("llvmlite.binding.ffi")) is not None:
        ffi.lib._fntab.setdefault("__dict__", {})


@contextmanager
def _untouched_generators() -> Iterator[None]:
    """vLLM seeds every global generator of this process while it loads: put them back."""
    python, arrays, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(arrays)
    torch.set_num_threads(threads)
