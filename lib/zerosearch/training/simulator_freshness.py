"""Does the simulator know that the world has changed?  It was tuned on the past; the real engine is asked today.

Some facts of the later world have another object than they had when the simulator was tuned.  Here both are
asked for such facts, by the query of the hop whose fact changed, and what they return is searched for the
new and for the old statement.  Only hops that the simulator's prompt does not give away count: where the
changed object is the golden answer itself, the prompt names it, and repeating it is no knowledge.

A policy that learns on passages of the past learns to search all the same; it meets today's facts when it
is evaluated (condition ``later`` of notebook 04).  Called by notebook 02.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Sequence

import pandas as pd
from scipy.stats import binomtest

from zerosearch import seeds
from zerosearch.engines.base import Engine
from zerosearch.labels import Hop, gold_hops
from zerosearch.microworld.language import BY_NOUN, query_text, state
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever
from zerosearch.schema import Passage, Question, SearchRequest
from zerosearch.scoring import contains_answer
from zerosearch.training.renaming import SimulatorExample
from zerosearch.training.simulator_quality import QualityRequest, ask_simulator

COLUMNS = ["source", "states", "value", "n", "low", "high"]


@dataclass(frozen=True, slots=True)
class ChangedFact:
    """One fact with another object than before.  question: as it is asked today, with today's golden
    answers.  query: asks for the fact in the wording in which it is stated today."""

    question: Question
    query: str
    new: Hop
    old: Hop


def changed_facts(
    past: Sequence[Question], later: Sequence[Question], count: int, seed: int
) -> list[ChangedFact]:
    """Return up to ``count`` changed facts, each once, drawn by seed.

    past, later: questions with the same ids, as they were and as they are.  Of each, the first hop that
    changed counts, unless its new or its old object is named by the question or is a golden answer.
    """
    before = {q.id: gold_hops(q) for q in past}
    found: dict[tuple[str, str], ChangedFact] = {}
    for question in later:
        fact = _first_change(question, before.get(question.id, ()))
        if fact is not None:
            found.setdefault((fact.new.subject, fact.new.relation), fact)
    facts = list(found.values())
    order = seeds.generator(seed, "changed facts").permutation(len(facts))[:count]
    return [facts[i] for i in order]


def _first_change(question: Question, before: Sequence[Hop]) -> ChangedFact | None:
    for new, old in zip(gold_hops(question), before):
        if new[:2] != old[:2]:
            return None  # it went another way before the change was met: a comparison, or no chain
        if new.object != old.object:
            told = [question.question, *question.golden_answers]
            given_away = any(contains_answer(text, [new.object, old.object]) for text in told)
            return None if given_away else ChangedFact(question, _query(new), new, old)
    return None


def _query(hop: Hop) -> str:
    relation = BY_NOUN[hop.relation]
    first = state(relation, hop.subject, hop.object) == hop.sentence
    return query_text(relation, hop.subject, 0 if first else 1)


def ask_engine(facts: Sequence[ChangedFact], engine: Retriever) -> list[tuple[Passage, ...]]:
    """Return the passages that a real engine finds for each fact's query."""
    return [r.passages for r in engine.search([SearchRequest(fact.query, fact.question) for fact in facts])]


def ask_tuned(
    facts: Sequence[ChangedFact], k: int, engine: Engine, prompts: Prompts, *, seed: int = 0,
    temperature: float = 1.0, max_new_tokens: int = 160,
) -> list[tuple[Passage, ...]]:
    """Return the useful passages, k asked for, that the tuned simulator writes for each fact's query."""
    blank = (Passage("", "", ""),) * k
    requests = [
        QualityRequest(
            SimulatorExample(f.query, f.question.question, f.question.golden_answers[0], True, blank), None
        )
        for f in facts
    ]
    options = {"seed": seed, "temperature": temperature, "max_new_tokens": max_new_tokens}
    written = ask_simulator(requests, "useful", engine, prompts, **options)
    return [made.passages if made is not None else () for made in written]


def freshness_table(
    facts: Sequence[ChangedFact], answers: Mapping[str, Sequence[Sequence[Passage]]]
) -> pd.DataFrame:
    """Return COLUMNS: per source, the share of facts whose passages state the new or the old object.

    answers: name of the source -> its passages for each fact, in order.  A statement counts in either of
    its wordings; that something *was* so until some year states neither.  low, high: Wilson, 95 %.
    """
    rows = []
    for source, lists in answers.items():
        for which in ("new", "old"):
            said = [_states(passages, getattr(fact, which)) for fact, passages in zip(facts, lists, strict=True)]
            if said:
                bounds = binomtest(sum(said), len(said)).proportion_ci(method="wilson")
                rows.append((source, which, sum(said) / len(said), len(said), bounds.low, bounds.high))
    return pd.DataFrame(rows, columns=COLUMNS)


def _states(passages: Sequence[Passage], hop: Hop) -> bool:
    wordings = [state(BY_NOUN[hop.relation], hop.subject, hop.object, wording) for wording in (0, 1)]
    return any(contains_answer(p.text, wordings) for p in passages)
