"""Retrievers: real engines, the simulator, the replay cache; the door for opening a real engine by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Sequence

from zerosearch.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from zerosearch.ledger import Ledger
    from zerosearch.remote import Purse
    from zerosearch.retrievers.base import ReplayableRetriever
    from zerosearch.retrievers.cache import ReplayCache
    from zerosearch.schema import Passage

ENGINES = ("bm25", "bm25_plain", "serpapi", "wikipedia", "dense")
SERPAPI_KEY = "SERPAPI_API_KEY"  # environment variable
DENSE_INSTALL = "pip install -c constraints.txt -e '.[dense]'"
_NOWHERE = "http://nowhere.invalid"
REMOTE = ("serpapi", "wikipedia")  # asked over the network: their answers are kept for all runs


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a real engine needs besides passages and K.

    url: address of the server of ``wikipedia`` (or of another SerpAPI); of ``dense``, the encoder.  corpus: what is
    searched there; answers are recorded under this name.  mode: ``live``, or ``replay``, which asks nobody.
    per_second: requests, 0 for no limit.  workers: requests under way at once.  purse: pays for an engine that
    bills, None to pay whatever it costs.
    """

    url: str = ""
    corpus: str = ""
    mode: str = "live"
    per_second: float = 0.0
    workers: int = 4
    purse: Purse | None = None


def open_engine(
    name: str, passages: Sequence[Passage], k: int, record: Path | None = None,
    options: EngineOptions = EngineOptions(), ledger: Ledger | None = None,
) -> ReplayableRetriever:
    """Return the real engine of that name, k of its passages per query (1 to 20).

    passages: what a local engine (``bm25``, ``bm25_plain``, ``dense``) searches; a remote one has its own.  record: folder in
    which a local engine's answers are kept and from which they are replayed, None for none; those of a remote
    engine are always kept, in ``artifacts.answers_dir()``, so that no run asks for what another one has.
    ledger: is told of every answer that is billed.
    Raises ConfigError with the nearest match for an unknown name, and for options that do not fit.
    """
    from zerosearch import artifacts

    if name not in ENGINES:
        raise unknown_name("retriever", name, ENGINES)
    folder = artifacts.answers_dir() if name in REMOTE else record
    engine = _OPENERS[name](passages, k, options)
    if folder is None:
        if options.mode == "replay":
            raise ConfigError(f"retriever {name!r}: expected a record to replay from, found none; use mode live")
        return engine
    return recorded(engine, folder, options.mode, ledger)


def recorded(
    engine: ReplayableRetriever, folder: Path, mode: str = "live", ledger: Ledger | None = None
) -> ReplayCache:
    """Return an engine with its record in a folder; the ledger gets one event for every answer that is billed."""
    from zerosearch.retrievers.cache import ReplayCache

    if ledger is None:
        return ReplayCache(engine, folder, mode)
    written = ledger.units()

    def tell(key: str) -> None:
        unit = f"answer {key[:32]}"
        if unit not in written:
            ledger.event("queries", unit=unit, engine=engine.name, fresh=0, cached=0, paid=1)
            written.add(unit)

    return ReplayCache(engine, folder, mode, on_paid=tell, account=str(ledger.path))


def _bm25(passages: Sequence[Passage], k: int, options: EngineOptions) -> ReplayableRetriever:
    from zerosearch.retrievers.bm25 import BM25Retriever

    return BM25Retriever.open(passages, k)


def _bm25_plain(passages: Sequence[Passage], k: int, options: EngineOptions) -> ReplayableRetriever:
    from zerosearch.retrievers.bm25 import BM25Retriever

    return BM25Retriever.open(passages, k, stem=False)


def _serpapi(passages: Sequence[Passage], k: int, options: EngineOptions) -> ReplayableRetriever:
    from zerosearch.retrievers.serpapi import SerpApiRetriever

    limits = {"per_second": options.per_second, "workers": options.workers}
    return SerpApiRetriever(k, url=options.url, purse=options.purse, **limits)


def _wikipedia(passages: Sequence[Passage], k: int, options: EngineOptions) -> ReplayableRetriever:
    from zerosearch.retrievers.wikipedia import WikipediaRetriever

    replayed = options.mode == "replay" and options.corpus  # nobody is asked, and the name says whose answers are meant
    url = options.url or (_NOWHERE if replayed else "")
    return WikipediaRetriever(url, k, options.corpus, per_second=options.per_second, workers=options.workers)


def _dense(passages: Sequence[Passage], k: int, options: EngineOptions) -> ReplayableRetriever:
    from zerosearch.retrievers.dense import ENCODER, DenseRetriever

    return DenseRetriever(passages, k, options.url or ENCODER)


_OPENERS: dict[str, Callable[[Sequence[Passage], int, EngineOptions], ReplayableRetriever]] = {
    "bm25": _bm25, "bm25_plain": _bm25_plain, "serpapi": _serpapi, "wikipedia": _wikipedia, "dense": _dense,
}
