"""Remote calls against a real server on this machine: order, pace, deadlines, every kind of damage, the key."""

from __future__ import annotations

import gc
import gzip
import logging
import signal
import threading
import traceback
from typing import Any, Iterator

import pytest
from local_server import Asked, LocalServer, Reply

from zerosearch.errors import ConfigError
from zerosearch.remote import FAILURES, Answer, Call, Remote, RemoteFailure, RemoteRefused, Service, read_json
from zerosearch.remote_batch import Pace

SECRET = "sk-canary-4711"


def echo(asked: Asked) -> Reply:
    return Reply({"n": asked.body if asked.method == "POST" else asked.params.get("n")})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalServer(echo) as made:
        yield made


def read_n(content: bytes) -> Any:
    found = read_json(content)
    if "n" not in found:
        raise RemoteFailure("malformed")
    return found["n"]


def post(n: object) -> Call[Any]:
    return Call(read_n, "/numbers", body=n)


def remote(server: LocalServer, **options: Any) -> Remote:
    return Remote(Service("numbers", f"{server.url}/v1", **{"attempts": 1, "wait_seconds": 0.0, **options}))


def kinds(answers: list[Answer[Any]]) -> list[str]:
    return [a.failure.kind if a.failure else "" for a in answers]


# -- what is sent and what comes back -------------------------------------------------------------


def test_a_get_sends_its_parameters_and_a_post_its_json(server: LocalServer) -> None:
    asked = remote(server)
    assert asked.ask(Call(read_n, "/search", params={"n": "a b&c=ü"})).value == "a b&c=ü"
    assert asked.ask(post({"queries": ["ü"]})).value == {"queries": ["ü"]}
    assert [(a.method, a.path) for a in server.asked] == [("GET", "/v1/search"), ("POST", "/v1/numbers")]


def test_answers_come_in_the_order_of_the_calls_whatever_the_order_of_arrival(server: LocalServer) -> None:
    """The first reply waits until the sixth is asked for: four others have arrived by then."""
    sixth = threading.Event()

    def reply(asked: Asked) -> Reply:
        if asked.body == 5:
            sixth.set()
        assert asked.body != 0 or sixth.wait(30)
        return echo(asked)

    server.reply, arrived = reply, []
    answers = list(remote(server, workers=2).ask_all([post(n) for n in range(8)], lambda n, a: arrived.append(n)))
    assert [a.value for a in answers] == list(range(8))
    assert sorted(arrived) == list(range(8)) and arrived[:4] == [1, 2, 3, 4]


def test_no_more_calls_at_once_than_workers(server: LocalServer) -> None:
    server.reply = lambda asked: Reply({"n": asked.body}, wait=0.02)
    assert [a.value for a in remote(server, workers=3).ask_all([post(n) for n in range(12)])] == list(range(12))
    assert server.at_once == 3


def test_no_calls_send_nothing(server: LocalServer) -> None:
    assert list(remote(server).ask_all([])) == [] and server.asked == []


def test_an_answer_is_kept_before_it_is_used_and_before_the_next_is_asked_for(server: LocalServer) -> None:
    kept: list[int] = []
    server.reply = lambda asked: Reply({"n": len(kept)})
    answers = remote(server, workers=1).ask_all([post(n) for n in range(4)], lambda n, a: kept.append(n))
    for number, answer in enumerate(answers):
        assert answer.value == number and number in kept


