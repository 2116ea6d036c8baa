"""vLLM's OpenAI-compatible servers on this machine, for as long as a ``with`` block runs.

    with serve(model, tokenizer, folder / "server.log") as engine: ...

Each replica runs on 127.0.0.1, on a port that was free, in a process group of its own, below a ``guardian``
that ends it with all its workers when the block ends: normally, by an exception, by Ctrl-C in a notebook, or
because this very process is killed.  What the server says stands in its log.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, Sequence

import httpx
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from zerosearch import processes
from zerosearch.engines.gpu_memory import OWN_SHARE, SERVERS_SHARE
from zerosearch.engines.quantised import vllm_options
from zerosearch.engines.served_engine import ServedEngine
from zerosearch.engines.stopping import end_ids
from zerosearch.engines.vllm_engine import CPU_BLOCK_TOKENS, CPU_CACHE, CPU_STEP_TOKENS, check_head_size, require_vllm
from zerosearch.errors import ConfigError, ServerProblem
from zerosearch.simulator_weights import AS_IS

HOST = "127.0.0.1"
_PORT_TRIES = 3  # another program may take a free port before the server does


@contextmanager
def serve(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, log: Path, name: str = "simulator", *,
    stop_strings: Sequence[str] = (), replicas: int = 1, threads: int = 1, cache_mib: int = 512,
    patience_seconds: float = 600.0, weights: str = AS_IS, cards: Sequence[int] = (),
) -> Iterator[ServedEngine]:
    """Serve a model for the length of a block; yield the engine that asks the servers.

    log: file for what the servers say, one for each replica (numbered from the second on).  threads: CPU threads
    of each.  patience_seconds: for loading, after which ServerProblem says what the log ends with.  weights: numbers
    that the servers hold the model's weights in, see ``quantised``.  cards: numbers of the GPUs that belong to the
    servers alone, shared out evenly (a server spreads its weights over its own); without them all share the first.
    """
    require_vllm()
    own = shared_out(cards, replicas)
    check_head_size(model.config, name)
    ends = sorted(end_ids(model.config, getattr(model, "generation_config", None), tokenizer))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zerosearch-served-")))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder / "tokenizer")
        options = [*_options(model, cache_mib, replicas, len(own[0])), *vllm_options(model, weights)]
        logs = [log if i == 0 else log.with_stem(f"{log.stem}-{i + 1}") for i in range(replicas)]
        starting = [
            stack.enter_context(_server(folder, name, options, one, threads, cards_of_one))
            for one, cards_of_one in zip(logs, own, strict=True)
        ]
        urls = [server.wait(patience_seconds) for server in starting]
        engine = ServedEngine(urls, name, tokenizer, ends, name, stop_strings)
        stack.callback(engine.close)
        yield engine


def serve_until_exit(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, log: Path, name: str = "simulator", *, replicas: int = 1,
    weights: str = AS_IS, cards: Sequence[int] = (),
) -> ServedEngine:
    """As ``serve``, for a notebook: the servers end with this process, however it ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(serve(model, tokenizer, log, name, replicas=replicas, weights=weights, cards=cards))


def shared_out(cards: Sequence[int], replicas: int) -> list[list[int]]:
    """Return the cards of every replica, as many for each; ConfigError where they are not here or cannot be shared so."""
    here = torch.cuda.device_count()
    if cards and max(cards) >= here:
        raise ConfigError(
            f"layout.simulator_gpus: expected {max(cards) + 1} GPUs on this machine, those of the policy and {len(cards)} of "
            f"the simulator's own, found {here}; add --set layout.simulator_gpus=0 to share the policy's"
        )
    each, left = divmod(len(cards), replicas)
    if left:
        raise ConfigError(
            f"layout.simulator_gpus: expected a multiple of 03.simulator_replicas = {replicas}, found {len(cards)}; add "
            f"--set 03.simulator_replicas={len(cards)}, one server for each card, or 1, one server on all"
        )
    return [list(cards[i * each : (i + 1) * each]) for i in range(replicas)]


