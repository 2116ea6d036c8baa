"""Every prompt of the workbook, and the parsing of what the models write back.

Two templates: ``micro`` is as short as a model of one million parameters needs, ``paper`` is for
real language models.  The simulator's wording is that of table 2 of ZeroSearch (arXiv 2505.04588),
because the published simulators were tuned on it; five is the number that is asked for.  The others
have the roles of its table 1 and are worded here, without an example answer, which the reference
scores as if the policy had written it.

Rules held here: only text that the policy wrote is parsed for an action (rule 3); passages are cut
to the budget first and wrapped in the information tags after (rule 4); tag strings inside questions
and passages are defused, so that only the environment and the policy can write a tag.
"""

from __future__ import annotations

import hashlib
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
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_DOC_PREFIX = re.compile(r"^\s*(?:\[?doc(?:ument)?\s*\d+\]?\s*[:.)]|\d+[.)]|[-*])\s*", re.IGNORECASE)
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()


@dataclass(frozen=True, slots=True)
class Template:
    """The wording of one family of prompts; fields are format strings.

    A field ``*_prefix`` is put into the policy's mouth: after agent (every step; at the last one
    agent_last_prefix), refine (condensing passages) and recall (writing passages from memory).
    """

    policy: str
    direct: str
    cot: str
    r1: str
    rag: str
    agent: str
    agent_prefix: str
    agent_last_prefix: str
    refine: str
    refine_prefix: str
    recall: str
    recall_prefix: str
    simulator: str
    passage: str
    condensed: str
    information: str
    answer: str
    forced_prefix: str
    numbered: bool


