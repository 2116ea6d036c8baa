"""The micro-world: invented facts -> passages, true and misleading -> seven families of questions.

``build_world(seed, edition)`` is a pure function: the same arguments give the same world.  Entities are
split in two halves; training questions start from one half, evaluation questions from the other.
Names are divided once and for all (``is_world_name``): a third of them belongs to worlds, whatever
their seed, the rest to pretraining texts.  So no base model has ever read a name of a world it is
tested in, and an answer can only come from reading.

Edition 1 is the same world some years later: a quarter of the facts that may change have changed, and
nothing else.  Whoever has learned edition 0 by heart is wrong there; whoever searches is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from zerosearch import seeds
from zerosearch.microworld import corpus as texts
from zerosearch.microworld import language as lang
from zerosearch.microworld.corpus import UNRELATED, Fact, Key, ObjectPool, kind_for, read_sentence
from zerosearch.microworld.language import BY_SUBJECT, Relation
from zerosearch.schema import Passage, Question, Split

__all__ = [
    "DEFAULT_SEED", "UNRELATED", "WORLD_VERSION", "Entity", "Fact", "World", "build_questions", "build_world",
    "is_world_name", "kind_for", "later_questions", "read_sentence",
]
WORLD_VERSION = 2
DEFAULT_SEED = 7
EDITIONS = (0, 1)
CHANGED_SHARE = 0.25  # of the facts that may change, from edition 0 to edition 1
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


@dataclass(frozen=True)
class World:
    """All entities by name, all facts by (subject, relation), in a fixed order, and all passages.

    edition: 0, or 1 for the same world later.  corpus: true and misleading passages, shuffled by seed.
    """

    seed: int
    edition: int
    entities: dict[str, Entity]
    facts: dict[Key, Fact]
    corpus: tuple[Passage, ...]

    def passages(self, clean: bool = False) -> list[Passage]:
        """Return the corpus; clean: only the passages that state a fact."""
        return [p for p in self.corpus if not clean or p.metadata["kind"] == lang.FACT]

    def relations_of(self, name: str) -> list[Relation]:
        """Return the relations for which the corpus states a fact about this entity."""
        kind = self.entities[name].kind
        return [r for r in BY_SUBJECT[kind] if (name, r.noun) in self.facts]


def is_world_name(name: str) -> bool:
    """Return True for the third of all names that worlds use and pretraining texts never do."""
    return seeds.derive_seed("name", name) % 3 == 0


@lru_cache(maxsize=8)
def build_world(seed: int = DEFAULT_SEED, edition: int = 0) -> World:
    """Return the world of a seed, in one of its two editions; ValueError for another edition."""
    if edition not in EDITIONS:
        raise ValueError(f"edition of the world: expected one of {EDITIONS}, found {edition}")
    if edition == 1:
        return _later(build_world(seed))
    rng = seeds.generator(seed, "world", WORLD_VERSION)
    entities = _name_entities(rng)
    pool = _pool(entities)
    targets = {
        (entity.name, relation.noun): pool.draw(relation.object, rng, {entity.name})
        for entity in entities.values()
        for relation in _known_relations(entity, rng)
    }
    wordings = texts.draw_wordings(seed, list(targets))
    facts = {}
    for key, target in targets.items():
        chosen = wordings[key][seeds.derive_seed(seed, "sentence", *key) % len(wordings[key])]
        facts[key] = Fact(*key, target, lang.state(lang.BY_NOUN[key[1]], key[0], target, chosen))
    kinds = {name: entity.kind for name, entity in entities.items()}
    return World(seed, 0, entities, facts, texts.make_corpus(seed, facts, wordings, kinds, pool))


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


def _pool(entities: dict[str, Entity]) -> ObjectPool:
    return ObjectPool({k: [e.name for e in entities.values() if e.kind == k] for k in ENTITY_COUNTS})


def _known_relations(entity: Entity, rng: np.random.Generator) -> list[Relation]:
    """Return the relations that the world knows of an entity: the more, the more popular it is."""
    relations = BY_SUBJECT[entity.kind]
    n_known = len(relations) if len(relations) <= 2 else max(2, round(len(relations) * (1.2 - 0.8 * entity.popularity)))
    return [relations[i] for i in sorted(rng.permutation(len(relations))[:n_known])]


# -- the same world later -------------------------------------------------------------------------


def _later(world: World) -> World:
    """Return edition 1: changed facts are stated as they are now, their old values as superseded."""
    changing = [key for key in world.facts if lang.BY_NOUN[key[1]].changes]
    chosen = texts.choose(changing, round(CHANGED_SHARE * len(changing)), world.seed, "changed")
    pool, wrong = _pool(world.entities), texts.rivals(world.corpus)
    facts = {
        key: _changed(fact, world.seed, pool, wrong.get(key, set())) if key in chosen else fact
        for key, fact in world.facts.items()
    }
    made = []
    for number, (key, fact) in enumerate(world.facts.items()):
        if key in chosen:
            year = str(seeds.generator(world.seed, "change year", *key).choice(texts.LATE_YEARS))
            made.append(texts.supersede(f"{number:04d}", facts[key], fact.object, year, mark="-later"))
    for passage in world.corpus:
        key = passage.metadata["subject"], passage.metadata["relation"]
        changed = key in chosen and passage.metadata["kind"] == lang.FACT
        made.append(_restated(passage, facts[key]) if changed else passage)
    return World(world.seed, 1, world.entities, facts, texts.shuffled(world.seed, made))


def _changed(fact: Fact, seed: int, pool: ObjectPool, wrong: set[str]) -> Fact:
    """Return the fact with another object than before, and than any passage wrongly gave it."""
    rng = seeds.generator(seed, "changed", fact.subject, fact.relation)
    target = pool.draw(lang.BY_NOUN[fact.relation].object, rng, {fact.subject, fact.object, *wrong})
    return replace(fact, object=target, sentence=_with_object(fact.sentence, fact.object, target))


def _restated(passage: Passage, fact: Fact) -> Passage:
    """Return the passage of a changed fact in the same wording, with the new object and an id of its own."""
    text = _with_object(passage.text, passage.metadata["object"], fact.object)
    return Passage(f"{passage.id}-later", passage.title, text, {**passage.metadata, "object": fact.object})


def _with_object(sentence: str, old: str, new: str) -> str:
    """Return the sentence with another object: in every wording it is what stands before the full stop."""
    return f"{sentence.removesuffix(f'{old}.')}{new}."


def later_questions(world: World, later: World, questions: list[Question]) -> list[Question]:
    """Return the evaluation questions that a changed fact gives another answer, as the later world has them.

    Their chain is followed again from its start: hops and golden answer are those of the later world.
    metadata gains ``changed`` (True) and ``past_answer``.  A question is left out when its chain breaks,
    comes back to where it has been, or ends in the old answer by another way.
    """
    changed = {key for key, fact in world.facts.items() if later.facts[key].object != fact.object}
    made = []
    for question in questions:
        hops = question.metadata.get("hops", ())
        touched = any((hop["subject"], hop["relation"]) in changed for hop in hops)
        if question.split != "eval" or not touched or question.metadata["kind"] != "chain":
            continue
        chain = _follow(later, hops[0]["subject"], [hop["relation"] for hop in hops])
        past = question.golden_answers[0]
        if chain is None or chain[-1].object == past:
            continue
        about = {**question.metadata, "hops": [_hop(f) for f in chain], "changed": True, "past_answer": past}
        made.append(replace(question, golden_answers=(chain[-1].object,), metadata=about))
    return made


def _follow(world: World, start: str, path: list[str]) -> list[Fact] | None:
    """Return the facts along a path of relations; None if one is missing or an entity comes up again."""
    here, seen, chain = start, {start}, []
    for relation in path:
        fact = world.facts.get((here, relation))
        if fact is None or fact.object in seen:
            return None
        chain.append(fact)
        here = fact.object
        seen.add(here)
    return chain


# -- questions ------------------------------------------------------------------------------------


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
