"""A hub of data sets on this machine: serves files of one repository under any revision, and keeps a log.

It speaks what ``huggingface_hub`` asks for when it fetches a file: HEAD and GET of ``/datasets/<owner>/<name>/resolve/
<revision>/<file>``, answered with the commit and a hash of the contents.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator


@dataclass
class FakeHub:
    """files: contents by name.  commit: of the newest revision.  requests: (method, path, Authorization) so far."""

    files: dict[str, bytes]
    commit: str
    status: int = 200
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def fetched(self) -> list[str]:
        """Paths whose contents were sent."""
        return [path for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve the hub on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Print nothing."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            hub.requests.append((self.command, self.path, self.headers.get("Authorization")))
            revision, _, name = self.path.partition("?")[0].partition("/resolve/")[2].partition("/")
            content = hub.files.get(name) if hub.status == 200 else None
            if content is None:
                self.send_response(hub.status if hub.status != 200 else 404)
                self.send_header("X-Error-Code", "EntryNotFound" if hub.status == 200 else "GatedRepo")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", hub.commit if revision == "main" else revision)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
