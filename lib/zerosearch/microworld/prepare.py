"""Stage 00's work: the questions and passages of a run, from the micro-world or from a user's files."""

from __future__ import annotations

from typing import Iterable

import pandas as pd

from zerosearch.errors import ConfigError
from zerosearch.labels import gold_hops
from zerosearch.microworld.language import BY_NOUN, FACT, query_text
from zerosearch.microworld.world import World, build_questions, build_world, kind_for, later_questions
from zerosearch.question_sets.own import Choice, OwnData, load_own
from zerosearch.retrievers.base import Retriever
from zerosearch.schema import Passage, Question, SearchRequest

PATH_COLUMNS = ["hop", "relation", "subject", "object", "wording", "query", "rank", "text", "kind"]


def load_or_build(world: World, n_eval: int, n_train: int, choice: Choice) -> OwnData:
    """Return the questions and passages of a run: the user's own when the choice names any, else the world's, all.

    Raises ConfigError for passages without questions, and what ``load_own`` raises for the user's files.
    """
    if choice.corpus_file and not choice.brought:
        raise ConfigError(
            "your own data: expected both questions and a passages file, found only --corpus; "
            "run ./run_all.sh --questions DIR --corpus FILE"
        )
    if choice.brought:
        return load_own(choice)
    return OwnData(build_questions(world, n_eval, n_train), world.passages())


def later_files(world: World, questions: Iterable[Question]) -> tuple[list[Passage], list[Question]]:
    """Return (passages, questions) of the same world some years later, for questions of this one.

    passages: the whole later corpus.  questions: those evaluation questions whose answer has changed,
    under their old ids; their ``past_answer`` stands in the metadata.  ValueError for a later edition.
    """
    if world.edition != 0:
        raise ValueError(f"later_files: expected the world of edition 0, found edition {world.edition}")
    later = build_world(world.seed, edition=1)
    return later.passages(), later_questions(world, later, list(questions))


def kind_counts(passages: Iterable[Passage]) -> pd.DataFrame:
    """Return how many passages of each kind a corpus has: columns kind, n, share; passages without one not counted."""
    kinds = pd.Series([p.metadata["kind"] for p in passages if "kind" in p.metadata], dtype=object)
    table = kinds.value_counts().rename_axis("kind").reset_index(name="n")
    return table.assign(share=table["n"] / max(len(kinds), 1))


def question_path(question: Question, retriever: Retriever, every_wording: bool = False) -> pd.DataFrame:
    """Return what the gold searches of a question bring up, hop by hop: PATH_COLUMNS, one row per passage.

    Each hop is searched for in wording 0, and in wording 1 if that finds no passage of kind ``fact``
    (every_wording: in both always).  rank counts from 1; kind: what the passage is to this query.
    A search that finds nothing has one row without a passage (rank 0).  Empty for questions without
    gold hops.
    """
    rows = []
    for number, hop in enumerate(gold_hops(question), 1):
        for wording in (0, 1):
            query = query_text(BY_NOUN[hop.relation], hop.subject, wording)
            found = retriever.search([SearchRequest(query, question, turn=len(rows))])[0].passages
            shown = [(rank, p.text, kind_for(p.metadata, hop.relation, hop.subject)) for rank, p in enumerate(found, 1)]
            asked = (number, hop.relation, hop.subject, hop.object, wording, query)
            rows += [(*asked, *one) for one in shown or [(0, "", "")]]
            if not every_wording and FACT in {kind for _, _, kind in shown}:
                break
    return pd.DataFrame(rows, columns=PATH_COLUMNS)


def fact_ranks(world: World, retriever: Retriever) -> pd.DataFrame:
    """Return at which rank a search for each fact of the world finds it: subject, relation, rank_0, rank_1.

    rank_0, rank_1: of the first passage that states the fact, for the query in wording 0 and 1; counted
    from 1, NaN where no passage that the retriever returns states it.
    """
    probe = Question("facts/all", "facts", "which facts can be found", ("any",), "eval")
    asked = [(s, r, SearchRequest(query_text(BY_NOUN[r], s, w), probe)) for s, r in world.facts for w in (0, 1)]
    found = retriever.search([request for _, _, request in asked])
    ranks = [_rank_of_fact(one.passages, r, s) for one, (s, r, _) in zip(found, asked, strict=True)]
    return pd.DataFrame(
        [(*key, ranks[2 * i], ranks[2 * i + 1]) for i, key in enumerate(world.facts)],
        columns=["subject", "relation", "rank_0", "rank_1"],
    )


def _rank_of_fact(passages: Iterable[Passage], relation: str, subject: str) -> float:
    ranks = (rank for rank, p in enumerate(passages, 1) if kind_for(p.metadata, relation, subject) == FACT)
    return float(next(ranks, float("nan")))


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
