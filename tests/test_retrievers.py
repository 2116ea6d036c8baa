"""BM25, the simulator and the rules of all retrievers: rows stay together, draws belong to their search."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest_models import FAMILIES, TOKENIZER, EchoRetriever, ScriptedEngine, tiny_model, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch import seeds
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import BadInput, ConfigError, MissingInput, RetrieverError
from zerosearch.prompts import Prompts, prompt_ids
from zerosearch.retrievers import open_engine
from zerosearch.retrievers.base import FailureLimit, check_rows, count_queries, failure
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest

PROMPTS = Prompts.load("micro", TOKENIZER)
WORDS = "amber birch cedar dolm elder falk garrow hazel ibsen jasper".split()  # their own stems


def ask(i: int, query: str = "", noise: float = 0.0, **counters: int) -> SearchRequest:
    question = Question(f"nq/{i}", "nq", f"question number {i}", (f"golden {i}",))
    return SearchRequest(query or f"query {i}", question, noise_probability=noise, **counters)


def corpus(*texts: str) -> list[Passage]:
    return [Passage(f"p{i}", "", text) for i, text in enumerate(texts)]


def texts_of(found: Retrieval) -> list[str]:
    return [p.text for p in found.passages]


# -- BM25 -----------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    """Two passages of two words, one of four: idf and length as the formula says (Lucene's idf)."""
    engine = BM25Retriever(corpus("amber birch", "amber cedar", "cedar dalby elder falk"), k=3)
    assert engine.rank(["birch amber", "cedar", "nothing here"]) == [[0, 1], [1, 2], []]
    average, idf = 8 / 3, math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = [idf / (1 + 0.9 * (1 - 0.4 + 0.4 * length / average)) for length in (2, 4)]
    word = engine.index.vocabulary["cedar"]
    assert engine.index.table[word].toarray()[0].tolist() == pytest.approx([0.0, *expected], abs=1e-6)


def test_equal_passages_keep_the_order_of_the_corpus() -> None:
    engine = BM25Retriever(corpus(*["amber birch"] * 30, "amber"), k=20)
    assert engine.rank(["amber", "birch"]) == [[30, *range(19)], [*range(20)]]


def test_words_are_stemmed_case_folded_and_found_in_titles() -> None:
    engine = BM25Retriever([Passage("a", "Silver Harbor", "directed by Falk"), Passage("b", "", "l 8½ É")], k=2)
    for query, best in (("DIRECTING", "a"), ("harbors", "a"), ("L", "b"), ("é", "b"), ("8½", "b")):
        assert [p.id for p in engine.search([ask(0, query)])[0].passages] == [best], query


@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), min_size=1, max_size=25),
    st.lists(st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=4), max_size=90), st.integers(1, 20),
)
@settings(max_examples=50, deadline=None)
def test_batches_agree_with_single_queries_and_the_definition(documents, queries, k) -> None:  # noqa: ANN001
    """Best first, ties in corpus order, only passages that share a word, whatever the batch."""
    engine = BM25Retriever(corpus(*map(" ".join, documents)), k)
    asked = [" ".join(words) for words in queries]
    ranked = engine.rank(asked)
    assert ranked == [engine.rank([query])[0] for query in asked]
    for words, best in zip(queries, ranked, strict=True):
        matching = [i for i, document in enumerate(documents) if set(document) & set(words)]
        table, known = engine.index.table, engine.index.vocabulary
        totals = {i: sum(float(table[known[w], i]) for w in words if w in known) for i in matching}
        assert len(best) == min(k, len(matching)) and set(best) <= set(matching)
        for first, second in zip(best, best[1:]):
            assert totals[first] > totals[second] - 1e-6
            assert documents[first] != documents[second] or first < second


def test_the_same_in_every_process() -> None:
    code = (
        "from zerosearch.retrievers.bm25 import BM25Retriever\nfrom zerosearch.schema import Passage\n"
        "p=[Passage(str(i),'',f'amber birch {i % 7} cedar {i % 3} dalby') for i in range(60)]\n"
        "e=BM25Retriever(p,9)\nprint(e.rank(['cedar 2 amber dalby','birch 5', '1 1 2']), e.identity)"
    )
    def made(hash_seed: str) -> str:
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert made("1") == made("2") != ""


