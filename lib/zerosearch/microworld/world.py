"""The micro-world: invented facts -> one passage each -> seven families of questions.

``build_world(seed, ...)`` is a pure function: the same arguments give the same world.  Entities are
split in two halves; training questions start from one half, evaluation questions from the other.
Names are divided once and for all (``is_world_name``): a third of them belongs to worlds, whatever
their seed, the rest to pretraining texts.  So no base model has ever read a name of a world it is
tested in, and an answer can only come from reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from zerosearch import seeds
from zerosearch.microworld import language as lang
from zerosearch.microworld.language import BY_SUBJECT, Relation
from zerosearch.schema import Passage, Question, Split

WORLD_VERSION = 1
DEFAULT_SEED = 7
ENTITY_COUNTS = {"film": 220, "book": 160, "person": 380, "town": 110, "company": 90, "region": 40}
COMPARISON_SHARE = {"hotpotqa": 0.2, "2wikimultihopqa": 0.3}
HOP_SHARES = {  # number of relations in a chain -> share of the family's chains
    "nq": {1: 1.0}, "triviaqa": {1: 1.0}, "popqa": {1: 1.0}, "hotpotqa": {2: 1.0}, "2wikimultihopqa": {2: 1.0},
    "musique": {2: 0.4, 3: 0.4, 4: 0.2}, "bamboogle": {2: 0.85, 3: 0.15},
}
EVAL_SIZE_CAP = {"bamboogle": 125}
# Single-hop families ask about ever rarer entities: bounds on popularity rank, 0 = most popular.
POPULARITY = {"nq": (0.0, 0.75), "triviaqa": (0.1, 0.9), "popqa": (0.4, 1.0)}


@dataclass(frozen=True, slots=True)
class Entity:
    """A named thing; popularity: rank in [0, 1], 0 the most mentioned."""

    name: str
    kind: str
    popularity: float
    split: Split


@dataclass(frozen=True, slots=True)
class Fact:
    """subject --relation--> object, and the sentence that states it in the corpus."""

    subject: str
    relation: str
    object: str
    sentence: str


@dataclass(frozen=True)
class World:
    """All entities by name, all facts by (subject, relation), in a fixed order."""

    seed: int
    entities: dict[str, Entity]
    facts: dict[tuple[str, str], Fact]

    def passages(self) -> list[Passage]:
        """Return the corpus: one passage per fact, titled by its subject."""
        return [
            Passage(
                id=f"p{i:05d}", title=f.subject, text=f.sentence,
                metadata={"subject": f.subject, "relation": f.relation, "object": f.object},
            )
            for i, f in enumerate(self.facts.values())
        ]

    def relations_of(self, name: str) -> list[Relation]:
        """Return the relations for which the corpus states a fact about this entity."""
        kind = self.entities[name].kind
        return [r for r in BY_SUBJECT[kind] if (name, r.noun) in self.facts]


def is_world_name(name: str) -> bool:
    """Return True for the third of all names that worlds use and pretraining texts never do."""
    return seeds.derive_seed("name", name) % 3 == 0


@lru_cache(maxsize=4)
def build_world(seed: int = DEFAULT_SEED) -> World:
    """Return the world of a seed."""
    rng = seeds.generator(seed, "world", WORLD_VERSION)
    entities = _name_entities(rng)
    by_kind = {k: [e for e in entities.values() if e.kind == k] for k in ENTITY_COUNTS}
    facts: dict[tuple[str, str], Fact] = {}
    for entity in entities.values():
        relations = list(BY_SUBJECT[entity.kind])
        n_known = len(relations) if len(relations) <= 2 else max(2, round(len(relations) * (1.2 - 0.8 * entity.popularity)))
        keep = sorted(rng.permutation(len(relations))[: min(n_known, len(relations))])
        for relation in (relations[i] for i in keep):
            target = _draw_object(relation, entity, by_kind, rng)
            sentence = relation.sentences[int(rng.integers(2))].format(s=entity.name, o=target)
            facts[entity.name, relation.noun] = Fact(entity.name, relation.noun, target, sentence)
    return World(seed, entities, facts)


def _name_entities(rng: np.random.Generator) -> dict[str, Entity]:
    entities: dict[str, Entity] = {}
    for kind, count in ENTITY_COUNTS.items():
        first, second = lang.NAME_WORDS[kind]
        names = [name for a in first for b in second if is_world_name(name := f"{a} {b}")]
        for rank, index in enumerate(rng.choice(len(names), size=count, replace=False)):
            name = names[index]
            split: Split = "train" if rng.random() < 0.5 else "eval"
            entities[name] = Entity(name, kind, rank / max(count - 1, 1), split)
    return entities


def _draw_object(relation: Relation, subject: Entity, by_kind: dict[str, list[Entity]], rng: np.random.Generator) -> str:
    if relation.object == "year":
        return str(rng.choice(lang.YEARS))
    pool = by_kind[relation.object]
    weights = 1.0 / (np.arange(len(pool)) + 10.0)  # popular entities are named more often
    while True:
        chosen = pool[int(rng.choice(len(pool), p=weights / weights.sum()))]
        if chosen.name != subject.name:
            return chosen.name


def build_questions(world: World, n_eval: int, n_train: int) -> list[Question]:
    """Return up to n_eval evaluation questions per family and n_train per training family.

    Bamboogle's family has 125 at most, like the real set.  Fewer are returned only when the world has
    no more.  A larger n extends a smaller one: the first questions stay the same.
    """
    questions: list[Question] = []
    used: set[tuple[str, ...]] = set()
    for family in lang.FAMILIES:
        wanted: list[tuple[Split, int]] = [("eval", min(n_eval, EVAL_SIZE_CAP.get(family, n_eval)))]
        if family in lang.TRAINING_FAMILIES:
            wanted.append(("train", n_train))
        for split, count in wanted:
            questions += _family_questions(world, family, split, count, used)
    return questions


def _family_questions(
    world: World, family: str, split: Split, count: int, used: set[tuple[str, ...]]
) -> list[Question]:
    rng = seeds.generator(world.seed, "questions", family, split)
    low, high = POPULARITY.get(family, (0.0, 1.0))
    starts = [e for e in world.entities.values() if e.split == split and low <= e.popularity <= high]
    made: list[Question] = []
    for _ in range(400 * count):
        if len(made) == count:
            break
        kind = "comparison" if rng.random() < COMPARISON_SHARE.get(family, 0.0) else "chain"
        draw = _draw_comparison if kind == "comparison" else _draw_chain
        drawn = draw(world, family, starts, rng)
        if drawn is None or drawn[0] in used:
            continue
        key, text, answer, hops = drawn
        used.add(key)
        made.append(
            Question(
                id=f"{family}/{split}_{len(made):04d}", dataset=family, question=text, golden_answers=(answer,),
                split=split, metadata={"family": family, "kind": kind, "hops": [_hop(f) for f in hops]},
            )
        )
    return made


def _hop(fact: Fact) -> dict[str, str]:
    return {"subject": fact.subject, "relation": fact.relation, "object": fact.object, "sentence": fact.sentence}


Drawn = tuple[tuple[str, ...], str, str, list[Fact]]


def _draw_chain(world: World, family: str, starts: list[Entity], rng: np.random.Generator) -> Drawn | None:
    shares = HOP_SHARES[family]
    n_hops = int(rng.choice(list(shares), p=list(shares.values())))
    start = starts[int(rng.integers(len(starts)))]
    here, path, facts, seen = start.name, [], [], {start.name}
    for hop in range(n_hops):
        options = [r for r in world.relations_of(here) if hop == n_hops - 1 or r.object != "year"]
        options = [r for r in options if world.facts[here, r.noun].object not in seen and r not in path[-1:]]
        if not options:
            return None
        relation = options[int(rng.integers(len(options)))]
        fact = world.facts[here, relation.noun]
        path.append(relation)
        facts.append(fact)
        here = fact.object
        seen.add(here)
    text = lang.ask_chain(family, tuple(path), start.name, wording=int(rng.integers(2)))
    key = (start.name, *(r.noun for r in path))
    return key, text, here, facts


def _draw_comparison(world: World, family: str, starts: list[Entity], rng: np.random.Generator) -> Drawn | None:
    relation = lang.BY_NOUN[str(rng.choice(list(lang.COMPARE)))]
    pool = [e.name for e in starts if e.kind == relation.subject and (e.name, relation.noun) in world.facts]
    left, right = (pool[i] for i in rng.choice(len(pool), size=2, replace=False))
    facts = [world.facts[left, relation.noun], world.facts[right, relation.noun]]
    if facts[0].object == facts[1].object:
        return None
    answer = min(facts, key=lambda f: int(f.object)).subject
    return (relation.noun, *sorted((left, right))), lang.ask_comparison(family, relation, left, right), answer, facts
