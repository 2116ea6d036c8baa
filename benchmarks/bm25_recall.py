"""How often BM25 finds a supporting passage on real slices, with and without English endings cut off words.

    PYTHONPATH=lib .venv/bin/python benchmarks/bm25_recall.py PASSAGES.jsonl QUESTIONS_DIR ANSWERABILITY.jsonl

ANSWERABILITY: per line ``dataset``, ``id`` and ``supporting_passage_ids`` of a question.  Only questions that a
passage supports are asked, as they stand.  ``recall``: share of them with a supporting passage among the first ten.
Writes benchmarks/bm25_recall.csv.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd

from zerosearch import artifacts, environment, files
from zerosearch.question_sets.own import load_questions_dir
from zerosearch.questions import evaluation_questions, load_corpus
from zerosearch.retrievers.bm25 import BM25Retriever

DEPTH = 10
TABLE = Path(__file__).with_suffix(".csv")


def supporting(path: Path) -> dict[str, frozenset[str]]:
    """Return the ids of the supporting passages of every question that has some."""
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return {f"{r['dataset']}/{r['id']}": frozenset(r["supporting_passage_ids"]) for r in rows if r["supporting_passage_ids"]}


def main(corpus: Path, folder: Path, answerability: Path) -> None:
    """Ask both engines all supported questions and write the table."""
    passages, support = load_corpus(corpus), supporting(answerability)
    asked = [q for q in evaluation_questions(load_questions_dir(folder)) if q.id in support]
    rows = []
    for stem in (True, False):
        engine = BM25Retriever(passages, k=DEPTH, stem=stem)
        for question, best in zip(asked, engine.rank([q.question for q in asked]), strict=True):
            hit = any(passages[i].id in support[question.id] for i in best)
            rows.append({"engine": engine.name, "dataset": question.dataset, "recall": hit})
    table = pd.DataFrame(rows).groupby(["engine", "dataset"])["recall"].agg(["mean", "size"]).reset_index()
    table = table.rename(columns={"mean": "recall", "size": "questions"}).round(4)
    table = table.assign(
        n_passages=len(passages), cpu=environment.processor(), bm25s=environment.installed_version("bm25s"),
        date=datetime.now(timezone.utc).date().isoformat(), commit=environment.source_version(artifacts.REPO)["commit"],
    )
    files.write_table(TABLE, table)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
