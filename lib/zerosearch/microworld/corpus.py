"""How the facts of a world become passages: true ones in one or two wordings, and six ways to be misled.

A true fact is stated in both wordings or in one of them only, so that a search that goes by words may
miss it with one query and find it with the other.  Beside the truth stand passages about namesakes,
values that have been superseded, a few plain contradictions, and sentences that say nothing.  Facts
themselves mislead other queries: another relation of the right entity, the right one of a look-alike.

Every passage is titled by its subject and carries ``kind``, ``subject``, ``relation`` and ``object`` in
its metadata.  The engine reads the title, models of the micro-world do not; the metadata are for judging,
for statistics and for figures.  Every draw is keyed by names (rule 11), so that a passage does not depend
on those made before it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Iterable, Mapping, Sequence

import numpy as np

from zerosearch import seeds
from zerosearch.microworld import language as lang
from zerosearch.microworld.language import BY_NOUN, BY_SUBJECT, Relation
from zerosearch.schema import Passage

BOTH_WORDINGS = 0.40  # share of the facts stated twice; the others are halved between the two wordings
NAMESAKES = 0.35  # share of the entities
SUPERSEDED = 0.40  # share of the facts that may change
CONTRADICTED = 0.06  # share of the facts; all of them are stated in both wordings, so the truth is in the majority
NON_ANSWERS = 0.25  # share of the facts
# A second change comes after a first one: values of edition 0 ended in the first years, later ones after.
EARLY_YEARS, LATE_YEARS = lang.YEARS[:60], lang.YEARS[60:]
UNRELATED = "unrelated"  # what a passage is to a query that it has nothing to do with

Key = tuple[str, str]  # (subject, relation)


@dataclass(frozen=True, slots=True)
class Fact:
    """subject --relation--> object, and one of the sentences that state it in the corpus."""

    subject: str
    relation: str
    object: str
    sentence: str


class ObjectPool:
    """Draws objects of a type; names given first are popular and drawn more often, years evenly.

    names: per entity type, most popular first.
    """

    def __init__(self, names: Mapping[str, Sequence[str]]):
        self._names = {**names, "year": lang.YEARS}
        weights = {kind: 1.0 / (np.arange(len(n)) + 10.0) for kind, n in self._names.items()}
        weights["year"] = np.ones(len(lang.YEARS))
        self._bounds = {kind: np.cumsum(w) / w.sum() for kind, w in weights.items()}

    def draw(self, kind: str, rng: np.random.Generator, excluded: Iterable[str] = ()) -> str:
        """Return a name of the type (or a year) that is not excluded."""
        names, bounds, excluded = self._names[kind], self._bounds[kind], set(excluded)
        while (name := names[int(np.searchsorted(bounds[:-1], rng.random(), side="right"))]) in excluded:
            pass
        return name


def choose(keys: Iterable[tuple[str, ...]], count: int, *names: str | int) -> set[tuple[str, ...]]:
    """Return so many of the keys, drawn by the names; the order of the keys does not matter."""
    return set(sorted(keys, key=lambda key: seeds.uniform(*names, *key))[:count])


def draw_wordings(seed: int, keys: Sequence[Key]) -> dict[Key, tuple[int, ...]]:
    """Return in which wordings each fact is stated: (0, 1), (0,) or (1,)."""
    both = choose(keys, round(BOTH_WORDINGS * len(keys)), seed, "both wordings")
    single = [key for key in keys if key not in both]
    first = choose(single, round(len(single) / 2), seed, "first wording")
    return {key: (0, 1) if key in both else (0,) if key in first else (1,) for key in keys}


def make_corpus(
    seed: int, facts: Mapping[Key, Fact], wordings: Mapping[Key, tuple[int, ...]], kinds: Mapping[str, str],
    pool: ObjectPool,
) -> tuple[Passage, ...]:
    """Return all passages of edition 0, in an order that says nothing.

    wordings: of ``draw_wordings``.  kinds: entity type per name.
    """
    keys = list(facts)
    twice = [key for key in keys if len(wordings[key]) == 2]
    contradicted = choose(twice, round(CONTRADICTED * len(keys)), seed, "contradicted")
    changing = [key for key in keys if BY_NOUN[key[1]].changes]
    superseded = choose(changing, round(SUPERSEDED * len(changing)), seed, "superseded")
    silent = choose(keys, round(NON_ANSWERS * len(keys)), seed, "non-answer")
    made = []
    for number, (key, fact) in enumerate(facts.items()):
        made += state_fact(f"{number:04d}", fact, wordings[key])
        rng = seeds.generator(seed, "misleading", *key)
        taken = {fact.subject, fact.object}
        if key in contradicted:
            made.append(_contradict(f"{number:04d}", fact, pool, rng, taken))
        if key in superseded:
            target = _draw_other(fact, pool, rng, taken)
            made.append(supersede(f"{number:04d}", fact, target, str(rng.choice(EARLY_YEARS))))
        if key in silent:
            relation, wording = BY_NOUN[fact.relation], int(rng.integers(2))
            text = lang.say_nothing(relation, fact.subject, wording)
            made.append(_passage(f"{number:04d}", lang.NON_ANSWER, fact.subject, relation, "", text))
    made += _namesakes(seed, facts, kinds, pool)
    return shuffled(seed, made)


def shuffled(seed: int, passages: Iterable[Passage]) -> tuple[Passage, ...]:
    """Return the passages in an order drawn by seed and id: those kept from edition to edition keep theirs."""
    return tuple(sorted(passages, key=lambda p: seeds.uniform(seed, "place", p.id)))


def state_fact(number: str, fact: Fact, wordings: Sequence[int], mark: str = "") -> list[Passage]:
    """Return the passages that state a fact; mark: end of their ids."""
    relation = BY_NOUN[fact.relation]
    return [
        _passage(
            number, f"{lang.FACT}{w}{mark}", fact.subject, relation, fact.object,
            lang.state(relation, fact.subject, fact.object, w), lang.FACT,
        )
        for w in wordings
    ]


def supersede(number: str, fact: Fact, target: str, year: str, mark: str = "") -> Passage:
    """Return the passage that says what was true until a year."""
    relation = BY_NOUN[fact.relation]
    text = lang.state_superseded(relation, fact.subject, target, year)
    return _passage(number, f"{lang.SUPERSEDED}{mark}", fact.subject, relation, target, text, lang.SUPERSEDED)


def rivals(passages: Iterable[Passage]) -> dict[Key, set[str]]:
    """Return the wrong objects that stand in the corpus for a fact, its namesake's included."""
    found: dict[Key, set[str]] = defaultdict(set)
    for passage in passages:
        about = passage.metadata
        if about["kind"] != lang.FACT:
            subject = namesake_of(about["subject"]) or about["subject"]
            found[subject, about["relation"]].add(about["object"])
    return found


