"""arm_setup.py: each arm searches what it says, and only a curriculum brings noise."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_toys import toy_model, toy_question

from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import RetrieverError
from zerosearch.microworld import models
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.schema import Passage, SearchRequest
from zerosearch.training import policy_rl
from zerosearch.training.arm_setup import open_curriculum, open_retriever
from zerosearch.training.arms import get_arm


def test_search_r1_searches_the_real_engine() -> None:
    about_film = Passage("a", "Silver Harbor", "Anka Falk directed Silver Harbor.")
    passages = [about_film, Passage("b", "Port Amber", "A town.")]
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
    with pytest.raises(ValueError, match="folder or name of its simulator"):
        open_retriever(get_arm("zerosearch"), k=2, seed=0)


def test_untuned_searches_the_base_under_a_name_of_its_own(tmp_path: Path) -> None:
    """The ledger must not charge the tuning to an arm that never used it."""
    tokenizer, folder = build_tokenizer(), tmp_path / "base"
    models.save(toy_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id), tokenizer, folder)
    retriever = open_retriever(get_arm("untuned"), k=2, seed=0, simulator=str(folder), max_new_tokens=8)
    found = retriever.search([SearchRequest("q", toy_question(i), step=1, noise_probability=0.5) for i in range(40)])
    assert retriever.name == "simulator-base" and {r.source for r in found} == {"simulator-base"}
    assert 5 < sum(r.noisy for r in found) < 35, "the same curriculum: its draws ask for misleading passages"
    events = policy_rl.retrieval_events(found)
    named = [(e["kind"], e.get("engine", e.get("model"))) for e in events]
    assert named == [("queries", "simulator-base"), ("tokens", "simulator-base")]
    assert open_curriculum(get_arm("untuned"), 10, 0.0, 0.5, 4.0).noise(10) == 0.5


def test_only_arms_with_a_curriculum_see_noise() -> None:
    assert open_curriculum(get_arm("zerosearch"), 10, 0.0, 0.5, 4.0).noise(10) == 0.5
    assert open_curriculum(get_arm("search-r1"), 10, 0.0, 0.5, 4.0).schedule() == [0.0] * 10


def test_training_stops_with_the_reason_when_its_engine_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 10: a simulator that cannot be reached fails every search; the run must not go on to the end."""
    tokenizer = build_tokenizer()
    folder = tmp_path / "simulator"
    models.save(toy_model(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id), tokenizer, folder)

    def unreachable(self: TransformersEngine, requests: object) -> None:
        raise ConnectionError("connection refused")

    retriever = open_retriever(get_arm("zerosearch"), k=2, seed=0, simulator=folder)
    monkeypatch.setattr(TransformersEngine, "generate", unreachable)  # opened well, down afterwards
    with pytest.raises(RetrieverError, match="connection refused"):
        retriever.search([SearchRequest("q", toy_question(i)) for i in range(60)])
