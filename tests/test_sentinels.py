"""Sentinels: what they write, by hand, and how far apart they end under corruption."""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest

from zerosearch.engines.base import GenerationRequest
from zerosearch.errors import BadInput
from zerosearch.evaluation.conditions import CONDITIONS
from zerosearch.microworld import language as lang
from zerosearch.microworld.sentinels import COLUMNS, SENTINELS, SentinelEngine, play, sentinel_table
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.microworld.world import build_questions, build_world
from zerosearch.prompts import Prompts, parse_action
from zerosearch.schema import Passage, Question, Trajectory
from zerosearch.scoring import em

TOKENIZER = build_tokenizer()
PROMPTS = Prompts.load("micro", TOKENIZER)
WORLD = build_world(7)
PASSAGES = WORLD.passages()
TWO_HOPS = [
    q for q in build_questions(WORLD, 170, 1)
    if q.split == "eval" and q.metadata["kind"] == "chain" and q.dataset in ("hotpotqa", "2wikimultihopqa")
]
DIRECTOR = {"subject": "Silver Harbor", "relation": "director", "object": "Alda Falk", "sentence": "-"}
BIRTHPLACE = {"subject": "Alda Falk", "relation": "birthplace", "object": "Port Amber", "sentence": "-"}
CHAIN = Question(
    "hotpotqa/1", "hotpotqa", "Where was the director of Silver Harbor born?", ("Port Amber",),
    metadata={"kind": "chain", "hops": [DIRECTOR, BIRTHPLACE]},
)
YEARS = [
    {"subject": name, "relation": "release year", "object": year, "sentence": "-"}
    for name, year in (("Silver Harbor", "1931"), ("Iron Anchor", "1900"))
]
COMPARISON = Question(
    "hotpotqa/2", "hotpotqa", "Which came out first, Silver Harbor or Iron Anchor?", ("Iron Anchor",),
    metadata={"kind": "comparison", "hops": YEARS},
)


def message(question: Question, notices: bool, *rounds: list[str]) -> str:
    """Return what a sentinel writes after so many searches that brought up these lines."""
    engine = SentinelEngine(TOKENIZER, [CHAIN, COMPARISON], notices)
    conversation = PROMPTS.policy_prompt(question.question)
    for lines in rounds:
        conversation += engine.next_message(conversation)
        conversation += PROMPTS.observation([Passage(str(i), "", line) for i, line in enumerate(lines)], 500)
    return engine.next_message(conversation)


# -- messages -------------------------------------------------------------------------------------



def says(noun: str, subject: str, target: str, wording: int = 0) -> str:
    return lang.state(lang.BY_NOUN[noun], subject, target, wording)


def asks(noun: str, subject: str, wording: int = 0) -> str:
    return f"<search> {lang.query_text(lang.BY_NOUN[noun], subject, wording)}</search>"


RIGHT = says("director", "Silver Harbor", "Alda Falk")
BORN = says("birthplace", "Alda Falk", "Port Amber", 1)
WRONG = says("director", "Silver Harbor", "Nils Voss", 1)
NAMESAKE = says("director", "Silver Harbor Returns", "Rosa Holm", 1)
LOOKALIKE = says("director", "Silver Anchor", "Ivo Voss")
OTHER = says("star", "Silver Harbor", "Juno Quist")
ELSEWHERE = says("mayor", "Fort Elder", "Signe Vance")
EMPTY = lang.say_nothing(lang.BY_NOUN["director"], "Silver Harbor")


def missed(noun: str, subject: str, wording: int = 0) -> str:
    return f"<think> {lang.VERDICT_MISS}</think>"


AGAIN = missed("director", "Silver Harbor") + asks("director", "Silver Harbor", 1)


@pytest.mark.parametrize("notices", [True, False])
def test_both_begin_with_the_right_query_and_follow_what_is_right(notices: bool) -> None:
    assert message(CHAIN, notices) == f"<think> {lang.PLAN_SEARCH}</think>{asks('director', 'Silver Harbor')}"
    assert message(CHAIN, notices, [OTHER, RIGHT]) == f"<think> {lang.VERDICT_HIT} {RIGHT}</think>{asks('birthplace', 'Alda Falk')}"
    assert message(CHAIN, notices, [RIGHT], [BORN]) == f"<think> {lang.VERDICT_HIT} {BORN}</think><answer> Port Amber</answer>"


