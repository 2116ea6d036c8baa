"""arms.py: the arms differ in what is searched, and unknown ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_toys import toy_model, toy_question

from zerosearch.errors import ConfigError
from zerosearch.microworld import models
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.schema import Passage, SearchRequest
from zerosearch.training.arms import ARMS, get_arm, open_curriculum, open_retriever


def test_the_two_arms_of_the_comparison() -> None:
    ours, real = get_arm("zerosearch"), get_arm("search-r1")
    assert (ours.retriever, ours.curriculum) == ("simulator", True)
    assert (real.retriever, real.curriculum) == ("bm25", False)


def test_names_match_their_keys_and_labels_differ() -> None:
    assert all(arm.name == name for name, arm in ARMS.items())
    assert len({arm.label for arm in ARMS.values()}) == len(ARMS)


def test_unknown_arm_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'search-r1'"):
        get_arm("search_r1")


def test_search_r1_searches_the_real_engine() -> None:
    passages = [Passage("a", "Silver Harbor", "Anka Falk directed Silver Harbor."), Passage("b", "Port Amber", "A town.")]
    retriever = open_retriever(get_arm("search-r1"), k=1, seed=0, passages=passages)
    (found,) = retriever.search([SearchRequest("director of Silver Harbor", toy_question(), noise_probability=1.0)])
    assert retriever.name == "bm25" and found.passages[0].id == "a" and found.noisy is None


def test_zerosearch_searches_the_tuned_simulator(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    folder = tmp_path / "simulator"
    models.save(toy_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id), tokenizer, folder)
    retriever = open_retriever(get_arm("zerosearch"), k=2, seed=0, simulator=folder, max_new_tokens=8)
    requests = [SearchRequest("q", toy_question(i), step=1, noise_probability=0.5) for i in range(40)]
    found = retriever.search(requests)
    assert retriever.name == "simulator" and 5 < sum(r.noisy for r in found) < 35
    assert all(r.n_generated_tokens > 0 and r.error is None for r in found)
    with pytest.raises(ValueError, match="folder of the tuned simulator"):
        open_retriever(get_arm("zerosearch"), k=2, seed=0)


def test_only_arms_with_a_curriculum_see_noise() -> None:
    assert open_curriculum(get_arm("zerosearch"), 10, 0.0, 0.5, 4.0).noise(10) == 0.5
    assert open_curriculum(get_arm("search-r1"), 10, 0.0, 0.5, 4.0).schedule() == [0.0] * 10
