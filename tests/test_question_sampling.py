"""Sub-samples and the training mix: seeded, nested, independent of the order, with the shares that were asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import profiles
from zerosearch.errors import ConfigError
from zerosearch.question_sets.sampling import eval_sample, mixed_sets, training_mix
from zerosearch.schema import Question


def made(split: str, **sizes: int) -> list[Question]:
    suffix = "_train" if split == "train" else ""
    return [
        Question(f"{name}{suffix}/{i}", name, f"{name} {i}", ("a",), split)  # type: ignore[arg-type]
        for name, n in sizes.items() for i in range(n)
    ]


EVALUATED = made("eval", nq=30, popqa=7, bamboogle=2)
TRAINING = made("train", nq=60, hotpotqa=40, musique=10)
ALL = EVALUATED + TRAINING


def ids(questions: list[Question]) -> list[str]:
    return [q.id for q in questions]


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3), st.randoms())
def test_a_larger_sample_holds_every_smaller_one(few: int, more: int, seed: int, random) -> None:  # noqa: ANN001
    few, more = sorted((few or 40, more or 40))
    small, large = (ids(eval_sample(ALL, n, seed)) for n in (few, more))
    assert set(small) <= set(large) and large == [i for i in ids(ALL) if i in set(large)]
    shuffled = random.sample(ALL, len(ALL))
    assert set(ids(eval_sample(shuffled, few, seed))) == set(small)
    counts = Counter(q.dataset for q in eval_sample(ALL, few, seed) if q.split == "eval")
    assert counts == {"nq": min(few, 30), "popqa": min(few, 7), "bamboogle": min(few, 2)}


def test_sets_are_drawn_apart_and_seeds_differ() -> None:
    assert eval_sample(ALL, 0, 0) == ALL
    alone = ids(eval_sample(made("eval", nq=30), 10, 0))
    assert alone == [i for i in ids(eval_sample(ALL, 10, 0)) if i.startswith("nq/")]  # whatever else is there
    assert alone != ids(eval_sample(made("eval", nq=30), 10, 1))
    assert ids(eval_sample(made("eval", nq=6), 2, 0)) == ["nq/2", "nq/4"]  # the draw is a promise: it may not change


MIXES = ["", "nq", "nq,hotpotqa", "nq:1,hotpotqa:1", "nq:3,musique:1"]


@given(st.integers(1, 110), st.integers(1, 110), st.sampled_from(MIXES))
def test_a_larger_mix_holds_every_smaller_one(few: int, more: int, mix: str) -> None:
    few, more = sorted((few, more))
    small, large = (ids(training_mix(ALL, mix, n, 0)) for n in (few, more))
    assert set(small) <= set(large)
    room = sum(q.dataset in (mixed_sets(mix) or ("nq", "hotpotqa", "musique")) for q in TRAINING)
    assert len(small) - len(EVALUATED) == min(few, room)


@pytest.mark.parametrize(
    ("mix", "size", "counts"),
    [
        ("", 0, {"nq": 60, "hotpotqa": 40, "musique": 10}),
        ("", 55, {"nq": 30, "hotpotqa": 20, "musique": 5}),  # as large as they are
        ("nq,hotpotqa", 0, {"nq": 60, "hotpotqa": 40}),
        ("nq, hotpotqa", 50, {"nq": 30, "hotpotqa": 20}),
        ("nq:1,hotpotqa:1", 50, {"nq": 25, "hotpotqa": 25}),
        ("nq:1,hotpotqa:3", 40, {"nq": 10, "hotpotqa": 30}),
        ("nq:1,musique:1", 50, {"nq": 40, "musique": 10}),  # too few for its share: the other fills the mix
        ("nq:0.5,hotpotqa:0.25", 60, {"nq": 40, "hotpotqa": 20}),
    ],
)
def test_shares_by_hand(mix: str, size: int, counts: dict[str, int]) -> None:
    mixed = training_mix(ALL, mix, size, 0)
    assert Counter(q.dataset for q in mixed if q.split == "train") == counts
    assert [q for q in mixed if q.split == "eval"] == EVALUATED


@pytest.mark.parametrize(
    ("mix", "size", "message"),
    [
        ("popqa", 0, r"expected sets that train \(nq, hotpotqa, musique\), found 'popqa'"),
        ("nq,hotpot", 0, "did you mean 'hotpotqa'"),
        ("nq:1,hotpotqa:1", 0, "found no size"),
        ("nq:1,hotpotqa", 5, "found sets without a share"),
        ("nq:0,hotpotqa:1", 5, "shares above 0"),
        ("nq,nq", 5, "each set once"),
        ("nq;hotpotqa", 5, "found 'nq;hotpotqa'"),
        ("nq:,hotpotqa:1", 5, "expected sets such as"),
    ],
)
def test_mixes_that_cannot_be_made(mix: str, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        training_mix(ALL, mix, size, 0)


def test_the_command_line_knows_a_mix_from_other_texts() -> None:
    good = profiles.load("smoke", {"00.train_mix": "nq:1,hotpotqa:2", "00.train_size": "9"}).stage("00")
    assert (good["train_mix"], good["train_size"]) == ("nq:1,hotpotqa:2", 9)
    with pytest.raises(ConfigError, match="00.train_mix"):
        profiles.load("smoke", {"00.train_mix": "nq:x"})
    with pytest.raises(ConfigError, match="'flashrag', 'zerosearch' or 'search-r1'"):
        profiles.load("smoke", {"00.questions_source": "flashrg"})


def test_paper_profiles_name_real_questions() -> None:
    for name, source in (("single_gpu", "flashrag"), ("a100_node", "zerosearch")):
        values = profiles.load(name).stage("00")
        assert (values["questions_source"], values["eval_per_set"]) == (source, 500)
        own = profiles.load(name, questions_dir="/q").stage("00")
        assert (own["questions_source"], own["questions_dir"], own["corpus_file"]) == ("", "/q", "")
        other = profiles.load(name, questions_source="search-r1", corpus_file="/c").stage("00")
        assert (other["questions_source"], other["questions_dir"], other["corpus_file"]) == ("search-r1", "", "/c")
