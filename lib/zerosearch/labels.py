"""Query–passage pairs and their labels: was what the engine returned useful or misleading?

Two labels for every search that was carried out:

    trajectory   useful when the trajectory ended in a right answer (EM 1): what the paper's first
                 version used.  One label for all searches of a trajectory, earned or not.
    judge        useful when the passages answer the query: the later versions' judge per passage.

The judge is exact where questions carry their gold hops (the micro-world): a passage is useful when it
states the fact that the query asks for.  Passages that the world itself made to mislead (their ``kind``
says so) are never useful, whatever words stand in them.  Elsewhere (any other corpus) it is a stand-in
for a judge: a passage is useful when a golden answer stands in it after normalisation, so passages of
earlier hops count as misleading there.  No model is asked here; ``labels_judge`` asks one, and what it
could not decide is neither useful nor misleading.

Called by notebook 01 (pairs, statistics) and notebook 00 (recall); stage 02 learns from the pairs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Iterable, Literal, Mapping, NamedTuple, Sequence

import pandas as pd

from zerosearch.errors import BadInput
from zerosearch.microworld.language import BY_NOUN, FACT, MISLEADING, parse_query
from zerosearch.microworld.world import UNRELATED, kind_for
from zerosearch.retrievers.base import MAX_PASSAGES, Retriever
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, Trajectory
from zerosearch.scoring import contains_answer, em, normalize

Label = Literal["useful", "misleading", "unparsable", "unanswered"]
LABELS: tuple[Label, ...] = ("useful", "misleading")
UNPARSABLE: Label = "unparsable"  # a model replied and said neither
UNANSWERED: Label = "unanswered"  # it did not reply
NO_VERDICT: tuple[Label, ...] = (UNPARSABLE, UNANSWERED)
LABEL_KINDS = ("trajectory", "judge")
COLUMNS = (
    "trajectory_id", "turn", "question_id", "dataset", "split", "question", "golden_answers", "metadata", "query",
    "source", "passages", "passage_records", "passage_labels", "asks_gold_hop", "label_trajectory", "label_judge",
)


class Hop(NamedTuple):
    """One gold fact of a question: subject --relation--> object, and the sentence that states it."""

    subject: str
    relation: str
    object: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One search: the query and what the engine returned for it.

    trajectory_id, turn: where it happened.  source: retriever name.  passage_labels: the judge's word on
    each passage.  asks_gold_hop: whether the query asks for one of the question's gold facts, None where
    these are unknown.  label_trajectory, label_judge: see the module.
    """

    trajectory_id: str
    turn: int
    question: Question
    query: str
    source: str
    passages: tuple[Passage, ...]
    passage_labels: tuple[Label, ...]
    asks_gold_hop: bool | None
    label_trajectory: Label
    label_judge: Label


# -- labels ---------------------------------------------------------------------------------------


def trajectory_id(trajectory: Trajectory) -> str:
    """Return ``<question id>#<step>.<sample>``, unique within a stage."""
    return f"{trajectory.question.id}#{trajectory.step}.{trajectory.sample}"


def make_pairs(trajectories: Iterable[Trajectory]) -> list[Pair]:
    """Return one pair per search that was answered, in order; failed searches have nothing to label."""
    return [
        _pair(t, number, turn.retrieval)
        for t in trajectories
        for number, turn in enumerate(t.turns)
        if turn.retrieval is not None and turn.retrieval.error is None
    ]


def label_trajectory(trajectory: Trajectory) -> Label:
    """Return useful if the trajectory's final answer is right (EM 1); no answer is not."""
    return _label(em(trajectory.answer, trajectory.question.golden_answers) == 1.0)


def judge_passages(query: str, question: Question, passages: Sequence[Passage]) -> tuple[Label, ...]:
    """Return the judge's label of each passage for this query; see the module for the rule."""
    hops = gold_hops(question)
    if hops:
        return tuple(_label(not _misleads(p) and _answers_query(p, query, hops)) for p in passages)
    return tuple(_label(not _misleads(p) and contains_answer(p.text, question.golden_answers)) for p in passages)


def gold_hops(question: Question) -> tuple[Hop, ...]:
    """Return the gold facts that a question carries in its metadata, none for most corpora.

    Other data sets use the same key for other things (MuSiQue: a number); these are not taken for facts.
    """
    hops = question.metadata.get("hops")
    facts = isinstance(hops, (list, tuple)) and all(isinstance(h, Mapping) and {*Hop._fields} <= {*h} for h in hops)
    if not facts:
        return ()
    return tuple(Hop(*(str(hop[name]) for name in Hop._fields)) for hop in hops)


