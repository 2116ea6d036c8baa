"""Google through SerpAPI: organic results, answer box and knowledge graph as passages.

A search that found nothing is an answer without passages; an account without credit, or a key that is
refused, ends the work with the reason.  The key is read from the environment by the caller of all remote
services and stands nowhere else.  Called by ``open_engine``.
"""

from __future__ import annotations

import html
import re
from typing import Any, Callable, Iterator, Mapping, Sequence

from zerosearch.prompts import defuse
from zerosearch.remote import Answer, Call, Purse, Remote, RemoteFailure, Service, read_json
from zerosearch.retrievers import SERPAPI_KEY
from zerosearch.retrievers.base import check_passages_per_query, failure
from zerosearch.schema import Passage, Retrieval, SearchRequest

URL = "https://serpapi.com"
RESULTS = 10  # organic results asked for: a page, the same price whatever the number
MAX_QUERY = 1000  # characters that are sent: a longer one finds nothing
MAX_TEXT = 2000  # characters of a passage made of a box
_BREAK = re.compile(r"</?(?:br|p|div|li|ul|ol|td|th|tr|table|h\d)\b[^<>]{0,300}>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,300}>")
_NOTHING = re.compile(r"hasn't returned any results|did not match any", re.IGNORECASE)
_CREDIT = re.compile(r"credit|(run|ran) out|exceed\w* .*plan|plan .*exceed", re.IGNORECASE)  # not: of this hour
_KEY = re.compile(r"api[ _]key|account .*(deleted|disabled|suspended)", re.IGNORECASE)
_PARTS = ("organic_results", "answer_box", "answer_box_list", "knowledge_graph")
_SIGNS = (*_PARTS, "search_metadata", "search_information", "search_parameters", "serp_api_data")
_FIRST = ("answer", "result", "snippet", "description", "definition", "definitions", "list")  # of a box, in this order
_TITLES = ("title", "heading", "name", "term", "word")
_NOT_TEXT = re.compile(  # fields of a box that say nothing: places, pictures, numbers of the engine
    r"link|url|image|thumbnail|icon|logo|position|highlighted|entity_type|kgmid|ludocid|place_id|mid$|^type$|token|"
    r"displayed|cached|extensions|source|^id$|_stick$|website|profiles|people_also|questions|serpapi",
)


class SerpApiRetriever:
    """Google.  k: passages per query, 1 to 20.  gl, hl: country and language of the search.

    url: where SerpAPI is, empty for its own address.  per_second: requests, 0 for no limit.  workers: requests
    under way at once.  purse: pays, None to pay whatever it costs.  The other options are those of ``Service``.
    """

    name = "serpapi"

    def __init__(
        self, k: int = 5, gl: str = "us", hl: str = "en", url: str = "", per_second: float = 0.0, workers: int = 4,
        purse: Purse | None = None, **patience: Any,
    ):
        self.k, self._fields = check_passages_per_query(k), {"gl": gl, "hl": hl, "num": str(RESULTS)}
        self._remote = Remote(Service(
            "serpapi", url or URL, SERPAPI_KEY, "api_key", workers=workers, per_second=per_second, max_bytes=2**23,
            offers="SerpAPI's search", advice="check the address", **patience,
        ), purse)

    @property
    def identity(self) -> str:
        """Engine and parameters: what besides the query decides the answer."""
        return " ".join(["serpapi", f"k={self.k}", *(f"{name}={value}" for name, value in self._fields.items())])

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the passages of every request's query; RemoteRefused where no search can succeed."""
        return self.search_each(requests, lambda row, retrieval: None)

    def search_each(
        self, requests: Sequence[SearchRequest], keep: Callable[[int, Retrieval], object]
    ) -> list[Retrieval]:
        """As ``search``; keep(row, retrieval) is called when an answer arrives.  An empty query is not sent."""
        made = {row: Retrieval(r, (), self.name) for row, r in enumerate(requests) if not r.query.strip()}
        rows = [row for row in range(len(requests)) if row not in made]

        def take(number: int, answer: Answer[tuple[Passage, ...]]) -> None:
            row = rows[number]
            made[row] = retrieval_of(requests[row], self.name, answer)
            keep(row, made[row])

        for _ in self._remote.ask_all([self._call(requests[row].query) for row in rows], take):
            pass
        return [made[row] for row in range(len(requests))]

    def _call(self, query: str) -> Call[tuple[Passage, ...]]:
        fields = {"engine": "google", "q": query[:MAX_QUERY], **self._fields}
        return Call(lambda content: passages_of(read_json(content), self.k), "/search.json", fields, explain=_explained)


