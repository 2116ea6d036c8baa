"""Where an answer failed, told from trajectories written by hand; searching by need."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from test_statistics import one

from zerosearch.errors import ConfigError, MissingInput
from zerosearch.evaluation.blocks import UnpairedQuestions
from zerosearch.evaluation.calibration import CALIBRATION_COLUMNS, search_calibration
from zerosearch.evaluation.methods import Prediction
from zerosearch.evaluation.row_facts import (
    NEED_COLUMNS, OUTCOME_COLUMNS, OUTCOMES, outcome, outcome_table, row_facts, search_need_table,
)
from zerosearch.microworld.world import build_questions, build_world
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, Trajectory, Turn

HOPS = [
    {"subject": "Silver Harbor", "relation": "director", "object": "Ada Lund", "sentence": "x"},
    {"subject": "Ada Lund", "relation": "birthplace", "object": "Port Amber", "sentence": "y"},
]
TWO_HOPS = Question(
    "q", "musique", "where was the director of Silver Harbor born", ("Port Amber",), metadata={"hops": HOPS}
)
OPEN = Question("q", "nq", "who directed the film Silver Harbor", ("Ada Lund",))


def made(
    question: Question, searches: list[tuple[str, str]], answer: str | None, shown: str | None = None, stop: str = "",
    error: str | None = None,
) -> Prediction:
    """Return a prediction: searches (query, text of its passage), then an answer, or a message without action."""
    turns = []
    for query, text in searches:
        passages = (Passage("p", "", text),) if text else ()
        found = Retrieval(SearchRequest(query, question), passages, "bm25", error=error)
        observation = f"<information>\n {text}\n</information>"
        turns.append(Turn(f"<search> {query}</search>", "search", query, found, observation))
    if not error:
        turns.append(Turn("...", "answer", answer) if answer is not None else Turn("hm", "none", ""))
    stop = stop or ("answer" if answer is not None else "no_action")
    trajectory = Trajectory(
        question, (1,), (2,), (True,), (0.0,), tuple(turns), stop, answer, error=error  # type: ignore[arg-type]
    )
    return Prediction(trajectory, shown="".join(t.observation for t in turns) if shown is None else shown)


ABOUT, BORN = "Ada Lund directed Silver Harbor.", "Ada Lund was born in Port Amber."
CASES = {
    "right": [
        made(OPEN, [("director of Silver Harbor", ABOUT)], "Ada Lund"), made(OPEN, [], "ada lund."),
        made(TWO_HOPS, [("tea", "Tea is a drink.")], "Port Amber"),  # a lucky guess is right, not a wrong query
    ],
    "engine failed": [made(OPEN, [("film", "")], None, stop="retriever_error", error="timeout")],
    "format": [
        made(OPEN, [("film", ABOUT)], None), made(OPEN, [], "---"), made(OPEN, [], "The"),
        made(OPEN, [("film", ABOUT)], None, stop="max_searches"), made(OPEN, [], None, stop="length"),
    ],
    "misread": [
        made(OPEN, [("film", ABOUT)], "Silver Harbor"),
        made(TWO_HOPS, [("director of Silver Harbor", ABOUT), ("birthplace of Ada Lund", BORN)], "Ada Lund"),
        made(OPEN, [("tea", ABOUT)], "Tea"),  # shown by luck, and not taken
    ],
    "no search": [made(OPEN, [], "Hugo Falk"), made(TWO_HOPS, [], "yes")],
    "wrong query": [
        made(OPEN, [("tea", "Tea is a drink.")], "Tea"),
        made(OPEN, [("who is the", "Tea is a drink.")], "Tea"),  # function words are no content
        made(TWO_HOPS, [("director of Silver Harbor", ABOUT)], "Ada Lund"),  # the second fact was never asked for
        made(TWO_HOPS, [("birthplace of Silver Harbor", "Silver Harbor is a film.")], "Silver Harbor"),
    ],
    "missed in passages": [
        made(OPEN, [("Silver Harbor film", "Silver Harbor is a film.")], "Hugo Falk"),
        made(OPEN, [("film of last year", "")], "Hugo Falk"),  # nothing came back
        made(OPEN, [("film", ABOUT)], "Hugo Falk", shown="<information>\n Ada\n</information>"),  # cut off
        made(TWO_HOPS, [("birthplace of Ada Lund", "Ada Lund is a director.")], "Ada Lund"),
        made(OPEN, [("tea", "Hugo Falk drinks tea."), ("Hugo Falk", "Hugo Falk acts.")], "x"),  # from a passage
    ],
}


@pytest.mark.parametrize(("expected", "case"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_outcomes_by_hand(expected: str, case: Prediction) -> None:
    assert outcome(case) == expected


def test_every_outcome_has_a_case_and_no_other_exists() -> None:
    assert tuple(CASES) == OUTCOMES


def test_outcomes_cover_every_combination_of_causes() -> None:
    """Whatever a trajectory holds, exactly one outcome is returned."""
    texts, answers = ("", ABOUT, "Tea is a drink."), (None, "---", "Ada Lund", "Hugo Falk")
    found = [
        outcome(made(question, [(query, text)] * n, answer))
        for question, query, text, n, answer in product(
            (OPEN, TWO_HOPS), ("tea", "director of Silver Harbor"), texts, (0, 1, 2), answers
        )
    ]
    assert set(found) <= set(OUTCOMES) and len(set(found)) == 6


def test_a_comparison_needs_any_of_its_facts() -> None:
    """The golden answer is no fact's object: a query for one of the compared facts is the right thing to ask."""
    years = {"Red": "1990", "Blue": "1980"}
    hops = [{"subject": s, "relation": "release year", "object": y, "sentence": ""} for s, y in years.items()]
    question = Question("q", "2wikimultihopqa", "which is older, Red or Blue?", ("Blue",), metadata={"hops": hops})
    assert outcome(made(question, [("release year of Red", "Red is a film of 1990.")], "Red")) == "missed in passages"
    assert outcome(made(question, [("director of Red", "Red is a film.")], "Red")) == "wrong query"