def namesake_of(name: str) -> str | None:
    """Return the name that a namesake has in full, None for a name that is no namesake's."""
    whole, _, last = name.rpartition(" ")
    return whole if last in lang.NAMESAKE_WORD.values() and " " in whole else None


def _passage(
    number: str, what: str, subject: str, relation: Relation, target: str, text: str, kind: str | None = None
) -> Passage:
    about = {"kind": kind or what, "subject": subject, "relation": relation.noun, "object": target}
    return Passage(f"{number}-{what}", subject, text, about)


def _draw_other(fact: Fact, pool: ObjectPool, rng: np.random.Generator, taken: set[str]) -> str:
    """Return an object that the fact does not have, and note it as taken."""
    target = pool.draw(BY_NOUN[fact.relation].object, rng, taken)
    taken.add(target)
    return target


def _contradict(number: str, fact: Fact, pool: ObjectPool, rng: np.random.Generator, taken: set[str]) -> Passage:
    relation, target = BY_NOUN[fact.relation], _draw_other(fact, pool, rng, taken)
    text = lang.state(relation, fact.subject, target, int(rng.integers(2)))
    return _passage(number, lang.CONTRADICTED, fact.subject, relation, target, text)


def _namesakes(
    seed: int, facts: Mapping[Key, Fact], kinds: Mapping[str, str], pool: ObjectPool
) -> list[Passage]:
    chosen = choose([(name,) for name in kinds], round(NAMESAKES * len(kinds)), seed, "namesakes")
    made = []
    for number, (name, kind) in enumerate(kinds.items()):
        if (name,) not in chosen:
            continue
        namesake, rng = f"{name} {lang.NAMESAKE_WORD[kind]}", seeds.generator(seed, "namesake", name)
        for place, relation in enumerate(_namesake_relations(name, kind, facts, rng)):
            original = facts.get((name, relation.noun))
            target = pool.draw(relation.object, rng, {name, original.object} if original else {name})
            text = lang.state(relation, namesake, target, int(rng.integers(2)))
            what = f"{lang.NAMESAKE}{place}"
            made.append(_passage(f"n{number:04d}", what, namesake, relation, target, text, lang.NAMESAKE))
    return made


