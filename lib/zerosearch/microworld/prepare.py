"""Stage 00's work: the questions and passages of a run, from the micro-world or from a user's files."""

from __future__ import annotations

from typing import Iterable

import pandas as pd

from zerosearch.errors import ConfigError
from zerosearch.microworld.world import World, build_questions
from zerosearch.questions import load_corpus, load_questions_dir
from zerosearch.schema import Passage, Question

def load_or_build(
    world: World, n_eval: int, n_train: int, questions_dir: str, corpus_file: str, train_fraction: float, seed: int
) -> tuple[list[Question], list[Passage]]:
    """Return (questions, passages): the user's own when both paths are given, else the world's.

    Raises ConfigError when only one of the two paths is given, BadInput for malformed files.
    """
    if bool(questions_dir) != bool(corpus_file):
        found = "--questions" if questions_dir else "--corpus"
        raise ConfigError(
            f"your own data: expected both a folder of questions and a passages file, found only {found}; "
            "run ./run_all.sh --questions DIR --corpus FILE"
        )
    if questions_dir:
        return load_questions_dir(questions_dir, train_fraction, seed), load_corpus(corpus_file)
    return build_questions(world, n_eval, n_train), world.passages()


def count_table(questions: Iterable[Question]) -> pd.DataFrame:
    """Return the number of training and evaluation questions per set, in the order of the sets."""
    questions = list(questions)
    sets = list(dict.fromkeys(q.dataset for q in questions))
    rows = {s: {p: sum(q.dataset == s and q.split == p for q in questions) for p in ("train", "eval")} for s in sets}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("set")


def neighbourhood(world: World, start: str, steps: int = 2) -> pd.DataFrame:
    """Return the facts within so many steps of an entity: columns source, relation, target, and kinds."""
    reached, edges = {start}, []
    for _ in range(steps):
        border = set(reached)
        for (subject, relation), fact in world.facts.items():
            if subject in border and (subject, relation, fact.object) not in edges:
                edges.append((subject, relation, fact.object))
                if fact.object in world.entities:
                    reached.add(fact.object)
    kind = {name: entity.kind for name, entity in world.entities.items()}
    return pd.DataFrame(
        [(s, r, o, kind[s], kind.get(o, "year")) for s, r, o in edges],
        columns=["source", "relation", "target", "source_kind", "target_kind"],
    )


def names_in(texts: Iterable[str], world: World) -> set[str]:
    """Return the names of the world that occur in any of the texts."""
    everything = "\n".join(texts)
    return {name for name in world.entities if name in everything}
