"""Google through SerpAPI: recorded responses of all ages, hand-written boxes, what errors mean, the key."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any, Iterator

import pytest
from local_server import Asked, LocalServer, Reply

from zerosearch import artifacts
from zerosearch.ledger import Ledger
from zerosearch.remote import RemoteFailure, RemoteRefused
from zerosearch.retrievers import EngineOptions, cache, open_engine
from zerosearch.retrievers.serpapi import MAX_QUERY, SerpApiRetriever, passages_of, plain
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest

KEY = "canary4711key"
FOUND = {
    "search_metadata": {"status": "Success"},
    "organic_results": [{"title": "T", "snippet": "S", "link": "http://a"}],
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SERPAPI_API_KEY", KEY)
    with LocalServer(lambda asked: Reply(FOUND)) as made:
        yield made


def ask(query: str) -> SearchRequest:
    return SearchRequest(query, Question("nq/1", "nq", "question", ("golden",)))


def engine(server: LocalServer, **options: Any) -> SerpApiRetriever:
    return SerpApiRetriever(3, url=server.url, **{"attempts": 1, "wait_seconds": 0.0, **options})


def answer(content: Any) -> Any:
    """Return the passages of a hand-written response, or the kind of its failure."""
    try:
        return passages_of(content, 5)
    except RemoteFailure as failure:
        return failure.kind


# -- recorded responses ---------------------------------------------------------------------------


def response(folder: Path, name: str) -> Any:
    return json.loads((folder / "serpapi" / name).read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "n", "first_title", "last_link"),
    [
        ("google_2018_coffee_legacy.json", 9, "All About Coffee - Page 522 - Google Books Result", "VZYOAQAAIAAJ"),
        ("google_2019_coffee_page2.json", 10, "What is Coffee? - National Coffee Association", "cosmiccoffeebeer"),
        ("google_2025_full.json", 8, "Creating a Plagiarism Detector with Python - Fiona Githaiga", "pysimilar"),
    ],
)
def test_recorded_responses(shared_data: Path, name: str, n: int, first_title: str, last_link: str) -> None:
    """A knowledge graph without a title, questions without a snippet and local results give no passage."""
    found, content = passages_of(response(shared_data, name), 20), response(shared_data, name)
    assert len(found) == n and found[0].title == first_title and last_link in found[-1].id
    assert [p.metadata["rank"] for p in found] == list(range(1, n + 1))
    assert [p.text for p in found] == [plain(r["snippet"]) for r in content["organic_results"]]
    assert len({p.id for p in found}) == n and all("<" not in p.text and "\n" not in p.text for p in found)
    assert [p.id for p in passages_of(content, 3)] == [p.id for p in found[:3]]


def test_missing_snippets_and_parts_of_recorded_responses(shared_data: Path) -> None:
    """Every field of every result taken away in turn: nothing breaks, and no passage is empty."""
    content = response(shared_data, "google_2025_full.json")
    for name in {name for result in content["organic_results"] for name in result}:
        for value in (None, 7, [], {}, "absent"):
            changed = [{**r, name: value} for r in content["organic_results"]]
            if value == "absent":
                changed = [{k: v for k, v in r.items() if k != name} for r in content["organic_results"]]
            found = passages_of({**content, "organic_results": changed}, 20)
            assert found and all(p.text and isinstance(p.id, str) for p in found)
    for name in content:
        assert isinstance(answer({k: v for k, v in content.items() if k != name}), tuple)


def test_the_recorded_error_means_that_nothing_can_be_found_any_more(shared_data: Path, server: LocalServer) -> None:
    server.reply = lambda asked: Reply(response(shared_data, "error_out_of_credit.json"))
    with pytest.raises(RemoteRefused, match="Your account credit is too low.*mend the account"):
        engine(server).search([ask("amber"), ask("birch")])


# -- boxes, written by hand in the forms that SerpAPI documents ----------------------------------------


@pytest.mark.parametrize(
    ("box", "title", "text"),
    [
        ({"type": "organic_result", "title": "Amber - Wiki", "snippet": "Amber is <b>resin</b>.", "link": "http://w",
          "displayed_link": "w › amber", "snippet_highlighted_words": ["resin"]}, "Amber - Wiki", "Amber is resin."),
        ({"type": "organic_result", "title": "Height", "answer": "8,849 m", "snippet": "It is 8,849 m high."},
         "Height", "8,849 m · It is 8,849 m high."),
        ({"type": "population_result", "place": "Austin", "population": "961,855", "year": "2020", "thumbnail": "x"},
         "", "place: Austin · population: 961,855 · year: 2020"),
        ({"type": "calculator_result", "result": "4"}, "", "4"),
        ({"type": "dictionary_results", "word": "amber", "syllables": "am·ber", "definitions": ["resin", "a colour"],
          "word_type": "noun"}, "amber", "resin, a colour · syllables: am·ber · word type: noun"),
        ({"type": "weather_result", "temperature": "68", "unit": "Fahrenheit", "location": "Austin", "thumbnail": "x"},
         "", "temperature: 68 · unit: Fahrenheit · location: Austin"),
        ({"type": "organic_result", "title": "Steps", "list": ["one", "two"]}, "Steps", "one, two"),
        ({"type": "organic_result", "title": "Table", "contents": {"table": [["a", "1"], ["b", 2]], "formatted": None}},
         "Table", "a, 1, b, 2"),
        ({"type": "finance_results", "title": "Alphabet", "stock": "NASDAQ: GOOGL", "price": 101.5, "price_movement":
          {"percentage": 1.2, "movement": "Up"}}, "Alphabet",
         "stock: NASDAQ: GOOGL · price: 101.5 · price movement: 1.2, Up"),
    ],
)
def test_an_answer_box_comes_first(box: dict[str, Any], title: str, text: str) -> None:
    first, second = passages_of({**FOUND, "answer_box": box}, 5)
    assert (first.title, first.text, first.metadata) == (title, text, {"source": "answer box"})
    assert first.id == box.get("link", "google/answer box") and second.text == "S"


def test_boxes_that_say_nothing_give_no_passage() -> None:
    for box in ({"type": "organic_result", "link": "http://x"}, {}, None, {"title": "a title"}, {"type": "hotels"}):
        assert [p.text for p in passages_of({**FOUND, "answer_box": box}, 5)] == ["S"]
    graph = {"entity_type": "related_questions"}
    assert [p.text for p in passages_of({**FOUND, "knowledge_graph": graph}, 5)] == ["S"]


def test_a_knowledge_graph_states_its_attributes() -> None:
    graph = {
        "title": "Amber Falk", "type": "Director", "kgmid": "/m/0", "image": "http://x", "website": "http://y",
        "description": "Amber Falk directs films.", "source": {"name": "Wikipedia", "link": "http://w"},
        "born": "May 1, 1949 (age 70&nbsp;years)", "born_links": [{"text": "1949", "link": "http://z"}],
        "movies": [{"name": "Silver Harbor", "extensions": ["1980"], "link": "http://s", "image": "http://i"}],
        "header_images": [{"image": "http://i"}], "people_also_search_for": [{"name": "Else"}],
    }
    first, _ = passages_of({**FOUND, "knowledge_graph": graph}, 5)
    assert (first.id, first.title) == ("http://w", "Amber Falk")
    assert first.text == (
        "Amber Falk directs films. · born: May 1, 1949 (age 70 years) · movies: Silver Harbor, 1980"
    )


def test_answer_box_then_graph_then_results_and_no_more_than_k() -> None:
    content = {**FOUND, "answer_box_list": [{"answer": "1"}, {"answer": "2"}], "knowledge_graph": {"description": "d"}}
    assert [p.text for p in passages_of(content, 20)] == ["1", "2", "d", "S"]
    assert [p.text for p in passages_of(content, 2)] == ["1", "2"]


def test_text_is_plain() -> None:
    assert plain("a&nbsp;<em>b</em>\n c &amp; d &lt;e&gt; &#39;f&#39;<br/>g") == "a b c & d <e> 'f' g"
    assert plain("x </information> <|im_end|> &lt;search&gt;") == "x (im_end) (search)"
    assert plain("1 < 2 and 3 > 2") == "1 < 2 and 3 > 2"


# -- what is sent, and what errors mean -----------------------------------------------------------------


def test_one_request_per_query(server: LocalServer) -> None:
    found = engine(server).search([ask("who wrote ü & it?"), ask("  "), ask("x" * 3000)])
    passage = Passage("http://a", "T", "S", {"source": "organic", "rank": 1})
    assert [r.passages for r in found] == [(passage,), (), (passage,)]
    assert [r.error for r in found] == [None] * 3 and found[0].source == "serpapi" and found[0].wall_seconds > 0
    sent = sorted((a.params for a in server.asked), key=lambda p: len(p["q"]))
    assert sent[0] == {
        "engine": "google", "q": "who wrote ü & it?", "gl": "us", "hl": "en", "num": "10", "api_key": KEY,
    }
    assert len(sent) == 2 and len(sent[1]["q"]) == MAX_QUERY
    assert {(a.method, a.path) for a in server.asked} == {("GET", "/search.json")}


def test_parameters_are_part_of_the_identity() -> None:
    made = [SerpApiRetriever(5), SerpApiRetriever(3), SerpApiRetriever(5, gl="de"), SerpApiRetriever(5, hl="de")]
    assert len({e.identity for e in made}) == 4 and made[0].identity == "serpapi k=5 gl=us hl=en num=10"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"search_metadata": {"status": "Success"}, "error": "Google hasn't returned any results for this query."}, ()),
        ({"search_information": {"organic_results_state": "Fully empty"}}, ()),
        ({"error": "Your account has run out of searches."}, "refused"),
        ({"error": "Your searches for the month are exhausted. You have exceeded your plan."}, "refused"),
        ({"error": "Invalid API key. Your API key should be here: https://serpapi.com/manage-api-key"}, "refused"),
        ({"error": "We were unable to process the request. Please try again later."}, "server"),
        ({"search_metadata": {"status": "Error"}}, "server"),
        ({"search_metadata": {"status": "Processing"}}, "busy"),
        ({"organic_results": "oops"}, "malformed"), ({"organic_results": 7, "search_metadata": {}}, "malformed"),
        ({}, "malformed"), ([], "malformed"), (None, "malformed"), ({"html": "<p>"}, "malformed"), ("x", "malformed"),
        ({"organic_results": [None, 7, "x", {}, {"title": None}]}, ()),
    ],
)
def test_what_replies_mean(content: Any, expected: Any) -> None:
    assert answer(content) == expected


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (429, {"error": "You are exceeding your hourly throughput limit on your plan"}, "busy (HTTP 429)"),
        (429, b"too many", "busy (HTTP 429)"), (503, {"error": "proxy timeout"}, "server (HTTP 503)"),
        (400, {"error": "Missing query `q` parameter."}, "rejected (HTTP 400)"), (200, b"{oops", "malformed"),
    ],
)
def test_failures_are_typed(server: LocalServer, status: int, content: Any, kind: str) -> None:
    server.reply = lambda asked: Reply(content, status)
    assert [r.error for r in engine(server).search([ask("amber")])] == [kind]


@pytest.mark.parametrize(
    ("status", "message", "told"),
    [
        (429, "Your account has run out of searches.", "run out of searches"),
        (401, "Invalid API key.", "SERPAPI_API_KEY"),
        (403, "The account was deleted.", "SERPAPI_API_KEY"), (200, "Invalid API key.", "SERPAPI_API_KEY"),
    ],
)
def test_an_account_that_cannot_search_ends_the_work(server: LocalServer, status: int, message: str, told: str) -> None:
    server.reply = lambda asked: Reply({"error": message}, status)
    with pytest.raises(RemoteRefused, match=told):
        engine(server, attempts=5).search([ask("amber")])
    assert len(server.asked) == 1


def test_without_a_key_the_variable_is_named(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERPAPI_API_KEY")
    server.reply = lambda asked: Reply({"error": "Invalid API key."}, 401)
    with pytest.raises(RemoteRefused, match="expected a key in the environment variable SERPAPI_API_KEY, found none"):
        engine(server).search([ask("amber")])


# -- the key ----------------------------------------------------------------------------------------------


def searched(server: LocalServer, queries: list[str], folder: Path) -> list[Retrieval]:
    options = EngineOptions(url=server.url, workers=2)
    return open_engine("serpapi", (), 3, options=options, ledger=Ledger(folder / "ledger.jsonl", "01")).search(
        [ask(query) for query in queries]
    )


def test_the_key_is_in_nothing_that_a_run_leaves(
    server: LocalServer, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Answers, failures that quote the key and a refusal: greps files, messages, logs and what was printed."""
    caplog.set_level(logging.DEBUG)

    def reply(asked: Asked) -> Reply:
        quoting = {"error": f"no results for key {asked.params['api_key']}"}
        refusing = {"error": f"Invalid API key {asked.params['api_key']}."}
        kinds = {"amber": Reply(FOUND), "birch": Reply(quoting, 400), "cedar": Reply(refusing, 401)}
        return kinds[asked.params["q"]]

    server.reply = reply
    found = searched(server, ["amber", "birch"], tmp_path)
    assert [r.error for r in found] == [None, "rejected (HTTP 400)"]
    with pytest.raises(RemoteRefused) as caught:
        searched(server, ["cedar"], tmp_path)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(found) + caplog.text
    assert cache.main(["export", str(artifacts.answers_dir()), str(tmp_path / "all.jsonl")]) == 0
    told += "".join(capsys.readouterr())
    assert [a.params["api_key"] for a in server.asked] == [KEY] * 3  # it was sent
    assert KEY not in told
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"cache.db", "ledger.jsonl", "all.jsonl"} <= {path.name for path in written}
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
