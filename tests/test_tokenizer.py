"""The tiny tokenizer: one token a word of the world, no byte lost of anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from zerosearch.microworld import language as lang
from zerosearch.microworld.tokenizer import TAGS, build_tokenizer

TOKENIZER = build_tokenizer()


def encode(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False).input_ids


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_round_trips(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode("utf-8")
    assert TOKENIZER.decode(encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize("text", ["▁Ġ<|pad|>", "東京 – naïve\u00a0\x00\r\n\t", "🄺 Ｋ ⓚ", "<search> a</search>", "  ", ""])
def test_awkward_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(encode(text), skip_special_tokens=False) == text


def test_names_are_two_tokens_and_tags_one() -> None:
    for first, second in lang.NAME_WORDS.values():
        for a, b in zip(first, second, strict=False):
            assert len(encode(f" {a} {b}")) == 2
    assert all(len(encode(tag)) == 1 for tag in TAGS)
    assert all(len(encode(f" {year}")) == 1 for year in lang.YEARS)


def test_every_sentence_and_question_is_word_level() -> None:
    for relation in lang.RELATIONS:
        for sentence in relation.sentences:
            text = " " + sentence.format(s="Silver Harbor", o="Alda Brenner")
            assert len(encode(text)) == len(text.replace(".", " .").split())


def test_saved_and_loaded_tokenizer_is_the_same(tmp_path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Question: who directed Silver Harbor\n<think> naïve 東京</think>"
    assert loaded(text, add_special_tokens=False).input_ids == encode(text)
    assert (loaded.pad_token, loaded.eos_token) == (TOKENIZER.pad_token, TOKENIZER.eos_token)