def asks_for(query: str, subject: str, relation: str) -> bool:
    """Say whether a query asks for ``relation`` of ``subject``.

    A query in one of the world's two wordings is read exactly; in any other both must stand in it as
    whole words.
    """
    asked = parse_query(query)
    if asked is not None:
        return asked[0].noun == relation and normalize(asked[1]) == normalize(subject)
    return contains_answer(query, [subject]) and contains_answer(query, [relation])


def states(passage: Passage, hop: Hop) -> bool:
    """Say whether a passage states a fact: by its own metadata, else by one of the fact's known wordings."""
    own = _own_fact(passage)
    if own is not None:
        return own == (hop.subject, hop.relation, hop.object)
    known = BY_NOUN.get(hop.relation)
    wordings = [w.format(s=hop.subject, o=hop.object) for w in known.sentences] if known else []
    return contains_answer(passage.text, [hop.sentence, *wordings])


def _answers_query(passage: Passage, query: str, hops: Sequence[Hop]) -> bool:
    """Apply the exact rule: the passage states a gold fact that is asked for, or, when the query has
    left the gold path, the fact that it does ask for (what is of kind ``fact`` is true)."""
    if any(asks_for(query, h.subject, h.relation) and states(passage, h) for h in hops):
        return True
    own = _own_fact(passage)
    if own is None or any(own[:2] == (h.subject, h.relation) for h in hops):
        return False  # nothing to check it against, or another object than the gold fact has
    return asks_for(query, *own[:2])


def _misleads(passage: Passage) -> bool:
    """Say whether the world made this passage to mislead; other corpora's kinds mean other things."""
    return passage.metadata.get("kind") in MISLEADING


def _own_fact(passage: Passage) -> tuple[str, str, str] | None:
    found = tuple(passage.metadata.get(name) for name in ("subject", "relation", "object"))
    return found if all(isinstance(part, str) for part in found) else None  # type: ignore[return-value]


def _label(useful: bool) -> Label:
    return "useful" if useful else "misleading"


def _pair(trajectory: Trajectory, turn: int, retrieval: Retrieval) -> Pair:
    question, query = trajectory.question, retrieval.request.query
    judged, hops = judge_passages(query, question, retrieval.passages), gold_hops(question)
    asks = any(asks_for(query, h.subject, h.relation) for h in hops) if hops else None
    return Pair(
        trajectory_id(trajectory), turn, question, query, retrieval.source, retrieval.passages, judged, asks,
        label_trajectory(trajectory), pair_label(judged),
    )


def pair_label(labels: Sequence[Label]) -> Label:
    """Return the label of a search: useful if a passage is; else undecided if a passage is; else misleading."""
    return next((label for label in ("useful", *NO_VERDICT) if label in labels), "misleading")


# -- tables ---------------------------------------------------------------------------------------


def pairs_to_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Return one row per pair with the columns COLUMNS; ``table_to_pairs`` is the inverse.

    passages: list of texts, for reading.  passage_records: the same passages whole, as JSON text.
    """
    return pd.DataFrame([_to_row(pair) for pair in pairs], columns=list(COLUMNS))


def table_to_pairs(table: pd.DataFrame) -> list[Pair]:
    """Return the pairs of a table made by ``pairs_to_table``."""
    return [_from_row(row) for row in table.to_dict("records")]


def _to_row(pair: Pair) -> dict[str, Any]:
    question = pair.question
    return {
        "trajectory_id": pair.trajectory_id, "turn": pair.turn, "question_id": question.id,
        "dataset": question.dataset, "split": question.split, "question": question.question,
        "golden_answers": list(question.golden_answers),
        "metadata": json.dumps(dict(question.metadata), ensure_ascii=False), "query": pair.query,
        "source": pair.source, "passages": [p.text for p in pair.passages],
        "passage_records": json.dumps([asdict(p) for p in pair.passages], ensure_ascii=False),
        "passage_labels": list(pair.passage_labels), "asks_gold_hop": pair.asks_gold_hop,
        "label_trajectory": pair.label_trajectory, "label_judge": pair.label_judge,
    }


def _from_row(row: dict[str, Any]) -> Pair:
    question = Question(
        row["question_id"], row["dataset"], row["question"], tuple(row["golden_answers"]), row["split"],
        json.loads(row["metadata"]),
    )
    passages = tuple(Passage(**p) for p in json.loads(row["passage_records"]))
    asks = row["asks_gold_hop"]
    return Pair(
        row["trajectory_id"], int(row["turn"]), question, row["query"], row["source"], passages,
        tuple(row["passage_labels"]), None if pd.isna(asks) else bool(asks), row["label_trajectory"],
        row["label_judge"],
    )


# -- statistics -----------------------------------------------------------------------------------


def label_stats(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return how often each way of labelling says what.

    pairs: table of ``pairs_to_table``.  Columns: label_kind, label, n (pairs), share (of all pairs), agreed
    (share of these n that the other kind labels the same; NaN without any).  Pairs without a verdict have rows
    of their own where there are any.  Raises BadInput without pairs.
    """
    if pairs.empty:
        raise BadInput(
            "labels: expected at least one search, found none in all trajectories; let more of them begin with a "
            "search: --set 01.force_search_share=1.0"
        )
    same = pairs["label_trajectory"] == pairs["label_judge"]
    rows = []
    for kind in LABEL_KINDS:
        for label in (*LABELS, *(label for label in NO_VERDICT if (pairs[f"label_{kind}"] == label).any())):
            mine = pairs[f"label_{kind}"] == label
            rows.append((kind, label, int(mine.sum()), float(mine.mean()), float(same[mine].mean())))
    return pd.DataFrame(rows, columns=["label_kind", "label", "n", "share", "agreed"])


