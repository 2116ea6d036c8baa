"""Two scripted policies that mark the ends of the scale: one notices every miss, the other none.

Both ask the right first query and follow every question's gold hops.  The one that *notices every miss*
goes on only with a passage that states the true fact, and else searches again in the other wording.  The
one that *notices no miss* takes the best looking line for the answer, whatever it is, and goes on with it.
Their difference under a condition is what checking one's passages is worth there; a policy's score is
read between the two.  They play through the same loop, prompts and retrievers as every policy.

They are instruments, not methods: the first one looks at the gold facts.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Sequence

import pandas as pd
from scipy.stats import binomtest
from transformers import PreTrainedTokenizerBase

from zerosearch.engines.base import EngineCounts, Generation, GenerationRequest
from zerosearch.errors import BadInput
from zerosearch.evaluation.conditions import CONDITIONS, open_condition
from zerosearch.labels import Hop, gold_hops
from zerosearch.microworld import language as lang
from zerosearch.microworld.language import BY_NOUN
from zerosearch.microworld.world import UNRELATED, kind_for, read_sentence
from zerosearch.prompts import Prompts
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.schema import Passage, Question, Trajectory
from zerosearch.scoring import em

SENTINELS = {True: "notices every miss", False: "notices no miss"}
COLUMNS = ["sentinel", "condition", "n", "em", "low", "high"]
# How good a line looks to the one who checks nothing, best first; a line without an object is never taken.
_LOOKS = (
    lang.FACT, lang.CONTRADICTED, lang.NAMESAKE, lang.LOOKALIKE, lang.SUPERSEDED, lang.OTHER_RELATION, UNRELATED,
)
_ROUND = re.compile(r"<search>(.*?)</search>\s*<information>(.*?)</information>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Line:
    """One sentence of an observation that names an object."""

    text: str
    subject: str
    relation: str
    object: str
    kind: str  # what it looks like to the query


class SentinelEngine:
    """An engine that writes a sentinel's messages.

    questions: those that will be asked; the gold hops are looked up by the question's text.
    notices: whether it goes on with true facts only.  Token budgets are kept as by every engine.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], notices: bool):
        self.tokenizer, self.notices, self.name = tokenizer, notices, f"sentinel, {SENTINELS[notices]}"
        self.counts = EngineCounts()
        self._questions = {q.question: q for q in questions}

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the next message of every conversation."""
        return [self._one(request) for request in requests]

    def release(self) -> None:
        """Nothing is kept between turns: a conversation is read again from its tokens."""

    def _one(self, request: GenerationRequest) -> Generation:
        conversation = self.tokenizer.decode(request.prompt_ids)
        ids = self.tokenizer(self.next_message(conversation), add_special_tokens=False).input_ids
        kept = tuple(ids[: request.max_new_tokens])
        return Generation(kept, (0.0,) * len(kept), "stop" if len(kept) == len(ids) else "length")

    def next_message(self, conversation: str) -> str:
        """Return what the sentinel writes after everything that stands in the conversation.

        Raises BadInput for a question without gold hops.
        """
        asked = re.search(r"Question: (.*)", conversation)
        question = self._questions.get(asked[1].strip()) if asked else None
        hops = gold_hops(question) if question else ()
        if question is None or not hops:
            raise BadInput(
                f"sentinel: expected a question of the micro-world with gold hops, found {conversation[:80]!r}; "
                "sentinels need build_questions(world, ...)"
            )
        return self._play(hops, question.metadata.get("kind") == "comparison", _ROUND.findall(conversation))

    def _play(self, hops: Sequence[Hop], comparison: bool, rounds: Sequence[tuple[str, str]]) -> str:
        """Go through all searches so far and return the next message."""
        subject, wording, taken = hops[0].subject, 0, list[_Line]()
        thought = lang.PLAN_SEARCH
        for _, block in rounds:
            hop = hops[len(taken)]
            line = self._take(block, hop, subject)
            if line is None:
                thought, wording = lang.VERDICT_MISS, 1 - wording
                continue
            taken.append(line)
            thought, wording = f"{lang.VERDICT_HIT} {line.text}", 0
            if len(taken) == len(hops):
                return _answer(thought, hops, comparison, taken)
            subject = hops[len(taken)].subject if comparison else line.object
        query = lang.query_text(BY_NOUN[hops[len(taken)].relation], subject, wording)
        return f"<think> {thought}</think><search> {query}</search>"

    def _take(self, block: str, hop: Hop, subject: str) -> _Line | None:
        """Return the line to go on with, None to search again."""
        lines = [line for text in block.splitlines() if (line := _read(text, hop.relation, subject)) is not None]
        if self.notices:
            wanted = (lang.FACT, *hop[:3])
            return next((x for x in lines if (x.kind, x.subject, x.relation, x.object) == wanted), None)
        return min(lines, key=lambda line: _LOOKS.index(line.kind), default=None)


def _read(text: str, relation: str, subject: str) -> _Line | None:
    """Return what a line of an observation says; None if it names no object or is no sentence of the world."""
    read = read_sentence(text)
    if read is None or not read["object"]:
        return None
    return _Line(text.strip(), read["subject"], read["relation"], read["object"], kind_for(read, relation, subject))


def _answer(thought: str, hops: Sequence[Hop], comparison: bool, taken: Sequence[_Line]) -> str:
    answer = taken[-1].object
    if comparison:
        years = [line.object for line in taken]
        comparable = all(year.isdigit() for year in years) and years[0] != years[1]
        if comparable:
            thought = f"{thought} {lang.plan_earlier(*years)}"
        answer = hops[1].subject if comparable and int(years[1]) < int(years[0]) else hops[0].subject
    return f"<think> {thought}</think><answer> {answer}</answer>"


# -- the table ------------------------------------------------------------------------------------


def sentinel_table(
    questions: Sequence[Question], passages: Sequence[Passage], tokenizer: PreTrainedTokenizerBase, k: int,
    max_searches: int = 5, seed: int = 0, conditions: Sequence[str] = CONDITIONS[:-1],
) -> pd.DataFrame:
    """Return COLUMNS: one row per sentinel and condition, EM over all questions with its 95 % Wilson interval.

    questions: of the micro-world.  passages: the whole corpus.  conditions: all but ``later`` if not
    given (that one has questions of its own).  Raises BadInput without a question.
    """
    if not questions:
        raise BadInput("sentinels: expected at least one question, found none; draw more with build_questions")
    rows = []
    for condition in conditions:
        for notices, name in SENTINELS.items():
            made = play(questions, passages, tokenizer, condition, notices, k, max_searches, seed)
            right = int(math.fsum(em(t.answer, t.question.golden_answers) for t in made))
            bounds = binomtest(right, len(made)).proportion_ci(method="wilson")
            rows.append((name, condition, len(made), right / len(made), bounds.low, bounds.high))
    return pd.DataFrame(rows, columns=COLUMNS)


def play(
    questions: Sequence[Question], passages: Sequence[Passage], tokenizer: PreTrainedTokenizerBase, condition: str,
    notices: bool, k: int, max_searches: int = 5, seed: int = 0,
) -> list[Trajectory]:
    """Return a sentinel's trajectories, one per question, under a condition; nothing is cut for want of room."""
    retriever = open_condition(condition, passages, k, seed)
    settings = RolloutSettings(
        max_searches=max_searches, max_turn_tokens=256, max_observation_tokens=64 * k, max_total_tokens=1 << 16,
        temperature=0.0, run_seed=seed,
    )
    prompts = Prompts.load("micro", tokenizer)
    engine = SentinelEngine(tokenizer, questions, notices)
    return rollout([RolloutRequest(q) for q in questions], engine, retriever, prompts, settings)
