"""Scores by hand, their properties, and the cases that broke other scorers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import scoring
from zerosearch.errors import ConfigError
from zerosearch.scoring import Scores, contains_answer, cover_em, em, f1, normalize, reward, score

VOCABULARY = "red green blue the a An RED red. u.s. é 42 4 ② – --- ! ,".split()
WORDS = st.lists(st.sampled_from(VOCABULARY), max_size=6)
TEXTS = st.one_of(st.text(max_size=30), WORDS.map(" ".join))
GOLDEN = st.lists(TEXTS, min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Eiffel Tower", "eiffel tower"),
        ("  a  Man,  an\tape and the\nrest ", "man ape and rest"),
        ("U.S.A.", "usa"),
        ("rock-and-roll", "rockandroll"),
        ("theatre another", "theatre another"),  # articles only as whole words
        ("14\u00a0December\u00a01972", "14 december 1972"),
        ("Peut-Être", "peutêtre"),
        ("“quoted”", "“quoted”"),  # punctuation is ASCII only, as in SQuAD
        ("---", ""),
        (")", ""),
        ("The", ""),
        ("A.", ""),
        ("", ""),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("prediction", "golden", "expected"),
    [
        ("Paris", ["paris"], Scores(1, 1, 1)),
        ("the Paris.", ["Paris"], Scores(1, 1, 1)),
        ("It is Paris", ["Paris"], Scores(0, 1, 0.5)),  # precision 1/3, recall 1
        ("Nino", ["Nino Rota"], Scores(0, 0, 2 / 3)),
        ("Rota Nino", ["Nino Rota"], Scores(0, 0, 1)),  # same words, other order
        ("Rota", ["Morricone", "Nino Rota", "Rota"], Scores(1, 1, 1)),  # best over golden answers
        ("blue blue", ["blue"], Scores(0, 1, 2 / 3)),  # a repeated word counts once: precision 1/2, recall 1
        ("London", ["Paris"], Scores(0, 0, 0)),
        ("comparison", ["paris"], Scores(0, 0, 0)),  # containment of letters is no containment of words
        ("1935", ["35"], Scores(0, 0, 0)),
        ("hello", ["l"], Scores(0, 0, 0)),
        ("letter L", ["l"], Scores(0, 1, 2 / 3)),
        ("new old york", ["new york"], Scores(0, 0, 0.8)),  # not consecutive
    ],
)
def test_scores_by_hand(prediction: str, golden: list[str], expected: Scores) -> None:
    found = score(prediction, golden)
    assert (found.em, found.cover_em) == (expected.em, expected.cover_em)
    assert found.f1 == pytest.approx(expected.f1)


@pytest.mark.parametrize("prediction", [None, "", "   ", "---", "The", "a an the", "?!"])
@pytest.mark.parametrize("golden", [["Paris"], ["---"], [")"], ["The"], ["---", "The"], [""]])
def test_no_answer_scores_zero(prediction: str | None, golden: list[str]) -> None:
    assert score(prediction, golden) == Scores(0.0, 0.0, 0.0)


def test_golden_answer_without_words_matches_no_text() -> None:
    assert score("Beijing", ["The"]) == Scores(0.0, 0.0, 0.0)  # an empty string is contained in every other
    assert score("Beijing", ["The", "Beijing"]) == Scores(1.0, 1.0, 1.0)  # and does not hide the others


def test_a_single_string_of_golden_answers_is_refused() -> None:
    with pytest.raises(TypeError, match="list of strings.*'Paris'"):
        em("P", "Paris")


def test_rewards_are_the_metrics_of_the_same_name() -> None:
    assert reward("f1")("It is Paris", ["Paris"]) == pytest.approx(0.5)
    assert reward("em")("It is Paris", ["Paris"]) == 0.0
    assert reward("f1")(None, ["Paris"]) == reward("em")(None, ["Paris"]) == 0.0


def test_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="reward: expected one of f1, em, found 'f2'; did you mean 'f1'"):
        reward("f2")


def test_cover_em_is_a_metric_and_no_reward() -> None:
    with pytest.raises(ConfigError, match="expected one of f1, em, found 'cover_em'"):
        reward("cover_em")


def test_contains_answer_uses_whole_words() -> None:
    assert contains_answer("Silver Harbor was directed by Ada Lund.", ["ada lund"])
    assert not contains_answer("Silver Harbor was directed by Ada Lundgren.", ["Ada Lund"])
    assert not contains_answer("any text", ["---"])


@given(TEXTS, GOLDEN)
def test_em_is_never_above_the_other_two(prediction: str, golden: list[str]) -> None:
    found = score(prediction, golden)
    assert 0.0 <= found.em <= found.cover_em <= 1.0
    assert 0.0 <= found.em <= found.f1 <= 1.0
    assert found.em in (0.0, 1.0) and found.cover_em in (0.0, 1.0)


@given(TEXTS, TEXTS)
def test_f1_is_symmetric(one: str, other: str) -> None:
    assert f1(one, [other]) == f1(other, [one])


@given(WORDS, WORDS, st.randoms(use_true_random=False))
def test_f1_sees_a_bag_of_words(one: list[str], other: list[str], random) -> None:  # noqa: ANN001
    shuffled = random.sample(one, len(one))
    assert f1(" ".join(one), [" ".join(other)]) == f1(" ".join(shuffled), [" ".join(other)])


@given(TEXTS, GOLDEN, TEXTS)
def test_another_golden_answer_never_hurts(prediction: str, golden: list[str], extra: str) -> None:
    before, after = score(prediction, golden), score(prediction, [extra, *golden])
    assert after.em >= before.em and after.cover_em >= before.cover_em and after.f1 >= before.f1


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_a_golden_answer_scores_one_unless_it_has_no_words(answer: str, others: list[str]) -> None:
    expected = Scores(1.0, 1.0, 1.0) if normalize(answer) else score(answer, others)
    assert score(answer, [*others, answer]) == expected


@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)
    assert not {"a", "an", "the"} & set(normalize(text).split())


@given(TEXTS, TEXTS, TEXTS)
def test_cover_em_holds_inside_any_longer_text(before: str, answer: str, after: str) -> None:
    if normalize(answer):
        assert cover_em(f"{before} {answer} {after}", [answer]) == 1.0


def test_public_names_agree_with_the_table_of_rewards() -> None:
    assert scoring.REWARDS == {"f1": f1, "em": em}
