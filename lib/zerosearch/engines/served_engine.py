"""Generation by servers that speak the OpenAI protocol with token ids, as vLLM's does.

Token ids go out and come back (``return_token_ids``); nothing is decoded and encoded again.  Every request is
sent by itself, because each has its own seed; the server batches them.  With several replicas the request's
seed chooses one, so that the choice does not depend on timing.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Sequence

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from transformers import PreTrainedTokenizerBase

from zerosearch.engines.base import EngineCounts, Generation, GenerationRequest
from zerosearch.engines.stopping import StopRule
from zerosearch.errors import ServerProblem
from zerosearch.prompts import STOP_STRINGS

_TRIES = 4


class ServedEngine:
    """Engine over one or more servers of the same model.

    urls: of the servers, without ``/v1``.  model: the name they serve it under.  end_ids: tokens that end a
    text.  connections: requests at a time.  deadline_seconds: of one request.
    ServerProblem (a RetrieverError, so that a simulator turns it into failed searches) when a request is
    refused, or fails several times.
    """

    top_p = 1.0
    holds_a_copy = True  # of the weights: it does not follow a model that is trained on

    def __init__(
        self, urls: Sequence[str], model: str, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int],
        name: str = "server", stop_strings: Sequence[str] = STOP_STRINGS, connections: int = 64,
        deadline_seconds: float = 120.0,
    ):
        self.urls, self.model, self.tokenizer, self.name = [u.rstrip("/") for u in urls], model, tokenizer, name
        self.counts, self.end_ids = EngineCounts(), tuple(end_ids)
        self._rule, self._connections, self._lock = StopRule(tokenizer, stop_strings, end_ids), connections, threading.Lock()
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.Client(timeout=deadline_seconds, limits=limits, trust_env=False)  # no proxy: they are here

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one Generation per request, in order; see engines/base.py."""
        started = time.perf_counter()
        with ThreadPoolExecutor(max(1, min(self._connections, len(requests)))) as pool:
            made = list(pool.map(self._one, requests))
        with self._lock:
            self.counts.seconds += time.perf_counter() - started
        return made

    def release(self) -> None:
        """Nothing to forget: the server keeps what it likes."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _one(self, request: GenerationRequest) -> Generation:
        answer = self._post(self.urls[request.seed % len(self.urls)], self._body(request))
        try:
            choice = answer["choices"][0]
            ids, logprobs = list(map(int, choice["token_ids"])), list(map(float, choice["logprobs"]["token_logprobs"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServerProblem(
                f"server {self.name!r}: expected token ids and log-probs, found {str(answer)[:200]!r}; use vLLM 0.31"
            ) from error
        return self._generation(request, ids, logprobs, answer.get("usage") or {})

    def _generation(
        self, request: GenerationRequest, ids: list[int], logprobs: list[float], usage: dict[str, Any]
    ) -> Generation:
        """Return what was written up to where the message ends: a server may find a tag some tokens late."""
        limit = request.max_new_tokens
        ends = (n for n in range(1, len(ids) + 1) if self._rule.reason(ids[:n], limit) is not None)
        size = next(ends, len(ids))
        stop = (self._rule.reason(ids[:size], limit) if size else None) or "length"
        with self._lock:
            cached = ((usage.get("prompt_tokens_details") or {}).get("cached_tokens")) or 0
            self.counts.prompt += len(request.prompt_ids) - cached
            self.counts.cached += cached
            self.counts.generated += len(ids)
        return Generation(tuple(ids[:size]), tuple(logprobs[:size]), stop)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        rule = self._rule
        return {
            "model": self.model, "prompt": list(request.prompt_ids), "max_tokens": request.max_new_tokens,
            "temperature": request.temperature, "top_p": 1.0, "seed": request.seed % 2**63, "logprobs": 0,
            "stop_token_ids": [*rule.end_ids, *rule.single], "stop": list(rule.stop_strings),
            "include_stop_str_in_output": True, "skip_special_tokens": False, "return_token_ids": True,
        }

    def _post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        tries = Retrying(
            stop=stop_after_attempt(_TRIES), wait=wait_exponential(0.2, max=5.0), retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            return tries(self._try, url, body)
        except httpx.HTTPStatusError as error:
            said = error.response.text[:200]
            raise ServerProblem(
                f"server {url}: expected an answer, found status {error.response.status_code}: {said}"
            ) from error
        except (httpx.HTTPError, ValueError) as error:
            raise ServerProblem(
                f"server {url}: expected an answer, found {type(error).__name__}: {error}; is it running?"
            ) from error

    def _try(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(f"{url}/v1/completions", json=body)
        answer.raise_for_status()
        return answer.json()


def _may_pass(error: BaseException) -> bool:
    """Say whether the same request may succeed a moment later."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)
