"""A real web server on this machine that does as it is told: honest answers and every kind of damage."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Callable
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it arrived.  body: its JSON, None for a GET."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """What is sent back.

    content: text, bytes, or anything else for JSON.  wait: seconds before the first byte.  pause: seconds
    between two bytes.  drip_head: the same for the headers.  cut: bytes of the content after which the line is
    broken, though more was promised.
    """

    content: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    pause: float = 0.0
    drip_head: bool = False
    cut: int | None = None

    def bytes(self) -> bytes:
        content = self.content if isinstance(self.content, (str, bytes)) else json.dumps(self.content)
        return content.encode() if isinstance(content, str) else content


class _Http(ThreadingHTTPServer):
    request_queue_size = 64  # a full queue drops a connection, which is tried again a second later


class LocalServer:
    """Answers every request with ``reply(asked)``; a context manager.

    asked: all requests so far.  at_once: most requests that were under way together.
    """

    def __init__(self, reply: Callable[[Asked], Reply]):
        self.reply, self.asked, self.at_once, self._now = reply, list[Asked](), 0, 0
        self._lock, self._closing = threading.Lock(), threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 - the names that http.server calls
                server._serve(self, None)

            def do_POST(self) -> None:  # noqa: N802
                server._serve(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, *_: object) -> None: ...

        self._http = _Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End; replies that wait or drip are broken off."""
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        parts = urlsplit(handler.path)
        params = {name: values[0] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in handler.headers.items()}
        asked = Asked(handler.command, parts.path, params, headers, body)
        with self._lock:
            self.asked.append(asked)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        try:
            self._send(handler, self.reply(asked))
        except OSError:
            pass  # the other side has had enough
        finally:
            with self._lock:
                self._now -= 1

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        content = reply.bytes()
        lines = [f"HTTP/1.0 {reply.status} As told", f"Content-Length: {len(content)}"]
        head = "\r\n".join([*lines, *(f"{k}: {v}" for k, v in reply.headers.items()), "", ""]).encode()
        self._closing.wait(reply.wait)
        self._write(handler, head, reply.pause if reply.drip_head else 0.0)
        self._write(handler, content[: reply.cut], reply.pause)

    def _write(self, handler: BaseHTTPRequestHandler, data: bytes, pause: float) -> None:
        size = 1 if pause else max(len(data), 1)
        for start in range(0, len(data), size):
            if pause and self._closing.wait(pause):
                return
            handler.wfile.write(data[start : start + size])
            handler.wfile.flush()
