"""Tokenizers that have one token per word of the micro-world and lose no byte of any other text.

Text is first mapped to bytes (256 symbols), then a unigram model joins the bytes of known words
into single tokens.  Unknown words fall apart into bytes, so decode(encode(text)) == text for every
UTF-8 string (property test).  A word's token includes the space before it.

Two families differ as the real ones do.  ``qwen2``: no beginning-of-text token, a pad token of its own,
turns between ``<|im_start|>`` and ``<|im_end|>``.  ``llama``: every prompt begins with
``<|begin_of_text|>``, padding *is* the end-of-text token (a mask made from pad ids would be wrong),
turns open with a header and end with ``<|eot_id|>``.  Chat tokenizers carry their template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from zerosearch.microworld import language

Family = Literal["qwen2", "llama"]
TAGS = (
    "<think>", "</think>", "<search>", "</search>", "<information>", "</information>", "<answer>", "</answer>",
)
_BYTE_SCORE, _WORD_SCORE = -12.0, -6.0  # one word always beats two bytes; the values carry no statistics


@dataclass(frozen=True, slots=True)
class _Specials:
    """The special tokens of a family; end_of_turn replaces end_of_text where turns are chats."""

    end_of_text: str
    pad: str
    begin_of_text: str | None
    end_of_turn: str
    others: tuple[str, ...]
    template: str


_FAMILIES: dict[str, _Specials] = {
    "qwen2": _Specials(
        "<|endoftext|>", "<|pad|>", None, "<|im_end|>", ("<|im_start|>",),
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    "llama": _Specials(
        "<|end_of_text|>", "<|end_of_text|>", "<|begin_of_text|>", "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>"),
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ),
}


def build_tokenizer(family: Family = "qwen2", chat: bool = False) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a family from the word lists alone (no training text, no randomness).

    chat: with the family's chat template; end of text is then the end of a turn.
    """
    named = _FAMILIES[family]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [(symbol, _BYTE_SCORE) for symbol in alphabet]
    vocabulary += [("Ġ" + word, _WORD_SCORE) for word in language.vocabulary()]
    vocabulary += [(word, _WORD_SCORE) for word in language.LINE_STARTS]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = dict.fromkeys((named.pad, named.end_of_text, named.begin_of_text, named.end_of_turn, *named.others))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials if t])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    if named.begin_of_text:
        begin = named.begin_of_text
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    end = named.end_of_turn if chat else named.end_of_text
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=end if family == "llama" else named.pad, eos_token=end,
        bos_token=named.begin_of_text, clean_up_tokenization_spaces=False,
    )
    if chat:
        made.chat_template = named.template
    return made