@pytest.mark.parametrize("lines", [[WRONG], [NAMESAKE], [LOOKALIKE], [OTHER, EMPTY], ["no sentence of the world"], []])
def test_who_notices_searches_again_in_the_other_wording(lines: list[str]) -> None:
    assert message(CHAIN, True, lines) == AGAIN
    back_again = missed("director", "Silver Harbor", 1) + asks("director", "Silver Harbor")
    assert message(CHAIN, True, lines, lines) == back_again
    # the first query of every hop is in wording 0
    assert message(CHAIN, True, lines, [RIGHT]) == f"<think> {lang.VERDICT_HIT} {RIGHT}</think>{asks('birthplace', 'Alda Falk')}"
    next_hop = missed("birthplace", "Alda Falk") + asks("birthplace", "Alda Falk", 1)
    assert message(CHAIN, True, lines, [RIGHT], []) == next_hop


@pytest.mark.parametrize(
    ("lines", "taken", "object_"),
    [
        ([OTHER, WRONG, RIGHT], WRONG, "Nils Voss"),  # nothing in the words tells the two apart
        ([OTHER, LOOKALIKE, NAMESAKE, EMPTY], NAMESAKE, "Rosa Holm"),
        ([EMPTY, OTHER, LOOKALIKE], LOOKALIKE, "Ivo Voss"),
        ([ELSEWHERE, OTHER], OTHER, "Juno Quist"),
        ([EMPTY, ELSEWHERE], ELSEWHERE, "Signe Vance"),
    ],
)
def test_who_notices_nothing_takes_the_best_looking_line(lines: list[str], taken: str, object_: str) -> None:
    assert message(CHAIN, False, lines) == f"<think> {lang.VERDICT_HIT} {taken}</think>{asks('birthplace', object_)}"


def test_without_any_object_even_the_credulous_search_again() -> None:
    assert message(CHAIN, False, [EMPTY]) == message(CHAIN, False, []) == AGAIN


def test_superseded_values_come_after_lookalikes_and_before_other_relations() -> None:
    mayor = {"subject": "Fort Elder", "relation": "mayor", "object": "Alda Falk", "sentence": "-"}
    about = {"kind": "chain", "hops": [mayor]}
    question = Question("nq/1", "nq", "who is the mayor of Fort Elder", ("Alda Falk",), metadata=about)
    engine = SentinelEngine(TOKENIZER, [question], notices=False)
    start = PROMPTS.policy_prompt(question.question)
    search = engine.next_message(start)
    past = lang.state_superseded(lang.BY_NOUN["mayor"], "Fort Elder", "Nils Voss", "1900")
    alike, region = says("mayor", "Fort Amber", "Rosa Holm", 1), says("region", "Fort Elder", "Gorse Coast")
    expected = {(region, past, alike): "Rosa Holm", (region, past): "Nils Voss", (region,): "Gorse Coast"}
    for lines, answer in expected.items():
        block = PROMPTS.observation([Passage(line, "", line) for line in lines], 500)
        assert parse_action(engine.next_message(start + search + block)) == ("answer", answer)


def test_comparisons() -> None:
    first, second = says("release year", "Silver Harbor", "1931", 1), says("release year", "Iron Anchor", "1900")
    assert message(COMPARISON, True, [first]) == f"<think> {lang.VERDICT_HIT} {first}</think>{asks('release year', 'Iron Anchor')}"
    compared = f"<think> {lang.VERDICT_HIT} {second} {lang.plan_earlier('1900', '1931')}</think><answer> Iron Anchor</answer>"
    assert message(COMPARISON, True, [first], [second]) == compared
    wrong = says("release year", "Iron Anchor", "1950", 1)
    misled = f"<think> {lang.VERDICT_HIT} {wrong} {lang.plan_earlier('1931', '1950')}</think><answer> Silver Harbor</answer>"
    assert message(COMPARISON, False, [first], [wrong]) == misled
    star = says("star", "Iron Anchor", "Juno Quist")  # no year: nothing to compare
    assert message(COMPARISON, False, [first], [star]) == f"<think> {lang.VERDICT_HIT} {star}</think><answer> Silver Harbor</answer>"


