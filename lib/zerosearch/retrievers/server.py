"""A small server for those who have none: BM25 over a passages file, in Search-R1's protocol.

    python -m zerosearch.retrievers.server --corpus FILE [--port 8000] [--topk 5] [--k1 0.9] [--b 0.4] [--no-stemming]

    POST /retrieve   {"queries": ["..."], "topk": 5, "return_scores": true}; "query": "..." for a single one
    GET  /health     {"status": "ok", "passages": 20411, "engine": "bm25 ..."}

It listens on this machine only unless told otherwise, refuses what is too large, and answers every mistake
with a JSON object {"error": "..."}.  The index is built once and kept, see ``bm25``.  SIGINT and SIGTERM end it
when the searches under way are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.retrievers.base import MAX_PASSAGES
from zerosearch.retrievers.bm25 import K1, B, BM25Retriever
from zerosearch.retrievers.corpus import open_passages
from zerosearch.schema import Passage

MAX_BODY = 2**20  # bytes of a request
GRACE_SECONDS = 10.0  # for requests under way when the server is asked to end
MAX_QUERIES, MAX_TOPK, MAX_QUERY = 1000, 100, 10_000  # of one request: queries, passages each, characters each


@dataclass
class _About:
    """What the handlers share.  topk: passages per query where a request names no number.  busy: requests under way."""

    engine: BM25Retriever
    topk: int
    pool: ThreadPoolExecutor
    busy: set[RequestHandler] = field(default_factory=set)


class _Json(RequestHandler):
    """Writes every error as {"error": "..."}."""

    def initialize(self, about: _About) -> None:
        self.about = about

    def write_error(self, status_code: int, **info: Any) -> None:
        error = info.get("exc_info", (None, None, None))[1]
        told = error.log_message if isinstance(error, HTTPError) and error.log_message else self._reason
        self.finish({"error": told})


@stream_request_body
class _Retrieve(_Json):
    def prepare(self) -> None:
        self._body = bytearray()
        self.about.busy.add(self)
        self._limit(int(self.request.headers.get("Content-Length", 0)))

    def data_received(self, chunk: bytes) -> None:
        self._limit(len(self._body) + len(chunk))
        self._body += chunk

    def on_finish(self) -> None:
        self.about.busy.discard(self)

    def on_connection_close(self) -> None:
        self.about.busy.discard(self)

    def _limit(self, size: int) -> None:
        if size > MAX_BODY:
            raise HTTPError(413, f"expected a request of at most {MAX_BODY} bytes, found more")

    async def post(self) -> None:
        queries, topk, scores = _read(bytes(self._body), self.about.topk)
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self.about.pool, _search, self.about.engine, queries, topk, scores)
        self.finish({"result": found})

    def get(self) -> None:
        raise HTTPError(405, 'expected POST with {"queries": ["..."], "topk": 5}, found GET')


class _Health(_Json):
    def get(self) -> None:
        engine = self.about.engine
        self.finish({"status": "ok", "passages": len(engine.passages), "engine": engine.identity})


class _Elsewhere(_Json):
    def prepare(self) -> None:
        raise HTTPError(404, "expected /retrieve or /health, found another path")


def _application(about: _About) -> Application:
    shared = {"about": about}
    return Application(
        [("/retrieve/?", _Retrieve, shared), ("/health/?", _Health, shared)], default_handler_class=_Elsewhere,
        default_handler_args=shared, log_function=lambda handler: None,
    )


def _read(body: bytes, topk: int) -> tuple[list[str], int, bool]:
    """Return (queries, passages per query, whether scores are wanted) of a request; HTTPError 400 otherwise."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPError(400, "expected a JSON object, found something else") from None
    if not isinstance(asked, dict):
        raise HTTPError(400, "expected a JSON object, found something else")
    queries = asked.get("queries", asked.get("query"))
    queries = [queries] if isinstance(queries, str) else queries
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise HTTPError(400, 'expected texts under "queries" (or one under "query"), found others')
    if len(queries) > MAX_QUERIES or any(len(query) > MAX_QUERY for query in queries):
        raise HTTPError(400, f"expected at most {MAX_QUERIES} queries of at most {MAX_QUERY} characters, found more")
    wanted = topk if asked.get("topk") is None else asked["topk"]
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= MAX_TOPK:
        raise HTTPError(400, f'expected a number from 1 to {MAX_TOPK} under "topk", found {wanted!r}')
    return queries, wanted, asked.get("return_scores") is True


def _search(engine: BM25Retriever, queries: Sequence[str], topk: int, scores: bool) -> list[list[Any]]:
    """Return the documents of every query, best first, in the protocol's form."""
    found = []
    for query, ranked in zip(queries, engine.rank(queries, topk), strict=True):
        documents = [_document(engine.passages[place]) for place in ranked]
        scored = zip(documents, engine.scores(query, ranked), strict=True)
        found.append([{"document": d, "score": s} for d, s in scored] if scores else documents)
    return found


def _document(passage: Passage) -> dict[str, str]:
    return {"id": passage.id, "contents": f'"{passage.title}"\n{passage.text}'}


async def serve(engine: BM25Retriever, host: str, port: int, topk: int) -> None:
    """Answer until SIGINT or SIGTERM.  port: 0 for any free one; the address is printed.

    Raises ConfigError where the address cannot be used.
    """
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise ConfigError(
            f"server: expected an address that is free, found {host}:{port} refused ({error.strerror}); choose another "
            "with --port"
        ) from error
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with ThreadPoolExecutor(1) as pool:  # one search at a time; meanwhile others are read and written
        about = _About(engine, topk, pool)
        server = HTTPServer(_application(about), max_body_size=2**40, body_timeout=60.0)  # the handler has a limit
        server.add_sockets(sockets)
        print(f"listening on http://{host}:{sockets[0].getsockname()[1]}", flush=True)
        await stop.wait()
        server.stop()
        ends = loop.time() + GRACE_SECONDS
        while about.busy and loop.time() < ends:
            await asyncio.sleep(0.02)
        await server.close_all_connections()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zerosearch.retrievers.server", description="BM25 over a passages file, in Search-R1's protocol."
    )
    parser.add_argument("--corpus", type=Path, required=True, help="passages, one JSON object per line")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one")
    parser.add_argument("--topk", type=int, default=5, help="passages per query where a request names no number")
    parser.add_argument("--k1", type=float, default=K1)
    parser.add_argument("--b", type=float, default=B)
    parser.add_argument("--no-stemming", action="store_true", help="take words as they stand")
    parser.add_argument("--cache", type=Path, default=None, help="folder of indexes (default: outputs/.cache)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        passages = open_passages(options.corpus, options.cache)
        print(f"{len(passages):,} passages; opening the index", flush=True)
        k, stem = min(options.topk, MAX_PASSAGES), not options.no_stemming
        engine = BM25Retriever.open(passages, k, options.k1, options.b, stem, options.cache)
        asyncio.run(serve(engine, options.host, options.port, options.topk))
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("stopped", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
