"""Starting a server that cannot start: the reason is told, and nothing waits for it.  Real servers: tests_vllm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zerosearch.engines import serving
from zerosearch.errors import ServerProblem
from zerosearch.microworld import models


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Its folder holds no model; where vLLM is not installed, the log says that."""
    (tmp_path / "model").mkdir()
    with serving._server(tmp_path / "model", "toy", [], tmp_path / "logs" / "server.log", 1) as server:
        with pytest.raises(ServerProblem, match="it has ended; its log .* ends with:\n.+"):
            server.wait(patience_seconds=300.0)
    assert server.guardian.poll() is not None


@pytest.mark.parametrize("replicas", (1, 3))
def test_on_a_gpu_all_replicas_together_take_their_share(replicas: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's engine and its trainer stand on the same card."""
    model, _ = models.load("micro/llama-base")
    assert "--gpu-memory-utilization" not in serving._options(model, 512, replicas)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    options = serving._options(model, 512, replicas)
    share = float(options[options.index("--gpu-memory-utilization") + 1])
    assert share * replicas == pytest.approx(serving.SERVERS_SHARE, abs=0.002) and "--enforce-eager" not in options
