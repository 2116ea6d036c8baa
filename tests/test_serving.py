"""Starting a server that cannot start: the reason is told, and nothing waits for it.  Real servers: tests_vllm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_toys import toy_model

from zerosearch.engines import serving
from zerosearch.errors import ConfigError, ServerProblem
from zerosearch.layouts import Layout
from zerosearch.microworld import models


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Its folder holds no model; where vLLM is not installed, the log says that."""
    (tmp_path / "model").mkdir()
    with serving._server(tmp_path / "model", "toy", [], tmp_path / "logs" / "server.log", 1, ()) as server:
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


def test_a_simulator_has_cards_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cards behind the policy's, shared out evenly among its servers; each sees its own alone."""
    own = Layout(policy_gpus=4, simulator_gpus=4).simulator_cards
    assert own == (4, 5, 6, 7) and Layout().simulator_cards == ()
    with pytest.raises(ConfigError, match="expected 8 GPUs on this machine, .* found 0"):
        serving.shared_out(own, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert serving.shared_out(own, 2) == [[4, 5], [6, 7]] and serving.shared_out((), 2) == [[], []]
    with pytest.raises(ConfigError, match="multiple of 03.simulator_replicas = 3, found 4"):
        serving.shared_out(own, 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert serving.seen_cards([6, 7]) == {"CUDA_VISIBLE_DEVICES": "6,7"} and serving.seen_cards([]) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert serving.seen_cards([1, 2]) == {"CUDA_VISIBLE_DEVICES": "5,7"}
    spread = serving._options(toy_model(), 512, 2, own_cards=2)
    assert spread[-4:] == ["--gpu-memory-utilization", "0.9", "--tensor-parallel-size", "2"]
