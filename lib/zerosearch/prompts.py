"""Every prompt of the workbook, and the parsing of what the models write back.

Two templates: ``micro`` is as short as a model of one million parameters needs, ``paper`` is for
real language models (roles as in ZeroSearch, arXiv 2505.04588, tables 1 and 2; worded here, and
without an example answer, which the reference scores as if the policy had written it).

Rules held here: only text that the policy wrote is parsed for an action (rule 3); passages are cut
to the budget first and wrapped in the information tags after (rule 4); tag strings inside questions
and passages are defused, so that only the environment and the policy can write a tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Sequence

from zerosearch.errors import ConfigError
from zerosearch.schema import Action, Passage

if TYPE_CHECKING:  # only for type checkers: tokenizers are passed in
    from transformers import PreTrainedTokenizerBase

STOP_STRINGS = ("</search>", "</answer>")
TAG = re.compile(r"<(/?(?:think|search|information|answer))>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|([^<>|]{1,40})\|>|<(/?s)>")  # special tokens of the model families that we know
_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)
_DOC_PREFIX = re.compile(r"^\s*(?:\[?doc(?:ument)?\s*\d+\]?\s*[:.)]|\d+[.)]|[-*])\s*", re.IGNORECASE)
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()


@dataclass(frozen=True, slots=True)
class Template:
    """The wording of one family of prompts; fields are format strings."""

    policy: str
    direct: str
    cot: str
    rag: str
    simulator: str
    passage: str
    information: str
    forced_prefix: str
    numbered: bool


MICRO = Template(
    policy="Question: {question}\n",
    direct="Answer at once: {question}\n",
    cot="Think, then answer: {question}\n",
    rag="Passages:{passages}\nAnswer using these passages: {question}\n",
    simulator=(
        "Write {k} {kind} passages for the query.\nQuery: {query}\nQuestion: {question}\nAnswer: {answer}\nPassages:"
    ),
    passage="\n {text}",
    information="<information>{passages}\n</information>",
    forced_prefix="<think> I search",
    numbered=False,
)
PAPER = Template(
    policy=(
        "Find the answer to the question below. Reason between <think> and </think> whenever you have read "
        "something new. When a fact is missing, write a query between <search> and </search>; the search results "
        "then appear between <information> and </information>. Search as often as you need. As soon as you know "
        "enough, write only the short answer between <answer> and </answer>.\nQuestion: {question}\n"
    ),
    direct="Give only the short answer, between <answer> and </answer>.\nQuestion: {question}\n",
    cot=(
        "Reason step by step between <think> and </think>, then write the short answer between <answer> and "
        "</answer>.\nQuestion: {question}\n"
    ),
    rag=(
        "Use these passages to answer.{passages}\nReason between <think> and </think>, then write the short "
        "answer between <answer> and </answer>.\nQuestion: {question}\n"
    ),
    simulator=(
        "You are the Google search engine.\nGiven a query, write {k} {kind} documents for it, each of about 30 "
        "words, one per line, starting with Doc 1: and so on.\nThe user is trying to answer the question: "
        "{question}\nIts answer is: {answer}\nQuery: {query}\n{Kind} output:"
    ),
    passage="\nDoc {index}: {text}",
    information="\n\n<information>{passages}\n</information>\n\n",
    forced_prefix="<search>",
    numbered=True,
)
TEMPLATES = {"micro": MICRO, "paper": PAPER}


def defuse(text: str) -> str:
    """Return the text with tags and special tokens made harmless (``<search>`` becomes ``(search)``).

    A tokenizer turns the string ``<|im_end|>`` into the token that ends a turn, whoever wrote it.
    """
    return TAG.sub(r"(\1)", _SPECIAL.sub(lambda found: f"({found[1] or found[2]})", text))


def one_line(text: str) -> str:
    """Return the text with tags defused and every run of white space made one blank."""
    return " ".join(defuse(text).split())


def prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str, chat: bool | None = None) -> list[int]:
    """Return the token ids of a prompt as its model expects them.

    chat: True puts the text into the tokenizer's chat template as what the user says, False does not;
    None follows the tokenizer, which has a template or none.  Without one the text is encoded with the
    special tokens that the tokenizer adds by itself: Llama's begin-of-text, none for Qwen2.
    """
    if tokenizer.chat_template if chat is None else chat:
        said = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False).input_ids  # the template writes begin-of-text itself
    return tokenizer(text).input_ids


def parse_action(policy_text: str) -> tuple[Action, str]:
    """Return the first complete action in one message of the policy, as (action, stripped content).

    The caller passes tokens the policy itself sampled and nothing else.  ("none", "") when there is
    no complete pair of tags, or when it encloses nothing but white space.
    """
    found = _ACTION.search(policy_text)
    content = " ".join(found.group(2).split()) if found else ""
    return (found.group(1), content) if content else ("none", "")  # type: ignore[union-attr,return-value]


class Prompts:
    """The prompts of one template, bound to a tokenizer for cutting passages to a token budget."""

    def __init__(self, template: Template, tokenizer: PreTrainedTokenizerBase):
        self.template, self.tokenizer = template, tokenizer

    @classmethod
    def load(cls, name: str, tokenizer: PreTrainedTokenizerBase) -> Prompts:
        """Return the prompts of template ``micro`` or ``paper``; ConfigError for another name."""
        if name not in TEMPLATES:
            raise ConfigError(f"prompt template: expected one of {sorted(TEMPLATES)}, found {name!r}")
        return cls(TEMPLATES[name], tokenizer)

    @property
    def forced_prefix(self) -> str:
        """Text put into the policy's mouth when it is forced to search first."""
        return self.template.forced_prefix

    def policy_prompt(self, question: str) -> str:
        """Return the prompt for answering with searches."""
        return self.template.policy.format(question=one_line(question))

    def direct_prompt(self, question: str) -> str:
        """Return the prompt for answering at once, from memory."""
        return self.template.direct.format(question=one_line(question))

    def cot_prompt(self, question: str) -> str:
        """Return the prompt for thinking first, without a search."""
        return self.template.cot.format(question=one_line(question))

    def rag_prompt(self, question: str, passages: Sequence[Passage], max_tokens: int) -> str:
        """Return the prompt with passages retrieved for the question itself, cut to max_tokens."""
        return self.template.rag.format(question=one_line(question), passages=self._cut(passages, max_tokens))

    def simulator_prompt(self, query: str, question: str, golden_answer: str, useful: bool, k: int) -> str:
        """Return the simulator's instruction; one word of it decides between useful and misleading."""
        kind = "useful" if useful else "misleading" if not self.template.numbered else "noisy"
        return self.template.simulator.format(
            k=_NUMBERS[k] if k < len(_NUMBERS) else str(k), kind=kind, Kind=kind.capitalize(),
            query=one_line(query), question=one_line(question), answer=one_line(golden_answer),
        )

    def simulator_target(self, passages: Sequence[Passage]) -> str:
        """Return the text a simulator should write for these passages (end-of-text not included)."""
        return "".join(self._passage(i, p) for i, p in enumerate(passages, 1))

    def parse_passages(self, text: str, k: int, id_prefix: str = "simulated") -> tuple[Passage, ...]:
        """Return up to k passages from a simulator's text: one per non-empty line, numbering removed."""
        lines = [_DOC_PREFIX.sub("", line).strip() for line in text.splitlines()]
        kept = [defuse(line) for line in lines if line][:k]
        return tuple(Passage(id=f"{id_prefix}-{i}", title="", text=line) for i, line in enumerate(kept, 1))

    def observation(self, passages: Sequence[Passage], max_tokens: int) -> str:
        """Return the information block for passages: cut to max_tokens first, wrapped in tags after."""
        return self.template.information.format(passages=self._cut(passages, max_tokens))

    def _passage(self, index: int, passage: Passage) -> str:
        text, title = one_line(passage.text), one_line(passage.title)
        if self.template.numbered and title:
            text = f'(Title: "{title}") {text}'
        return self.template.passage.format(index=index, text=text)

    def _cut(self, passages: Sequence[Passage], max_tokens: int) -> str:
        pieces: list[str] = []
        left = max_tokens
        for index, passage in enumerate(passages, 1):
            piece = self._passage(index, passage)
            ids = self.tokenizer(piece, add_special_tokens=False).input_ids
            if len(ids) > left:
                piece = self.tokenizer.decode(ids[:left], skip_special_tokens=False).rstrip("\ufffd")
            pieces.append(piece)
            left -= len(ids)
            if left <= 0:
                break
        return "".join(pieces)
