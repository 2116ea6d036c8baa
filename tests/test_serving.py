"""Starting a server that cannot start: the reason is told, and nothing waits for it.  Real servers: tests_vllm."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerosearch.engines import serving
from zerosearch.errors import ServerProblem


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Its folder holds no model; where vLLM is not installed, the log says that."""
    (tmp_path / "model").mkdir()
    with serving._server(tmp_path / "model", "toy", [], tmp_path / "logs" / "server.log", 1) as server:
        with pytest.raises(ServerProblem, match="it has ended; its log .* ends with:\n.+"):
            server.wait(patience_seconds=300.0)
    assert server.guardian.poll() is not None
