"""Dense retrieval: the real libraries with a tiny encoder made here, whose vectors nobody has trained."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from zerosearch.errors import MissingInput, NotReady
from zerosearch.retrievers import EngineOptions, dense, open_engine
from zerosearch.retrievers.cache import NotRecorded
from zerosearch.retrievers.dense import DenseRetriever
from zerosearch.schema import Passage, Question, SearchRequest

WORDS = "amber birch cedar dolm elder falk garrow hazel ibsen jasper query passage : film by of".split()
PASSAGES = [
    Passage("a", "amber", "film by falk"), Passage("b", "birch", "film of cedar"), Passage("c", "dolm", "hazel"),
    Passage("d", "amber", "film by falk"), Passage("e", "ibsen", "jasper jasper jasper"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT of two layers and 32 dimensions with random weights, saved as encoders are."""
    folder = tmp_path_factory.mktemp("encoder") / "tiny-e5"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def ask(query: str) -> SearchRequest:
    return SearchRequest(query, Question("nq/1", "nq", "question", ("golden",)))


def vectors(encoder: str, texts: list[str]) -> np.ndarray:
    """Return the texts' vectors by transformers alone: the mean over the tokens, of length 1."""
    tokenizer, model = BertTokenizerFast.from_pretrained(encoder), BertModel.from_pretrained(encoder)
    made = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        made.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.stack(made)


def test_the_nearest_passages_with_the_prefixes_of_e5(encoder: str, tmp_path: Path) -> None:
    queries = ["amber film", "jasper", "cedar"]
    found = DenseRetriever(PASSAGES, 4, encoder, tmp_path).search([ask(q) for q in queries])
    texts = vectors(encoder, [f"passage: {p.title} {p.text}" for p in PASSAGES])
    scores = vectors(encoder, [f"query: {q}" for q in queries]) @ texts.T
    for row, retrieval in zip(scores, found, strict=True):
        best = sorted(range(len(PASSAGES)), key=lambda i: (-round(float(row[i]), 5), i))[:4]
        assert [p.id for p in retrieval.passages] == [PASSAGES[i].id for i in best]
        assert retrieval.source == "dense" and retrieval.error is None
    places = [[p.id for p in r.passages].index("a") for r in found if "d" in [p.id for p in r.passages]]
    assert all([p.id for p in r.passages][at + 1] == "d" for r, at in zip(found, places))  # equal: the corpus' order


def test_a_query_finds_the_same_alone_and_in_company(encoder: str, tmp_path: Path) -> None:
    engine = DenseRetriever(PASSAGES, 3, encoder, tmp_path)
    queries = ["amber", "film by falk of birch", "jasper ibsen", "amber"]
    together = [r.passages for r in engine.search([ask(q) for q in queries])]
    assert together == [engine.search([ask(q)])[0].passages for q in queries] and engine.search([]) == []


def test_the_index_is_built_once(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = DenseRetriever(PASSAGES, 2, encoder, tmp_path).search([ask("amber")])[0].passages
    (folder,) = tmp_path.glob("dense-*/")
    made = (folder / "index.faiss").stat().st_mtime_ns
    monkeypatch.setattr(dense, "_BLOCK", 2)
    again = DenseRetriever(PASSAGES, 3, encoder, tmp_path)
    assert again.search([ask("amber")])[0].passages[:2] == first
    assert (folder / "index.faiss").stat().st_mtime_ns == made
    (folder / "index.faiss").write_bytes((folder / "index.faiss").read_bytes()[:60])
    assert DenseRetriever(PASSAGES, 2, encoder, tmp_path).search([ask("amber")])[0].passages == first  # built again
    other = DenseRetriever(PASSAGES[1:], 2, encoder, tmp_path)
    other.search([ask("amber")])
    assert len(list(tmp_path.glob("dense-*/"))) == 2 and other.identity != again.identity


def test_through_the_door_and_replayed(
    encoder: str, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, replay = EngineOptions(url=encoder), EngineOptions(url=encoder, mode="replay")
    first = open_engine("dense", PASSAGES, 2, tmp_path / "record", live).search([ask("amber")])[0]
    monkeypatch.setattr(dense, "_imported", None)  # replaying needs neither library
    engine = open_engine("dense", PASSAGES, 2, tmp_path / "record", replay)
    assert engine.search([ask("amber")])[0].passages == first.passages
    with pytest.raises(NotRecorded, match="'birch'"):
        engine.search([ask("birch")])
    assert engine.identity.startswith("dense tiny-e5@") and "k=2 corpus=" in engine.identity


def test_without_the_extra_the_command_is_named(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name in ("faiss", "sentence_transformers"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotReady, match=r"No module named 'faiss'; install it with `pip install .*\.\[dense\]'`"):
        DenseRetriever(PASSAGES, 2, encoder, tmp_path).search([ask("amber")])


def test_an_encoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="expected the encoder 'nobody/has-this-e5'.*hf download nobody/has-this-e5"):
        DenseRetriever(PASSAGES, 2, "nobody/has-this-e5", tmp_path).search([ask("amber")])
