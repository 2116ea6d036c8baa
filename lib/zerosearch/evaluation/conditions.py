"""What a policy has to search in when it is judged: from facts alone to passages that always mislead.

A condition is a retriever.  ``clean`` searches the passages that state a fact, ``homonyms`` the corpus
as it is, with its namesakes, superseded values and contradictions.  ``corrupt-p`` is ``clean``, but each
search fails by itself with probability p: it then returns passages that mislead in a known way and
state nothing that was asked for.  A search again, in the same words or in others, draws anew.  ``random``
returns passages drawn blindly, ``empty`` none, ``later`` searches the world of some years later.

Every draw is keyed by (seed, step, question, sample, turn) (rule 11): the same search of the same
trajectory meets the same fate for every method, in every batch.  Called by notebooks 03 and 04.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Mapping, Sequence

import numpy as np

from zerosearch import seeds
from zerosearch.artifacts import Stage
from zerosearch.errors import ConfigError, unknown_name
from zerosearch.labels import gold_hops
from zerosearch.microworld import language as lang
from zerosearch.microworld.language import BY_NOUN, BY_SUBJECT, Relation
from zerosearch.microworld.world import is_world_name
from zerosearch.retrievers import EngineOptions, open_engine
from zerosearch.retrievers.base import (
    FailureLimit, ReplayableRetriever, Retriever, check_passages_per_query, check_rows,
)
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.retrievers.corpus import digest_of, kinds_of
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest
from zerosearch.scoring import contains_answer

CONDITIONS = ("clean", "homonyms", "corrupt-0.25", "corrupt-0.5", "corrupt-0.75", "random", "empty", "later")
HARD_NEGATIVE = "hard_negative"  # kind of a real passage that ranks high and holds no golden answer
DEEPER = 20  # ranks below the first k among which hard negatives are looked for
_TRIES = 200  # draws before a misleading passage is given up


def open_condition(
    name: str, passages: Sequence[Passage], k: int, seed: int, later_passages: Sequence[Passage] = (),
    engine: ReplayableRetriever | None = None,
) -> ReplayableRetriever:
    """Return the retriever of a condition, k (1 to 20) passages per search.

    passages: the whole corpus of the run.  seed: keys the draws.  later_passages: the corpus of the
    later world, for ``later`` only.  engine: what clean searches ask, None for BM25 over the passages that
    state facts.  The answers of ``corrupt-*`` and ``random`` depend on the trajectory too: they are made
    again, never kept in a record of queries.  ``identity`` names all that decides them.
    Raises ConfigError for an unknown name, and for a condition that is not possible (``possible``).
    """
    if name not in CONDITIONS:
        raise unknown_name("condition", name, CONDITIONS)
    check_passages_per_query(k)
    if problem := _impossible(name, bool(passages), bool(later_passages), engine):
        raise ConfigError(f"condition {name!r}: {problem}")
    if name == "homonyms":
        return BM25Retriever.open(passages, k)
    if name == "later":
        return BM25Retriever.open(later_passages, k)
    if name == "empty":
        return EmptyRetriever()
    if name == "random":
        return RandomRetriever(passages, k, seed)
    facts = clean_passages(passages)
    clean = engine or BM25Retriever.open(facts, k)
    return clean if name == "clean" else CorruptedRetriever(clean, float(name.partition("-")[2]), k, seed, facts)


def open_real(
    name: str, passages: Sequence[Passage], k: int, options: EngineOptions, max_failures: float, stage: Stage
) -> FailureLimit | None:
    """Return the real engine of that name for clean searches, None for BM25, which costs nothing and never fails.

    Its answers are recorded, those that are billed stand in the stage's ledger, and the evaluation stops with
    the reason when more than max_failures (share in [0, 1]) of its searches fail.
    """
    if name == "bm25":
        return None
    engine = open_engine(name, clean_passages(passages), k, stage.path("cache") / name, options, stage.ledger)
    return FailureLimit(engine, max_failures)


def possible(
    names: Sequence[str], has_passages: bool, has_later: bool, engine: ReplayableRetriever | None = None
) -> tuple[list[str], list[str]]:
    """Return (conditions that this run can try, why the others are left out: one sentence each).

    has_passages: the run has passages of its own.  has_later: there are questions whose answer changed, and the
    later world's passages.
    """
    problems = {name: _impossible(name, has_passages, has_later, engine) for name in names}
    left_out = [f"condition {name!r} is left out: {problem}" for name, problem in problems.items() if problem]
    return [name for name in names if not problems[name]], left_out


def _impossible(name: str, has_passages: bool, has_later: bool, engine: ReplayableRetriever | None) -> str:
    """Return why a condition cannot be tried, nothing where it can."""
    if not has_passages and name not in ("clean", "empty", "later"):
        return (
            "expected passages of the run to mislead with, found none; bring some with --corpus FILE, or leave "
            f"{name!r} out of the conditions"
        )
    if name in ("homonyms", "later") and engine is not None:
        return (
            f"expected BM25 over passages that the micro-world tagged, found {engine.name!r}, whose passages carry no "
            f"tags; use retriever bm25, or leave {name!r} out of the conditions"
        )
    if name == "later" and not has_later:
        return (
            "expected the passages of the later world and questions whose answer changed, found none; run notebook 00 "
            "again, or leave 'later' out of the conditions: your own passages have no later edition"
        )
    return ""


def clean_passages(passages: Sequence[Passage]) -> Sequence[Passage]:
    """Return the passages that are not known to mislead: of kind ``fact``, or of no kind (a reader's own)."""
    if not kinds_of(passages) & set(lang.MISLEADING):
        return passages
    return [p for p in passages if p.metadata.get("kind") not in lang.MISLEADING]


def _row(request: SearchRequest) -> tuple[str | int, ...]:
    """Return what tells this search from all others, whatever batch it is in."""
    return request.step, request.question.id, request.sample, request.turn


class EmptyRetriever:
    """Finds nothing, ever."""

    name = identity = "empty"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return no passage for every request."""
        return [Retrieval(request, (), self.name) for request in requests]


class RandomRetriever:
    """Returns k passages drawn evenly from all, blind to the query, fresh for every search."""

    name = "random"

    def __init__(self, passages: Sequence[Passage], k: int, seed: int):
        self.passages, self.k, self.seed = passages, check_passages_per_query(k), seed
        self.identity = f"random k={k} seed={seed} corpus={digest_of(passages)}"

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return k different passages for every request (all of them if there are fewer)."""
        return [Retrieval(request, self._draw(request), self.name) for request in requests]

    def _draw(self, request: SearchRequest) -> tuple[Passage, ...]:
        rng = seeds.generator(self.seed, "random", *_row(request))
        chosen = rng.choice(len(self.passages), size=min(self.k, len(self.passages)), replace=False)
        return tuple(self.passages[i] for i in chosen.tolist())


class CorruptedRetriever:
    """Any retriever, some of whose searches fail: misleading passages come back in place of its own.

    base: answers the searches that do not fail.  probability: chance of failing in [0, 1], drawn for each
    search.  k: passages of a failed search.  corpus: true passages to take hard negatives and the
    asked-for facts from; may be empty (training on a simulator).  Retrieval.noisy tells the draw.
    """

    def __init__(
        self, base: Retriever, probability: float, k: int, seed: int, corpus: Sequence[Passage] = ()
    ):
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability of a failing search: expected a value in [0, 1], found {probability}")
        self.base, self.probability, self.k, self.seed = base, probability, check_passages_per_query(k), seed
        self.name = f"corrupt-{probability:g}"
        inner = getattr(base, "identity", base.name)
        self.identity = f"{self.name} k={k} seed={seed} corpus={digest_of(corpus)} over {inner}"
        tagged = corpus if lang.FACT in kinds_of(corpus) else ()
        facts = [p.metadata for p in tagged if p.metadata.get("kind") == lang.FACT]
        self._facts = {(f["subject"], f["relation"]): f["object"] for f in facts}
        self._in_world = bool(facts) or not corpus
        self._negatives = HardNegatives(corpus, k) if corpus else None

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return the base's passages where the draw lets the search succeed, misleading ones elsewhere."""
        fails = [self.fails(request) for request in requests]
        served = [request for request, failed in zip(requests, fails, strict=True) if not failed]
        found = iter(check_rows(served, self.base.search(served), self.base.name) if served else [])
        return [
            Retrieval(request, self.mislead(request), self.name, noisy=True) if failed
            else replace(next(found), noisy=False)
            for request, failed in zip(requests, fails, strict=True)
        ]

    def fails(self, request: SearchRequest) -> bool:
        """Say whether the draw makes this search fail; the query plays no part in it."""
        return seeds.uniform(self.seed, "corruption", *_row(request)) < self.probability

    def mislead(self, request: SearchRequest) -> tuple[Passage, ...]:
        """Return up to k misleading passages: none states what is asked for or holds a golden answer."""
        rng = seeds.generator(self.seed, "misleading", *_row(request))
        asked = lang.parse_query(request.query) if self._in_world else None
        if asked is None and self._negatives is not None:
            made = self._negatives.find(request)
        else:
            relation, subject = asked or _draw_query(rng)
            made = MisleadingWriter(relation, subject, request.question, self._facts, rng).write(self.k)
        return tuple(made[i] for i in rng.permutation(len(made)))


class HardNegatives:
    """Real passages that rank below the first k of a query and hold no golden answer of its question."""

    def __init__(self, passages: Sequence[Passage], k: int):
        self.k, self._engine = k, BM25Retriever.open(passages, k)

    def find(self, request: SearchRequest) -> list[Passage]:
        """Return up to k of them, best first; fewer, or none, when the corpus has no more."""
        ranked = self._engine.rank([request.query], self.k + DEEPER)[0][self.k :]
        passages = (self._engine.passages[i] for i in ranked)
        golden = request.question.golden_answers
        fitting = [p for p in passages if not contains_answer(f"{p.title} {p.text}", golden)]
        return [replace(p, metadata={**p.metadata, "kind": HARD_NEGATIVE}) for p in fitting[: self.k]]


class MisleadingWriter:
    """Writes passages that mislead a query for one relation of one subject, in the world's sentences.

    question: its golden answers may stand in none of them, its gold facts be stated by none.  facts:
    what is true, as far as it is known: object by (subject, relation).
    """

    def __init__(
        self, relation: Relation, subject: str, question: Question, facts: Mapping[tuple[str, str], str],
        rng: np.random.Generator,
    ):
        self.relation, self.subject, self.question, self.rng = relation, subject, question, rng
        hops = gold_hops(question)
        self._true = {**facts, **{(h.subject, h.relation): h.object for h in hops}}
        self._asked_about = {subject, *(h.subject for h in hops)}  # no look-alike may be one of these
        self._written: set[str] = set()
        self._recipes: dict[str, Callable[[], tuple[str, Relation, str, str] | None]] = {
            lang.OTHER_RELATION: self._other_relation, lang.LOOKALIKE: self._lookalike, lang.NAMESAKE: self._namesake,
            lang.SUPERSEDED: self._superseded, lang.CONTRADICTED: self._contradicted, lang.NON_ANSWER: self._non_answer,
        }

    def write(self, k: int) -> list[Passage]:
        """Return k passages: one or two of a main kind, the rest of other kinds; one contradiction at most.

        A kind that cannot be had gives a look-alike.  Fewer come back only when the golden answers leave
        no look-alike to write (a common word, say).
        """
        main = self._pick(lang.MISLEADING)
        n_main = 1 if main == lang.CONTRADICTED else min(k, int(self.rng.integers(1, 3)))
        others = [kind for kind in lang.MISLEADING if kind not in (main, lang.CONTRADICTED)]
        kinds = [main] * n_main + [self._pick(others) for _ in range(k - n_main)]
        return [passage for kind in kinds if (passage := self._one(kind) or self._one(lang.LOOKALIKE)) is not None]

    def _one(self, kind: str) -> Passage | None:
        """Return a passage of the kind that may be shown, None when there is none."""
        for _ in range(_TRIES):
            drawn = self._recipes[kind]()
            if drawn is None:
                return None
            subject, relation, target, text = drawn
            if text not in self._written and not contains_answer(text, self.question.golden_answers):
                self._written.add(text)
                about = {"kind": kind, "subject": subject, "relation": relation.noun, "object": target}
                return Passage(f"misleading-{len(self._written)}", subject, text, about)
            if kind != lang.LOOKALIKE and contains_answer(subject, self.question.golden_answers):
                return None  # the subject itself is a golden answer: no other draw can help
        return None

    def _other_relation(self) -> tuple[str, Relation, str, str] | None:
        others = [r for r in BY_SUBJECT[self.relation.subject] if r is not self.relation]
        return self._state(self._pick(others), self.subject) if others else None

    def _lookalike(self) -> tuple[str, Relation, str, str] | None:
        name = _lookalike_name(self.relation.subject, self.subject, self.rng, self._asked_about)
        return self._state(self.relation, name) if name else None

    def _namesake(self) -> tuple[str, Relation, str, str]:
        return self._state(self.relation, f"{self.subject} {lang.NAMESAKE_WORD[self.relation.subject]}")

    def _superseded(self) -> tuple[str, Relation, str, str] | None:
        if not self.relation.changes:
            return None
        target, year = self._wrong(self.relation, self.subject), str(self.rng.choice(lang.YEARS))
        return self.subject, self.relation, target, lang.state_superseded(self.relation, self.subject, target, year)

    def _contradicted(self) -> tuple[str, Relation, str, str]:
        return self._state(self.relation, self.subject)

    def _non_answer(self) -> tuple[str, Relation, str, str]:
        return self.subject, self.relation, "", lang.say_nothing(self.relation, self.subject, int(self.rng.integers(2)))

    def _state(self, relation: Relation, subject: str) -> tuple[str, Relation, str, str]:
        """Return a statement that is not true, as far as it is known."""
        target = self._wrong(relation, subject)
        return subject, relation, target, lang.state(relation, subject, target, int(self.rng.integers(2)))

    def _wrong(self, relation: Relation, subject: str) -> str:
        true = self._true.get((subject, relation.noun))
        while (name := draw_name(relation.object, self.rng)) in (true, subject):
            pass
        return name

    def _pick(self, items):  # noqa: ANN001, ANN202 - any sequence
        return items[int(self.rng.integers(len(items)))]


def draw_name(kind: str, rng: np.random.Generator) -> str:
    """Return a name of an entity type in the style of a world (there need not be such an entity), or a year."""
    if kind == "year":
        return str(rng.choice(lang.YEARS))
    first, second = lang.NAME_WORDS[kind]
    while not is_world_name(name := f"{first[rng.integers(len(first))]} {second[rng.integers(len(second))]}"):
        pass
    return name


def _lookalike_name(kind: str, name: str, rng: np.random.Generator, excluded: set[str]) -> str | None:
    """Return a name of the type that has a word of name and is not excluded, None if none turns up.

    A namesake's added word does not count; a name that has no word of the type has no look-alike, and
    any name of the type stands in for it.
    """
    words = name.split()[:2]
    pools = lang.NAME_WORDS[kind]
    known = [place for place, word in enumerate(words) if word in pools[place]]
    for _ in range(_TRIES):
        drawn = draw_name(kind, rng).split()
        if known:
            place = known[int(rng.integers(len(known)))]
            drawn[place] = words[place]
        made = " ".join(drawn)
        if made != name and made not in excluded and is_world_name(made):
            return made
    return None


def _draw_query(rng: np.random.Generator) -> tuple[Relation, str]:
    """Return any relation and subject: for a query that is not understood, where there is no corpus either."""
    relation = list(BY_NOUN.values())[int(rng.integers(len(BY_NOUN)))]
    return relation, draw_name(relation.subject, rng)
