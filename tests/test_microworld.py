"""The world: its facts, the passages around them, its questions, and what becomes of it later."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosearch.errors import ConfigError
from zerosearch.microworld import corpus, language as lang, prepare
from zerosearch.microworld.world import (
    UNRELATED, WORLD_VERSION, World, build_questions, build_world, is_world_name, kind_for, later_questions,
    read_sentence,
)
from zerosearch.question_sets.own import Choice
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.schema import Passage, Question

WORLD, LATER = build_world(7), build_world(7, edition=1)
QUESTIONS = build_questions(WORLD, 150, 900)
PASSAGES = {kind: [p for p in WORLD.corpus if p.metadata["kind"] == kind] for kind in (lang.FACT, *lang.MISLEADING)}
CHANGING = [key for key in WORLD.facts if lang.BY_NOUN[key[1]].changes]
CHANGED = [key for key in WORLD.facts if LATER.facts[key].object != WORLD.facts[key].object]


def key_of(passage: Passage) -> tuple[str, str]:
    return passage.metadata["subject"], passage.metadata["relation"]


@cache
def stated_in(edition: int) -> dict[tuple[tuple[str, str], str], str]:
    """Return the object of every stated fact by its key and its sentence."""
    world = (WORLD, LATER)[edition]
    return {(key_of(p), p.text): p.metadata["object"] for p in world.passages(clean=True)}


def follow(question: Question, world: World) -> str:
    """Answer a question by walking the corpus: the golden answer must come out."""
    stated = stated_in(world.edition)
    hops = question.metadata["hops"]
    objects = []
    for hop in hops:
        found = stated[(hop["subject"], hop["relation"]), hop["sentence"]]
        assert found == hop["object"] and hop["object"] in hop["sentence"]
        objects.append(found)
    if question.metadata["kind"] == "comparison":
        return min(hops, key=lambda h: int(h["object"]))["subject"]
    for before, after in zip(hops, hops[1:], strict=False):
        assert before["object"] == after["subject"]
    return objects[-1]


# -- questions ------------------------------------------------------------------------------------


def test_counts_and_splits() -> None:
    counts = Counter((q.dataset, q.split) for q in QUESTIONS)
    assert {s for s, split in counts if split == "train"} == set(lang.TRAINING_FAMILIES)
    assert all(counts[s, "eval"] == (125 if s == "bamboogle" else 150) for s in lang.FAMILIES)
    assert counts["nq", "train"] == counts["hotpotqa", "train"] == 900
    assert len({q.id for q in QUESTIONS}) == len(QUESTIONS)


def test_every_golden_answer_follows_from_the_corpus() -> None:
    for question in QUESTIONS:
        assert follow(question, WORLD) == question.golden_answers[0]


def test_hops_per_family() -> None:
    hops = {f: Counter(len(q.metadata["hops"]) for q in QUESTIONS if q.dataset == f) for f in lang.FAMILIES}
    assert all(set(hops[f]) == {1} for f in ("nq", "triviaqa", "popqa"))
    assert all(set(hops[f]) == {2} for f in ("hotpotqa", "2wikimultihopqa"))
    assert set(hops["musique"]) == {2, 3, 4} and set(hops["bamboogle"]) == {2, 3}


def test_training_and_evaluation_start_from_different_entities() -> None:
    starts = {s: {q.metadata["hops"][0]["subject"] for q in QUESTIONS if q.split == s} for s in ("train", "eval")}
    assert not starts["train"] & starts["eval"]


def test_no_question_text_twice_between_train_and_eval() -> None:
    by_split = {split: {q.question for q in QUESTIONS if q.split == split} for split in ("train", "eval")}
    assert not by_split["train"] & by_split["eval"]


def test_longer_lists_extend_shorter_ones() -> None:
    few = [q for q in build_questions(WORLD, 20, 50) if q.dataset == "nq" and q.split == "eval"]
    many = [q for q in QUESTIONS if q.dataset == "nq" and q.split == "eval"]
    assert [q.question for q in few] == [q.question for q in many[:20]]


# -- building -------------------------------------------------------------------------------------


def test_a_world_is_a_pure_function_of_its_seed_and_edition() -> None:
    build_world.cache_clear()
    started = time.process_time()
    again = build_world(7)
    assert time.process_time() - started < 2.0
    assert again == WORLD and build_world(7, 1) == LATER and WORLD != LATER
    assert build_world(7) is again  # built once
    other = build_world(8)
    assert other.facts != WORLD.facts and not {p.text for p in other.corpus} >= {p.text for p in WORLD.corpus}
    with pytest.raises(ValueError, match=r"expected one of \(0, 1\), found 2"):
        build_world(7, 2)


def test_world_names_are_a_third() -> None:
    first, second = lang.NAME_WORDS["person"]
    share = sum(is_world_name(f"{a} {b}") for a in first for b in second) / (len(first) * len(second))
    assert 0.30 < share < 0.37
    assert all(is_world_name(name) for name in WORLD.entities)


def test_the_size_of_the_world() -> None:
    assert len(WORLD.entities) == 1000 and WORLD_VERSION == 2
    assert 3000 < len(WORLD.facts) < 4000 and 6000 < len(WORLD.corpus) < 8000


# -- the corpus -----------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [WORLD, LATER], ids=["now", "later"])
def test_passages_say_what_their_metadata_say(world: World) -> None:
    assert len({p.id for p in world.corpus}) == len({p.text for p in world.corpus}) == len(world.corpus)
    for passage in world.corpus:
        about = dict(passage.metadata)
        assert set(about) == {"kind", "subject", "relation", "object"} and passage.title == about["subject"]
        says_fact = about["kind"] in (lang.CONTRADICTED, lang.NAMESAKE)  # the words do not give these away
        assert read_sentence(passage.text) == about | ({"kind": lang.FACT} if says_fact else {})


@pytest.mark.parametrize("world", [WORLD, LATER], ids=["now", "later"])
def test_facts_are_stated_in_one_or_both_wordings(world: World) -> None:
    stated: dict[tuple[str, str], set[str]] = {}
    for passage in world.passages(clean=True):
        assert passage.metadata["object"] == world.facts[key_of(passage)].object
        stated.setdefault(key_of(passage), set()).add(passage.text)
    assert stated.keys() == world.facts.keys()
    shares: Counter[tuple[int, ...]] = Counter()
    for key, fact in world.facts.items():
        assert fact.sentence in stated[key]
        sentences = [lang.state(lang.BY_NOUN[key[1]], key[0], fact.object, w) for w in (0, 1)]
        assert stated[key] <= set(sentences)
        shares[tuple(w for w in (0, 1) if sentences[w] in stated[key])] += 1
    n = len(world.facts)
    assert shares[0, 1] / n == pytest.approx(0.40, abs=0.001)
    assert shares[(0,)] / n == pytest.approx(0.30, abs=0.001) == shares[(1,)] / n


def test_shares_of_misleading_passages() -> None:
    n = len(WORLD.facts)
    assert len(PASSAGES[lang.CONTRADICTED]) == len({*map(key_of, PASSAGES[lang.CONTRADICTED])}) == round(0.06 * n)
    assert len(PASSAGES[lang.NON_ANSWER]) == len({*map(key_of, PASSAGES[lang.NON_ANSWER])}) == round(0.25 * n)
    superseded = [key_of(p) for p in PASSAGES[lang.SUPERSEDED]]
    assert len(superseded) == len(set(superseded)) == round(0.40 * len(CHANGING)) and set(superseded) <= set(CHANGING)
    assert not PASSAGES[lang.OTHER_RELATION] and not PASSAGES[lang.LOOKALIKE]  # facts play these parts
    assert Counter(p.metadata["kind"] for p in WORLD.passages()) == {k: len(v) for k, v in PASSAGES.items() if v}
    assert WORLD.passages(clean=True) == [p for p in WORLD.corpus if p.metadata["kind"] == lang.FACT]


def test_namesakes() -> None:
    by_name: dict[str, list[Passage]] = {}
    for passage in PASSAGES[lang.NAMESAKE]:
        by_name.setdefault(passage.metadata["subject"], []).append(passage)
    assert len(by_name) == 350
    shared = total = 0
    for name, passages in by_name.items():
        original, kind = corpus.namesake_of(name), WORLD.entities[corpus.namesake_of(name)].kind
        assert name == f"{original} {lang.NAMESAKE_WORD[kind]}"
        available = len(lang.BY_SUBJECT[kind])
        assert min(2, available) <= len(passages) <= 3 and len({*map(key_of, passages)}) == len(passages)
        for passage in passages:
            fact = WORLD.facts.get((original, passage.metadata["relation"]))
            assert fact is None or fact.object != passage.metadata["object"]  # else it would be a right answer
            shared, total = shared + (fact is not None), total + 1
    assert 0.7 < shared / total < 1.0  # mostly relations that the original has
    spoken_of = {name for fact in WORLD.facts.values() for name in (fact.subject, fact.object)}
    spoken_of |= {p.metadata["object"] for p in WORLD.corpus}
    spoken_of |= {h[part] for q in QUESTIONS for h in q.metadata["hops"] for part in ("subject", "object")}
    assert not spoken_of & by_name.keys() and not WORLD.entities.keys() & by_name.keys()


@pytest.mark.parametrize("world", [WORLD, LATER], ids=["now", "later"])
def test_nothing_that_misleads_is_true(world: World) -> None:
    wordings = Counter(map(key_of, world.passages(clean=True)))
    for passage in world.corpus:
        kind, fact = passage.metadata["kind"], world.facts.get(key_of(passage))
        if kind in (lang.CONTRADICTED, lang.SUPERSEDED):
            assert fact is not None and passage.metadata["object"] not in (fact.object, fact.subject)
        if kind == lang.CONTRADICTED:
            assert wordings[key_of(passage)] == 2  # the truth is in the majority
    wrong = corpus.rivals(world.corpus)
    assert not [key for key, fact in world.facts.items() if fact.object in wrong.get(key, ())]


def test_the_order_of_the_passages_says_nothing() -> None:
    place = pd.Series(range(len(WORLD.corpus)))
    made = pd.Series([p.id for p in WORLD.corpus]).rank()
    assert abs(place.corr(made)) < 0.05
    half = len(WORLD.corpus) // 2
    for kind, passages in PASSAGES.items():
        if passages:
            in_first = sum(p.metadata["kind"] == kind for p in WORLD.corpus[:half]) / len(passages)
            assert abs(in_first - 0.5) < 4 * 0.5 / len(passages) ** 0.5, kind


# -- what a passage is to a query -----------------------------------------------------------------


def about(kind: str, subject: str, relation: str = "mayor", target: str = "Alda Falk") -> dict[str, str]:
    return {"kind": kind, "subject": subject, "relation": relation, "object": target}


@pytest.mark.parametrize(
    ("passage", "kind"),
    [
        (about(lang.FACT, "Port Amber"), lang.FACT),
        (about(lang.SUPERSEDED, "Port Amber"), lang.SUPERSEDED),
        (about(lang.CONTRADICTED, "Port Amber"), lang.CONTRADICTED),
        (about(lang.NON_ANSWER, "Port Amber", target=""), lang.NON_ANSWER),
        (about(lang.FACT, "Port Amber", "region", "Birch Coast"), lang.OTHER_RELATION),
        (about(lang.NON_ANSWER, "Port Amber", "region", ""), lang.OTHER_RELATION),
        (about(lang.NAMESAKE, "Port Amber Heights"), lang.NAMESAKE),
        (about(lang.NAMESAKE, "Port Amber Heights", "region", "Birch Coast"), UNRELATED),
        (about(lang.FACT, "Port Birch"), lang.LOOKALIKE),
        (about(lang.CONTRADICTED, "Lake Amber"), lang.LOOKALIKE),
        (about(lang.NAMESAKE, "Lake Amber Heights"), lang.LOOKALIKE),
        (about(lang.NON_ANSWER, "Lake Amber", target=""), UNRELATED),
        (about(lang.FACT, "Lake Birch"), UNRELATED),
        (about(lang.FACT, "Lake Amber", "region", "Birch Coast"), UNRELATED),
        (about(lang.FACT, "Silver Harbor", "director", "Port Amber"), UNRELATED),
        ({}, UNRELATED), ({"kind": "article"}, UNRELATED),
    ],
)
def test_kind_for(passage: dict[str, str], kind: str) -> None:
    assert kind_for(passage, "mayor", "Port Amber") == kind
    assert kind_for(passage, lang.BY_NOUN["mayor"], "Port Amber") == kind
    assert kind_for(passage, "no relation", "Port Amber") == UNRELATED


@given(st.sampled_from(WORLD.corpus), st.sampled_from(list(WORLD.facts)), st.integers(0, 1))
def test_only_a_true_statement_of_the_asked_fact_is_one(passage: Passage, key: tuple[str, str], wording: int) -> None:
    relation, subject = lang.parse_query(lang.query_text(lang.BY_NOUN[key[1]], key[0], wording))
    kind = kind_for(passage.metadata, relation, subject)
    assert kind in (lang.FACT, *lang.MISLEADING, UNRELATED)
    assert (kind == lang.FACT) == (key_of(passage) == key and passage.metadata["kind"] == lang.FACT)
    own = kind_for(passage.metadata, passage.metadata["relation"], passage.metadata["subject"])
    assert own == passage.metadata["kind"]


@pytest.mark.parametrize("text", ["", "Silver Harbor", "Silver Harbor was directed by Alda Falk.", "had as director ."])
def test_other_texts_are_no_sentences(text: str) -> None:
    assert read_sentence(text) is None


# -- search ---------------------------------------------------------------------------------------


@cache
def ranks(clean: bool) -> pd.DataFrame:
    return prepare.fact_ranks(WORLD, BM25Retriever(WORLD.passages(clean), k=20))


@pytest.mark.parametrize("clean", [True, False])
def test_recall_grows_with_the_number_of_passages(clean: bool) -> None:
    table = ranks(clean)
    assert len(table) == len(WORLD.facts)
    recall = [float((table[["rank_0", "rank_1"]] <= k).to_numpy().mean()) for k in (1, 5, 10, 20)]
    expected = (0.82, 0.974, 0.9995, 1.0) if clean else (0.75, 0.958, 0.998, 1.0)
    assert recall == pytest.approx(expected, abs=0.015) and sorted(set(recall)) == recall


@pytest.mark.parametrize(
    ("clean", "k", "share"), [(True, 5, 0.024), (False, 5, 0.041), (True, 1, 0.18), (False, 1, 0.25)]
)
def test_rephrasing_finds_what_the_first_query_missed(clean: bool, k: int, share: float) -> None:
    """A second search pays: so many of all facts are found by the second query only, at k passages."""
    table = ranks(clean)
    first, second = table["rank_0"] <= k, table["rank_1"] <= k
    assert (~first & second).mean() == pytest.approx(share, abs=0.25 * share)
    assert (first | second).mean() > (0.999 if k == 5 else 0.97)


def test_two_hop_questions_need_the_second_query_too() -> None:
    """The same along the chains that are asked for: what the first query misses, the second finds."""
    engine = BM25Retriever(WORLD.passages(), k=5)
    chains = [q for q in QUESTIONS if q.split == "eval" and len(q.metadata["hops"]) == 2]
    paths = pd.concat([prepare.question_path(q, engine).assign(question=q.id) for q in chains[:150]])
    facts = paths.assign(fact=paths["kind"] == lang.FACT).groupby(["question", "hop", "wording"])["fact"].any()
    found = facts.unstack("wording")
    assert 0.02 < (~found[0].astype(bool)).mean() < 0.15 and found[1].dropna().astype(bool).mean() > 0.95


def test_the_engine_misleads_by_itself() -> None:
    engine = BM25Retriever(WORLD.passages(), k=5)
    paths = [prepare.question_path(q, engine) for q in [q for q in QUESTIONS if q.split == "eval"][::6]]
    kinds = Counter(kind for path in paths for kind in path["kind"])
    assert {lang.FACT, *lang.MISLEADING} <= kinds.keys()
    assert all(kinds[kind] > 0.004 * kinds.total() for kind in lang.MISLEADING)


# -- later ----------------------------------------------------------------------------------------


def test_a_quarter_of_what_may_change_has_changed_and_nothing_else() -> None:
    assert len(CHANGED) == round(0.25 * len(CHANGING)) and set(CHANGED) <= set(CHANGING)
    assert LATER.edition == 1 and LATER.entities == WORLD.entities
    assert list(LATER.facts) == list(WORLD.facts)
    for key in CHANGED:
        past, present = WORLD.facts[key], LATER.facts[key]
        assert present.object != present.subject
        assert present.sentence == past.sentence.replace(past.object, present.object)


def test_unchanged_passages_are_the_same_and_changed_ones_have_new_ids() -> None:
    now, later = ({p.id: p for p in world.corpus} for world in (WORLD, LATER))
    gone, new = now.keys() - later.keys(), later.keys() - now.keys()
    assert {key_of(now[i]) for i in gone} == {key_of(later[i]) for i in new} == set(CHANGED)
    assert {now[i].metadata["kind"] for i in gone} == {lang.FACT}
    assert Counter(later[i].metadata["kind"] for i in new) == {lang.FACT: len(gone), lang.SUPERSEDED: len(CHANGED)}
    kept = now.keys() & later.keys()
    assert all(now[i] == later[i] for i in kept)
    assert [p.id for p in WORLD.corpus if p.id in kept] == [p.id for p in LATER.corpus if p.id in kept]
    for i in new:
        if later[i].metadata["kind"] == lang.SUPERSEDED:
            assert later[i].metadata["object"] == WORLD.facts[key_of(later[i])].object
            earlier = [p for p in PASSAGES[lang.SUPERSEDED] if key_of(p) == key_of(later[i])]
            assert all(year(p) < year(later[i]) for p in earlier)


def year(passage: Passage) -> int:
    return int(re.search(r"\d{4}", passage.text)[0])


def test_questions_whose_answer_has_changed() -> None:
    asked = later_questions(WORLD, LATER, QUESTIONS)
    before = {q.id: q for q in QUESTIONS}
    assert 100 < len(asked) < 250 and len({q.id for q in asked}) == len(asked)
    for question in asked:
        past = before[question.id]
        assert past.split == "eval" and question.question == past.question
        assert follow(question, LATER) == question.golden_answers[0] != past.golden_answers[0]
        assert question.metadata["changed"] is True and question.metadata["past_answer"] == past.golden_answers[0]
        path = [h["relation"] for h in past.metadata["hops"]]
        assert [h["relation"] for h in question.metadata["hops"]] == path
        assert question.metadata["hops"][0]["subject"] == past.metadata["hops"][0]["subject"]
    assert Counter(len(q.metadata["hops"]) for q in asked).keys() == {1, 2, 3, 4}


def test_questions_are_left_out_for_a_reason() -> None:
    asked = {q.id for q in later_questions(WORLD, LATER, QUESTIONS)}
    reasons: Counter[str] = Counter()
    for question in QUESTIONS:
        hops = question.metadata["hops"]
        if question.id in asked or question.split == "train":
            continue
        if not any((h["subject"], h["relation"]) in CHANGED for h in hops):
            reasons["unchanged"] += 1
            continue
        here, seen = hops[0]["subject"], [hops[0]["subject"]]
        for hop in hops:
            fact = LATER.facts.get((here, hop["relation"]))
            here = fact.object if fact else ""
            seen.append(here)
        reason = "broken" if "" in seen else "back" if len(set(seen)) < len(seen) else "same answer"
        reasons[reason] += 1
        assert reason != "same answer" or here == question.golden_answers[0]
    assert reasons["unchanged"] > 700 and reasons.keys() - {"unchanged"}
    training = [replace(q, split="train") for q in QUESTIONS]
    assert later_questions(WORLD, LATER, training) == []
    assert later_questions(WORLD, WORLD, QUESTIONS) == []


# -- files of a run -------------------------------------------------------------------------------


def test_the_run_gets_the_whole_corpus_and_later_files() -> None:
    data = prepare.load_or_build(WORLD, 20, 30, Choice())
    questions, passages = data.questions, data.passages
    assert passages == list(WORLD.corpus) and questions == build_questions(WORLD, 20, 30)
    later_passages, asked = prepare.later_files(WORLD, questions)
    assert later_passages == list(LATER.corpus) and asked == later_questions(WORLD, LATER, questions) != []
    with pytest.raises(ValueError, match="found edition 1"):
        prepare.later_files(LATER, questions)
    with pytest.raises(ConfigError, match="found only --corpus"):
        prepare.load_or_build(WORLD, 20, 30, Choice(corpus_file="corpus.jsonl"))


def test_counts_of_kinds() -> None:
    table = prepare.kind_counts([*WORLD.corpus, Passage("own", "", "of no kind")]).set_index("kind")
    assert table["n"].sum() == len(WORLD.corpus) and table["share"].sum() == pytest.approx(1.0)
    assert table.loc[lang.SUPERSEDED, "n"] == len(PASSAGES[lang.SUPERSEDED])
    assert prepare.kind_counts([Passage("own", "", "of no kind")]).empty


def test_the_path_of_a_question() -> None:
    question = next(q for q in QUESTIONS if len(q.metadata["hops"]) == 2 and q.metadata["kind"] == "chain")
    engine = BM25Retriever(WORLD.passages(), k=3)
    path = prepare.question_path(question, engine)
    assert list(path.columns) == prepare.PATH_COLUMNS and set(path["hop"]) == {1, 2}
    both = prepare.question_path(question, engine, every_wording=True)
    for number, hop in enumerate(question.metadata["hops"], 1):
        mine, all_of_it = path[path["hop"] == number], both[both["hop"] == number]
        assert set(mine["subject"]) == {hop["subject"]} and set(mine["object"]) == {hop["object"]}
        assert list(all_of_it["wording"].unique()) == [0, 1]
        first = all_of_it[all_of_it["wording"] == 0]
        assert list(mine["wording"].unique()) == ([0] if lang.FACT in set(first["kind"]) else [0, 1])
        assert list(first["rank"]) == [1, 2, 3] and set(first["query"]) == {f"{hop['relation']} of {hop['subject']}"}
    hidden = prepare.question_path(question, BM25Retriever([Passage("1", "", "nothing")], k=3))
    assert list(zip(hidden["hop"], hidden["wording"], hidden["rank"], hidden["text"], strict=True)) == [
        (1, 0, 0, ""), (1, 1, 0, ""), (2, 0, 0, ""), (2, 1, 0, ""),
    ]
    assert prepare.question_path(Question("nq/1", "nq", "q", ("a",)), engine).empty


def test_the_neighbourhood_is_made_of_facts() -> None:
    start = next(iter(WORLD.entities))
    edges = prepare.neighbourhood(WORLD, start)
    assert list(edges.columns) == ["source", "relation", "target", "source_kind", "target_kind"]
    assert start in set(edges["source"])
    for row in edges.itertuples():
        assert WORLD.facts[row.source, row.relation].object == row.target


def test_shipped_bases_belong_to_this_world() -> None:
    from zerosearch.microworld import bases

    manifest = bases.verify()  # raises with the command that rebuilds them when a recipe has changed
    assert manifest["world_version"] == WORLD_VERSION
    table = pd.DataFrame(manifest["sentinels"]).pivot(index="condition", columns="sentinel", values="em")
    assert table.loc["corrupt-0.5", "notices every miss"] - table.loc["corrupt-0.5", "notices no miss"] >= 0.3
