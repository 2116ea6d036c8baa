"""Conditions of evaluation: who finds what, which draws fail, and what misleading passages may say."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from conftest_models import EchoRetriever
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch import seeds
from zerosearch.errors import ConfigError
from zerosearch.evaluation.conditions import (
    CONDITIONS, HARD_NEGATIVE, CorruptedRetriever, HardNegatives, MisleadingWriter, clean_passages, draw_name,
    open_condition, open_real, possible,
)
from zerosearch.microworld import language as lang
from zerosearch.microworld.world import build_questions, build_world, is_world_name, kind_for, read_sentence
from zerosearch.retrievers import EngineOptions
from zerosearch.retrievers.base import failure
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest
from zerosearch.scoring import contains_answer

WORLD = build_world(7)
PASSAGES = WORLD.passages()
QUESTIONS = [q for q in build_questions(WORLD, 25, 1) if q.split == "eval"]
HOPS = [(q, hop) for q in QUESTIONS for hop in q.metadata["hops"]]
FACTS = list(WORLD.facts.values())


@cache
def condition(name: str, k: int = 5, seed: int = 0):  # noqa: ANN201
    return open_condition(name, PASSAGES, k, seed, build_world(7, 1).passages() if name == "later" else ())


def asked(number: int, wording: int = 0, **row: int) -> SearchRequest:
    """Return a search for one gold hop of the world's questions."""
    question, hop = HOPS[number]
    return SearchRequest(lang.query_text(lang.BY_NOUN[hop["relation"]], hop["subject"], wording), question, **row)


class Base:
    """A retriever that knows nothing and notes what it was asked."""

    name = "base"

    def __init__(self, fail: bool = False):
        self.fail, self.seen = fail, list[SearchRequest]()

    def search(self, requests):  # noqa: ANN001, ANN201
        self.seen += requests
        if self.fail:
            return [failure(r, self.name, "timeout") for r in requests]
        return [Retrieval(r, (Passage("own", "", f"to {r.query}"),), self.name) for r in requests]


# -- opening --------------------------------------------------------------------------------------


def test_names_and_their_order() -> None:
    assert CONDITIONS == (
        "clean", "homonyms", "corrupt-0.25", "corrupt-0.5", "corrupt-0.75", "random", "empty", "later"
    )
    with pytest.raises(ConfigError, match="expected one of clean, .*did you mean 'corrupt-0.5'"):
        open_condition("corrupt-0.55", PASSAGES, 5, 0)
    with pytest.raises(ValueError, match="expected 1 to 20, found 21"):
        open_condition("empty", PASSAGES, 21, 0)


def test_identities_tell_all_apart() -> None:
    made = [condition(name) for name in CONDITIONS] + [condition("corrupt-0.5", 3), condition("corrupt-0.5", 5, 1)]
    assert len({retriever.identity for retriever in made}) == len(made)
    assert condition("random").identity != open_condition("random", PASSAGES[1:], 5, 0).identity
    assert open_condition("corrupt-0.5", PASSAGES, 5, 0).identity == condition("corrupt-0.5").identity


def test_clean_states_facts_only_and_homonyms_mislead() -> None:
    requests = [asked(i) for i in range(len(HOPS))]
    kinds = {
        name: Counter(p.metadata["kind"] for r in condition(name).search(requests) for p in r.passages)
        for name in ("clean", "homonyms")
    }
    assert set(kinds["clean"]) == {lang.FACT}
    assert set(kinds["homonyms"]) == {lang.FACT, *lang.MISLEADING} - {lang.OTHER_RELATION, lang.LOOKALIKE}


def test_a_readers_own_passages_are_clean_whatever_kind_they_name() -> None:
    own = [Passage("1", "", "amber"), Passage("2", "", "amber birch", {"kind": "article"})]
    known_wrong = Passage("3", "", "amber cedar", {"kind": lang.CONTRADICTED})
    assert clean_passages([*own, known_wrong]) == own
    found = open_condition("clean", [*own, known_wrong], 5, 0).search([SearchRequest("amber", QUESTIONS[0])])
    assert [p.id for p in found[0].passages] == ["1", "2"]


def test_later_searches_the_later_world() -> None:
    later = build_world(7, 1)
    changed = [key for key, fact in WORLD.facts.items() if later.facts[key].object != fact.object]
    subject, relation = changed[0]
    request = SearchRequest(lang.query_text(lang.BY_NOUN[relation], subject), QUESTIONS[0])
    kinds = {}
    for passage in condition("later", k=20).search([request])[0].passages:
        if (passage.metadata["subject"], passage.metadata["relation"]) == (subject, relation):
            kinds.setdefault(passage.metadata["kind"], set()).add(passage.metadata["object"])
    assert kinds[lang.FACT] == {later.facts[subject, relation].object}
    assert WORLD.facts[subject, relation].object in kinds[lang.SUPERSEDED]
    with pytest.raises(ConfigError, match="run notebook 00 again"):
        open_condition("later", PASSAGES, 5, 0)


