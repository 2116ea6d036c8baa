"""The tiny tokenizers: one token a word of the world, no byte lost of anything else, specials of their family."""

from __future__ import annotations

import pytest
from conftest_models import FAMILIES, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from zerosearch.microworld import language as lang
from zerosearch.microworld.tokenizer import TAGS, build_tokenizer
from zerosearch.prompts import prompt_ids

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


@pytest.mark.parametrize(("family", "chat"), FAMILIES)
@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_text_round_trips_in_every_family(family: str, chat: bool, text: str) -> None:
    tokenizer, text = tokenizer_of(family, chat), text.encode("utf-8", "ignore").decode("utf-8")
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids, skip_special_tokens=False) == text


def test_qwen2_adds_nothing_and_llama_begins_with_bos_and_pads_with_its_end() -> None:
    for chat in (False, True):
        qwen, llama = tokenizer_of("qwen2", chat), tokenizer_of("llama", chat)
        assert qwen.bos_token is None and qwen.pad_token_id != qwen.eos_token_id
        assert qwen(" a").input_ids == qwen(" a", add_special_tokens=False).input_ids
        assert llama.pad_token_id == llama.eos_token_id != llama.bos_token_id
        assert llama(" a").input_ids == [llama.bos_token_id, *llama(" a", add_special_tokens=False).input_ids]


@pytest.mark.parametrize(("family", "end", "end_of_turn"), [
    ("qwen2", "<|endoftext|>", "<|im_end|>"), ("llama", "<|end_of_text|>", "<|eot_id|>"),
])
def test_a_chat_ends_turns_and_a_base_ends_texts(family: str, end: str, end_of_turn: str) -> None:
    base, chat = tokenizer_of(family), tokenizer_of(family, True)
    assert (base.eos_token, chat.eos_token) == (end, end_of_turn) and len(base) == len(chat)
    assert base.chat_template is None and chat.chat_template is not None
    assert base.get_vocab() == chat.get_vocab()  # so an instruct model can grow from its base


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


@pytest.mark.parametrize(("family", "chat"), FAMILIES)
def test_saved_and_loaded_tokenizer_is_the_same(tmp_path, family: str, chat: bool) -> None:  # noqa: ANN001
    tokenizer = tokenizer_of(family, chat)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Question: who directed Silver Harbor\n<think> naïve 東京</think>"
    assert loaded(text, add_special_tokens=False).input_ids == tokenizer(text, add_special_tokens=False).input_ids
    assert prompt_ids(loaded, text) == prompt_ids(tokenizer, text)
    for name in ("bos_token", "pad_token", "eos_token", "chat_template"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
