"""Labels of query–passage pairs: the exact judge, the trajectory's outcome, their agreement, recall."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest_models import EchoRetriever
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import figures
from zerosearch.errors import BadInput
from zerosearch.labels import (
    COLUMNS, LABELS, agreement, agreement_table, asks_for, gold_hops, judge_passages, kind_table, label_stats,
    label_trajectory, make_pairs, pairs_to_table, retrieval_recall, states, table_to_pairs,
)
from zerosearch.microworld.language import BY_NOUN, FACT, MISLEADING, query_text
from zerosearch.microworld.world import UNRELATED, build_questions, build_world
from zerosearch.retrievers.base import failure
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, Trajectory, Turn

HOPS = [
    {"subject": "Silver Harbor", "relation": "director", "object": "Alda Falk",
     "sentence": "Silver Harbor was directed by Alda Falk."},
    {"subject": "Alda Falk", "relation": "birthplace", "object": "Port Amber",
     "sentence": "Alda Falk was born in Port Amber."},
]
CHAIN = Question("hotpotqa/1", "hotpotqa", "Where was the director of Silver Harbor born?", ("Port Amber",), "train",
                 {"hops": HOPS, "kind": "chain", "family": "hotpotqa"})
PLAIN = Question("nq/1", "nq", "who wrote it", ("The Alda Falk", "A. Falk"))
OTHER = {"subject": "Silver Anchor", "relation": "director", "object": "Nils Voss"}


OTHER_WORDING = next(w for s in BY_NOUN["director"].sentences
                     if (w := s.format(s="Silver Harbor", o="Alda Falk")) != HOPS[0]["sentence"])


REPHRASED = query_text(BY_NOUN["director"], "Silver Harbor", wording=1)


def fact(subject: str, relation: str, target: str, text: str = "any words") -> Passage:
    return Passage("p", subject, text, {"subject": subject, "relation": relation, "object": target})


def written(text: str) -> Passage:
    return Passage("simulated-1", "", text)


def trajectory(
    question: Question, answer: str | None, *searches: tuple[str, list[Passage]], sample: int = 0
) -> Trajectory:
    turns = []
    for i, (query, passages) in enumerate(searches):
        request = SearchRequest(query, question, sample=sample, turn=i)
        turns.append(Turn(f"<search> {query}</search>", "search", query, Retrieval(request, tuple(passages), "bm25")))
    if answer is not None:
        turns.append(Turn(f"<answer> {answer}</answer>", "answer", answer))
    reason = "answer" if answer else "no_action"
    return Trajectory(question, (1,), (2,), (True,), (0.0,), tuple(turns), reason, answer, sample=sample)


# -- the judge ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "passage", "label"),
    [
        ("director of Silver Harbor", fact("Silver Harbor", "director", "Alda Falk"), "useful"),
        ("Silver Harbor director", fact("Silver Harbor", "director", "Alda Falk"), "useful"),
        ("director of silver harbor", fact("Silver Harbor", "director", "Alda Falk"), "useful"),
        ("director of Silver Harbor", fact("Silver Harbor", "director", "Nils Voss"), "misleading"),  # another object
        ("director of Silver Harbor", fact("Silver Harbor", "star", "Alda Falk"), "misleading"),
        ("birthplace of Alda Falk", fact("Silver Harbor", "director", "Alda Falk"), "misleading"),  # not asked for
        ("director of Silver", fact("Silver Harbor", "director", "Alda Falk"), "misleading"),
        ("directors of Silver Harbor", fact("Silver Harbor", "director", "Alda Falk"), "misleading"),
        ("director of Silver Anchor", fact(*OTHER.values()), "useful"),  # off the gold path, but what was asked for
        # off the path and without metadata there is nothing to check it by
        ("director of Silver Anchor", written("Silver Anchor was directed by Nils Voss."), "misleading"),
        ("director of Silver Harbor", written("Silver Harbor was directed by Alda Falk."), "useful"),
        ("director of Silver Harbor", written(OTHER_WORDING), "useful"),
        ("director of Silver Harbor", written("Silver Harbor was directed by Nils Voss."), "misleading"),
        ("", fact("Silver Harbor", "director", "Alda Falk"), "misleading"),
        # the second wording does not name the relation, and is understood all the same
        (REPHRASED, fact("Silver Harbor", "director", "Alda Falk"), "useful"),
        (REPHRASED.replace("Silver Harbor", "silver harbor"), written(OTHER_WORDING), "useful"),
        (REPHRASED, fact("Silver Harbor", "star", "Alda Falk"), "misleading"),
        (REPHRASED.replace("Harbor", "Anchor"), fact(*OTHER.values()), "useful"),
        ("director of Silver Harbor Returns", fact("Silver Harbor", "director", "Alda Falk"), "misleading"),
        ("mayor of director of Silver Harbor", fact("Silver Harbor", "director", "Alda Falk"), "misleading"),
    ],
)
def test_exact_rule_of_the_micro_world(query: str, passage: Passage, label: str) -> None:
    assert judge_passages(query, CHAIN, [passage]) == (label,)


@pytest.mark.parametrize("kind", MISLEADING)
def test_what_the_world_made_to_mislead_is_never_useful(kind: str) -> None:
    right = ("Silver Harbor", "director", "Alda Falk")
    passage = replace(fact(*right), metadata={**fact(*right).metadata, "kind": kind})
    assert judge_passages("director of Silver Harbor", CHAIN, [passage]) == ("misleading",)
    off_path = replace(fact(*OTHER.values()), metadata={**OTHER, "kind": kind})
    assert judge_passages("director of Silver Anchor", CHAIN, [off_path]) == ("misleading",)
    assert judge_passages("any", PLAIN, [Passage("p", "", "Alda Falk", {"kind": kind})]) == ("misleading",)


@pytest.mark.parametrize("kind", [FACT, "article", 4])
def test_other_kinds_are_judged_by_what_they_say(kind: object) -> None:
    right = fact("Silver Harbor", "director", "Alda Falk")
    passage = replace(right, metadata={**right.metadata, "kind": kind})
    assert judge_passages("director of Silver Harbor", CHAIN, [passage]) == ("useful",)
    assert judge_passages("any", PLAIN, [Passage("p", "", "Alda Falk", {"kind": kind})]) == ("useful",)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("It was by alda falk!", "useful"), ("By A Falk.", "useful"), ("Alda Falkner wrote it", "misleading"),
        ("", "misleading"),
    ],
)
def test_a_general_corpus_is_judged_by_the_golden_answer(text: str, label: str) -> None:
    assert judge_passages("any query", PLAIN, [written(text)]) == (label,)


@pytest.mark.parametrize("hops", [4, "two", [], [3], [{"subject": "x"}], None, {"subject": "x"}])
def test_other_data_under_the_same_key_is_no_gold_fact(hops: object) -> None:
    question = Question("musique_train/1", "musique", "q", ("Alda Falk",), "train", {"hops": hops})
    assert gold_hops(question) == () and judge_passages("q", question, [written("Alda Falk")]) == ("useful",)
    assert make_pairs([trajectory(question, "x", ("q", []))])[0].asks_gold_hop is None


def test_an_answer_that_normalises_to_nothing_makes_nothing_useful() -> None:
    assert judge_passages("q", Question("nq/2", "nq", "q", ("---",)), [written("--- anything")]) == ("misleading",)


def test_every_fact_of_the_world_is_asked_for_by_its_own_queries_only() -> None:
    world = build_world()
    facts = list(world.facts.values())
    for one, next_one in zip(facts[::40], facts[1::40]):
        for wording in (0, 1):
            query = query_text(BY_NOUN[one.relation], one.subject, wording)
            assert asks_for(query, one.subject, one.relation)
            assert not asks_for(query, next_one.subject, next_one.relation)


def test_gold_queries_of_the_world_are_judged_exactly() -> None:
    """Useful if and only if BM25 brought up the very fact, in either wording, on all hops of many questions."""
    world = build_world()
    engine = BM25Retriever(world.passages(), k=5)
    questions = build_questions(world, 10, 10)
    asked = [(q, hop) for q in questions for hop in gold_hops(q)]
    wordings = [query_text(BY_NOUN[hop.relation], hop.subject, i % 2) for i, (_, hop) in enumerate(asked)]
    found = engine.search([SearchRequest(query, q) for query, (q, _) in zip(wordings, asked, strict=True)])
    n_useful = 0
    for (question, hop), retrieval in zip(asked, found, strict=True):
        labels = judge_passages(retrieval.request.query, question, retrieval.passages)
        stated = [
            p.metadata["kind"] == FACT and (p.metadata["subject"], p.metadata["relation"]) == hop[:2]
            for p in retrieval.passages
        ]
        assert [label == "useful" for label in labels] == stated
        assert all(states(p, hop) == s for p, s in zip(retrieval.passages, stated, strict=True))
        assert all(states(written(p.text), hop) == s for p, s in zip(retrieval.passages, stated, strict=True))
        n_useful += any(stated)
    assert n_useful > 0.5 * len(asked)


# -- pairs ----------------------------------------------------------------------------------------


def mixed() -> list[Trajectory]:
    director, birth = (fact(h["subject"], h["relation"], h["object"]) for h in HOPS)
    other = fact(*OTHER.values())
    broken = Turn("<search> x</search>", "search", "x", failure(SearchRequest("x", PLAIN), "bm25", "timeout"))
    return [
        trajectory(
            CHAIN, "Port Amber", ("director of Silver Harbor", [other, director]), ("birthplace of Alda Falk", [birth])
        ),
        trajectory(CHAIN, "Port Birch", ("director of Silver Harbor", [director]), ("well", []), sample=1),
        trajectory(PLAIN, None),
        Trajectory(PLAIN, (1,), (2,), (True,), (0.0,), (broken,), "retriever_error", error="timeout", sample=2),
        trajectory(PLAIN, "a falk", ("who", [written("Nobody.")]), sample=3),
    ]


def test_one_pair_per_answered_search() -> None:
    pairs = make_pairs(mixed())
    assert [(p.trajectory_id, p.turn) for p in pairs] == [
        ("hotpotqa/1#0.0", 0), ("hotpotqa/1#0.0", 1), ("hotpotqa/1#0.1", 0), ("hotpotqa/1#0.1", 1), ("nq/1#0.3", 0),
    ]
    assert [p.label_trajectory for p in pairs] == ["useful", "useful", "misleading", "misleading", "useful"]
    assert [p.label_judge for p in pairs] == ["useful", "useful", "useful", "misleading", "misleading"]
    assert pairs[0].passage_labels == ("misleading", "useful")
    assert [p.asks_gold_hop for p in pairs] == [True, True, True, False, None]


def test_no_answer_is_not_useful() -> None:
    assert label_trajectory(trajectory(PLAIN, None)) == "misleading"
    assert label_trajectory(trajectory(PLAIN, "alda")) == "misleading"
    assert label_trajectory(trajectory(PLAIN, "The A. Falk!")) == "useful"


def test_table_round_trip(tmp_path: Path) -> None:
    pairs = make_pairs(mixed())
    table = pairs_to_table(pairs)
    table.to_parquet(tmp_path / "pairs.parquet")
    assert tuple(table.columns) == COLUMNS
    assert table_to_pairs(pd.read_parquet(tmp_path / "pairs.parquet")) == table_to_pairs(table) == pairs
    assert table["passages"][0] == ["any words", "any words"]
    assert table["golden_answers"][4] == ["The Alda Falk", "A. Falk"]


def test_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    pairs_to_table([]).to_parquet(tmp_path / "pairs.parquet")
    found = pd.read_parquet(tmp_path / "pairs.parquet")
    assert tuple(found.columns) == COLUMNS and table_to_pairs(found) == []
    with pytest.raises(BadInput, match="force_search_share"):
        label_stats(found)


# -- statistics -----------------------------------------------------------------------------------


def table_of(both: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(both, columns=["label_trajectory", "label_judge"])


def test_statistics_by_hand() -> None:
    """Trajectory: u u m m u; judge: u u u m m.  Agree on 3 of 5, 0.48 by chance: 0.6 * 0.6 + 0.4 * 0.4 = 0.52."""
    table = pairs_to_table(make_pairs(mixed()))
    stats = label_stats(table)
    assert stats[["label_kind", "label", "n"]].values.tolist() == [
        ["trajectory", "useful", 3], ["trajectory", "misleading", 2], ["judge", "useful", 3], ["judge", "misleading", 2],
    ]
    assert stats["share"].tolist() == pytest.approx([0.6, 0.4, 0.6, 0.4])
    assert stats["agreed"].tolist() == pytest.approx([2 / 3, 1 / 2, 2 / 3, 1 / 2])
    assert agreement_table(table)["n"].tolist() == [2, 1, 1, 1]
    assert agreement(table) == (pytest.approx(0.6), pytest.approx((0.6 - 0.52) / 0.48))


@pytest.mark.parametrize(
    ("both", "share", "kappa"),
    [
        ([("useful", "useful"), ("misleading", "misleading")], 1.0, 1.0),
        ([("useful", "misleading"), ("misleading", "useful")], 0.0, -1.0),
        ([(outcome, judged) for outcome in LABELS for judged in LABELS], 0.5, 0.0),
        ([("useful", "useful")] * 3, 1.0, math.nan),
    ],
)
def test_kappa(both: list[tuple[str, str]], share: float, kappa: float) -> None:
    found = agreement(table_of(both))
    assert found[0] == pytest.approx(share) and found[1] == pytest.approx(kappa, nan_ok=True)


@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30))
def test_shares_add_up(both: list[tuple[str, str]]) -> None:
    table = table_of(both)
    stats, four = label_stats(table), agreement_table(table)
    assert stats.groupby("label_kind")["n"].sum().tolist() == [len(both)] * 2 and four["n"].sum() == len(both)
    share, kappa = agreement(table)
    assert share == pytest.approx(four.loc[four["label_trajectory"] == four["label_judge"], "share"].sum())
    assert math.isnan(kappa) or -1.0 - 1e-9 <= kappa <= 1.0 + 1e-9


def test_the_figure_takes_the_table() -> None:
    figures.label_stats(label_stats(pairs_to_table(make_pairs(mixed()))))
    figures.label_stats(label_stats(table_of([("misleading", "misleading")])))


def test_kinds_that_the_engine_returned_by_itself() -> None:
    made_for = {"subject": "Silver Harbor", "relation": "director", "object": "Alda Falk"}
    passages = [
        Passage(kind, "", "words", {**made_for, "kind": kind, **changes})
        for kind, changes in (
            (FACT, {}), (FACT, {"relation": "star"}), ("contradicted", {"object": "Nils Voss"}),
            ("namesake", {"subject": "Silver Harbor Returns"}), (FACT, {"subject": "Silver Anchor"}),
            (FACT, {"subject": "Iron Anchor"}),
        )
    ]
    searches = [
        ("director of Silver Harbor", passages), (REPHRASED, passages[1:]),
        ("what is this", passages[:1]), ("director of Silver Harbor", [written("of no kind")]),
    ]
    table = kind_table(pairs_to_table(make_pairs([trajectory(CHAIN, "Port Amber", *searches)])))
    counts = {(row.label_judge, row.kind): row.n for row in table.itertuples() if row.n}
    found = {(label, kind): 1 for label in LABELS for kind in MISLEADING if kind not in ("superseded", "non_answer")}
    assert counts == found | {("useful", FACT): 1, ("useful", UNRELATED): 1, ("misleading", UNRELATED): 2}
    assert table.groupby("label_judge")["share"].sum().tolist() == pytest.approx([1.0, 1.0])
    own = kind_table(pairs_to_table(make_pairs([trajectory(PLAIN, "a falk", ("who", [written("Nobody.")]))])))
    assert own["n"].sum() == 0 and own["share"].isna().all()


# -- recall ---------------------------------------------------------------------------------------


def test_recall_counts_questions_by_set() -> None:
    texts = ["amber is golden 1", "birch", "cedar", "golden 30 amber birch cedar"]
    engine = BM25Retriever([Passage(str(i), "", t) for i, t in enumerate(texts)], k=4)
    questions = [
        Question("nq/1", "nq", "amber", ("golden 1",)), Question("nq/2", "nq", "birch", ("golden 1", "golden 2")),
        Question("popqa/3", "popqa", "cedar", ("golden 3",)),
    ]
    found = retrieval_recall(questions, engine)
    assert found.to_dict("records") == [
        {"dataset": "nq", "recall": 0.5, "n": 2}, {"dataset": "popqa", "recall": 0.0, "n": 1},
    ]
    deep = retrieval_recall([Question("nq/4", "nq", "amber birch cedar", ("golden 1",))], engine, depths=(1, 4))
    assert deep.to_dict("records") == [
        {"dataset": "nq", "k": 1, "recall": 0.0, "n": 1}, {"dataset": "nq", "k": 4, "recall": 1.0, "n": 1},
    ]
    absent = retrieval_recall([Question("nq/5", "nq", "amber", ("not there",))], engine, depths=(4, 20))
    assert absent["recall"].tolist() == [0.0, 0.0]


def test_failed_searches_found_nothing() -> None:
    questions = [Question("nq/1", "nq", "who", ("x",)), Question("nq/2", "nq", "what", ("y",))]
    recall = retrieval_recall(questions, EchoRetriever(fail_on="who"))
    assert recall.to_dict("records") == [{"dataset": "nq", "recall": 0.5, "n": 2}]
