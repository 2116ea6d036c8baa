"""vLLM's server for real: it answers as the engine in this process does, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

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


def test_a_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom zerosearch.engines.serving import serve\n"
        "from zerosearch.microworld import models\n"
        f"with serve(*models.load({MODEL!r}), Path(sys.argv[1])):\n    print('up', flush=True)\n    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "up\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) >= 3
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until_gone(family)