def test_given_passages_count_as_a_search() -> None:
    """RAG: the question is the query, so it cannot be a wrong one."""
    given = Retrieval(SearchRequest(OPEN.question, OPEN), (Passage("p", "", "Tea."),), "bm25")
    own = made(OPEN, [], "Tea", shown="Tea.")
    assert outcome(Prediction(own.trajectory, given, "Tea.")) == "missed in passages"


def test_row_facts_by_hand() -> None:
    facts = row_facts(made(TWO_HOPS, [("director of Silver Harbor", ABOUT)], None))
    assert facts == {"valid_actions": 0.5, "searches_needed": 2, "outcome": "format"}
    failed = Trajectory(OPEN, (), (), (), (), (), "retriever_error", error="timeout")
    assert row_facts(Prediction(failed)) == {"valid_actions": None, "searches_needed": None, "outcome": "engine failed"}


def test_the_worlds_own_queries_are_never_wrong() -> None:
    """Questions of every family: asking for each gold fact in turn leads to the answer."""
    questions = build_questions(build_world(0), 5, 5)
    for question in questions:
        hops = question.metadata["hops"]
        queries = [(f"{hop['relation']} of {hop['subject']}", "") for hop in hops]
        assert outcome(made(question, queries, "no such answer")) == "missed in passages"
        assert row_facts(made(question, queries, "x"))["searches_needed"] == len(hops)


def rows(**columns: object) -> pd.DataFrame:
    same = {"method": "search", "dataset": "nq", "seed": 0, "policy": "base", "max_searches": 3}
    return pd.DataFrame({**same, **columns})


def test_outcome_table_lists_all_and_adds_up() -> None:
    table = outcome_table(pd.concat([
        rows(outcome=["right", "misread", "misread", "format"]),
        rows(outcome=["no search"]).assign(method="a", dataset="popqa"),
    ]))
    assert list(table.columns) == OUTCOME_COLUMNS and len(table) == 2 * len(OUTCOMES)
    assert list(table["method"].drop_duplicates()) == ["search", "a"]
    assert one(table, method="search", outcome="misread")[["n", "share"]].tolist() == [2, 0.5]
    assert one(table, method="search", outcome="wrong query")[["n", "share"]].tolist() == [0, 0.0]
    assert (table.groupby("method")["share"].sum() == 1.0).all()


def test_search_need_table_by_hand() -> None:
    table = search_need_table(pd.concat([
        rows(searches_needed=[2, 2, 1, None], n_searches=[1, 3, 1, 5], em=[0.0, 1.0, 1.0, 1.0]),
        rows(searches_needed=[1], n_searches=[0], em=[0.0]).assign(method="direct", max_searches=0),
    ]))
    assert list(table.columns) == NEED_COLUMNS
    assert table.to_numpy().tolist() == [["search", 1, 1, 1.0, 1.0, 1.0], ["search", 2, 2, 2.0, 0.5, 0.5]]