def test_save_and_load(tmp_path: Path) -> None:
    engine = BM25Retriever(corpus("amber birch", "cedar", "amber"), k=2)
    again = BM25Retriever.load(engine.save(tmp_path / "index"))
    assert again.passages == engine.passages and again.identity == engine.identity
    assert again.rank(["amber cedar"]) == engine.rank(["amber cedar"])
    assert len(BM25Retriever.load(tmp_path / "index", k=3).rank(["amber cedar"])[0]) == 3
    with pytest.raises(MissingInput, match="BM25Retriever"):
        BM25Retriever.load(tmp_path / "none")


def test_identity_names_corpus_and_k() -> None:
    engines = [BM25Retriever(corpus("amber"), 1), BM25Retriever(corpus("amber"), 2), BM25Retriever(corpus("birch"), 1)]
    assert len({e.identity for e in engines}) == 3


@pytest.mark.parametrize("k", [0, 21, -1])
def test_k_is_limited(k: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 20"):
        BM25Retriever(corpus("amber"), k)


def test_a_corpus_needs_words() -> None:
    for passages in ([], corpus("...")):
        with pytest.raises(BadInput, match="passages with words"):
            BM25Retriever(passages)
    assert BM25Retriever(corpus("amber", "!!")).rank([""]) == [[]]
    assert BM25Retriever(corpus("amber")).search([]) == []


def test_plain_bm25_takes_words_as_they_stand(tmp_path: Path) -> None:
    passages = corpus("she directed it", "they were directing", "a direct line")
    found = {n: open_engine(n, passages, 3, tmp_path / n).search([ask("directed")])[0] for n in ("bm25", "bm25_plain")}
    assert [p.text for p in found["bm25_plain"].passages] == ["she directed it"] and len(found["bm25"].passages) == 3
    assert {name: answer.source for name, answer in found.items()} == {"bm25": "bm25", "bm25_plain": "bm25_plain"}


def test_fast_enough_for_rollouts() -> None:
    """256 queries over 2,000 passages take about 0.015 s of a core; 0.2 s would slow a rollout down."""
    random = seeds.generator(0, "speed")
    texts = [" ".join(f"w{n}" for n in random.zipf(1.3, 12) % 3000) for _ in range(2000)]
    engine, requests = BM25Retriever(corpus(*texts)), [ask(i, texts[i]) for i in range(256)]
    seconds = []
    for _ in range(3):
        started = time.process_time()
        engine.search(requests)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.2


def test_the_door() -> None:
    assert open_engine("bm25", corpus("amber"), 3).name == "bm25"
    with pytest.raises(ConfigError, match="did you mean 'bm25'"):
        open_engine("bm52", corpus("amber"), 3)


# -- the simulator ----------------------------------------------------------------------------------


def written_about(prompt: str) -> str:
    """A scripted simulator that says what it was asked, so that mixed-up rows show."""
    kind = prompt.split(" passages")[0].split()[-1]
    fields = dict(line.split(": ", 1) for line in prompt.splitlines() if ": " in line)
    return f"\n {kind} | {fields['Query']} | {fields['Question']} | {fields['Answer']}"


def simulator(script=written_about, **options) -> SimulatorRetriever:  # noqa: ANN001
    return SimulatorRetriever(ScriptedEngine(script), PROMPTS, **{"k": 2, **options})


@given(
    st.permutations(range(12)), st.integers(1, 12),
    st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=12, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_query_question_and_answer_stay_on_their_own_row(order, size, noise) -> None:  # noqa: ANN001
    """Rule 1 and rule 11: shuffled, partial batches give every row its own passages and its own draw."""
    requests = [ask(i, noise=noise[i], step=3, sample=i % 4, turn=i % 2) for i in range(12)]
    retriever = simulator(run_seed=5)
    found = [r for s in range(0, 12, size) for r in retriever.search([requests[i] for i in order[s : s + size]])]
    for i, retrieval in zip(order, found, strict=True):
        draw = seeds.uniform(5, "noise", 3, f"nq/{i}", i % 4, i % 2) < noise[i]
        assert retrieval.request is requests[i] and retrieval.noisy is draw
        kind = "misleading" if draw else "useful"
        assert texts_of(retrieval) == [f"{kind} | query {i} | question number {i} | golden {i}"]


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.randoms())
@settings(max_examples=30, deadline=None)
def test_rows_stay_together_when_some_fail(fails: list[bool], random) -> None:  # noqa: ANN001
    requests = [ask(i, "broken" if bad else f"query {i}") for i, bad in enumerate(fails)]
    random.shuffle(requests)
    found = FailureLimit(EchoRetriever(fail_on="broken"), max_share=1.0).search(requests)
    for request, retrieval in zip(requests, found, strict=True):
        assert retrieval.request is request
        assert (retrieval.error is None) == (request.query != "broken")
        own = f"{request.query} of {request.question.id} is {request.question.golden_answers[0]}."
        assert texts_of(retrieval) == ([own] if retrieval.error is None else [])


def test_draws_do_not_depend_on_concurrency() -> None:
    requests = [ask(i % 7, noise=0.5, step=1, sample=i // 7, turn=i % 3) for i in range(60)]
    alone = [simulator().search([r])[0] for r in requests]
    shared = simulator()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda r: shared.search([r])[0], requests))
    assert [(r.noisy, texts_of(r)) for r in alone] == [(r.noisy, texts_of(r)) for r in together]
    assert 15 < sum(bool(r.noisy) for r in alone) < 45


def test_every_counter_and_the_seed_key_the_draw() -> None:
    base = dict(step=1, sample=1, turn=1)
    variants = [base, *({**base, name: 2} for name in base)]

    def draws(seed: int, counters: dict[str, int]) -> tuple[bool, ...]:
        return tuple(simulator(run_seed=seed).draw_noisy(ask(i, noise=0.5, **counters)) for i in range(64))

    assert len({draws(seed, counters) for seed in (0, 1) for counters in variants}) == 8


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0, 0), (0.25, 200, 300), (1.0, 1000, 1000)])
def test_noise_comes_with_its_probability(noise: float, low: int, high: int) -> None:
    retriever = simulator()
    assert low <= sum(retriever.draw_noisy(ask(i, noise=noise)) for i in range(1000)) <= high