MICRO = Template(
    policy="Question: {question}\n",
    direct="Answer at once: {question}\n",
    cot="Think, then answer: {question}\n",
    r1="Think, then answer: {question}\n",
    rag="Passages:{passages}\nAnswer using these passages: {question}\n",
    # A base of one million parameters does what it has read: it searches after a bare question, quotes
    # after passages and a query, and goes on with passages after a search whose block is open.
    agent="Question: {question}\n",
    agent_prefix="<think>",
    agent_last_prefix="<answer>",
    refine="<information>{passages}\n</information><search> {query}</search>",
    refine_prefix="<think>",
    recall="Question: {question}\n",
    recall_prefix="<search> {query}</search><information>",
    simulator=(
        "Write {k} {kind} passages for the query.\nQuery: {query}\nQuestion: {question}\nAnswer: {answer}\nPassages:"
    ),
    passage="\n {text}",
    condensed="\n {text}",
    information="<information>{passages}\n</information>",
    answer="<answer> {answer}</answer>",
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
    r1=(
        "Answer the question below from what you know. Reason between <think> and </think>; when you are done, write "
        "only the short answer between <answer> and </answer>.\nQuestion: {question}\n"
    ),
    rag=(
        "Use these passages to answer.{passages}\nReason between <think> and </think>, then write the short "
        "answer between <answer> and </answer>.\nQuestion: {question}\n"
    ),
    agent=(
        "Answer the question below in at most {steps} steps. A step is one thought between <think> and </think> and "
        "then one action: a query between <search> and </search>, whose results you are shown between <information> "
        "and </information>, or, to finish, the short answer between <answer> and </answer>.\nQuestion: {question}\n"
    ),
    agent_prefix="<think>",
    agent_last_prefix="<answer>",
    refine=(
        "Somebody reasons about a question and has searched. Write down, in at most three plain sentences, what the "
        "passages say that helps with the query and with the next step of the reasoning; write 'Nothing helpful was "
        "found.' when they say nothing of the kind. Use no tags.\nReasoning so far: {reasoning}\nQuery: {query}\n"
        "Passages:{passages}\n"
    ),
    refine_prefix="",
    recall=(
        "You are a search engine that knows what you know and has no index. Write {k} documents for the query from "
        "memory, each of about 30 words, one per line, starting with Doc 1: and so on. Use no tags.\nThe user is "
        "trying to answer the question: {question}\nQuery: {query}\n"
    ),
    recall_prefix="",
    simulator=(
        "You are the Google search engine.\nGiven a query, you need to generate {k} {kind} documents for the query.\n\n"
        "The user is trying to answer the question: \"{question}\" whose answer is {answer}.\nEach document should "
        "contain about 30 words, and these documents should contain {kind} information.\n\nQuery: {query}\n"
        "{Kind} Output:\n"
    ),
    passage="\nDoc {index}: {text}",
    condensed="\n{text}",
    information="\n\n<information>{passages}\n</information>\n\n",
    answer="<answer> {answer}</answer>",
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


def prompt_version(*texts: str) -> str:
    """Return 12 hex digits that change with the wording: what says in tables and manifests which prompt it was."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


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


def untagged(text: str) -> str:
    """Return what a model wrote up to its first tag, complete thoughts left out, stripped.

    For texts that are no message of a conversation (passages from memory, condensed passages): nothing
    in them is an action, and what follows a tag is another conversation that the model makes up.
    """
    return TAG.split(_THOUGHT.sub("", text))[0].strip()


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

    def r1_prompt(self, question: str) -> str:
        """Return the prompt of a policy that learns to think and to answer from memory, without a search."""
        return self.template.r1.format(question=one_line(question))

    def agent_prompt(self, question: str, max_searches: int) -> str:
        """Return the prompt of an agent: a thought and an action in each step, the last one answers."""
        return self.template.agent.format(question=one_line(question), steps=max_searches + 1)

    def refine_prompt(
        self, query: str, reasoning: str, passages: Sequence[Passage], max_tokens: int
    ) -> tuple[str, str]:
        """Return (prompt, start of the reply) for condensing passages with respect to query and reasoning.

        max_tokens: to which the passages are cut, and of the reasoning the end that is kept.
        """
        shown = {"passages": self._cut(passages, max_tokens), "reasoning": self._end(one_line(reasoning), max_tokens)}
        return self.template.refine.format(query=one_line(query), **shown), self.template.refine_prefix

    def recall_prompt(self, query: str, question: str, k: int) -> tuple[str, str]:
        """Return (prompt, start of the reply) for writing k passages from memory; no golden answer is shown."""
        known = {"query": one_line(query), "question": one_line(question), "k": _number(k)}
        return self.template.recall.format(**known), self.template.recall_prefix.format(**known)

    def answer_message(self, answer: str) -> str:
        """Return the message that answers at once, as a policy should write it."""
        return self.template.answer.format(answer=one_line(answer))

    def rag_prompt(self, question: str, passages: Sequence[Passage], max_tokens: int) -> str:
        """Return the prompt with passages retrieved for the question itself, cut to max_tokens."""
        return self.template.rag.format(question=one_line(question), passages=self._cut(passages, max_tokens))

    def simulator_prompt(self, query: str, question: str, golden_answer: str, useful: bool, k: int) -> str:
        """Return the simulator's instruction; one word of it decides between useful and misleading."""
        kind = "useful" if useful else "misleading" if not self.template.numbered else "noisy"
        return self.template.simulator.format(
            k=_number(k), kind=kind, Kind=kind.capitalize(),
            query=one_line(query), question=one_line(question), answer=one_line(golden_answer),
        )

    def simulator_target(self, passages: Sequence[Passage]) -> str:
        """Return the text a simulator should write for these passages (end-of-text not included)."""
        text = "".join(self._passage(i, p) for i, p in enumerate(passages, 1))
        return text.removeprefix("\n") if self.template.simulator.endswith("\n") else text

    @property
    def simulator_version(self) -> str:
        """Return the version of the simulator's wording, prompt and passages (``prompt_version``)."""
        return prompt_version(self.template.simulator, self.template.passage)

    def parse_passages(self, text: str, k: int, id_prefix: str = "simulated") -> tuple[Passage, ...]:
        """Return up to k passages from a simulator's text: one per non-empty line, numbering removed."""
        lines = [_DOC_PREFIX.sub("", line).strip() for line in text.splitlines()]
        kept = [defuse(line) for line in lines if line][:k]
        return tuple(Passage(id=f"{id_prefix}-{i}", title="", text=line) for i, line in enumerate(kept, 1))

    def observation(self, passages: Sequence[Passage], max_tokens: int) -> str:
        """Return the information block for passages: cut to max_tokens first, wrapped in tags after."""
        return self.template.information.format(passages=self._cut(passages, max_tokens))

    def condensed_observation(self, text: str, max_tokens: int) -> str:
        """Return the information block for condensed passages: one line, cut first and wrapped after."""
        line = self.template.condensed.format(text=one_line(text)) if text.strip() else ""
        return self.template.information.format(passages=self._start(line, max_tokens)[0])

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
            piece, n_tokens = self._start(piece, left)
            pieces.append(piece)
            left -= n_tokens
            if left <= 0:
                break
        return "".join(pieces)

    def _start(self, text: str, max_tokens: int) -> tuple[str, int]:
        """Return (text cut after max_tokens, number of tokens before the cut)."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) > max_tokens:
            text = self.tokenizer.decode(ids[:max_tokens], skip_special_tokens=False).rstrip("\ufffd")
        return text, len(ids)

    def _end(self, text: str, max_tokens: int) -> str:
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) <= max_tokens:
            return text
        return self.tokenizer.decode(ids[-max_tokens:], skip_special_tokens=False).lstrip("\ufffd")


def _number(k: int) -> str:
    return _NUMBERS[k] if k < len(_NUMBERS) else str(k)
