"""BM25 from 20,000 to a million passages: time and memory of building, opening and searching; beside rank_bm25.

    .venv/bin/pip install -c constraints.txt rank-bm25
    PYTHONPATH=lib .venv/bin/python benchmarks/bm25_scale.py PASSAGES.jsonl QUESTIONS_DIR

Synthetic passages have a hundred words drawn from half a million by a Zipf law (exponent 1.1); queries are ten
words drawn from one passage each.  Every size runs in processes of its own, one that builds and one that
opens what is on the disk and searches, so that peak memory is theirs.  PASSAGES and QUESTIONS: real ones;
1,000 questions are asked of both engines in the same process, with the same words and parameters.
Seconds are those of one CPU core (the machine has other work); opening is building where nothing is there yet.
``found``: share of queries whose own passage is among the ten.  ``same_passages``: share of the ten that both
engines return (their formulas for rare words differ).  Writes benchmarks/bm25_scale.csv.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pandas as pd
import psutil

from zerosearch import artifacts, environment, files
from zerosearch.question_sets.own import load_questions_dir
from zerosearch.questions import load_corpus
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.retrievers.corpus import open_passages
from zerosearch.schema import Passage

SIZES = (20_000, 200_000, 1_000_000)
N_WORDS, N_KNOWN, EXPONENT, N_QUERIES = 100, 500_000, 1.1, 200
N_REAL, DEPTH, K1, B = 1000, 10, 0.9, 0.4
TABLE = Path(__file__).with_suffix(".csv")


def synthetic(n: int) -> Iterator[np.ndarray]:
    """Yield the words (their ranks) of n passages."""
    chances = 1.0 / np.arange(1, N_KNOWN + 1) ** EXPONENT
    upper = np.cumsum(chances / chances.sum())
    rng = np.random.default_rng(0)
    for start in range(0, n, 10_000):
        drawn = rng.random((min(10_000, n - start), N_WORDS))
        yield from np.searchsorted(upper, drawn).clip(max=N_KNOWN - 1)


def write_passages(n: int, path: Path) -> None:
    """Write n synthetic passages as JSON lines."""
    with path.open("w", encoding="ascii") as file:
        for i, ranks in enumerate(synthetic(n)):
            words = [f"w{rank}" for rank in ranks.tolist()]
            file.write(json.dumps({"id": str(i), "title": words[0], "text": " ".join(words[1:])}) + "\n")


def seconds_of(work: Any) -> tuple[float, Any]:
    """Return (CPU seconds that the work took, its result)."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def open_and_search(path: Path, cache: Path) -> dict[str, float]:
    """Return what one process measures; where nothing is in the cache, opening is building."""
    rng = np.random.default_rng(1)
    opening, engine = seconds_of(lambda: BM25Retriever.open(open_passages(path, cache, 0), DEPTH, K1, B, cache=cache))
    places = rng.integers(0, len(engine.passages), N_QUERIES)
    queries = [" ".join(rng.choice(engine.passages[int(i)].text.split(), 10)) for i in places]
    engine.rank(queries[:10])
    searching, ranked = seconds_of(lambda: engine.rank(queries))
    found = sum(place in best for place, best in zip(places.tolist(), ranked, strict=True))
    memory = psutil.Process().memory_info()
    return {
        "open_cpu_seconds": opening, "queries_per_cpu_second": N_QUERIES / searching, "found": found / N_QUERIES,
        "peak_mib": environment.peak_rss_mib(), "end_mib": memory.rss / 2**20,
    }


def measured(n: int, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of one size: built, and opened again."""
    path, cache = folder / f"{n}.jsonl", folder / f"cache-{n}"
    write_passages(n, path)
    rows = []
    for work in ("build", "open"):
        command = [sys.executable, __file__, "--one", str(path), str(cache)]
        shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 2**20
        about = {"engine": "bm25", "corpus": "synthetic", "n_passages": n, "work": work, "index_mib": size}
        rows.append(about | shown)
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    return rows


def beside_rank_bm25(corpus: Path, questions: Path) -> list[dict[str, Any]]:
    """Return two rows: queries per second of both over the same real passages, and how far they agree."""
    from rank_bm25 import BM25Okapi

    passages = load_corpus(corpus)
    asked = [q.question for q in load_questions_dir(questions)][:N_REAL]
    building, engine = seconds_of(lambda: in_cache(passages))
    ours, ranked = seconds_of(lambda: engine.rank(asked))
    words = engine.words
    texts = [f"{p.title} {p.text}" for p in passages]
    building_loop, loop = seconds_of(lambda: BM25Okapi([words(text) for text in texts], k1=K1, b=B))
    theirs, best = seconds_of(lambda: [loop.get_top_n(words(q), range(len(passages)), DEPTH) for q in asked])
    same = sum(len(set(a) & set(b)) for a, b in zip(ranked, best, strict=True)) / (DEPTH * len(asked))
    about = {"corpus": "real", "n_passages": len(passages), "work": "build", "same_passages": same}
    times = {"bm25": (building, ours), "rank_bm25": (building_loop, theirs)}
    return [
        {"engine": name, **about, "open_cpu_seconds": opening, "queries_per_cpu_second": len(asked) / searching}
        for name, (opening, searching) in times.items()
    ]


def in_cache(passages: list[Passage]) -> BM25Retriever:
    """Return the engine, its index built in a new cache and memory-mapped."""
    with tempfile.TemporaryDirectory() as cache:
        return BM25Retriever.open(passages, DEPTH, K1, B, cache=Path(cache))


def main(arguments: list[str]) -> None:
    if arguments[0] == "--one":
        print(json.dumps(open_and_search(Path(arguments[1]), Path(arguments[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = beside_rank_bm25(Path(arguments[0]), Path(arguments[1]))
        rows += [row for n in SIZES for row in measured(n, Path(folder))]
    versions = {name: environment.installed_version(name) for name in ("bm25s", "rank-bm25", "numpy")}
    about = {
        "cpu": environment.processor(), **versions, "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": environment.source_version(artifacts.REPO)["commit"],
    }
    table = pd.DataFrame([row | about for row in rows]).round(2)
    files.write_table(TABLE, table)
    print(table.drop(columns=list(about)).to_string())


if __name__ == "__main__":
    main(sys.argv[1:])