def test_budgets_are_kept() -> None:
    engine = SentinelEngine(TOKENIZER, [CHAIN], notices=True)
    prompt = tuple(TOKENIZER(PROMPTS.policy_prompt(CHAIN.question), add_special_tokens=False).input_ids)
    whole, cut = engine.generate([GenerationRequest(prompt, 0, 256), GenerationRequest(prompt, 0, 4)])
    assert whole.stop_reason == "stop" and cut.stop_reason == "length"
    assert cut.token_ids == whole.token_ids[:4] and len(cut.logprobs) == 4


def test_unknown_questions_are_refused() -> None:
    plain = Question("nq/1", "nq", "who wrote it", ("x",))
    with pytest.raises(BadInput, match="gold hops"):
        SentinelEngine(TOKENIZER, [plain], True).next_message(PROMPTS.policy_prompt(plain.question))
    with pytest.raises(BadInput, match="at least one question"):
        sentinel_table([], PASSAGES, TOKENIZER, 5)


# -- scores ---------------------------------------------------------------------------------------


@cache
def played(condition: str, notices: bool, k: int = 5) -> list[Trajectory]:
    return play(TWO_HOPS, PASSAGES, TOKENIZER, condition, notices, k)


def score(trajectories: list[Trajectory]) -> float:
    return sum(em(t.answer, t.question.golden_answers) for t in trajectories) / len(trajectories)


@pytest.mark.parametrize(
    ("condition", "notices", "expected"),
    [  # at least two of five searches succeed, or the first two do
        ("corrupt-0.5", True, 1 - 6 * 0.5**5), ("corrupt-0.5", False, 0.5**2),
        ("corrupt-0.75", True, 1 - 0.75**5 - 5 * 0.25 * 0.75**4), ("corrupt-0.75", False, 0.25**2),
    ],
)
def test_scores_on_two_hops_are_those_of_the_draws(condition: str, notices: bool, expected: float) -> None:
    assert len(TWO_HOPS) > 200
    spread = (expected * (1 - expected) / len(TWO_HOPS)) ** 0.5
    # The clean engine itself misses one first query in forty, which costs a little.
    assert -3.5 * spread - 0.02 < score(played(condition, notices)) - expected < 3.5 * spread


def test_who_notices_gives_an_answer_only_when_it_is_right() -> None:
    for trajectory in played("corrupt-0.75", True):
        right = em(trajectory.answer, trajectory.question.golden_answers) == 1.0
        assert trajectory.stop_reason == ("answer" if right else "max_searches")
        assert trajectory.n_searches == 5 or right


def test_clean_searches_are_solved_by_who_notices_and_mostly_by_the_other() -> None:
    assert score(played("clean", True)) > 0.98 > score(played("clean", False)) > 0.9


def test_the_table() -> None:
    few = TWO_HOPS[:60]
    table = sentinel_table(few, PASSAGES, TOKENIZER, k=5)
    assert list(table.columns) == COLUMNS and set(table["n"]) == {60}
    assert list(table["condition"]) == [c for c in CONDITIONS if c != "later" for _ in SENTINELS]
    assert ((table["low"] <= table["em"]) & (table["em"] <= table["high"])).all()
    scores: pd.DataFrame = table.pivot(index="condition", columns="sentinel", values="em")
    noticing, blind = scores[SENTINELS[True]], scores[SENTINELS[False]]
    assert (noticing >= blind).all()
    assert noticing["corrupt-0.5"] - blind["corrupt-0.5"] >= 0.3
    assert noticing["homonyms"] > 0.95 > blind["homonyms"]  # contradictions are there to be noticed
    assert noticing["random"] == noticing["empty"] == blind["empty"] == 0.0 and blind["random"] < 0.1


def test_one_passage_and_few_searches() -> None:
    """k and the budget of searches reach the loop: with one search two hops cannot be answered."""
    made = play(TWO_HOPS[:20], PASSAGES, TOKENIZER, "clean", True, k=1, max_searches=1)
    assert score(made) == 0.0
    assert all(len(turn.retrieval.passages) <= 1 for t in made for turn in t.turns if turn.retrieval)


def test_kinds_of_misleading_passages_never_fool_who_notices() -> None:
    kinds = {p.metadata["kind"] for t in played("corrupt-0.75", True) for p in t.retrieved_passages}
    assert kinds == {lang.FACT, *lang.MISLEADING}