def _namesake_relations(
    name: str, kind: str, facts: Mapping[Key, Fact], rng: np.random.Generator
) -> list[Relation]:
    """Return two or three relations (fewer where the type has fewer), mostly those that the original has."""
    mixed = [BY_SUBJECT[kind][i] for i in rng.permutation(len(BY_SUBJECT[kind]))]
    shared = [r for r in mixed if (name, r.noun) in facts]
    others = [r for r in mixed if (name, r.noun) not in facts]
    wanted, made = min(int(rng.integers(2, 4)), len(mixed)), []
    while len(made) < wanted:
        take_shared = bool(shared) and (not others or rng.random() < 0.9)
        made.append((shared if take_shared else others).pop())
    return made


# -- what a passage is to a query -----------------------------------------------------------------


def kind_for(passage_metadata: Mapping[str, object], relation: Relation | str, subject: str) -> str:
    """Return what a passage is to a query for a relation (or its noun) of a subject.

    ``fact`` (states what is asked for), one of language.MISLEADING, or ``unrelated``.  A passage
    without the metadata of the world is unrelated.
    """
    kind, about = passage_metadata.get("kind"), str(passage_metadata.get("subject"))
    noun = relation if isinstance(relation, str) else relation.noun
    same_relation = passage_metadata.get("relation") == noun
    if kind is None or noun not in BY_NOUN:
        return UNRELATED
    if about == subject:
        return str(kind) if same_relation else lang.OTHER_RELATION
    if not same_relation or kind == lang.NON_ANSWER:
        return UNRELATED
    if namesake_of(about) == subject:
        return lang.NAMESAKE
    return lang.LOOKALIKE if set(about.split()) & set(subject.split()) else UNRELATED


def read_sentence(text: str) -> dict[str, str] | None:
    """Return kind, subject, relation and object of a sentence of the world, None for any other text.

    kind is what the words can tell: fact, superseded or non_answer (object then ``""``).
    """
    text = text.strip()
    for pattern, noun, kind in _SENTENCES:
        if found := pattern.fullmatch(text):
            return {"kind": kind, "subject": found["s"], "relation": noun, "object": found.groupdict().get("o") or ""}
    return None


def _sentence_patterns() -> list[tuple[re.Pattern[str], str, str]]:
    """Return (pattern, noun, kind) of all sentences; facts last, since other sentences may look like one."""
    frames = []
    for relation in lang.RELATIONS:
        nothing = [lang.say_nothing(relation, "{s}", wording) for wording in (0, 1)]
        frames += [(frame, relation.noun, lang.NON_ANSWER) for frame in nothing]
        frames.append((lang.state_superseded(relation, "{s}", "{o}", "{y}"), relation.noun, lang.SUPERSEDED))
    for relation in lang.RELATIONS:
        stated = [lang.state(relation, "{s}", "{o}", wording) for wording in (0, 1)]
        frames += [(frame, relation.noun, lang.FACT) for frame in stated]
    return [(_pattern(frame), noun, kind) for frame, noun, kind in frames]


def _pattern(frame: str) -> re.Pattern[str]:
    escaped = re.escape(frame)
    for slot, content in (("s", ".+"), ("o", ".+"), ("y", r"\d+")):
        escaped = escaped.replace(re.escape(f"{{{slot}}}"), f"(?P<{slot}>{content})")
    return re.compile(escaped)


_SENTENCES = _sentence_patterns()
