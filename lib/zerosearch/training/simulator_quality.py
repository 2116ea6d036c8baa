"""Is the simulator good enough to learn from?  Measured before it is used, before and after its tuning.

Every request is made three times: asking for useful passages, for misleading ones, and for useful ones
with another golden answer in the prompt.  The third tells a simulator that reads its prompt from one
that remembers its training data.  The requests come from questions that were held out of the tuning.

One row per measured number: when, kind, metric, value, n, low, high (95 % interval).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest

from zerosearch import seeds
from zerosearch.engines.base import Engine, GenerationRequest
from zerosearch.ledger import Ledger
from zerosearch.prompts import Prompts, prompt_ids
from zerosearch.schema import Passage
from zerosearch.scoring import contains_answer
from zerosearch.training.renaming import NameBook, SimulatorExample, answers_of, names_of
from zerosearch.training.simulator_data import answer_is_asked, has_answer

COLUMNS = ["when", "kind", "metric", "value", "n", "low", "high"]
KINDS = ("useful", "misleading", "altered")
SHARES = ("answer_present", "original_answer_present", "names_the_entity", "format_valid")
GATE = (  # question, kind, metric, bound, whether the value must be at least (True) or at most (False) that
    ("useful passages contain the golden answer", "useful", "answer_present", 0.7, True),
    ("misleading passages do not", "misleading", "answer_present", 0.15, False),
    ("another golden answer is followed", "altered", "answer_present", 0.6, True),
    ("passages have the asked-for form", "useful", "format_valid", 0.8, True),
)
_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class QualityRequest:
    """One question to the simulator: the example it comes from (with the real engine's passages) and
    another golden answer of the same kind (None where there is no other)."""

    example: SimulatorExample
    other_answer: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """What the simulator wrote for one request: passages as parsed, whether it ended by itself."""

    passages: tuple[Passage, ...]
    ended: bool


def quality_requests(
    examples: Sequence[SimulatorExample], count: int, seed: int, names: Sequence[SimulatorExample] = ()
) -> list[QualityRequest]:
    """Return up to ``count`` requests, drawn without repeats from held-out examples.

    names: further examples whose names may serve as other golden answers.
    """
    book = NameBook([*examples, *names])
    order = seeds.generator(seed, "quality requests").permutation(len(examples))[:count]
    made = []
    for index in order:
        example = examples[index]
        rng = seeds.generator(seed, "other answer", int(index))
        other = book.new_name(example.golden_answer, rng, avoid=names_of(example))
        made.append(QualityRequest(example, other if other != example.golden_answer else None))
    return made


def ask_simulator(
    requests: Sequence[QualityRequest], kind: str, engine: Engine, prompts: Prompts, *,
    seed: int = 0, temperature: float = 1.0, max_new_tokens: int = 160,
) -> list[Written | None]:
    """Return what the simulator writes for each request of one kind (None: no other answer to ask with).

    kind: ``useful``, ``misleading`` or ``altered``.  It is asked for as many passages as the real
    engine returned.  seed, temperature: the draws are keyed by (seed, kind, index of the request).
    """
    asked = {i: _asked(r, kind) for i, r in enumerate(requests) if kind != "altered" or r.other_answer}
    generation = []
    for i, example in asked.items():
        text = prompts.simulator_prompt(
            example.query, example.question, example.golden_answer, kind != "misleading",
            len(example.passages),
        )
        ids = tuple(prompt_ids(prompts.tokenizer, text))
        key = seeds.derive_seed(seed, "quality", kind, i)
        generation.append(GenerationRequest(ids, key, max_new_tokens, temperature))
    written: list[Written | None] = [None] * len(requests)
    for i, made in zip(asked, engine.generate(generation), strict=True):
        ended = made.stop_reason == "eos"
        own = made.token_ids[: len(made.token_ids) - ended]
        text = prompts.tokenizer.decode(own, skip_special_tokens=False)
        written[i] = Written(prompts.parse_passages(text, len(asked[i].passages)), ended)
    return written


def measure(
    requests: Sequence[QualityRequest], written: Sequence[Written | None], kind: str, when: str, seed: int = 0
) -> pd.DataFrame:
    """Return the quality rows of one kind of request.

    answer_present: share of requests whose passages contain the golden answer of the prompt (leaks, for
    misleading).  Requests whose question names the answer do not count, since then its name tells
    nothing; and for useful and altered only those count whose real passages contain it: a useful passage
    about an earlier hop need not name the final answer.  original_answer_present (altered
    only): the old answer came out although the prompt names another one.  names_the_entity: the entity
    of the query is named.  format_valid: as many passages as asked for, ended by end-of-text.
    passages, words_per_passage: means.  style_distance: Jensen-Shannon divergence (bits, 0 to 1)
    between the words of the simulator and of the real engine, names and numbers left out.
    """
    pairs = [(r, w) for r, w in zip(requests, written, strict=True) if w is not None]
    telling = [(r, w) for r, w in pairs if not answer_is_asked(r.example)]
    bearing = [(r, w) for r, w in telling if has_answer(r.example, r.example.passages)]
    shares: dict[str, list[bool]] = {
        "answer_present": [
            _says(w, _answers(r, kind)) for r, w in (telling if kind == "misleading" else bearing)
        ],
        "names_the_entity": [_names_entity(r, w) for r, w in pairs if _entities(r)],
        "format_valid": [w.ended and len(w.passages) == len(r.example.passages) for r, w in pairs],
    }
    if kind == "altered":
        shares["original_answer_present"] = [has_answer(r.example, w.passages) for r, w in bearing]
    means = {
        "passages": [len(w.passages) for _, w in pairs],
        "words_per_passage": [
            float(np.mean([len(p.text.split()) for p in w.passages])) for _, w in pairs if w.passages
        ],
    }
    rows = [(when, kind, name, *_share(values)) for name, values in shares.items() if values]
    rows += [(when, kind, name, *_mean(values)) for name, values in means.items() if values]
    if pairs:
        counts = [(_style_words(r.example.passages), _style_words(w.passages)) for r, w in pairs]
        rows.append((when, kind, "style_distance", *_style(counts, seed)))
    return pd.DataFrame(rows, columns=COLUMNS)


def quality_report(
    requests: Sequence[QualityRequest], engine: Engine, prompts: Prompts, when: str, *,
    seed: int = 0, temperature: float = 1.0, max_new_tokens: int = 160,
    ledger: Ledger | None = None,
) -> pd.DataFrame:
    """Ask for all three kinds and return all rows; what it took is written to the ledger, if there is one."""
    tables = []
    for kind in KINDS:
        written = ask_simulator(
            requests, kind, engine, prompts, seed=seed, temperature=temperature, max_new_tokens=max_new_tokens
        )
        tables.append(measure(requests, written, kind, when, seed))
    spent = engine.counts.take()
    if ledger is not None:
        amounts = {"prompt": spent.prompt, "generated": spent.generated}
        ledger.event("tokens", role="simulator", model=engine.name, **amounts)
        device, units = ("cuda", 1) if torch.cuda.is_available() else ("cpu", torch.get_num_threads())
        ledger.event("busy", role="simulator", device=device, seconds=round(spent.seconds, 4), units=units)
    return pd.concat(tables, ignore_index=True)


def gate(report: pd.DataFrame) -> pd.DataFrame:
    """Return the questions a simulator should pass before a policy trains on it.

    report: rows of one moment (``after``).  Columns: question, value, wanted, passed; a question whose
    number could not be measured (NaN) has not been passed.
    """
    values = report.set_index(["kind", "metric"])["value"]
    rows = []
    for question, kind, metric, bound, at_least in GATE:
        found = float(values.get((kind, metric), np.nan))
        passed = found >= bound if at_least else found <= bound
        rows.append((question, found, f"{'>=' if at_least else '<='} {bound:g}", bool(passed)))
    return pd.DataFrame(rows, columns=["question", "value", "wanted", "passed"])


def engine_reference(requests: Sequence[QualityRequest], seed: int = 0) -> pd.DataFrame:
    """Return the same measures for the real engine's own passages, as something to compare with.

    kind: ``useful`` or ``misleading``, as the pairs are labelled.
    """
    tables = []
    for kind, useful in (("useful", True), ("misleading", False)):
        chosen = [r for r in requests if r.example.useful is useful]
        own = [Written(r.example.passages, True) for r in chosen]
        tables.append(measure(chosen, own, kind, "real engine", seed))
    return pd.concat(tables, ignore_index=True)


def _asked(request: QualityRequest, kind: str) -> SimulatorExample:
    if kind != "altered":
        return request.example
    return replace(request.example, golden_answer=request.other_answer or "", aliases=())


def _answers(request: QualityRequest, kind: str) -> tuple[str, ...]:
    return (request.other_answer or "",) if kind == "altered" else answers_of(request.example)


def _says(written: Written, answers: Sequence[str]) -> bool:
    return any(contains_answer(p.text, answers) for p in written.passages)


def _entities(request: QualityRequest) -> list[str]:
    return [name for name in names_of(request.example) if contains_answer(request.example.query, [name])]


def _names_entity(request: QualityRequest, written: Written) -> bool:
    return _says(written, _entities(request))


def _style_words(passages: Sequence[Passage]) -> Counter[str]:
    words = (w.strip(".,;:?!\"'()").lower() for p in passages for w in p.text.split() if w[0].islower())
    return Counter(w for w in words if w)


def _share(values: Sequence[bool]) -> tuple[float, int, float, float]:
    bounds = binomtest(int(sum(values)), len(values)).proportion_ci(method="wilson")
    value = float(np.mean(values))
    return value, len(values), min(float(bounds.low), value), max(float(bounds.high), value)


def _mean(values: Sequence[float]) -> tuple[float, int, float, float]:
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return mean, len(values), mean - 1.96 * error, mean + 1.96 * error


def _style(counts: Sequence[tuple[Counter[str], Counter[str]]], seed: int) -> tuple[float, int, float, float]:
    """Return (divergence, n, low, high); the interval is a bootstrap over requests around the value.

    Resampling itself adds divergence, so the bounds are the spread of the resamples moved to the value.
    """
    words = sorted({w for real, made in counts for w in (*real, *made)})
    if not words:
        return 0.0, len(counts), 0.0, 0.0
    index = {w: i for i, w in enumerate(words)}
    table = np.zeros((2, len(counts), len(words)))
    for row, both in enumerate(counts):
        for side, counter in enumerate(both):
            for word, count in counter.items():
                table[side, row, index[word]] = count
    value = _divergence(table.sum(axis=1))
    rng = seeds.generator(seed, "style bootstrap")
    draws = rng.multinomial(len(counts), np.full(len(counts), 1.0 / len(counts)), size=_RESAMPLES)
    spread = np.array([_divergence(np.tensordot(d, table, axes=(0, 1))) for d in draws])
    low, high = np.quantile(spread - spread.mean(), [0.025, 0.975])
    return value, len(counts), max(0.0, value + min(low, 0.0)), min(1.0, value + max(high, 0.0))


def _divergence(totals: np.ndarray) -> float:
    """Return the Jensen-Shannon divergence in bits of two rows of counts; 1 when one of them is empty."""
    if (totals.sum(axis=1) == 0).any():
        return 0.0 if (totals.sum(axis=1) == 0).all() else 1.0
    return float(jensenshannon(totals[0], totals[1], base=2) ** 2)
