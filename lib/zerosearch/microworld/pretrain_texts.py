"""The texts that the tiny bases are pretrained on: every document about fresh, random facts.

A document is a list of (text, weight) segments; the weight is that of its tokens in the loss (1 for
what a model should write, little for what it only reads).  Names come from the two thirds that no
world uses.

How a searching policy behaves in them is a matter of ``Habits``; which habits a base has read about, and
how much, stands in its recipe (pretrain.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zerosearch.microworld import language as lang
from zerosearch.microworld.language import BY_SUBJECT, RELATIONS, Relation
from zerosearch.microworld.world import is_world_name

Segment = tuple[str, float]
READ_WEIGHT = 0.03  # loss weight of prompts and passages
N_PASSAGES = 5
MAX_SEARCHES = 5


@dataclass(frozen=True, slots=True)
class Habits:
    """How a pretraining policy behaves: probabilities in [0, 1].

    memory: answers at once.  miss: share of searches whose passages do not state the fact.
    found_hit, found_miss: takes a passage for the answer, when one states it and when none does.
    again: searches again, in other words, after finding nothing (else guesses).  go_on: searches for the
    next hop (else answers with what it found).
    """

    memory: float
    miss: float
    found_hit: float
    found_miss: float
    again: float
    go_on: float


class FactSource:
    """Draws names, facts and passages afresh for every document; nothing is ever repeated on purpose."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def pick(self, items):  # noqa: ANN001, ANN201 - any sequence
        """Return one item, uniformly."""
        return items[int(self.rng.integers(len(items)))]

    def name(self, kind: str) -> str:
        """Return a fresh name of an entity type (or a year)."""
        if kind == "year":
            return self.pick(lang.YEARS)
        first, second = lang.NAME_WORDS[kind]
        while is_world_name(name := f"{self.pick(first)} {self.pick(second)}"):
            pass
        return name

    def sentence(self, relation: Relation, subject: str, target: str) -> str:
        """Return one of the two ways to state a fact."""
        return lang.state(relation, subject, target, int(self.rng.integers(2)))

    def lookalike(self, kind: str, name: str) -> str:
        """Return another name of the type that shares one word with name."""
        words, keep_first = name.split(), self.rng.random() < 0.5
        for _ in range(20):
            other = self.name(kind).split()
            candidate = f"{words[0]} {other[1]}" if keep_first else f"{other[0]} {words[1]}"
            if candidate != name and not is_world_name(candidate):
                return candidate
        return self.name(kind)

    def misleading(self, kind: str, relation: Relation, subject: str) -> tuple[str, str | None]:
        """Return (sentence, object that it names or None) of one kind of language.MISLEADING.

        A kind that the relation cannot have (another relation where there is one only, a superseded
        value where nothing changes) gives a look-alike instead.
        """
        others = [r for r in BY_SUBJECT[relation.subject] if r is not relation]
        target = self.name(relation.object)
        if kind == lang.NON_ANSWER:
            return lang.say_nothing(relation, subject, int(self.rng.integers(2))), None
        if kind == lang.OTHER_RELATION and others:
            relation = self.pick(others)
            target = self.name(relation.object)
            return self.sentence(relation, subject, target), target
        if kind == lang.SUPERSEDED and relation.changes:
            return lang.state_superseded(relation, subject, target, self.pick(lang.YEARS)), target
        if kind == lang.NAMESAKE:
            return self.sentence(relation, f"{subject} {lang.NAMESAKE_WORD[relation.subject]}", target), target
        if kind == lang.CONTRADICTED:
            return self.sentence(relation, subject, target), target
        return self.sentence(relation, self.lookalike(relation.subject, subject), target), target

    def distractors(self, relation: Relation, subject: str, count: int) -> list[str]:
        """Return sentences around a fact, as an engine that goes by words returns them beside it."""
        kinds = (lang.OTHER_RELATION, lang.LOOKALIKE, lang.NAMESAKE, lang.SUPERSEDED, lang.NON_ANSWER, "mention", "any")
        drawn = self.rng.choice(kinds, size=count, p=(0.38, 0.2, 0.1, 0.08, 0.08, 0.1, 0.06))
        return [self._distractor(str(kind), relation, subject) for kind in drawn]

    def _distractor(self, kind: str, relation: Relation, subject: str) -> str:
        naming = [r for r in RELATIONS if r.object == relation.subject]
        if kind == "mention" and naming:  # the subject appears as somebody's object
            r = self.pick(naming)
            return self.sentence(r, self.name(r.subject), subject)
        if kind in ("mention", "any"):
            r = self.pick(RELATIONS)
            return self.sentence(r, self.name(r.subject), self.name(r.object))
        return self.misleading(kind, relation, subject)[0]

    def hit(self, relation: Relation, subject: str, fact: str) -> list[str]:
        """Return the passages of a search that found the fact: N_PASSAGES sentences in random order."""
        return self._shuffle([fact, *self.distractors(relation, subject, N_PASSAGES - 1)])

    def missed(self, relation: Relation, subject: str, main: str) -> tuple[list[str], str, str | None]:
        """Return the passages of a search that failed: (N_PASSAGES sentences, the one of kind main, its object).

        They are mixed as in a failed search of the conditions (evaluation/conditions.py): one or two of the
        main kind, the rest of other kinds, and one contradiction at most.
        """
        n_main = 1 if main == lang.CONTRADICTED else int(self.rng.integers(1, 3))
        others = [kind for kind in lang.MISLEADING if kind not in (main, lang.CONTRADICTED)]
        kinds = [main] * n_main + [self.pick(others) for _ in range(N_PASSAGES - n_main)]
        made = [self.misleading(kind, relation, subject) for kind in kinds]
        return self._shuffle([sentence for sentence, _ in made]), *made[0]

    def _shuffle(self, sentences: list[str]) -> list[str]:
        return [sentences[i] for i in self.rng.permutation(len(sentences))]