def test_only_the_first_golden_answer_is_named() -> None:
    request = replace(ask(1), question=replace(ask(1).question, golden_answers=("first", "second")))
    assert texts_of(simulator().search([request])[0])[0].endswith("| first")


@pytest.mark.parametrize(
    ("text", "kept"),
    [("\n one\n two", ["one", "two"]), ("\n one\n\n \n two\n three", ["one", "two"]), ("", []), ("\n\n ", []),
     ("\n </information> x", ["(/information) x"])],
)
def test_malformed_passages_are_kept_as_far_as_they_go(text: str, kept: list[str]) -> None:
    retriever = simulator(lambda prompt: text)
    found = retriever.search([ask(1)])[0]
    assert texts_of(found) == kept and found.error is None
    counts = retriever.counts
    assert (counts.answered, counts.short, counts.empty) == (1, len(kept) == 1, not kept)


def test_tokens_are_counted_and_the_budget_holds() -> None:
    retriever = simulator(lambda prompt: "\n one two three", max_new_tokens=3)
    found = retriever.search([ask(1)])[0]
    prompt = PROMPTS.simulator_prompt("query 1", "question number 1", "golden 1", True, 2)
    assert found.n_generated_tokens == 3
    assert found.n_prompt_tokens == len(TOKENIZER(prompt, add_special_tokens=False).input_ids)
    assert found.source == "simulator" and not found.cached and found.wall_seconds >= 0


@pytest.mark.parametrize(("family", "chat"), FAMILIES)
def test_the_simulator_is_asked_as_its_tokenizer_wants_and_its_ends_are_no_text(family: str, chat: bool) -> None:
    """Published chat models end with their end of turn or with their end of text."""
    tokenizer, asked = tokenizer_of(family, chat), []
    for end in (tokenizer.eos_token, tokenizer_of(family).eos_token):

        def script(prompt: str, end: str = end) -> str:
            asked.append(prompt)
            return f"\n one\n two{end}"

        prompts = Prompts.load("micro", tokenizer)
        found = SimulatorRetriever(ScriptedEngine(script, tokenizer), prompts, k=2).search([ask(1)])[0]
        ids = prompt_ids(tokenizer, prompts.simulator_prompt("query 1", "question number 1", "golden 1", True, 2))
        assert texts_of(found) == ["one", "two"] and found.n_prompt_tokens == len(ids)
        assert asked.pop() == tokenizer.decode(ids)


