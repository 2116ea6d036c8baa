"""Consistent renaming of entities: the same text about somebody else.

A simulator that sees each fact under its own names learns the facts by heart, and then writes what it
remembers instead of what the prompt says.  Under ever new names only one habit pays: copying the names
from the prompt.  So a share of the training examples is renamed as a whole: every name that stands in
the query, the question, the golden answer or the passages gets one new name, the same everywhere.

Names are never guessed from the text: they come from passage titles, golden answers, and the facts
and hops that questions and passages carry as metadata.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Iterable, Mapping

import numpy as np

from zerosearch.schema import Passage

_TRIES = 30
_PARTS = ("subject", "relation", "object")


@dataclass(frozen=True, slots=True)
class SimulatorExample:
    """One lesson for the simulator: for this query, these passages.

    useful: whether the passages answer the query.  golden_answer: the canonical one, as the prompt
    names it.  aliases: all accepted spellings.  facts: (subject, relation, object) triples of the
    question's hops.  key: names the example in random draws.
    """

    query: str
    question: str
    golden_answer: str
    useful: bool
    passages: tuple[Passage, ...]
    aliases: tuple[str, ...] = ()
    facts: tuple[tuple[str, str, str], ...] = ()
    key: str = ""


def is_name(text: str) -> bool:
    """Say whether a title or an answer can be renamed: it has a capital or a digit, and 3 letters or more."""
    return len(text.strip()) >= 3 and any(c.isupper() or c.isdigit() for c in text)


def answers_of(example: SimulatorExample) -> tuple[str, ...]:
    """Return all accepted answers of an example, the canonical one first."""
    return example.aliases or (example.golden_answer,)


def facts_of(example: SimulatorExample) -> list[tuple[str, str, str]]:
    """Return the facts that an example carries: its question's hops and its passages' metadata."""
    known = [p.metadata for p in example.passages if _has_fact(p.metadata)]
    carried = [tuple(str(metadata[part]) for part in _PARTS) for metadata in known]
    return [*example.facts, *carried]  # type: ignore[list-item]


def names_of(example: SimulatorExample) -> list[str]:
    """Return the names an example is about, longest first, each once."""
    found = {example.golden_answer, *(p.title for p in example.passages)}
    for subject, _, target in facts_of(example):
        found |= {subject, target}
    return sorted((name for name in found if is_name(name)), key=lambda name: (-len(name), name))


class NameBook:
    """All names known from some examples, sorted into kinds, and the source of new ones.

    Names belong to one kind when facts show them in the same role (what directed a film is a kind of
    thing that can be born).  A name seen in no fact is kept with those of as many words; numbers
    are kept with those of as many digits.
    """

    def __init__(self, examples: Iterable[SimulatorExample]):
        roles: defaultdict[str, set[str]] = defaultdict(set)
        for example in examples:
            for name in names_of(example):
                roles[name].add("" if not name.isdigit() else f"digits {len(name)}")
            for subject, relation, target in facts_of(example):
                for name, role in ((subject, f"{relation}: subject"), (target, f"{relation}: object")):
                    if is_name(name) and not name.isdigit():
                        roles[name].add(role)
        self.kind_of = _kinds(roles)
        members: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(self.kind_of):
            members[self.kind_of[name]].append(name)
        self.members: Mapping[str, list[str]] = dict(members)

    def new_name(self, name: str, rng: np.random.Generator, avoid: Iterable[str] = ()) -> str:
        """Return another name of the same kind, its words drawn from different members of the kind.

        A new number lies between the smallest and the largest known of its length.  avoid: names
        that must not come out.  The name itself is returned only when the kind offers nothing else.
        """
        kind = self.kind_of.get(name)
        alike = [m for m in self.members.get(kind or "", []) if len(m.split()) == len(name.split())]
        taken = {name, *avoid}
        for _ in range(_TRIES if alike else 0):
            candidate = _draw(alike, name, rng)
            if candidate not in taken:
                return candidate
        return name


def rename(example: SimulatorExample, book: NameBook, rng: np.random.Generator) -> SimulatorExample:
    """Return the example with every name it is about replaced, the same way everywhere in it."""
    names = names_of(example)
    mapping: dict[str, str] = {}
    for name in names:
        mapping[name] = book.new_name(name, rng, avoid=[*names, *mapping.values()])
    return apply_names(example, mapping)


def apply_names(example: SimulatorExample, mapping: Mapping[str, str]) -> SimulatorExample:
    """Return the example with all names of the mapping replaced at once (a name for a name: no chains)."""
    if not mapping:
        return example
    longest_first = sorted(mapping, key=len, reverse=True)
    pattern = re.compile(r"(?<!\w)(?:" + "|".join(re.escape(name) for name in longest_first) + r")(?!\w)")

    def swap(text: str) -> str:
        return pattern.sub(lambda found: mapping[found.group(0)], text)

    def swap_all(metadata: Mapping[str, object]) -> dict[str, object]:
        return {k: swap(v) if isinstance(v, str) else v for k, v in metadata.items()}

    passages = tuple(
        replace(p, title=swap(p.title), text=swap(p.text), metadata=swap_all(p.metadata))
        for p in example.passages
    )
    facts = tuple((swap(s), relation, swap(o)) for s, relation, o in example.facts)
    return replace(
        example, query=swap(example.query), question=swap(example.question),
        golden_answer=swap(example.golden_answer), aliases=tuple(swap(a) for a in example.aliases),
        passages=passages, facts=facts,
    )


def _has_fact(metadata: Mapping[str, object]) -> bool:
    return all(part in metadata for part in _PARTS)


def _kinds(roles: Mapping[str, set[str]]) -> dict[str, str]:
    """Return name -> kind: roles that share a name are one kind; names without one go by their shape."""
    root: dict[str, str] = {}

    def find(role: str) -> str:
        while root.setdefault(role, role) != role:
            role = root[role]
        return role

    for found in roles.values():
        known = sorted(found - {""})
        for role in known[1:]:
            first, other = sorted((find(known[0]), find(role)))
            root[other] = first
    return {
        name: find(min(found - {""})) if found - {""} else f"{len(name.split())} words"
        for name, found in roles.items()
    }


def _draw(alike: list[str], name: str, rng: np.random.Generator) -> str:
    if name.isdigit():
        low, high = min(map(int, alike)), max(map(int, alike))
        return str(int(rng.integers(low, high + 1))).zfill(len(name))
    donors = [alike[int(rng.integers(len(alike)))].split() for _ in name.split()]
    return " ".join(donor[i] for i, donor in enumerate(donors))