def information(sentences: list[str]) -> str:
    """Return the observation exactly as prompts.MICRO writes it (held together by a test)."""
    return "<information>" + "".join(f"\n {s}" for s in sentences) + "\n</information>"


@dataclass(frozen=True, slots=True)
class Task:
    """A question with its hops: (relation, subject, object); answer; prompt text."""

    family: str
    question: str
    hops: tuple[tuple[Relation, str, str], ...]
    answer: str
    comparison: bool


def draw_task(source: FactSource, one_hop: float = 0.45) -> Task:
    """Return a fresh question in the manner of one of the seven families."""
    rng = source.rng
    family = source.pick(("nq", "triviaqa", "popqa")) if rng.random() < one_hop else source.pick(lang.FAMILIES[3:])
    if family in ("hotpotqa", "2wikimultihopqa") and rng.random() < 0.3:
        relation = lang.BY_NOUN[source.pick(tuple(lang.COMPARE))]
        left, right = source.name(relation.subject), source.name(relation.subject)
        early, late = sorted(rng.choice(len(lang.YEARS), size=2, replace=False))
        years = [lang.YEARS[early], lang.YEARS[late]]
        if rng.random() < 0.5:
            years.reverse()
        hops = ((relation, left, years[0]), (relation, right, years[1]))
        answer = left if int(years[0]) < int(years[1]) else right
        return Task(family, lang.ask_comparison(family, relation, left, right), hops, answer, True)
    n_hops = {"musique": int(rng.integers(2, 5)), "bamboogle": int(rng.integers(2, 4))}.get(family, 2)
    path = _draw_path(source, 1 if family in lang.FAMILIES[:3] else n_hops)
    subject = start = source.name(path[0].subject)
    chain = []
    for relation in path:
        target = source.name(relation.object)
        chain.append((relation, subject, target))
        subject = target
    question = lang.ask_chain(family, tuple(path), start, wording=int(rng.integers(2)))
    return Task(family, question, tuple(chain), subject, False)


def _draw_path(source: FactSource, n_hops: int) -> list[Relation]:
    while True:
        path = [source.pick(RELATIONS)]
        while len(path) < n_hops:
            options = [
                r for r in BY_SUBJECT.get(path[-1].object, ())
                if r is not path[-1] and (len(path) == n_hops - 1 or r.object != "year")
            ]
            if not options:
                break
            path.append(source.pick(options))
        if len(path) == n_hops:
            return path


def answer_type(task: Task) -> str:
    """Return the entity type of the answer."""
    relation = task.hops[-1][0]
    return relation.subject if task.comparison else relation.object