def test_several_threads_may_ask_at_once(server: LocalServer) -> None:
    asked, found = remote(server), {}

    def ask(first: int) -> None:
        found[first] = [a.value for a in asked.ask_all([post(n) for n in range(first, first + 10)])]

    threads = [threading.Thread(target=ask, args=(first,)) for first in (0, 10, 20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == {first: list(range(first, first + 10)) for first in (0, 10, 20)}


# -- failures -------------------------------------------------------------------------------------

DAMAGES = {
    "busy": Reply(status=429), "server": Reply(status=503), "timeout": Reply({"n": 1}, wait=30.0),
    "deadline": Reply({"n": 1}, pause=0.2), "connection": Reply({"n": 1}, cut=3), "malformed": Reply('{"n": '),
    "too_large": Reply({"n": "x" * 5_000}), "rejected": Reply(status=400),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_damage_has_its_kind_and_is_repeated_where_that_can_help(server: LocalServer, kind: str) -> None:
    server.reply = lambda asked: DAMAGES[kind]
    found = remote(server, attempts=2, timeout_seconds=0.5, max_bytes=1_000).ask(post(1))
    assert found.value is None and kinds([found]) == [kind]
    assert found.attempts == len(server.asked) == (1 if kind in ("too_large", "rejected") else 2)


def test_every_kind_but_refused_has_a_damage() -> None:
    assert {*DAMAGES, "refused"} == set(FAILURES)
    with pytest.raises(ValueError, match="kind: expected one of busy, .*found 'odd'"):
        RemoteFailure("odd")


@pytest.mark.parametrize("kind", [k for k in DAMAGES if k not in ("too_large", "rejected")])
def test_a_damage_that_passes_leaves_an_answer(server: LocalServer, kind: str) -> None:
    server.reply = lambda asked: DAMAGES[kind] if len(server.asked) == 1 else echo(asked)
    found = remote(server, attempts=3, timeout_seconds=0.5).ask(post(5))
    assert (found.value, found.failure, found.attempts) == (5, None, 2)


def test_headers_that_drip_for_ever_end_too(server: LocalServer) -> None:
    """No byte-to-byte timeout sees these: every byte comes in time."""
    server.reply = lambda asked: Reply({"n": 1}, pause=0.05, drip_head=True, headers={"X-Long": "x" * 10_000})
    assert kinds([remote(server, timeout_seconds=0.4).ask(post(1))]) == ["timeout"]


def test_the_deadline_of_a_call_holds_over_its_attempts(server: LocalServer) -> None:
    """A reply would come after 60 s and a hundred attempts are allowed, but the call has a second in all."""
    server.reply = lambda asked: Reply({"n": 1}, wait=60.0)
    found = remote(server, attempts=100, timeout_seconds=0.3, deadline_seconds=1.0).ask(post(1))
    assert kinds([found]) == ["timeout"] and found.attempts <= 4


def test_nobody_listening_is_a_connection_failure(server: LocalServer) -> None:
    asked = remote(server, attempts=2)
    server.close()
    assert kinds([asked.ask(post(1))]) == ["connection"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(""), Reply("[" * 100_000), Reply("{}"), Reply(b"\xff\xfe{"),
        Reply(gzip.compress(b"{}")[:-9] + b"nonsense!", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["empty", "deep", "other", "no UTF-8", "broken compression"],
)
def test_replies_that_cannot_be_read_are_malformed(server: LocalServer, reply: Reply) -> None:
    server.reply = lambda asked: reply
    assert kinds([remote(server).ask(post(1))]) == ["malformed"]


def test_a_compressed_flood_is_too_large(server: LocalServer) -> None:
    server.reply = lambda asked: Reply(gzip.compress(b" " * 3_000_000), headers={"Content-Encoding": "gzip"})
    assert kinds([remote(server).ask(post(1))]) == ["too_large"]


@pytest.mark.parametrize(
    "call", [post("half a \ud800 character"), post(float("nan")), Call(read_n, params={"q": "x" * 70_000})]
)
def test_what_cannot_be_put_into_a_request_is_rejected_alone(server: LocalServer, call: Call[Any]) -> None:
    answers = list(remote(server).ask_all([call, post(2)]))
    assert kinds(answers) == ["rejected", ""] and len(server.asked) == 1


def test_one_bad_answer_costs_no_other(server: LocalServer) -> None:
    server.reply = lambda asked: Reply(status=500) if asked.body % 3 == 0 else echo(asked)
    answers = list(remote(server).ask_all([post(n) for n in range(9)]))
    assert [a.value for a in answers] == [None, 1, 2, None, 4, 5, None, 7, 8]


@pytest.mark.parametrize(
    ("text", "least"), [("1", 0.9), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("soon", 0.0), ("-3", 0.0)]
)
def test_retry_after_is_honoured(server: LocalServer, text: str, least: float) -> None:
    busy = Reply(status=429, headers={"Retry-After": text})
    server.reply = lambda asked: busy if len(server.asked) == 1 else echo(asked)
    found = remote(server, attempts=2).ask(post(1))
    assert found.value == 1 and found.seconds >= least


def test_a_wait_beyond_the_deadline_is_not_waited_for(server: LocalServer) -> None:
    """The test would last an hour."""
    server.reply = lambda asked: Reply(status=503, headers={"Retry-After": "3600"})
    found = remote(server, attempts=9, deadline_seconds=30.0).ask(post(1))
    assert kinds([found]) == ["server"] and found.attempts == 1


def test_the_pace_spreads_requests_and_a_pause_holds_for_all() -> None:
    pace = Pace(per_second=0.01)
    first, second, third = pace.turn(), pace.turn(), pace.turn()
    assert first == 0.0 < second <= 100.0 < third <= 200.0
    free = Pace(0.0)
    assert [free.turn(), free.turn()] == [0.0, 0.0]
    free.pause(50.0)
    assert 0.0 < free.turn() <= 50.0 and 0.0 < free.turn() <= 50.0


def test_retries_keep_the_pace_too(server: LocalServer) -> None:
    server.reply = lambda asked: Reply(status=500)
    found = list(remote(server, attempts=3, per_second=20.0).ask_all([post(1), post(2)]))
    assert len(server.asked) == 6 and max(a.seconds for a in found) >= 5 / 20.0 - 0.01


# -- what ends the work ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "expected a key in the environment variable NUMBERS_KEY, found none .HTTP 401.; set it with `export"),
        (402, "found HTTP 402; mend the account"), (404, "found HTTP 404; check address"),
        (301, "found HTTP 301; check"),
    ],
)
def test_what_no_call_can_pass_ends_the_work(server: LocalServer, status: int, words: str) -> None:
    server.reply = lambda asked: Reply(status=status)
    with pytest.raises(RemoteRefused, match=f"numbers at {server.url}/v1: .*{words}"):
        list(remote(server, attempts=5, workers=1, key_variable="NUMBERS_KEY").ask_all([post(n) for n in range(9)]))
    assert len(server.asked) == 1


def test_calls_under_way_are_kept_when_the_work_ends(server: LocalServer) -> None:
    """One call is refused while another is being answered: its answer is paid for and must arrive."""
    refused = threading.Event()

    def reply(asked: Asked) -> Reply:
        if asked.body == 1:
            refused.set()
            return Reply(status=402)
        assert refused.wait(30)
        return Reply({"n": asked.body}, wait=0.3)

    server.reply, kept = reply, {}
    with pytest.raises(RemoteRefused):
        list(remote(server, workers=2).ask_all([post(n) for n in range(9)], lambda n, a: kept.update({n: a.value})))
    assert kept == {0: 0} and len(server.asked) == 2


def test_a_caller_who_stops_asking_stops_the_rest(server: LocalServer) -> None:
    kept: list[int] = []
    server.reply = lambda asked: Reply({"n": asked.body}, wait=0.05)
    answers = remote(server, workers=1).ask_all([post(n) for n in range(500)], lambda n, a: kept.append(n))
    assert next(answers).value == 0
    answers.close()
    assert len(kept) == len(server.asked) < 500


def test_an_error_while_keeping_reaches_the_caller(server: LocalServer) -> None:
    def keep(number: int, answer: Answer[Any]) -> None:
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match="disk full"):
        list(remote(server, workers=1).ask_all([post(n) for n in range(5)], keep))
    assert len(server.asked) == 1


def test_an_error_in_the_reader_reaches_the_caller(server: LocalServer) -> None:
    with pytest.raises(ZeroDivisionError):
        remote(server).ask(Call(lambda content: 1 // 0, "/numbers", body=1))


def test_an_interrupt_breaks_calls_off(server: LocalServer) -> None:
    """The reply would come after ten minutes; the interrupt comes when it has been asked for."""

    def reply(asked: Asked) -> Reply:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return Reply({"n": 1}, wait=600.0)

    server.reply = reply
    with pytest.raises(KeyboardInterrupt):
        remote(server, timeout_seconds=600.0).ask(post(1))
    assert not [t for t in threading.enumerate() if t.name == "remote calls"]


# -- addresses and keys ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["localhost:8000", "http://", "http://x:port/v1", "ftp://x/v1", "", "http://x/v1?key=a"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="numbers: expected an address such as http://localhost:8000/v1, found"):
        Service("numbers", url)


@pytest.mark.parametrize("url", [f"http://me:{SECRET}@x/v1", f"http://x/v1?api_key={SECRET}", f"http://{SECRET}@x\n/"])
def test_a_key_in_an_address_is_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Service("numbers", url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("parameter", ["", "api_key"])
def test_the_key_is_sent_and_stands_nowhere_else(
    server: LocalServer, parameter: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMBERS_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    asked, call = remote(server, key_variable="NUMBERS_KEY", key_parameter=parameter), Call(read_n, params={"n": "1"})
    assert asked.ask(call).value == "1"
    sent = server.asked[0].params["api_key"] if parameter else server.asked[0].headers["authorization"]
    assert sent == (SECRET if parameter else f"Bearer {SECRET}")
    said = [repr(asked.service), repr(call), repr(vars(asked))]
    server.reply = lambda asked: Reply(SECRET, status=401)
    explained = Call(read_n, explain=lambda status, content: RemoteFailure("refused", detail=content.decode()))
    for refused in (call, explained):
        with pytest.raises(RemoteRefused, match="variable NUMBERS_KEY, found one that is refused .HTTP 401") as error:
            asked.ask(refused)
        said += traceback.format_exception(error.value)
    server.reply = lambda asked: Reply(status=400)
    rejected = Call(read_n, explain=lambda status, content: RemoteFailure("rejected", detail=f"no {SECRET}"))
    said.append(repr(asked.ask(rejected).failure and vars(asked.ask(rejected).failure)))
    assert "HTTP Request" in caplog.text and "no ***" in said[-1]
    assert SECRET not in "\n".join([*said, caplog.text])


def test_a_key_that_cannot_be_sent_is_named_without_being_shown(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (f"{SECRET}\n", f"{SECRET} x", f"{SECRET}ü"):
        monkeypatch.setenv("NUMBERS_KEY", key)
        with pytest.raises(RemoteRefused, match="variable NUMBERS_KEY, found others") as refused:
            remote(server, key_variable="NUMBERS_KEY").ask(post(1))
        assert SECRET not in str(refused.value)
    assert server.asked == []


def test_without_a_key_none_is_sent(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBERS_KEY", raising=False)
    assert remote(server, key_variable="NUMBERS_KEY").ask(post(1)).value == 1
    assert "authorization" not in server.asked[0].headers


def test_an_explanation_may_call_a_busy_reply_the_end_of_the_credit(server: LocalServer) -> None:
    """Some services answer 429 both for too many requests and for an account without credit."""

    def explain(status: int, content: bytes) -> RemoteFailure | None:
        return RemoteFailure("refused", detail="no credit left") if b"credit" in content else None

    server.reply = lambda asked: Reply({"error": "credit"}, status=429)
    with pytest.raises(RemoteRefused, match="found HTTP 429: no credit left; mend the account"):
        remote(server, attempts=5).ask(Call(read_n, explain=explain))
    server.reply = lambda asked: Reply(status=429)
    assert kinds([remote(server).ask(Call(read_n, explain=explain))]) == ["busy"]


def test_nothing_stays_behind(server: LocalServer) -> None:
    asked = remote(server)
    list(asked.ask_all([post(n) for n in range(20)]))
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name == "remote calls"]


# -- purses ---------------------------------------------------------------------------------------


class Coins:
    """A purse with so many coins; a request costs one where it may have been billed."""

    def __init__(self, coins: int):
        self.coins, self.reserved, self.ended = coins, 0, []
        self._lock = threading.Lock()

    def reserve(self, call: Call[Any]) -> bool:
        with self._lock:
            if self.coins > self.reserved:
                self.reserved += 1
                return True
            if self.reserved:
                return False
            raise ConfigError("no coin left")

    def settle(self, call: Call[Any], ended: object) -> None:
        with self._lock:
            self.reserved -= 1
            self.coins -= ended.may_be_billed if isinstance(ended, RemoteFailure) else 1
            self.ended.append(ended.kind if isinstance(ended, RemoteFailure) else ended)


def test_a_purse_is_asked_before_every_request_and_ends_the_work_when_empty(server: LocalServer) -> None:
    """Every second reply is a 503, which costs nothing: five coins buy five answers, no sixth is asked for."""
    server.reply = lambda asked: Reply(status=503) if len(server.asked) % 2 else echo(asked)
    purse, kept = Coins(5), {}
    service = Service("numbers", server.url, attempts=4, wait_seconds=0.0, workers=1)
    with pytest.raises(ConfigError, match="no coin left"):
        list(Remote(service, purse).ask_all([post(n) for n in range(9)], lambda n, a: kept.update({n: a.value})))
    assert kept == {n: n for n in range(5)} and len(server.asked) == 10
    assert (purse.coins, purse.reserved) == (0, 0) and purse.ended == [x for n in range(5) for x in ("server", n)]


def test_a_purse_that_may_get_something_back_is_waited_for(server: LocalServer) -> None:
    """Four workers and two coins, no request costs anything: all the requests are made, two at a time at most."""
    server.reply = lambda asked: Reply(status=400, wait=0.02)
    purse = Coins(2)
    answers = list(Remote(Service("numbers", server.url, workers=4), purse).ask_all([post(n) for n in range(12)]))
    assert kinds(answers) == ["rejected"] * 12 and (purse.coins, server.at_once) == (2, 2)


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_may_have_been_billed_is_paid_for(server: LocalServer, kind: str) -> None:
    server.reply = lambda asked: DAMAGES[kind]
    purse = Coins(3)
    service = Service("numbers", server.url, attempts=1, timeout_seconds=0.4, max_bytes=1_000)
    assert kinds([Remote(service, purse).ask(post(1))]) == purse.ended == [kind]
    assert purse.coins == (3 if kind in ("busy", "server", "rejected") else 2)


def test_what_never_reached_the_server_is_not(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    purse = Coins(3)
    asked = Remote(Service("numbers", server.url, "NUMBERS_KEY", attempts=1), purse)
    assert kinds([asked.ask(post("\ud800"))]) == ["rejected"]
    monkeypatch.setenv("NUMBERS_KEY", "a b")
    with pytest.raises(RemoteRefused):
        asked.ask(post(1))
    monkeypatch.delenv("NUMBERS_KEY")
    server.close()
    assert kinds([asked.ask(post(1))]) == ["connection"]
    assert (purse.coins, purse.reserved) == (3, 0)


def test_a_request_that_is_broken_off_may_have_been_billed(server: LocalServer) -> None:
    def reply(asked: Asked) -> Reply:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return Reply({"n": 1}, wait=600.0)

    server.reply, purse = reply, Coins(3)
    with pytest.raises(KeyboardInterrupt):
        Remote(Service("numbers", server.url, timeout_seconds=600.0), purse).ask(post(1))
    assert (purse.coins, purse.reserved) == (2, 0)
