"""From labelled pairs to the simulator's lessons: which examples, in which order, as which tokens.

Everything here is decided before training starts and is a pure function of the pairs and a seed, so
that an interrupted training goes on with exactly the lessons that were left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterable, Iterator, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from zerosearch import seeds
from zerosearch.errors import BadInput, unknown_name
from zerosearch.labels import LABEL_KINDS, NO_VERDICT, Pair, gold_hops, judge_passages
from zerosearch.prompts import Prompts, prompt_ids
from zerosearch.schema import Passage
from zerosearch.scoring import contains_answer
from zerosearch.training.renaming import NameBook, SimulatorExample, answers_of, rename

_WINDOW = 8  # batches that are sorted by length together, so that a batch needs little padding


@dataclass(frozen=True, slots=True)
class Lesson:
    """One tokenised example: input_ids = prompt + passages + end of text.

    n_prompt: tokens of the prompt, which are read and not learned.  weights: one per learned token
    (those after the prompt), 1 or golden_weight.
    """

    input_ids: tuple[int, ...]
    n_prompt: int
    weights: tuple[float, ...]


def examples_from_pairs(
    pairs: Sequence[Pair], label_kind: str = "judge", seed: int = 0
) -> list[SimulatorExample]:
    """Return the simulator's examples: one per labelled pair with passages, and some more misleading ones.

    label_kind: ``judge`` or ``trajectory`` (ConfigError otherwise), which label says useful.  The judge
    labels every passage, so a useful pair also shows what the engine returned *besides* the useful
    passages: these make a misleading example of the same query, filled up to the same length with
    misleading passages of other searches, drawn by seed.  They are the hardest ones, since most of
    their passages are about the right entity.  A search that a judge could not decide gives no example.
    """
    if label_kind not in LABEL_KINDS:
        raise unknown_name("label_kind", label_kind, LABEL_KINDS)
    others = [p for pair in pairs for p in _judged(pair, "misleading")]
    made: list[SimulatorExample] = []
    for pair in pairs:
        label = pair.label_judge if label_kind == "judge" else pair.label_trajectory
        if label in NO_VERDICT:
            continue
        useful = label == "useful"
        if pair.passages:
            made.append(_example(pair, useful, pair.passages))
        if label_kind == "judge" and useful and (rest := _judged(pair, "misleading")):
            made.append(_example(pair, False, _filled(pair, rest, others, seed)))
    return made


def _judged(pair: Pair, label: str) -> tuple[Passage, ...]:
    return tuple(p for p, judged in zip(pair.passages, pair.passage_labels, strict=True) if judged == label)


def _filled(
    pair: Pair, rest: tuple[Passage, ...], others: Sequence[Passage], seed: int
) -> tuple[Passage, ...]:
    """Return the rest of a list, as long as the list was if other searches have passages that do not fit."""
    rng = seeds.generator(seed, "fill", pair.trajectory_id, pair.turn)
    filled = list(rest)
    for index in rng.integers(len(others), size=4 * len(pair.passages)):
        if len(filled) == len(pair.passages):
            break
        candidate = others[index]
        label = judge_passages(pair.query, pair.question, [candidate])[0]
        if candidate not in filled and label == "misleading":
            filled.append(candidate)
    return tuple(filled)


def _example(pair: Pair, useful: bool, passages: tuple[Passage, ...]) -> SimulatorExample:
    question = pair.question
    facts = tuple((h.subject, h.relation, h.object) for h in gold_hops(question))
    return SimulatorExample(
        pair.query, question.question, question.golden_answers[0], useful, passages, question.golden_answers,
        facts, key=f"{pair.trajectory_id}/{pair.turn}/{'useful' if useful else 'misleading'}",
    )


def drop_leaks(examples: Iterable[SimulatorExample]) -> tuple[list[SimulatorExample], int]:
    """Return (examples, how many were dropped): misleading passages must not give the golden answer away.

    Where the question itself names the answer (``which came out first, A or B?``), its name in a passage
    gives nothing away.
    """
    everything = list(examples)
    kept = [e for e in everything if e.useful or answer_is_asked(e) or not has_answer(e, e.passages)]
    return kept, len(everything) - len(kept)


def balanced(examples: Sequence[SimulatorExample], seed: int) -> list[SimulatorExample]:
    """Return as many useful as misleading examples, in their order: of the larger kind a draw, keyed by (seed, key).

    Raises BadInput where a kind has none.
    """
    kinds = [[e for e in examples if e.useful is useful] for useful in (True, False)]
    count = min(map(len, kinds))
    if count == 0:
        raise BadInput(
            f"balanced examples: expected useful and misleading ones, found {len(kinds[0])} and {len(kinds[1])}; collect "
            "more with --set 01.n_questions=1000, or leave them as they are with --set 02.balance=false"
        )
    drawn = [sorted(kind, key=lambda e: seeds.uniform(seed, "balance", e.key))[:count] for kind in kinds]
    kept = {id(e) for kind in drawn for e in kind}
    return [e for e in examples if id(e) in kept]


def answer_is_asked(example: SimulatorExample) -> bool:
    """Say whether the question or the query already names an accepted answer."""
    answers = answers_of(example)
    return contains_answer(example.question, answers) or contains_answer(example.query, answers)


def has_answer(example: SimulatorExample, passages: Sequence[Passage]) -> bool:
    """Say whether an accepted answer of the example stands in one of the passages."""
    return any(contains_answer(p.text, answers_of(example)) for p in passages)


def hold_out(
    examples: Sequence[SimulatorExample], share: float, seed: int
) -> tuple[list[SimulatorExample], list[SimulatorExample]]:
    """Return (training, held out), split by question: all examples of a question go to one side.

    share: chance in [0, 1] of a question to be held out, drawn by (seed, question text) alone.
    """
    out = {e.question for e in examples if seeds.uniform(seed, "simulator hold-out", e.question) < share}
    return [e for e in examples if e.question not in out], [e for e in examples if e.question in out]


def lesson_plan(
    examples: Sequence[SimulatorExample], count: int, rename_share: float, seed: int
) -> list[SimulatorExample]:
    """Return ``count`` examples in training order: useful and misleading in turn, renamed with a chance.

    Each kind is gone through in passes, every pass in an order of its own; each appearance of an
    example draws anew whether it is renamed (chance rename_share) and to which names.
    """
    book = NameBook(examples)
    by_kind = {useful: [e for e in examples if e.useful is useful] for useful in (True, False)}
    present = [_passes(chosen, seed, str(useful)) for useful, chosen in by_kind.items() if chosen]
    made = []
    for i in range(count):
        example = next(present[i % len(present)])
        if seeds.uniform(seed, "rename?", i) < rename_share:
            example = rename(example, book, seeds.generator(seed, "rename", i))
        made.append(example)
    return made


def _passes(examples: Sequence[SimulatorExample], seed: int, kind: str) -> Iterator[SimulatorExample]:
    number = 0
    while True:
        for index in seeds.generator(seed, "lessons", kind, number).permutation(len(examples)):
            yield examples[index]
        number += 1


def encode(
    example: SimulatorExample, prompts: Prompts, golden_weight: float, max_length: int
) -> Lesson | None:
    """Return the tokens of an example, or None when its prompt leaves no room for a passage.

    Passages are cut at max_length; a cut example does not learn to end there (no end-of-text token).
    Tokens that overlap an accepted answer weigh golden_weight, in useful passages only.
    """
    tokenizer = prompts.tokenizer
    prompt = prompts.simulator_prompt(
        example.query, example.question, example.golden_answer, example.useful, len(example.passages)
    )
    asked = prompt_ids(tokenizer, prompt)
    target = prompts.simulator_target(example.passages)
    encoded = tokenizer(target, add_special_tokens=False, return_offsets_mapping=True)
    answers = answers_of(example) if example.useful else ()
    weights = answer_weights(target, encoded.offset_mapping, answers, golden_weight)
    ids = [*asked, *encoded.input_ids, tokenizer.eos_token_id]
    if len(asked) >= max_length:
        return None
    kept = ids[:max_length]
    return Lesson(tuple(kept), len(asked), tuple([*weights, 1.0][: len(kept) - len(asked)]))


def answer_weights(
    text: str, offsets: Sequence[tuple[int, int]], answers: Sequence[str], golden_weight: float
) -> list[float]:
    """Return one weight per token: golden_weight where it overlaps an answer in the text, else 1.

    offsets: (first, last + 1) character of each token.  Answers are looked for as whole words, in
    any case.
    """
    spans = [
        found.span()
        for answer in answers if answer.strip()
        for found in re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE)
    ]
    return [golden_weight if any(a < end and start < b for a, b in spans) else 1.0 for start, end in offsets]


def batched(lessons: Sequence[Lesson], batch_size: int, seed: int) -> list[Lesson]:
    """Return the lessons reordered so that each run of batch_size has similar lengths.

    Lessons move within windows of a few batches only; the batches of a window are shuffled, so the
    order does not go from short to long.
    """
    ordered: list[Lesson] = []
    size = batch_size * _WINDOW
    for number, start in enumerate(range(0, len(lessons), size)):
        window = sorted(lessons[start : start + size], key=lambda lesson: len(lesson.input_ids))
        full = len(window) // batch_size
        batches = [window[i * batch_size : (i + 1) * batch_size] for i in range(full)]
        for index in seeds.generator(seed, "batch order", number).permutation(full):
            ordered += batches[index]
        ordered += window[full * batch_size :]
    return ordered


def collate(
    lessons: Sequence[dict[str, Sequence]], tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """Return one batch of lessons (as data set rows): b rows, L columns, N learned tokens.

    input_ids (b, L) int64, padded on the right.  positions (N,): index into the (b * L) flattened
    states of the one that predicts each learned token.  targets, weights (N,).
    """
    width = max(len(row["input_ids"]) for row in lessons) - 1
    input_ids = np.full((len(lessons), width), tokenizer.pad_token_id, dtype=np.int64)
    positions, targets, weights = [], [], []
    for i, row in enumerate(lessons):
        ids, n_prompt = row["input_ids"], row["n_prompt"]
        input_ids[i, : len(ids) - 1] = ids[:-1]
        positions += range(i * width + n_prompt - 1, i * width + len(ids) - 1)
        targets += ids[n_prompt:]
        weights += row["weights"]
    return {
        "input_ids": torch.from_numpy(input_ids), "positions": torch.tensor(positions),
        "targets": torch.tensor(targets), "weights": torch.tensor(weights, dtype=torch.float32),
    }


def row_parts(batch: dict[str, torch.Tensor], rows: int) -> list[dict[str, torch.Tensor]]:
    """Return a batch of ``collate`` in parts of at most ``rows`` texts, 0 for one part; each has its own width.

    The entries of the learned tokens stay in their order, so that the parts together are the batch.
    """
    n, width = batch["input_ids"].shape
    if not 0 < rows < n:
        return [batch]
    row, column = batch["positions"] // width, batch["positions"] % width
    parts = []
    for start in range(0, n, rows):
        mine = (row >= start) & (row < start + rows)
        own = int(column[mine].max()) + 1
        parts.append({
            "input_ids": batch["input_ids"][start : start + rows, :own],
            "positions": (row[mine] - start) * own + column[mine],
            "targets": batch["targets"][mine], "weights": batch["weights"][mine],
        })
    return parts
