"""A tokenizer that has one token per word of the micro-world and loses no byte of any other text.

Text is first mapped to bytes (256 symbols), then a unigram model joins the bytes of known words
into single tokens.  Unknown words fall apart into bytes, so decode(encode(text)) == text for every
UTF-8 string (property test).  A word's token includes the space before it.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from zerosearch.microworld import language

PAD, EOS = "<|pad|>", "<|endoftext|>"
TAGS = (
    "<think>", "</think>", "<search>", "</search>", "<information>", "</information>", "<answer>", "</answer>",
)
_BYTE_SCORE, _WORD_SCORE = -12.0, -6.0  # one word always beats two bytes; the values carry no statistics


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer from the word lists alone (no training text, no randomness)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [(symbol, _BYTE_SCORE) for symbol in alphabet]
    vocabulary += [("Ġ" + word, _WORD_SCORE) for word in language.vocabulary()]
    vocabulary += [(word, _WORD_SCORE) for word in language.LINE_STARTS]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (PAD, EOS)])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, clean_up_tokenization_spaces=False
    )
