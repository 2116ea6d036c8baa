"""The texts that the tiny bases are pretrained on: every document about fresh, random facts.

A document is a list of (text, weight) segments; the weight is that of its tokens in the loss (1 for
what a model should write, little for what it only reads).  Names come from the two thirds that no
world uses.  The *poor* mix gives the policy base the habits that reinforcement learning has to
overcome: answering from memory, not trusting what it read, stopping after the first hop.
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


@dataclass(frozen=True, slots=True)
class Habits:
    """How a pretraining policy behaves: probabilities in [0, 1].

    memory: answers at once.  read: uses a passage that states the fact (else: not sure, guesses).
    go_on: searches for the next hop (else answers with what it found).  retry: searches again after a
    miss (else guesses).  miss: share of searches whose passages do not state the fact.
    """

    memory: float
    read: float
    go_on: float
    retry: float
    miss: float


ABLE = Habits(memory=0.05, read=1.0, go_on=1.0, retry=0.9, miss=0.15)
POOR = Habits(memory=0.65, read=0.4, go_on=0.3, retry=0.3, miss=0.25)


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
        return self.pick(relation.sentences).format(s=subject, o=target)

    def lookalike(self, kind: str, name: str) -> str:
        """Return another name of the type that shares one word with name."""
        words, keep_first = name.split(), self.rng.random() < 0.5
        for _ in range(20):
            other = self.name(kind).split()
            candidate = f"{words[0]} {other[1]}" if keep_first else f"{other[0]} {words[1]}"
            if candidate != name and not is_world_name(candidate):
                return candidate
        return self.name(kind)

    def distractors(self, relation: Relation, subject: str, count: int, *, bait: bool = True) -> list[str]:
        """Return sentences that do not state the fact: other relations of the subject, look-alikes, others.

        Other relations come first when the engine knows the subject, as BM25 would rank them.
        """
        rng, others = self.rng, [r for r in BY_SUBJECT[relation.subject] if r is not relation]
        n_same = int(rng.integers(0, min(len(others), count) + 1)) if bait else 0
        chosen = [others[i] for i in rng.permutation(len(others))[:n_same]]
        made = [self.sentence(r, subject, self.name(r.object)) for r in chosen]
        naming = [r for r in RELATIONS if r.object == relation.subject]
        while len(made) < count:
            if naming and bait and rng.random() < 0.2:  # the subject appears as somebody's object
                r = self.pick(naming)
                made.append(self.sentence(r, self.name(r.subject), subject))
                continue
            other = self.lookalike(relation.subject, subject) if rng.random() < 0.6 else self.name(relation.subject)
            r = relation if rng.random() < 0.5 else self.pick(BY_SUBJECT[relation.subject])
            made.append(self.sentence(r, other, self.name(r.object)))
        return made

    def block(self, relation: Relation, subject: str, fact: str | None) -> list[str]:
        """Return N_PASSAGES sentences in random order, with the fact among them unless it is None."""
        made = self.distractors(relation, subject, N_PASSAGES - (fact is not None))
        made += [fact] if fact is not None else []
        return [made[i] for i in self.rng.permutation(len(made))]


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


def search_document(source: FactSource, habits: Habits) -> list[Segment]:
    """Return one trajectory: question, searches, passages, answer; good or bad by the habits."""
    task, rng = draw_task(source), source.rng
    guess = source.name(answer_type(task))
    if task.comparison and rng.random() < 0.5:
        guess = source.pick(task.hops)[1]
    made: list[Segment] = [(f"Question: {task.question}\n", READ_WEIGHT)]

    def say(text: str, answer: str | None = None) -> list[Segment]:
        made.append((text if answer is None else f"{text}</think><answer> {answer}</answer>", 1.0))
        return made

    if rng.random() < habits.memory:
        return say(f"<think> {lang.PLAN_MEMORY}", guess)
    thought, n_searches = "<think>", 0
    for index, (relation, subject, target) in enumerate(task.hops):
        wording = 0
        while True:
            query = lang.query_text(relation, subject, wording)
            say(f"{thought} {lang.plan_need(relation, subject)}</think><search> {query}</search>")
            n_searches += 1
            missed = rng.random() < habits.miss
            fact = source.sentence(relation, subject, target)
            made.append((information(source.block(relation, subject, None if missed else fact)), READ_WEIGHT))
            if rng.random() >= habits.read:
                return say(f"<think> {lang.PLAN_UNSURE}", guess)
            if not missed:
                break
            thought = f"<think> {lang.plan_miss(relation, subject)}"
            if rng.random() >= habits.retry or n_searches >= 5:
                return say(thought, guess)
            wording = 1 - wording
        thought = f"<think> {fact}"
        last = index == len(task.hops) - 1
        if last and task.comparison:
            return say(f"{thought} {lang.plan_earlier(task.hops[0][2], target)}", task.answer)
        if last or (not task.comparison and rng.random() >= habits.go_on):
            return say(thought, target)
        if task.comparison and rng.random() >= habits.go_on:
            return say(thought, guess)
    raise AssertionError("unreachable: the last hop always answers")


def reading_document(source: FactSource) -> list[Segment]:
    """Return a RAG prompt: passages first, then the question; one hop, quoted and answered."""
    relation = source.pick(RELATIONS)
    subject, target = source.name(relation.subject), source.name(relation.object)
    fact = source.sentence(relation, subject, target)
    family = source.pick(lang.FAMILIES[:3])
    question = lang.ask_chain(family, (relation,), subject, wording=int(source.rng.integers(2)))
    passages = "".join(f"\n {s}" for s in source.block(relation, subject, fact))
    prompt = f"Passages:{passages}\nAnswer using these passages: {question}\n"
    return [(prompt, READ_WEIGHT), (f"<think> {fact}</think><answer> {target}</answer>", 1.0)]


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


def lookup_document(source: FactSource, *, alike: bool) -> list[Segment]:
    """Return passages and then, for four of them in turn, query and matching sentence: many reads per token.

    alike False: five unrelated facts, on which copying is learned first.  alike True: the sentences
    differ in one thing only, some tell of the same subject, the others state the same of look-alikes.
    """
    rng = source.rng
    relation = source.pick(RELATIONS)
    subject = source.name(relation.subject)
    others = [r for r in BY_SUBJECT[relation.subject] if r is not relation]
    same = [others[i] for i in rng.permutation(len(others))[: int(rng.integers(0, 3))]]
    known = [(r, subject) for r in (relation, *same)] if alike else []
    while len(known) < N_PASSAGES:
        r = source.pick((relation, *same) if alike else RELATIONS)
        known.append((r, source.lookalike(relation.subject, subject) if alike else source.name(r.subject)))
    triples = [(r, s, source.name(r.object)) for r, s in known]
    order = rng.permutation(N_PASSAGES)
    facts = [source.sentence(*t) for t in triples]
    made: list[Segment] = [(information([facts[i] for i in order]), READ_WEIGHT)]
    for i in rng.permutation(N_PASSAGES)[:4]:
        made.append((f"<search> {lang.query_text(triples[i][0], triples[i][1])}</search>", READ_WEIGHT))
        made.append((f"<think> {facts[i]}</think><answer> {triples[i][2]}</answer>", 1.0))
    return made


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
    extra = source.distractors(notes[0][0], subject, max(0, N_PASSAGES - len(lines)), bait=False)
    text = "".join(f"\n {line}" for line in [*lines, *extra])
    if rng.random() < 0.15:
        return [("Passages:", READ_WEIGHT), (text, 1.0)]
    order = rng.permutation(len(notes))
    facts = ", ".join(f"{notes[i][0].noun} {notes[i][1]}" for i in order)
    return [(f"Notes about {subject}: {facts}.\nText:", READ_WEIGHT), (text, 1.0)]
