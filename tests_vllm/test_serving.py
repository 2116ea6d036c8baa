"""vLLM's server for real: it answers as the engine in this process does, and nothing of it is left."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from queue import Empty

import psutil
import pytest
from jupyter_client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.serving import serve
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ServerProblem
from zerosearch.microworld import models
from zerosearch.prompts import prompt_ids

MODEL = "micro/simulator-medium"


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_until_gone(family: list[psutil.Process]) -> None:
    for _ in range(600):
        if all(map(gone, family)):
            return
        time.sleep(0.05)
    pytest.fail(f"expected no process of the server, found {[p for p in family if not gone(p)]}")


def test_it_answers_and_a_killed_server_and_an_interrupted_block_leave_nothing(tmp_path: Path) -> None:
    """Two replicas: the first is killed with kill -9, the second ends with the block, which Ctrl-C ends."""
    model, tokenizer = models.load(MODEL)
    texts = [f"Write 2 useful passages for the query.\nQuery: director of film {i}" for i in range(20)]
    asked = [GenerationRequest(tuple(prompt_ids(tokenizer, t)), 2**64 - 1 - i, 40, 0.0, i) for i, t in enumerate(texts)]
    log = tmp_path / "server.log"
    with pytest.raises(KeyboardInterrupt), serve(model, tokenizer, log, replicas=2) as served:
        mine = TransformersEngine(model, tokenizer, stop_strings=()).generate(asked)
        theirs = served.generate(asked)
        same = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.token_ids == b.token_ids]
        assert len(same) >= 19 and all(a.stop_reason == b.stop_reason for a, b in same)
        assert max(abs(x - y) for a, b in same for x, y in zip(a.logprobs, b.logprobs, strict=True)) < 5e-5
        drawn = [GenerationRequest(r.prompt_ids, r.seed, 20, 1.0) for r in asked]
        first, again = served.generate(drawn), served.generate(drawn[::-1])[::-1]
        assert sum(a.token_ids == b.token_ids for a, b in zip(first, again, strict=True)) >= 19
        families = [g.children(recursive=True) for g in psutil.Process().children() if "guardian" in " ".join(g.cmdline())]
        assert len(families) == 2 and all(len(own) >= 2 for own in families) and log.stat().st_size > 0
        port = served.urls[0].rsplit(":", 1)[1]
        killed = next(own for own in families if any(port in p.cmdline() for p in own))
        next(p for p in killed if port in p.cmdline()).kill()
        wait_until_gone(killed)
        with pytest.raises(ServerProblem, match="is it running"):
            served.generate([r for r in asked if r.seed % 2 == 0][:1])
        assert len(served.generate([r for r in asked if r.seed % 2 == 1])) == 10
        signal.raise_signal(signal.SIGINT)
    assert all(gone(process) for own in families for process in own)


CELL = """
import time
from pathlib import Path
from zerosearch.schema import Question, SearchRequest
from zerosearch.training.arm_setup import open_retriever
from zerosearch.training.arms import get_arm
log = Path({folder!r}) / "server.log"
retriever = open_retriever(get_arm("untuned"), k=2, seed=0, simulator={model!r}, replicas=1, log=log, max_new_tokens=40)
question = Question("nq/1", "nq", "who directed film 1", ("Anka",), "train")
found = retriever.search([SearchRequest("director of film 1", question, sample=i) for i in range(8)])
assert all(f.error is None and f.n_generated_tokens for f in found), found
(Path({folder!r}) / "up").touch()
time.sleep(600)
"""


def wait_for(flag: Path, client: BlockingKernelClient) -> None:
    """Wait until the cell has come so far; fail with what it said when it ended before."""
    for _ in range(1200):
        if flag.exists():
            return
        with contextlib.suppress(Empty):
            message = client.get_iopub_msg(timeout=0.25)
            assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
    pytest.fail(f"expected {flag} within 5 minutes, found none")


def test_a_killed_kernel_leaves_nothing(tmp_path: Path) -> None:
    """As stage 03 does it: the simulator on a server of the notebook's own, and kill -9 of the notebook's kernel."""
    manager, client = start_new_kernel(kernel_name="python3")
    kernel = psutil.Process(manager.provisioner.pid)
    try:
        client.execute(CELL.format(model=MODEL, folder=str(tmp_path)))
        wait_for(tmp_path / "up", client)
        family = kernel.children(recursive=True)
        assert len(family) >= 3
        kernel.kill()
        wait_until_gone(family)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
