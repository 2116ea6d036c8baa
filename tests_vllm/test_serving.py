"""vLLM's server for real: it answers as the engine in this process does, and nothing of it is left."""

from __future__ import annotations

import contextlib
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


def test_it_answers_and_a_killed_server_leaves_nothing(tmp_path: Path) -> None:
    model, tokenizer = models.load(MODEL)
    texts = [f"Write 2 useful passages for the query.\nQuery: director of film {i}" for i in range(20)]
    asked = [GenerationRequest(tuple(prompt_ids(tokenizer, t)), 2**64 - 1 - i, 40, 0.0, i) for i, t in enumerate(texts)]
    with pytest.raises(ServerProblem, match="is it running"), serve(model, tokenizer, tmp_path / "server.log") as served:
        mine = TransformersEngine(model, tokenizer, stop_strings=()).generate(asked)
        theirs = served.generate(asked)
        same = [(a, b) for a, b in zip(mine, theirs, strict=True) if a.token_ids == b.token_ids]
        assert len(same) >= 19 and all(a.stop_reason == b.stop_reason for a, b in same)
        assert max(abs(x - y) for a, b in same for x, y in zip(a.logprobs, b.logprobs, strict=True)) < 5e-5
        drawn = [GenerationRequest(r.prompt_ids, r.seed, 20, 1.0) for r in asked]
        first, again = served.generate(drawn), served.generate(drawn[::-1])[::-1]
        assert sum(a.token_ids == b.token_ids for a, b in zip(first, again, strict=True)) >= 19
        family = psutil.Process().children(recursive=True)
        assert len(family) >= 3 and (tmp_path / "server.log").stat().st_size > 0
        server = next(p for p in family if "api_server" in " ".join(p.cmdline()) and "guardian" not in " ".join(p.cmdline()))
        server.kill()
        wait_until_gone(family)
        served.generate(asked[:1])
    assert all(map(gone, family))


INTERRUPTED = """
import time
from pathlib import Path
from zerosearch.engines.serving import serve
from zerosearch.microworld import models
with serve(*models.load({model!r}), Path({folder!r}) / "first.log"):
    (Path({folder!r}) / "first").touch()
    time.sleep(600)
"""
KILLED = """
from zerosearch.schema import Question, SearchRequest
from zerosearch.training.arm_setup import open_retriever
from zerosearch.training.arms import get_arm
log = Path({folder!r}) / "second.log"
retriever = open_retriever(get_arm("untuned"), k=2, seed=0, simulator={model!r}, replicas=2, log=log, max_new_tokens=40)
question = Question("nq/1", "nq", "who directed film 1", ("Anka",), "train")
found = retriever.search([SearchRequest("director of film 1", question, sample=i) for i in range(8)])
assert all(f.error is None and f.n_generated_tokens for f in found), found
(Path({folder!r}) / "second").touch()
time.sleep(600)
"""


def wait_for(flag: Path, client: BlockingKernelClient, asked: str) -> None:
    """Wait until a cell has come so far; fail with what it said when it ended before."""
    for _ in range(1200):
        if flag.exists():
            return
        with contextlib.suppress(Empty):
            message = client.get_iopub_msg(timeout=0.25)
            own = message["parent_header"].get("msg_id") == asked
            assert not own or message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
    pytest.fail(f"expected {flag} within 5 minutes, found none")


def test_an_interrupted_cell_and_a_killed_kernel_leave_nothing(tmp_path: Path) -> None:
    """In a notebook's kernel: one server, the cell is interrupted; then two replicas, and kill -9 of the kernel."""
    manager, client = start_new_kernel(kernel_name="python3")
    kernel = psutil.Process(manager.provisioner.pid)
    try:
        told = {"model": MODEL, "folder": str(tmp_path)}
        asked = client.execute(INTERRUPTED.format(**told))
        wait_for(tmp_path / "first", client, asked)
        first = kernel.children(recursive=True)
        assert len(first) >= 3
        manager.interrupt_kernel()
        wait_until_gone(first)
        reply = client.get_shell_msg(timeout=60)
        assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (asked, "KeyboardInterrupt")
        wait_for(tmp_path / "second", client, client.execute(KILLED.format(**told)))
        second = kernel.children(recursive=True)
        assert len(second) >= 6 and not set(first) & set(second)
        kernel.kill()
        wait_until_gone(second)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
