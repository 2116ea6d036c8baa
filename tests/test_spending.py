"""What a stage pays for, and max_usd: kept before it is passed, whatever fails; nothing is paid twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pandas as pd
import pytest
from conftest_models import TOKENIZER, ScriptedEngine
from local_server import Asked, LocalServer, Reply
from model_server import chat_reply

from zerosearch import artifacts
from zerosearch.chat import Chat, Prompt, model_service
from zerosearch.collection import collect, plan
from zerosearch.costs import price_ledger
from zerosearch.errors import ConfigError
from zerosearch.ledger import Ledger, gather
from zerosearch.prices import PriceBook
from zerosearch.prompts import Prompts
from zerosearch.remote import RemoteRefused
from zerosearch.retrievers import EngineOptions, open_engine
from zerosearch.rollout import RolloutSettings
from zerosearch.schema import Question, Trajectory
from zerosearch.spending import BudgetReached, Spending

PROMPTS = Prompts.load("micro", TOKENIZER)
SETTINGS = RolloutSettings(max_searches=3, max_turn_tokens=40, max_observation_tokens=60, max_total_tokens=2000)
QUESTIONS = [Question(f"nq/{i}", "nq", f"question {i}", (f"gold {i}",), "train") for i in range(12)]
SECRET = "sk-canary-0815"
BOOK = """
serpapi_big_data: {value: 10.0, per: 1000, unit: USD/search, date: 2026-01-01, source: by hand}
known_model_prompt: {value: 1.0, per: 1000, unit: USD/token, date: 2026-01-01, source: by hand}
known_model_generated: {value: 2.0, per: 1000, unit: USD/token, date: 2026-01-01, source: by hand}
cpu_core: {value: 1.0, unit: USD/core-hour, date: 2026-01-01, source: by hand}
cpu_core_power: {value: 1.0, unit: W/core, date: 2026-01-01, source: by hand}
"""


@pytest.fixture
def book(tmp_path: Path) -> PriceBook:
    """A search costs a cent; a token of ``known-model`` 0.001 USD to read and 0.002 to write."""
    (tmp_path / "prices.yaml").write_text(BOOK)
    return PriceBook.load(tmp_path / "prices.yaml")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", "01")


# -- by hand --------------------------------------------------------------------------------------


def test_what_was_spent_is_read_from_the_ledger_and_from_accounts_set_aside(book: PriceBook, tmp_path: Path) -> None:
    """3 + 2 searches at a cent, 10 tokens read, 5 written: 0.05 + 0.01 + 0.01 USD; own tokens and time are free."""
    folder = tmp_path / "stage"
    old = Ledger(folder / "superseded" / "2026-ledger.jsonl", "01")
    old.event("queries", engine="serpapi", fresh=3, cached=9, paid=3)
    now = Ledger(folder / "ledger.jsonl", "01")
    now.event("queries", engine="serpapi", fresh=2, cached=0, paid=2)
    now.event("tokens", role="judge", model="known-model", prompt=10, generated=5)
    now.event("tokens", role="policy", model="micro/llama-base", prompt=10_000, generated=5_000)
    now.event("busy", role="retriever", device="cpu", seconds=3600.0, units=1)
    assert Spending(now, book).usd == pytest.approx(0.07)


def test_reserving_and_settling_by_hand(book: PriceBook, ledger: Ledger) -> None:
    """Of 0.05 USD: 0.02 reserved twice leave no room for a third; one that costs 0.005 makes room again."""
    spending = Spending(ledger, book, max_usd=0.05)
    assert spending.reserve(0.02) and spending.reserve(0.02) and not spending.reserve(0.02)
    spending.settle(0.02, 0.005)
    assert spending.reserve(0.02) and not spending.reserve(0.02)
    spending.settle(0.02, 0.02)
    spending.settle(0.02, 0.02)
    assert spending.usd == pytest.approx(0.045)
    with pytest.raises(BudgetReached, match="0.0500 USD at most, found 0.0450 spent and up to 0.0200 for the next one"):
        spending.reserve(0.02)
    assert spending.reserve(0.005), "a cheaper one still fits, to the cent"


def test_without_a_limit_everything_fits_and_is_counted(book: PriceBook, ledger: Ledger) -> None:
    spending = Spending(ledger, book)
    for _ in range(100):
        assert spending.reserve(10.0)
        spending.settle(10.0, 1.0)
    assert spending.usd == pytest.approx(100.0)


def test_engines_that_bill_nothing_need_no_purse(book: PriceBook, ledger: Ledger) -> None:
    assert Spending(ledger, book, 1.0).purse_for_searches("bm25") is None
    assert Spending(ledger, book, 1.0).purse_for_searches("serpapi") is not None


# -- tokens ---------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalServer(lambda asked: chat_reply("yes", 100, 20)) as made:
        yield made


def judge(server: LocalServer, spending: Spending, model: str, **stated: float) -> Chat:
    prices = {"prompt_usd": -1.0, "generated_usd": -1.0} | stated
    service = model_service("judge", f"{server.url}/v1", model, attempts=1, workers=4)
    return Chat(service, model, purse=spending.purse_for_tokens("judge", model, **prices))


def priced(ledger: Ledger, book: PriceBook) -> float:
    return float(price_ledger(gather(ledger.path.parent), book)["usd"].sum())


def test_tokens_are_paid_for_as_the_server_counts_them(server: LocalServer, book: PriceBook, ledger: Ledger) -> None:
    """100 read at 0.001 and 20 written at 0.002 USD: 0.14 USD a reply."""
    spending = Spending(ledger, book)
    assert len(list(judge(server, spending, "known-model").ask_all([Prompt("x")] * 3))) == 3
    assert spending.usd == pytest.approx(0.42) and priced(ledger, book) == pytest.approx(0.42)
    assert Spending(ledger, book).usd == pytest.approx(0.42), "the next attempt finds it in the ledger"
    ledger.keep(lambda unit: unit is not None)
    assert Spending(ledger, book).usd == pytest.approx(0.42), "it stays there when the stage is opened again"


def test_stated_prices_are_used_where_the_book_has_none_and_reach_the_bill(
    server: LocalServer, book: PriceBook, ledger: Ledger
) -> None:
    """1,000 USD a million read: 0.001 each; written tokens are free."""
    spending = Spending(ledger, book, max_usd=5.0)
    list(judge(server, spending, "other-model", prompt_usd=1000.0, generated_usd=0.0).ask_all([Prompt("x")] * 2))
    assert spending.usd == pytest.approx(0.2) and priced(ledger, book) == pytest.approx(0.2)
    list(judge(server, spending, "known-model", prompt_usd=9e9).ask_all([Prompt("x")]))
    assert spending.usd == pytest.approx(0.34), "the book knows better"


@pytest.mark.parametrize("fields", [{"prompt_usd": -1.0}, {"generated_usd": float("nan")}, {"paid_usd": 1.0}])
def test_the_ledger_takes_no_price_that_is_none(ledger: Ledger, fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ledger 'tokens': expected"):
        ledger.event("tokens", role="judge", model="m", prompt=1, generated=1, **fields)
    with pytest.raises(ValueError, match="ledger 'queries': expected fields"):
        ledger.event("queries", engine="e", fresh=1, cached=0, paid=0, prompt_usd=1.0)


def test_a_limit_without_a_price_is_refused(server: LocalServer, book: PriceBook, ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="prices of 'other-model'.*other_model_prompt and .*--set 01.judge_prompt"):
        judge(server, Spending(ledger, book, max_usd=1.0), "other-model")
    list(judge(server, Spending(ledger, book), "other-model").ask_all([Prompt("x")]))
    assert priced(ledger, book) == 0.0


def test_what_a_server_does_not_count_is_counted_as_the_most(
    server: LocalServer, book: PriceBook, ledger: Ledger
) -> None:
    server.reply = lambda asked: chat_reply("yes", None)
    spending = Spending(ledger, book)
    list(judge(server, spending, "known-model").ask_all([Prompt("x" * 1000, max_tokens=50)]))
    assert spending.usd > 1.0 + 0.1, "a thousand letters cannot be more than about a thousand tokens"


@pytest.mark.parametrize(
    ("reply", "billed"),
    [(Reply(status=503), False), (Reply(status=429), False), (Reply("no JSON"), True), (Reply({}, wait=30.0), True)],
    ids=["server", "busy", "malformed", "timeout"],
)
def test_lost_replies_count_where_they_may_have_been_billed(
    server: LocalServer, book: PriceBook, ledger: Ledger, reply: Reply, billed: bool
) -> None:
    server.reply = lambda asked: reply
    spending = Spending(ledger, book)
    service = model_service("judge", f"{server.url}/v1", "known-model", attempts=1, timeout_seconds=0.3)
    chat = Chat(service, "known-model", purse=spending.purse_for_tokens("judge", "known-model", -1.0, -1.0))
    list(chat.ask_all([Prompt("x")]))
    assert (spending.usd > 0) is billed and Spending(ledger, book).usd == pytest.approx(spending.usd)


def test_a_limit_on_tokens_holds(server: LocalServer, book: PriceBook, ledger: Ledger) -> None:
    """A reply costs 0.14 USD and may cost twice as much, by its bytes: of 1.00 USD six or seven fit."""
    spending = Spending(ledger, book, max_usd=1.0)
    with pytest.raises(BudgetReached):
        list(judge(server, spending, "known-model").ask_all([Prompt("x", max_tokens=20)] * 50))
    assert len(server.asked) in (6, 7) and spending.usd == pytest.approx(0.14 * len(server.asked))


# -- a collection with an engine that bills --------------------------------------------------------


class Google:
    """A SerpAPI that bills every answer and fails as it is told.  bills: queries that were billed."""

    def __init__(self) -> None:
        self.bills: list[str] = []
        self.damage = lambda n: None

    def reply(self, asked: Asked) -> Reply:
        if (key := asked.params["api_key"]) != SECRET:
            return Reply({"error": f"Invalid API key: {key}"}, status=401)
        query = asked.params["q"]
        damaged = self.damage(len(self.bills))
        if damaged is not None and damaged.status != 200:
            return damaged
        self.bills.append(query)
        results = [{"title": "T", "snippet": f"About {query}.", "link": f"http://x/{query}"}]
        return damaged or Reply({"search_metadata": {"status": "Success"}, "organic_results": results}, wait=0.002)


@pytest.fixture
def google(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Google, str]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SERPAPI_API_KEY", SECRET)
    engine = Google()
    with LocalServer(engine.reply) as server:
        yield engine, server.url


def script(prompt: str) -> str:
    """Search twice, each time for something else, then answer."""
    number = prompt.split("\n")[0].split()[-1]
    done = prompt.count("</information>")
    return f"<answer> gold {number}</answer>" if done == 2 else f"<search> find {number} again {done}</search>"


def collected(url: str, book: PriceBook, max_usd: float, **options: Any) -> tuple[list[Trajectory], Spending]:
    """Collect 24 trajectories of 48 searches, half of them repeated, in batches of 6."""
    stage = artifacts.open_stage("paid", "01", {"seed": 0, "max_usd": max_usd})
    spending = Spending(stage.ledger, book, max_usd)
    how = EngineOptions(url, workers=3, purse=spending.purse_for_searches("serpapi"), **options)
    engine = open_engine("serpapi", (), 3, options=how, ledger=stage.ledger)
    requests = plan(QUESTIONS, 2, 0.0, "", seed=0)
    try:
        return collect(requests, ScriptedEngine(script), engine, PROMPTS, SETTINGS, 6, stage, spending), spending
    finally:
        stage.release()


def paid_in_ledger() -> int:
    return int(pd.DataFrame(gather(artifacts.run_dir("paid")))["paid"].sum())


def test_a_limit_is_never_passed_and_the_next_command_goes_on(google: tuple[Google, str], book: PriceBook) -> None:
    """24 different searches at a cent: with 0.10 USD ten are made, with 0.17 seven more, then the rest."""
    engine, url = google
    for limit, n_bills, saved in ((0.10, 10, 6), (0.17, 17, 12)):
        with pytest.raises(BudgetReached, match=f"{saved} of 24 trajectories saved; max_usd: .*{limit:.4f} USD at"):
            collected(url, book, limit)
        assert len(engine.bills) == paid_in_ledger() == n_bills
    made, spending = collected(url, book, 1.0)
    assert len(made) == 24 and all(t.answer and t.n_searches == 2 for t in made)
    assert len(engine.bills) == len(set(engine.bills)) == paid_in_ledger() == 24, "nothing was billed twice"
    assert spending.usd == pytest.approx(0.24)
    files = [path for path in artifacts.outputs_dir().rglob("*") if path.is_file()]
    assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_more_money_goes_on_in_the_middle(google: tuple[Google, str], book: PriceBook) -> None:
    """A higher limit is no other collection: finished batches stay, and the trajectories are those of one command."""
    engine, url = google
    with pytest.raises(BudgetReached):
        collected(url, book, 0.10)
    stage = artifacts.open_stage("paid", "01", {"seed": 0, "max_usd": 9.0})
    assert stage.resumed and len(list(stage.path("checkpoints").glob("batch-*"))) == 1
    stage.release()
    made, _ = collected(url, book, 9.0)
    again, _ = collected(url, book, 9.0)
    assert [t.token_ids for t in made] == [t.token_ids for t in again] and len(engine.bills) == 24


def test_a_limit_holds_when_replies_are_lost(google: tuple[Google, str], book: PriceBook) -> None:
    """Every third request is billed and its reply is broken: it counts, so that no bill can pass the limit."""
    engine, url = google
    engine.damage = lambda n: Reply("broken", status=200) if n % 3 == 0 else None
    with pytest.raises(BudgetReached):
        collected(url, book, 0.12)
    assert len(engine.bills) == 12 == paid_in_ledger()


def test_refused_and_busy_replies_cost_nothing(google: tuple[Google, str], book: PriceBook) -> None:
    engine, url = google
    turns = iter([Reply(status=500), Reply(status=429)] * 2)
    engine.damage = lambda n: next(turns, None)
    made, spending = collected(url, book, 0.24)
    assert len(made) == 24 and len(engine.bills) == 24 and spending.usd == pytest.approx(0.24)


def test_a_refused_key_stops_it_with_the_reason_and_is_not_repeated(
    google: tuple[Google, str], book: PriceBook, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself quotes the wrong key in its error."""
    monkeypatch.setenv("SERPAPI_API_KEY", "sk-wrong-canary")
    with pytest.raises(RemoteRefused, match="variable SERPAPI_API_KEY, found one that is refused") as told:
        collected(google[1], book, 0.0)
    written = [path.read_bytes() for path in outputs.rglob("*") if path.is_file()]
    assert not [text for text in [str(told.value).encode(), *written] if b"canary" in text]