def test_nothing_is_found_in_empty() -> None:
    found = condition("empty").search([asked(0), asked(1)])
    assert [(r.request, r.passages, r.error) for r in found] == [(asked(0), (), None), (asked(1), (), None)]


def test_random_is_blind_to_the_query() -> None:
    engine = condition("random")
    one, reworded, again = engine.search([asked(3), asked(3, wording=1), asked(3, turn=1)])
    assert one.passages == reworded.passages != again.passages
    assert len({p.id for p in one.passages}) == 5
    drawn = Counter(p.id for i in range(400) for p in engine.search([asked(0, sample=i)])[0].passages)
    assert len(drawn) > 1600 and max(drawn.values()) <= 6  # 2000 draws of 6591: about 1720 different ones
    few = open_condition("random", PASSAGES[:3], 5, 0).search([asked(0)])[0]
    assert {p.id for p in few.passages} == {p.id for p in PASSAGES[:3]}


# -- which searches fail --------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.25, 0.5, 0.75])
def test_as_many_searches_fail_as_they_should(probability: float) -> None:
    retriever = CorruptedRetriever(Base(), probability, 5, seed=0)
    n = 4000
    share = sum(retriever.fails(asked(i % len(HOPS), sample=i, turn=i % 5)) for i in range(n)) / n
    assert abs(share - probability) < 4 * (probability * (1 - probability) / n) ** 0.5


def test_every_counter_draws_anew_and_the_query_does_not() -> None:
    retriever = CorruptedRetriever(Base(), 0.5, 5, seed=0)
    for counter in ("step", "sample", "turn"):
        fates = [retriever.fails(asked(0, **{counter: i})) for i in range(64)]
        assert 16 < sum(fates) < 48, counter
        assert fates == [retriever.fails(asked(0, wording=1, **{counter: i})) for i in range(64)]
    other_seed = CorruptedRetriever(Base(), 0.5, 5, seed=1)
    both = [(retriever.fails(asked(0, sample=i)), other_seed.fails(asked(0, sample=i))) for i in range(200)]
    assert len(Counter(both)) == 4 and min(Counter(both).values()) > 25


def test_what_fails_rarely_fails_often_too() -> None:
    """One draw serves all probabilities: conditions differ by as little as they can."""
    rare, often = (CorruptedRetriever(Base(), p, 5, seed=0) for p in (0.25, 0.75))
    fates = [(rare.fails(asked(0, sample=i)), often.fails(asked(0, sample=i))) for i in range(300)]
    assert (True, False) not in fates and (False, True) in fates


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 11))
def test_draws_do_not_depend_on_the_batch(order: list[int], cut: int) -> None:
    retriever = condition("corrupt-0.5")
    requests = [asked(i, wording=i % 2, sample=i, turn=i % 5) for i in range(12)]
    together = {r.request.sample: r for r in retriever.search(requests)}
    mixed = [requests[i] for i in order]
    for found in [*retriever.search(mixed[:cut]), *retriever.search(mixed[cut:])]:
        alone = together[found.request.sample]
        assert (found.request, found.passages, found.noisy) == (alone.request, alone.passages, alone.noisy)
    assert {found.noisy for found in together.values()} == {True, False}


def test_any_retriever_can_be_corrupted() -> None:
    base = Base()
    retriever = CorruptedRetriever(base, 0.5, 3, seed=0)
    requests = [asked(i % len(HOPS), sample=i) for i in range(40)]
    found = retriever.search(requests)
    assert [r.request for r in found] == requests
    assert base.seen == [r for r in requests if not retriever.fails(r)]  # a failing search costs the base nothing
    for one in found:
        assert one.noisy == retriever.fails(one.request)
        assert (one.source, [p.id for p in one.passages] == ["own"]) == (
            ("corrupt-0.5", False) if one.noisy else ("base", True)
        )
    broken = CorruptedRetriever(Base(fail=True), 0.5, 3, seed=0).search(requests)
    assert {(r.noisy, r.error) for r in broken} == {(True, None), (False, "timeout")}
    never, always = (CorruptedRetriever(Base(), p, 3, seed=0) for p in (0.0, 1.0))
    assert not any(r.noisy for r in never.search(requests)) and all(r.noisy for r in always.search(requests))


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_impossible_probabilities_are_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\]"):
        CorruptedRetriever(Base(), probability, 5, seed=0)