def test_older_predictions_are_refused() -> None:
    for make in (outcome_table, search_need_table):
        with pytest.raises(MissingInput, match="made by an earlier version.*--only 04"):
            make(rows(em=[1.0]))


# -- calibration of searching ---------------------------------------------------------------------


def calibration_rows(policy: str = "base") -> pd.DataFrame:
    """Four questions, direct knows 0 and 1; ``search`` searches for 1, 2 and 3."""
    ids = [f"nq/{i}" for i in range(4)]
    direct = rows(question_id=ids, em=[1.0, 1.0, 0.0, 0.0], n_searches=0).assign(method="direct", max_searches=0)
    search = rows(question_id=ids, em=[1.0, 0.0, 1.0, 0.0], n_searches=[0, 1, 2, 1]).assign(policy=policy)
    return pd.concat([direct, search])


def test_calibration_by_hand() -> None:
    table = search_calibration(calibration_rows())
    assert list(table.columns) == CALIBRATION_COLUMNS and list(table["dataset"]) == ["nq", "all"]
    row = one(table, dataset="nq")
    assert row["known_from"] == "direct, same policy" and (row["n_known"], row["n_unknown"]) == (2, 2)
    assert row[["searched_known", "searched_unknown", "gap"]].tolist() == [0.5, 1.0, 0.5]
    assert row[["searches_known", "searches_unknown", "em_known", "em_unknown"]].tolist() == [0.5, 1.5, 0.5, 0.5]


def test_a_trained_policy_is_judged_by_what_the_untrained_one_knew() -> None:
    row = one(search_calibration(calibration_rows("arm/seed0")), dataset="all")
    assert row["known_from"] == "direct, untrained policy" and row["gap"] == 0.5


def test_all_counts_every_question_once() -> None:
    table = calibration_rows()
    other = table.assign(dataset="popqa", question_id=table["question_id"].str.replace("nq", "popqa"))
    table = search_calibration(pd.concat([calibration_rows(), other.query("question_id == 'popqa/0'")]))
    assert one(table, dataset="all")[["n_known", "n_unknown"]].tolist() == [3, 2]
    popqa = one(table, dataset="popqa")
    assert popqa["n_unknown"] == 0 and np.isnan(popqa["searched_unknown"]) and np.isnan(popqa["gap"])


def trained_rows(*searches: list[int], n: int = 1) -> pd.DataFrame:
    """Four questions, direct knows 0 and 1; a training for each list of searches, asked every question n times."""
    ids = [f"nq/{i}" for i in range(4 * n)]
    direct = rows(question_id=ids, em=[1.0, 1.0, 0.0, 0.0] * n, n_searches=0).assign(method="direct", max_searches=0)
    trainings = [
        rows(question_id=ids, em=0.0, n_searches=own * n).assign(method="a", seed=k, policy=f"a/seed{k}")
        for k, own in enumerate(searches)
    ]
    return pd.concat([direct, *trainings])


def bounds(row: pd.Series, *kinds: str) -> list[float]:
    return [row[f"{kind}_{end}"] for kind in kinds for end in ("low", "high")]


def test_one_training_has_wilsons_interval() -> None:
    """Two of two: [1 / (1 + z^2 / 2), 1]; one of two: symmetric around a half."""
    row = one(search_calibration(trained_rows([0, 1, 2, 1])), dataset="nq")
    z = norm.ppf(0.975)
    half = z / np.sqrt(2 + z**2) / 2
    least = 2 / (2 + z**2)
    assert (row["seeds"], row["interval"]) == (1, "wilson")
    assert bounds(row, "known", "unknown") == pytest.approx([0.5 - half, 0.5 + half, least, 1.0])
    # Newcombe: the gap of 0.5, down by both distances at right angles, up by that of the known ones alone
    assert bounds(row, "gap") == pytest.approx([0.5 - np.hypot(1.0 - least, half), 0.5 + half])


