"""Retrievers: BM25, the simulator, the replay cache; the door for opening a real engine by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from zerosearch.errors import unknown_name

if TYPE_CHECKING:
    from zerosearch.retrievers.base import Retriever
    from zerosearch.schema import Passage

ENGINES = ("bm25",)


def open_engine(name: str, passages: Sequence[Passage], k: int, record: Path | None = None) -> Retriever:
    """Return the real engine of that name over some passages, k of them per query (1 to 20).

    record: file in which its answers are kept and from which they are replayed; None for no record.
    Raises ConfigError with the nearest match for an unknown name.
    """
    from zerosearch.retrievers.bm25 import BM25Retriever
    from zerosearch.retrievers.cache import ReplayCache

    if name not in ENGINES:
        raise unknown_name("retriever", name, ENGINES)
    engine = BM25Retriever(passages, k)
    return ReplayCache(engine, record) if record is not None else engine