# -- what misleading passages say -----------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, len(HOPS) - 1), st.integers(0, 1), st.integers(1, 20), st.integers(0, 10_000),
    st.sampled_from(["own hop", "any fact"]), st.integers(0, len(FACTS) - 1),
)
def test_misleading_passages_mislead(
    number: int, wording: int, k: int, sample: int, what: str, fact_number: int
) -> None:
    request = asked(number, wording, sample=sample)
    question, hop = HOPS[number]
    if what == "any fact":  # off the gold path: what is true is known from the corpus
        fact = FACTS[fact_number]
        query = lang.query_text(lang.BY_NOUN[fact.relation], fact.subject, wording)
        request, hop = SearchRequest(query, question, sample=sample), {
            "subject": fact.subject, "relation": fact.relation, "object": fact.object
        }
    passages = condition("corrupt-0.5", k).mislead(request)
    assert len(passages) == k == len({p.text for p in passages}) == len({p.id for p in passages})
    true = {(h["subject"], h["relation"], h["object"]) for h in [*question.metadata["hops"], hop]}
    kinds = Counter(p.metadata["kind"] for p in passages)
    assert set(kinds) <= set(lang.MISLEADING) and kinds[lang.CONTRADICTED] <= 1
    for passage in passages:
        about = passage.metadata
        assert not contains_answer(f"{passage.title} {passage.text}", question.golden_answers)
        assert (about["subject"], about["relation"], about["object"]) not in true
        assert kind_for(about, hop["relation"], hop["subject"]) == about["kind"]
        said = read_sentence(passage.text)
        assert said is not None and [said[key] for key in ("subject", "relation", "object")] == [
            about[key] for key in ("subject", "relation", "object")
        ]


def test_kinds_are_drawn_evenly_and_fall_back_to_lookalikes() -> None:
    """Main kinds evenly: one search in six contradicts.  A region has one relation only: none is another."""
    question = Question("nq/1", "nq", "q", ("no such answer",))
    retriever = condition("corrupt-0.5")

    def kinds(query: str) -> list[Counter]:
        return [
            Counter(p.metadata["kind"] for p in retriever.mislead(SearchRequest(query, question, sample=i)))
            for i in range(600)
        ]

    person = next(name for name, entity in WORLD.entities.items() if entity.kind == "person")
    employer = kinds(f"employer of {person}")
    contradicting = sum(counts[lang.CONTRADICTED] for counts in employer) / 600
    assert abs(contradicting - 1 / 6) < 4 * (1 / 6 * 5 / 6 / 600) ** 0.5
    total = sum(employer, Counter())
    assert all(total[kind] > 300 for kind in lang.MISLEADING if kind != lang.CONTRADICTED)
    birthplace = sum(kinds(lang.query_text(lang.BY_NOUN["birthplace"], person, 1)), Counter())
    assert birthplace[lang.SUPERSEDED] == 0 and birthplace[lang.LOOKALIKE] > total[lang.LOOKALIKE] + 300
    region = next(name for name, entity in WORLD.entities.items() if entity.kind == "region")
    governor = sum(kinds(f"governor of {region}"), Counter())
    assert governor[lang.OTHER_RELATION] == 0 and governor[lang.SUPERSEDED] > 300


def test_a_subject_that_is_the_golden_answer_leaves_lookalikes_only() -> None:
    comparisons = [q for q in QUESTIONS if q.metadata["kind"] == "comparison"]
    assert len(comparisons) >= 5
    for question in comparisons:
        names = [hop["subject"] for hop in question.metadata["hops"]]
        query = f"{question.metadata['hops'][0]['relation']} of {question.golden_answers[0]}"
        passages = condition("corrupt-0.5").mislead(SearchRequest(query, question))
        assert [p.metadata["kind"] for p in passages] == [lang.LOOKALIKE] * 5
        assert not {p.metadata["subject"] for p in passages} & set(names)  # wrong years of the other one would be lies


def test_golden_answers_that_stand_everywhere_leave_nothing_to_write() -> None:
    question = Question("nq/1", "nq", "q", ("Harbor", "had", "made", "is", "for"))
    writer = MisleadingWriter(lang.BY_NOUN["director"], "Silver Harbor", question, {}, seeds.generator(0))
    assert writer.write(5) == []


