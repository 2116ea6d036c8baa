"""A fixture of all tests, those with vLLM too: the signals that a terminal would give them."""

from __future__ import annotations

import signal
from typing import Iterator

import pytest


@pytest.fixture(autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """SIGINT raises, also where a shell started the tests in the background or another test took it; then as before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGTERM), before):
        signal.signal(number, handler)