def _options(model: PreTrainedModel, cache_mib: int, replicas: int = 1, own_cards: int = 0) -> list[str]:
    """Return vLLM's options; the same choices as for the engine in this process.  own_cards: of each replica."""
    options = [
        "--dtype", str(model.dtype).removeprefix("torch."), "--generation-config", "vllm",
        "--logprobs-mode", "processed_logprobs", "--enable-prefix-caching",
    ]
    if own_cards:
        return [*options, "--gpu-memory-utilization", str(OWN_SHARE), "--tensor-parallel-size", str(own_cards)]
    if torch.cuda.is_available():
        return [*options, "--gpu-memory-utilization", f"{SERVERS_SHARE / replicas:.3f}"]
    step = max(CPU_STEP_TOKENS, getattr(model.config, "max_position_embeddings", 0))
    return [
        *options, "--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", str(step),
        "--block-size", str(CPU_BLOCK_TOKENS), "--kv-cache-memory-bytes", str(cache_mib * 2**20),
    ]


class _Server:
    """One server that is being started, and started again when its port was taken."""

    def __init__(
        self, folder: Path, name: str, options: Sequence[str], log: Path, threads: int, cards: Sequence[int] = ()
    ):
        self.folder, self.name, self.options, self.log, self.threads = folder, name, options, log, threads
        self.cards = cards
        self._start()

    def _start(self) -> None:
        self.port = _free_port()
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.folder), "--tokenizer",
            str(self.folder / "tokenizer"), "--served-model-name", self.name, "--host", HOST, "--port", str(self.port),
            *self.options,
        ]
        own = {k: v for k, v in os.environ.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"}
        environment = CPU_CACHE | own | {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(self.threads), "VLLM_NO_USAGE_STATS": "1",
        } | seen_cards(self.cards)
        with self.log.open("ab") as said:
            self.guardian = subprocess.Popen(
                [sys.executable, "-m", "zerosearch.engines.guardian", *command], stdin=subprocess.PIPE, stdout=said,
                stderr=subprocess.STDOUT, start_new_session=True, env=environment,
            )

    def wait(self, patience_seconds: float) -> str:
        """Return the URL once the server is healthy; ServerProblem when it ends, or takes too long."""
        until, tries = time.monotonic() + patience_seconds, _PORT_TRIES
        url = f"http://{HOST}:{self.port}"
        while not _healthy(url):
            if self.guardian.poll() is not None:
                tries -= 1
                if not tries or "address already in use" not in self._end_of_log().lower():
                    raise ServerProblem(self._complaint("it has ended"))
                self._start()
                url = f"http://{HOST}:{self.port}"
            if time.monotonic() > until:
                raise ServerProblem(self._complaint(f"nothing after {patience_seconds:g} s"))
            time.sleep(0.2)
        return url

    def stop(self) -> None:
        """End the server with all its workers; return when they are gone."""
        if self.guardian.stdin is not None:
            with contextlib.suppress(OSError):
                self.guardian.stdin.close()
        try:
            self.guardian.wait(timeout=30.0)
        except subprocess.TimeoutExpired:
            processes.stop_tree(self.guardian.pid)
            self.guardian.wait(timeout=10.0)

    def _complaint(self, found: str) -> str:
        return (
            f"server {self.name!r}: expected it to be ready on port {self.port}, found: {found}; its log {self.log} ends "
            f"with:\n{self._end_of_log()}"
        )

    def _end_of_log(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


@contextmanager
def _server(
    folder: Path, name: str, options: Sequence[str], log: Path, threads: int, cards: Sequence[int]
) -> Iterator[_Server]:
    log.parent.mkdir(parents=True, exist_ok=True)
    server = _Server(folder, name, options, log, threads, cards)
    try:
        yield server
    finally:
        server.stop()


def seen_cards(cards: Sequence[int]) -> dict[str, str]:
    """Return the variable that shows a program these cards alone, of those that this process sees; none for no cards."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen[i] if seen else str(i) for i in cards)} if cards else {}


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