@given(st.sampled_from([*lang.NAME_WORDS, "year"]), st.integers(0, 2**32))
def test_made_up_names_look_like_names_of_a_world(kind: str, seed: int) -> None:
    name = draw_name(kind, np.random.default_rng(seed))
    if kind == "year":
        assert name in lang.YEARS
    else:
        first, second = name.split()
        assert is_world_name(name) and first in lang.NAME_WORDS[kind][0] and second in lang.NAME_WORDS[kind][1]


# -- hard negatives -------------------------------------------------------------------------------


def own_corpus(n: int) -> list[Passage]:
    """Return passages that all match ``amber``, the longer the worse; every fourth holds the answer."""
    return [
        Passage(f"own-{i:02d}", "", "amber " + "word " * i + ("the Golden Gate" if i % 4 == 0 else "nothing"))
        for i in range(n)
    ]


def test_hard_negatives_rank_deeper_and_hold_no_answer() -> None:
    question = Question("nq/1", "nq", "where", ("golden gate",))
    passages = own_corpus(60)
    ranked = BM25Retriever(passages, 20).rank(["amber"], 60)[0]
    assert len(ranked) == 60 and BM25Retriever(passages, 20).rank(["amber"])[0] == ranked[:20]
    found = HardNegatives(passages, 5).find(SearchRequest("amber", question))
    expected = [passages[i].id for i in ranked[5:25] if int(passages[i].id[-2:]) % 4]
    assert [p.id for p in found] == expected[:5]
    retriever = open_condition("corrupt-0.75", passages, 5, 0)
    failing = [r for r in retriever.search([SearchRequest("amber", question, sample=i) for i in range(20)]) if r.noisy]
    assert len(failing) > 8
    for one in failing:
        assert {p.id for p in one.passages} == set(expected[:5])
        assert {p.metadata["kind"] for p in one.passages} == {HARD_NEGATIVE}
    assert len({tuple(p.id for p in one.passages) for one in failing}) > 5  # shuffled by the draw


def test_hard_negatives_serve_twenty_passages_too_and_small_corpora() -> None:
    question = Question("nq/1", "nq", "where", ("golden gate",))
    deep = HardNegatives(own_corpus(60), 20).find(SearchRequest("amber", question))
    assert len(deep) == 15  # ranks 21 to 40, a quarter of which hold the answer
    assert HardNegatives(own_corpus(4), 5).find(SearchRequest("amber", question)) == []


def test_queries_that_are_not_understood_meet_hard_negatives() -> None:
    question, hop = HOPS[0]
    request = SearchRequest(f"tell me all about {hop['subject']}", question)
    found = condition("corrupt-0.5").mislead(request)
    assert found and {p.metadata["kind"] for p in found} == {HARD_NEGATIVE}
    assert not any(contains_answer(p.text, question.golden_answers) for p in found)
    without_corpus = CorruptedRetriever(Base(), 0.5, 5, seed=0).mislead(request)
    assert len(without_corpus) == 5
    assert not any(contains_answer(p.text, question.golden_answers) for p in without_corpus)


# -- another engine than BM25 ----------------------------------------------------------------------------


def test_conditions_that_need_tags_are_left_out_for_other_engines() -> None:
    engine = EchoRetriever()
    names = ["homonyms", "corrupt-0.5", "random", "empty", "later"]
    kept, left_out = possible(names, True, True, engine)
    assert kept == ["corrupt-0.5", "random", "empty"]
    assert [text.split("'")[1] for text in left_out] == ["homonyms", "later"]
    assert all("found 'echo', whose passages carry no tags" in text for text in left_out)
    assert possible(names, True, True) == (names, [])
    kept, left_out = possible(names, False, False, engine)
    assert kept == ["empty"] and "expected passages of the run to mislead with, found none" in left_out[1]
    kept, (text,) = possible(names, True, False)
    assert kept == names[:-1] and "found none; run notebook 00 again" in text
    for name in ("homonyms", "later"):
        with pytest.raises(ConfigError, match=f"condition '{name}': expected BM25"):
            open_condition(name, PASSAGES, 5, 0, PASSAGES, engine)


def test_clean_and_corrupted_searches_ask_the_engine_of_the_run() -> None:
    engine = EchoRetriever()
    assert open_condition("clean", PASSAGES, 5, 0, engine=engine) is engine
    corrupted = open_condition("corrupt-0.5", PASSAGES, 5, 0, engine=engine)
    found = corrupted.search([SearchRequest(f"query {i}", Question(f"q{i}", "nq", "?", ("x",))) for i in range(40)])
    assert {r.source for r in found if not r.noisy} == {"echo"} and any(r.noisy for r in found)
    assert open_real("bm25", PASSAGES, 5, EngineOptions(), 0.1, None) is None  # type: ignore[arg-type]