def retrieval_of(request: SearchRequest, name: str, answer: Answer[tuple[Passage, ...]]) -> Retrieval:
    """Return the retrieval of a remote answer, a failed one with the kind of its failure."""
    if answer.value is None:
        return failure(request, name, str(answer.failure), answer.seconds)
    return Retrieval(request, answer.value, name, wall_seconds=answer.seconds)


# -- from the response to passages ----------------------------------------------------------------


def passages_of(found: Any, k: int) -> tuple[Passage, ...]:
    """Return up to k passages of a response: answer box, knowledge graph, organic results.

    Raises RemoteFailure: ``refused`` without credit or key, ``busy`` for a search that is not finished,
    ``server`` for one that failed, ``malformed`` for what is no response of a search.
    """
    if not isinstance(found, dict):
        raise RemoteFailure("malformed")
    if isinstance(error := found.get("error"), str) and not _NOTHING.search(error):
        raise _error(error)
    state = _mapping(found.get("search_metadata")).get("status")
    if state in ("Queued", "Processing", "Error"):
        raise RemoteFailure("server" if state == "Error" else "busy", detail=f"search status {state}")
    wrong = [name for name in _PARTS if not isinstance(found.get(name, {}), dict | list | None)]
    if wrong or not any(name in found for name in (*_SIGNS, "error")):
        raise RemoteFailure("malformed")
    boxes = [found.get("answer_box"), *_list(found.get("answer_box_list"))]
    made = [_box(_mapping(box), "answer box") for box in boxes]
    made.append(_box(_mapping(found.get("knowledge_graph")), "graph"))
    made += [_organic(_mapping(result), rank) for rank, result in enumerate(_list(found.get("organic_results")), 1)]
    return tuple(passage for passage in made if passage is not None)[:k]


def plain(text: object) -> str:
    """Return text without HTML: tags gone, entities resolved, tags of the prompts defused, single blanks."""
    return " ".join(defuse(html.unescape(_TAG.sub("", _BREAK.sub(" ", str(text))))).split())


def _organic(result: Mapping[str, Any], rank: int) -> Passage | None:
    title, text = _text(result.get("title")), _text(result.get("snippet"))
    if not text:  # some results have only what stands around a snippet
        text = ", ".join(_flat(_mapping(result.get("rich_snippet"))))[:MAX_TEXT]
    link = result.get("link") if isinstance(result.get("link"), str) else ""
    about = {"source": "organic", "rank": rank, **({"date": result["date"]} if _text(result.get("date")) else {})}
    if not (text or title):
        return None
    return Passage(link or f"google/{rank}", title if text else "", text or title, about)


def _box(box: Mapping[str, Any], what: str) -> Passage | None:
    """Return the passage of an answer box or a knowledge graph, None where it states nothing."""
    title = next((found for name in _TITLES if (found := _text(box.get(name)))), "")
    names = [*(name for name in _FIRST if name in box), *(name for name in box if name not in (*_FIRST, *_TITLES))]
    pieces = []
    for name in names:
        if not _NOT_TEXT.search(name):
            text = ", ".join(_flat(box[name]))
            stated = name in _FIRST or name in ("contents", "formatted", "table")
            pieces += [text if stated else f"{name.replace('_', ' ')}: {text}"] if text else []
    link = box.get("link") or _mapping(box.get("source")).get("link")
    key = link if isinstance(link, str) else f"google/{what}"
    return Passage(key, title, " · ".join(pieces)[:MAX_TEXT], {"source": what}) if pieces else None


def _flat(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a value, in order, links and pictures left out."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not _NOT_TEXT.search(name) or name == "extensions":
                yield from _flat(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and plain(value):
        yield plain(value)


def _text(value: Any) -> str:
    return plain(value) if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# -- errors ---------------------------------------------------------------------------------------


def _error(message: str) -> RemoteFailure:
    """Return the failure that an error message speaks of."""
    if _is_spent(message):
        return RemoteFailure("refused", 402, plain(message))
    if _KEY.search(message):
        return RemoteFailure("refused", 401, plain(message))
    return RemoteFailure("server", detail=plain(message))


def _is_spent(message: str) -> bool:
    """Say whether a message speaks of an account without credit; the limit of an hour passes by itself."""
    return bool(_CREDIT.search(message)) and "hour" not in message.lower()


def _explained(status: int, content: bytes) -> RemoteFailure | None:
    """Return what a reply that is no success says of the account; None where the status says it all."""
    try:
        message = _mapping(read_json(content)).get("error")
    except RemoteFailure:
        return None
    if not isinstance(message, str):
        return None
    if _is_spent(message):
        return _error(message)
    return RemoteFailure("refused", status, plain(message)) if status in (401, 403) else None