def agreement_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the four combinations of the two labels: label_trajectory, label_judge, n, share.

    Pairs without a verdict are left out.
    """
    pairs, rows = _decided(pairs), []
    for outcome in LABELS:
        for judged in LABELS:
            both = (pairs["label_trajectory"] == outcome) & (pairs["label_judge"] == judged)
            rows.append((outcome, judged, int(both.sum()), float(both.mean())))
    return pd.DataFrame(rows, columns=["label_trajectory", "label_judge", "n", "share"])


def agreement(pairs: pd.DataFrame) -> tuple[float, float]:
    """Return (share of pairs on which both labels agree, Cohen's kappa: 0 is chance, 1 is perfect).

    kappa is NaN when chance alone makes them agree always (both give one and the same label).  Pairs without a
    verdict are left out.
    """
    pairs = _decided(pairs)
    by_chance = sum(
        float((pairs["label_trajectory"] == label).mean() * (pairs["label_judge"] == label).mean()) for label in LABELS
    )
    share = float((pairs["label_trajectory"] == pairs["label_judge"]).mean())
    return share, (share - by_chance) / (1.0 - by_chance) if by_chance < 1.0 else float("nan")


def _decided(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs[~pairs["label_judge"].isin(NO_VERDICT)]


def kind_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return what the engine's passages were to the queries that they were returned for.

    pairs: table of ``pairs_to_table``.  Columns: label_judge (of the search), kind (``fact``, one of
    language.MISLEADING, or ``unrelated``), n (passages), share (of the passages under this label; NaN
    without any).  Passages without a kind of the world (a reader's own, a simulator's) do not count.
    """
    counts = {(label, kind): 0 for label in LABELS for kind in (FACT, *MISLEADING, UNRELATED)}
    pairs = _decided(pairs)
    for query, label, records in zip(pairs["query"], pairs["label_judge"], pairs["passage_records"], strict=True):
        asked = parse_query(query)
        for about in (record["metadata"] for record in json.loads(records)):
            if about.get("kind") in (FACT, *MISLEADING):
                counts[label, kind_for(about, *asked) if asked else UNRELATED] += 1
    totals = {label: sum(n for (of, _), n in counts.items() if of == label) for label in LABELS}
    rows = [
        (label, kind, n, n / totals[label] if totals[label] else float("nan")) for (label, kind), n in counts.items()
    ]
    return pd.DataFrame(rows, columns=["label_judge", "kind", "n", "share"])


def retrieval_recall(
    questions: Sequence[Question], retriever: Retriever, depths: Sequence[int] = ()
) -> pd.DataFrame:
    """Return, per set, how often one search for the question itself brings up a golden answer.

    depths: look at the first so many passages only, one row each; none: at all that the retriever
    returns.  Columns: dataset, recall (share of questions whose golden answer stands in a passage), n,
    and k when depths are given.  A failed search found nothing.
    """
    found = retriever.search([SearchRequest(q.question, q) for q in questions])
    rows = [
        {"dataset": r.request.question.dataset, "k": k, "found": place is not None and place < (k or MAX_PASSAGES)}
        for r in found for place in [_answer_place(r)] for k in (depths or (None,))
    ]
    table = pd.DataFrame(rows, columns=["dataset", "k", "found"])
    keys = ["dataset", "k"] if depths else ["dataset"]
    return table.groupby(keys, sort=False)["found"].agg(recall="mean", n="size").reset_index()


def _answer_place(retrieval: Retrieval) -> int | None:
    """Return how many passages stand before the first one with a golden answer, None if none has one."""
    answers = retrieval.request.question.golden_answers
    places = (i for i, p in enumerate(retrieval.passages) if contains_answer(p.text, answers))
    return next(places, None)