def test_trainings_that_differ_are_the_interval() -> None:
    """One training always searches, the other never: two draws in four mix them, one each takes the same twice."""
    row = one(search_calibration(trained_rows([1, 1, 1, 1], [0, 0, 0, 0], n=25)), dataset="nq")
    assert row[["seeds", "interval", "searched_known", "gap"]].tolist() == [2, "bootstrap", 0.5, 0.0]
    assert bounds(row, "known", "unknown", "gap") == pytest.approx([0, 1, 0, 1, 0, 0])
    once = one(search_calibration(trained_rows([1, 0, 1, 0], n=50)), dataset="nq")  # as many rows, one training
    assert row["n_known"] == once["n_known"] and once["known_high"] - once["known_low"] < 0.2


def test_draws_of_trainings_and_questions_one_by_one() -> None:
    """All 4 x 256 equally likely draws; those without a question of the kind say nothing of it."""
    searches = [[0, 1, 1, 1], [1, 1, 0, 1]]
    known, cells = np.array([True, True, False, False]), np.array(searches, dtype=float)
    shares = {kind: [] for kind in ("known", "unknown", "gap")}
    for trainings, asked in product(product(range(2), repeat=2), product(range(4), repeat=4)):
        drawn, of_known = cells[np.ix_(trainings, asked)].mean(axis=0), known[list(asked)]
        own = [drawn[mask].mean() if mask.any() else np.nan for mask in (of_known, ~of_known)]
        for kind, share in zip(shares, (*own, own[1] - own[0]), strict=True):
            shares[kind].append(share)
    expected = [float(x) for kind in shares for x in np.nanquantile(shares[kind], [0.025, 0.975])]
    table = search_calibration(trained_rows(*searches), n_resamples=20_000)
    for dataset in ("nq", "all"):
        assert bounds(one(table, dataset=dataset), *shares) == pytest.approx(expected, abs=0.02)
    assert np.isnan(shares["known"]).sum() == 4 * 16  # a draw in sixteen has unknown questions only


def test_trainings_that_always_search_are_not_certain_to() -> None:
    """All rows agree, and a bootstrap of them has no width: Wilson's over 50 and 50 questions, not over 150 rows."""
    row = one(search_calibration(trained_rows(*[[1, 1, 1, 1]] * 3, n=25)), dataset="all")
    least = 50 / (50 + norm.ppf(0.975) ** 2)
    assert (row["n_known"], row["seeds"], row["interval"]) == (150, 3, "bootstrap")
    assert bounds(row, "known", "unknown") == pytest.approx([least, 1.0, least, 1.0])
    assert bounds(row, "gap") == pytest.approx([least - 1.0, 1.0 - least])
    # only the unknown ones agree: their bounds are Wilson's, the others' and those of the gap are drawn
    row = one(search_calibration(trained_rows([1, 1, 1, 1], [0, 0, 1, 1], n=25)), dataset="all")
    assert bounds(row, "known", "unknown", "gap") == pytest.approx([0.0, 1.0, least, 1.0, 0.0, 1.0])


def test_trainings_have_the_same_interval_whatever_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    table = trained_rows(*rng.integers(0, 2, (3, 4)).tolist(), n=10)
    other = table.assign(dataset="popqa", question_id="p" + table["question_id"])
    table = pd.concat([table, other])
    shuffled = table.sample(frac=1.0, random_state=1)
    first, second = (search_calibration(t, 200).sort_values("dataset", ignore_index=True) for t in (table, shuffled))
    pd.testing.assert_frame_equal(first, second)


def test_a_kind_without_questions_has_no_interval() -> None:
    for searches in ([[1, 1, 1, 1]], [[1, 1, 1, 1], [0, 0, 0, 0]]):
        table = trained_rows(*searches)
        row = one(search_calibration(table.assign(em=0.0)), dataset="all")
        assert np.isnan(bounds(row, "known", "gap")).all() and np.isfinite(bounds(row, "unknown")).all()


def test_trainings_must_have_answered_the_same_questions() -> None:
    with pytest.raises(UnpairedQuestions, match="same 4 questions for every method and seed"):
        search_calibration(trained_rows([1, 1, 1, 1], [0, 0, 0, 0]).iloc[:-1])


def test_calibration_refuses_what_it_cannot_know() -> None:
    table = calibration_rows()
    with pytest.raises(MissingInput, match="method 'direct', found none"):
        search_calibration(table[table["method"] != "direct"])
    with pytest.raises(MissingInput, match="found 1 that it has not"):
        search_calibration(table.iloc[1:])


# -- pass@k ---------------------------------------------------------------------------------------