def test_an_engine_that_is_gone_fails_its_rows_and_nothing_else() -> None:
    def unreachable(prompt: str) -> str:
        raise ConnectionError("port 6001 is closed")

    retriever = simulator(unreachable)
    found = retriever.search([ask(0), ask(1)])
    assert [r.error for r in found] == ["ConnectionError: port 6001 is closed"] * 2 and retriever.counts.failed == 2
    with pytest.raises(ZeroDivisionError):  # a programming error is no failed search
        simulator(lambda prompt: str(1 / 0)).search([ask(0)])
    assert simulator().search([]) == []


def test_a_real_model_writes_the_same_in_any_batch() -> None:
    engine = TransformersEngine(tiny_model(), TOKENIZER, stop_strings=())
    retriever = SimulatorRetriever(engine, PROMPTS, k=3, max_new_tokens=12)
    requests = [ask(i, noise=0.5) for i in range(6)]
    whole = retriever.search(requests)
    parts = [r for request in reversed(requests) for r in retriever.search([request])][::-1]
    assert [texts_of(r) for r in whole] == [texts_of(r) for r in parts]
    assert [r.noisy for r in whole] == [r.noisy for r in parts]


@pytest.mark.parametrize("k", [1, 10, 11, 20])
def test_any_number_of_passages(k: int) -> None:
    retriever = simulator(lambda prompt: "".join(f"\n text {i}" for i in range(25)), k=k, max_new_tokens=400)
    found = retriever.search([ask(0)])[0]
    assert len(found.passages) == k == len({p.id for p in found.passages})


# -- rules of all -----------------------------------------------------------------------------------


def test_mixed_up_rows_are_noticed() -> None:
    requests = [ask(0), ask(1)]
    found = EchoRetriever().search(requests)
    assert check_rows(requests, found, "echo") == found
    with pytest.raises(ValueError, match="row 0 to answer 'query 0' of nq/0, found the answer to 'query 1'"):
        check_rows(requests, found[::-1], "echo")
    with pytest.raises(ValueError, match="expected 2 retrievals, found 1"):
        check_rows(requests, found[:1], "echo")


def test_failure_limit_stops_with_the_reason() -> None:
    limit = FailureLimit(EchoRetriever(fail_on="broken"), max_share=0.2, after=10)
    limit.search([ask(0, "broken")] * 4)  # too few to judge
    limit.search([ask(0, "fine")] * 16)  # 4 of 20: at the limit, not above it
    assert (limit.n_searches, limit.n_failures) == (20, 4)
    reason = "at most 20% failed searches, found 5 of 21, 5 of them with 'scripted failure'"
    with pytest.raises(RetrieverError, match=reason):
        limit.search([ask(0, "broken")])


def test_failure_limit_passes_everything_else_on() -> None:
    limit = FailureLimit(EchoRetriever(), max_share=0.0, after=1)
    assert limit.name == "echo" and limit.search([ask(0)]) == EchoRetriever().search([ask(0)])
    assert limit.search([]) == [] and limit.reasons == Counter() and limit.identity == "echo"
    with pytest.raises(ValueError, match="max_share"):
        FailureLimit(EchoRetriever(), max_share=2.0)


def test_queries_are_counted_by_engine() -> None:
    """What is paid stands in the ledger since its answer arrived, and is not counted again with its batch."""
    paid = [Retrieval(ask(i), (), "serpapi", cached=i < 2) for i in range(5)]
    free = [Retrieval(ask(0), (), "bm25"), failure(ask(1), "bm25", "")]
    assert free[1].error == "unknown failure"
    assert count_queries([*paid, *free]) == [
        {"engine": "bm25", "fresh": 2, "cached": 0, "paid": 0},
        {"engine": "serpapi", "fresh": 3, "cached": 2, "paid": 0},
    ]
    assert count_queries([]) == []