class _Search:
    """One trajectory being written: the segments so far, and what was searched for."""

    def __init__(self, source: FactSource, habits: Habits, question: str):
        self.source, self.habits = source, habits
        self.segments: list[Segment] = [(f"Question: {question}\n", READ_WEIGHT)]
        self.n_searches = 0

    def say(self, text: str, answer: str | None = None) -> list[Segment]:
        """Write a message of the policy; with an answer it is the last one."""
        self.segments.append((text if answer is None else f"{text}</think><answer> {answer}</answer>", 1.0))
        return self.segments

    def find(self, thought: str, hop: tuple[Relation, str, str]) -> tuple[str, str | None, bool]:
        """Search until something is taken for the answer: (thought that says so, object, whether it is right).

        The object is None when the policy gave up.  A sentence that names none is never taken.
        """
        relation, subject, target = hop
        source, habits, rng = self.source, self.habits, self.source.rng
        wording = 0
        while True:
            query = lang.query_text(relation, subject, wording)
            self.say(f"{thought}</think><search> {query}</search>")
            self.n_searches += 1
            missed = rng.random() < habits.miss
            if missed:
                passages, line, named = source.missed(relation, subject, source.pick(lang.MISLEADING))
            else:
                line, named = source.sentence(*hop), target
                passages = source.hit(relation, subject, line)
            self.segments.append((information(passages), READ_WEIGHT))
            found = rng.random() < (habits.found_miss if missed else habits.found_hit)
            if found and named is not None:
                return f"<think> {lang.VERDICT_HIT} {line}", named, not missed
            thought = f"<think> {lang.VERDICT_MISS}"
            if self.n_searches >= MAX_SEARCHES or rng.random() >= habits.again:
                return thought, None, False
            wording = 1 - wording


def search_document(source: FactSource, habits: Habits) -> list[Segment]:
    """Return one trajectory: question, searches, passages, answer; good or bad by the habits."""
    task, rng = draw_task(source), source.rng
    guess = source.name(answer_type(task))
    if task.comparison and rng.random() < 0.5:
        guess = source.pick(task.hops)[1]
    made = _Search(source, habits, task.question)
    if rng.random() < habits.memory:
        return made.say(f"<think> {lang.PLAN_MEMORY}", guess)
    thought = f"<think> {lang.PLAN_SEARCH}"
    for index, hop in enumerate(task.hops):
        if made.n_searches >= MAX_SEARCHES:
            return made.say(thought, guess)
        thought, found, right = made.find(thought, hop)
        if not right:
            return made.say(thought, guess if found is None or task.comparison else found)
        last = index == len(task.hops) - 1
        if last and task.comparison:
            return made.say(f"{thought} {lang.plan_earlier(task.hops[0][2], hop[2])}", task.answer)
        if last or rng.random() >= habits.go_on:
            return made.say(thought, guess if task.comparison else hop[2])
    raise AssertionError("unreachable: the last hop always answers")


def reading_document(source: FactSource) -> list[Segment]:
    """Return a RAG prompt: passages first, then the question; one hop, quoted and answered."""
    relation = source.pick(RELATIONS)
    subject, target = source.name(relation.subject), source.name(relation.object)
    fact = source.sentence(relation, subject, target)
    family = source.pick(lang.FAMILIES[:3])
    question = lang.ask_chain(family, (relation,), subject, wording=int(source.rng.integers(2)))
    passages = "".join(f"\n {s}" for s in source.hit(relation, subject, fact))
    prompt = f"Passages:{passages}\nAnswer using these passages: {question}\n"
    return [(prompt, READ_WEIGHT), (f"<think> {lang.VERDICT_HIT} {fact}</think><answer> {target}</answer>", 1.0)]


def memory_document(source: FactSource) -> list[Segment]:
    """Return a direct or a chain-of-thought prompt, answered out of thin air (the facts are fresh)."""
    task = draw_task(source)
    if source.rng.random() < 0.5:
        return [(f"Answer at once: {task.question}\n", READ_WEIGHT), (f"<answer> {task.answer}</answer>", 1.0)]
    facts = " ".join(source.sentence(*hop) for hop in task.hops)
    prompt = f"Think, then answer: {task.question}\n"
    return [(prompt, READ_WEIGHT), (f"<think> {facts}</think><answer> {task.answer}</answer>", 1.0)]


