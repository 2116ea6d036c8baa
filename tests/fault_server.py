"""A server that fails in every way an engine can, at a given rate, and keeps the log of what it billed.

It speaks SerpAPI's and Search-R1's protocols.  Which request fails, and how, is drawn by (seed, query, how often
this query came).  It bills a search when the whole answer has been sent, and, as SerpAPI does, not a second time
when the same search comes again.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from local_server import Asked, LocalServer, Reply

from zerosearch import seeds

FOUND_NOTHING = {
    "search_metadata": {"status": "Success"}, "error": "Google hasn't returned any results for this query.",
}
FAULTS = ("busy", "server", "hang", "truncated", "shape", "trickle", "reset", "nothing")


class FaultServer(LocalServer):
    """rate: share of requests in [0, 1] that fail.  hang_seconds: how long a hanging one keeps silent.

    sent: complete answers by query.  billed: answers that were charged, by query.  faults: by kind.
    """

    def __init__(self, rate: float, seed: int = 0, hang_seconds: float = 30.0, faults: tuple[str, ...] = FAULTS):
        super().__init__(self._reply)
        self.rate, self.seed, self.hang_seconds, self.kinds = rate, seed, hang_seconds, faults
        self.came, self.sent, self.faults = Counter[str](), Counter[str](), Counter[str]()
        self._counting = threading.Lock()

    @property
    def billed(self) -> Counter[str]:
        """Answers that were charged, by query: a repetition of the same search is free."""
        return Counter({query: min(times, 1) for query, times in self.sent.items()})

    def _reply(self, asked: Asked) -> Reply:
        queries = [asked.params["q"]] if asked.method == "GET" else asked.body.get("queries") or [asked.body["query"]]
        fault = self._draw("|".join(queries))
        good = serpapi_answer(queries[0]) if asked.method == "GET" else search_r1_answer(queries)
        if fault in ("", "nothing"):
            with self._counting:
                self.sent.update(queries)
            nothing = FOUND_NOTHING if asked.method == "GET" else {"result": [[]] * len(queries)}
            return Reply(nothing if fault else good)
        return self._damaged(fault, good)

    def _damaged(self, fault: str, good: Any) -> Reply:
        if fault == "reset":
            raise ConnectionResetError
        size = len(Reply(good).bytes())
        return {
            "busy": Reply({"error": "slow down"}, 429, {"Retry-After": "0"}), "server": Reply({"error": "x"}, 500),
            "hang": Reply(good, wait=self.hang_seconds), "truncated": Reply(Reply(good).bytes()[: size // 2]),
            "shape": Reply({"results": {"oops": 1}}), "trickle": Reply(good, pause=self.hang_seconds / size),
        }[fault]

    def _draw(self, query: str) -> str:
        with self._counting:
            turn = self.came[query]
            self.came[query] += 1
        if seeds.uniform(self.seed, "fault", query, turn) >= self.rate:
            return ""
        fault = self.kinds[int(seeds.uniform(self.seed, "kind", query, turn) * len(self.kinds))]
        with self._counting:
            self.faults[fault] += 1
        return fault


def serpapi_answer(query: str) -> dict[str, Any]:
    """Return a response of SerpAPI that says what was asked."""
    results = [{"title": query, "snippet": f"about {query}, {rank}", "link": f"http://{rank}"} for rank in range(3)]
    return {"search_metadata": {"status": "Success"}, "organic_results": results}


def search_r1_answer(queries: list[str]) -> dict[str, Any]:
    """Return a reply of Search-R1's protocol that says what was asked."""
    return {"result": [
        [{"document": {"id": f"{query}-{rank}", "contents": f'"{query}"\nabout {query}, {rank}'}, "score": 1.0}
         for rank in range(3)] for query in queries
    ]}