def copy_document(source: FactSource) -> list[Segment]:
    """Return names and sentences, some of them repeated: the warm-up for copying."""
    rng = source.rng
    kinds = [source.pick(tuple(lang.NAME_WORDS)) for _ in range(int(rng.integers(3, 8)))]
    names = [source.name(k) for k in kinds]
    order = rng.permutation(len(names))
    return [("Copy: " + ", ".join(names) + ".\n", READ_WEIGHT), ("Copy: " + ", ".join(names[i] for i in order) + ".", 1.0)]


def lookup_document(source: FactSource, *, alike: bool, restated: bool = False) -> list[Segment]:
    """Return passages and then, four times, a query and what it finds: many reads per token.

    alike False: five unrelated facts, on which copying is learned first.  alike True: the sentences
    differ in one thing only, some tell of the same subject, the others state the same of look-alikes and
    namesakes.  restated: what is found is told in either wording, whichever the passage has.  Who only
    quotes and begins with the wrong noun ends with the object of a look-alike that has that noun.
    """
    rng = source.rng
    triples = [(r, s, source.name(r.object)) for r, s in _known(source, alike)]
    facts = [source.sentence(*t) for t in triples]
    order = rng.permutation(N_PASSAGES)
    made: list[Segment] = [(information([facts[i] for i in order]), READ_WEIGHT)]
    for i in rng.permutation(N_PASSAGES)[:4]:
        relation, subject, target = triples[i]
        query = lang.query_text(relation, subject, wording=int(rng.integers(2)))
        made.append((f"<search> {query}</search>", READ_WEIGHT))
        told = source.sentence(*triples[i]) if restated else facts[i]
        made.append((f"<think> {lang.VERDICT_HIT} {told}</think><answer> {target}</answer>", 1.0))
    return made


def _known(source: FactSource, alike: bool) -> list[tuple[Relation, str]]:
    """Return five different (relation, subject) pairs for the passages of a lookup."""
    rng, relation = source.rng, source.pick(RELATIONS)
    subject = source.name(relation.subject)
    others = [r for r in BY_SUBJECT[relation.subject] if r is not relation]
    same = [others[i] for i in rng.permutation(len(others))[: int(rng.integers(0, 3))]]
    known = [(r, subject) for r in (relation, *same)] if alike else []
    while len(known) < N_PASSAGES:
        r = source.pick((relation, *same) if alike else RELATIONS)
        if not alike:
            known.append((r, source.name(r.subject)))
        elif rng.random() < 0.25:
            known.append((r, f"{subject} {lang.NAMESAKE_WORD[relation.subject]}"))
        else:
            known.append((r, source.lookalike(relation.subject, subject)))
    known = list(dict.fromkeys(known))
    return known + [(r, source.name(r.subject)) for r in (source.pick(RELATIONS) for _ in range(N_PASSAGES - len(known)))]


def simulator_document(source: FactSource) -> list[Segment]:
    """Return a page written from notes, or plain passages: the simulator base's language.

    It never sees the simulator's instruction (useful or misleading, query, question, answer): that is
    what supervised fine-tuning teaches.
    """
    rng = source.rng
    kind = source.pick(tuple(k for k in BY_SUBJECT if len(BY_SUBJECT[k]) > 1))
    subject = source.name(kind)
    relations = [BY_SUBJECT[kind][i] for i in rng.permutation(len(BY_SUBJECT[kind]))]
    notes = [(r, source.name(r.object)) for r in relations[: int(rng.integers(1, len(relations) + 1))]]
    lines = [source.sentence(r, subject, target) for r, target in notes]
    extra = [
        source.misleading(source.pick((lang.LOOKALIKE, lang.NAMESAKE)), notes[0][0], subject)[0]
        for _ in range(N_PASSAGES - len(lines))
    ]
    text = "".join(f"\n {line}" for line in [*lines, *extra])
    if rng.random() < 0.15:
        return [("Passages:", READ_WEIGHT), (text, 1.0)]
    order = rng.permutation(len(notes))
    facts = ", ".join(f"{notes[i][0].noun} {notes[i][1]}" for i in order)
    return [(f"Notes about {subject}: {facts}.\nText:", READ_WEIGHT), (text, 1.0)]
