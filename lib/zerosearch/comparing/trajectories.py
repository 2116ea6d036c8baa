"""The first difference between two tables of trajectories: which one, which turn, which token, and who wrote it.

Token ids are the truth (rule 2).  When all tokens before the first different one agree, the loss mask says
whose doing it was: a token of the policy (its weights, its arithmetic or its draw), or one of an observation
(the retriever answered otherwise).  Times and the replay cache say nothing about the run and are left out.
Called by ``compare_runs``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Callable, Sequence

from zerosearch.schema import Passage, Retrieval, Trajectory

Decode = Callable[[Sequence[int]], str]
_BEFORE = 12  # tokens of context that are shown
_INFORMATION = re.compile(r"<information>.*?(?:</information>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two records differ first.  step: its training step, 0 without one.  what: sentences, general first."""

    step: int
    where: str
    what: tuple[str, ...]


def first_difference(a: Sequence[Trajectory], b: Sequence[Trajectory], decode: Decode | None) -> Difference | None:
    """Return the first difference in the order of a, None when all trajectories are the same.

    decode: token ids to text, None where there is no tokenizer.  Log-probabilities alone are reported
    only when no token differs anywhere.
    """
    others, log_probs = {_key(t): t for t in b}, None
    for t in a:
        other = others.pop(_key(t), None)
        if other is None:
            return Difference(t.step, _where(t), ("only A has this trajectory: B asked other questions, or fewer",))
        if what := _what_differs(t, other, decode):
            earlier = (f"log-probabilities differ earlier: {log_probs.where}",) if log_probs else ()
            return Difference(t.step, _where(t, what[0]), (*what[1], *earlier))
        if log_probs is None and t.logprobs != other.logprobs:
            log_probs = _log_probs_only(t, other)
    if others and log_probs is None:
        t = next(iter(others.values()))
        return Difference(t.step, _where(t), ("only B has this trajectory: A asked other questions, or fewer",))
    return log_probs


def turn_of(t: Trajectory, position: int) -> int:
    """Return the turn that a token after the prompt belongs to: a policy message and what follows it, from 0."""
    own = t.loss_mask[: position + 1]
    return max(0, sum(mine and not before for before, mine in zip((False, *own), own)) - 1)


def _key(t: Trajectory) -> tuple[int, str, int]:
    return t.step, t.question.id, t.sample


def _where(t: Trajectory, turn: int | None = None) -> str:
    place = f"step {t.step}, question {t.question.id}, sample {t.sample}"
    return place if turn is None else f"{place}, turn {turn}"


def _what_differs(a: Trajectory, b: Trajectory, decode: Decode | None) -> tuple[int, tuple[str, ...]] | None:
    """Return (turn, sentences) for the first difference of two trajectories of one key; None without one."""
    if (i := _first(a.prompt_ids, b.prompt_ids)) is not None:
        sentence = "the prompt was already different: other question text, template or tokenizer"
        return 0, (sentence, _tokens("prompt token", i, a.prompt_ids, b.prompt_ids, decode))
    if (i := _first(a.token_ids, b.token_ids)) is not None:
        turn = turn_of(a if i < len(a.token_ids) else b, i)
        tokens = _tokens("token", i, a.token_ids, b.token_ids, decode)
        return turn, (*_who(a, b, i, turn), tokens, *_context(a, i, decode))
    for number, (one, other) in enumerate(zip_longest(a.turns, b.turns)):
        if one is None or other is None or _timeless(one.retrieval) != _timeless(other.retrieval):
            told = _retrievals(one and one.retrieval, other and other.retrieval)
            return number, ("all tokens agree, but what was retrieved beyond the cut does not", *told)
    ends = [f"{name} {x!r} / {y!r}" for name in ("loss_mask", "stop_reason", "answer", "error")
            if (x := getattr(a, name)) != (y := getattr(b, name))]
    return (len(a.turns) - 1, ("all tokens agree, but not how it ended: " + "; ".join(ends),)) if ends else None


def _who(a: Trajectory, b: Trajectory, i: int, turn: int) -> tuple[str, ...]:
    """Say who wrote the first different token: the policy, or the retriever."""
    if i >= len(a.token_ids) or i >= len(b.token_ids):
        shorter, name = (a, "A") if i >= len(a.token_ids) else (b, "B")
        ends = f"{name} ends here ({shorter.stop_reason}), the other goes on"
        return (f"the prompt and all tokens before it agree; {ends}",)
    if a.loss_mask[i] and b.loss_mask[i]:
        own = [abs(x - y) for x, y, mine in zip(a.logprobs[:i], b.logprobs[:i], a.loss_mask[:i]) if mine]
        return (
            "the policy's own token; the prompt and every observation before it agree, so the policy differed (its "
            "weights, its arithmetic or its draw), not what it had read",
            f"log-probability {a.logprobs[i]:.6g} / {b.logprobs[i]:.6g}; those of its {len(own)} tokens before differ "
            f"by {max(own, default=0.0):.1e} at most",
        )
    if a.loss_mask[i] or b.loss_mask[i]:
        return (f"written by the policy in {'A' if a.loss_mask[i] else 'B'} only, inserted in the other",)
    if not any(a.loss_mask[:i]):
        return ("the forced beginning of the first message differs: other parameters or another tokenizer",)
    found = [t.turns[turn].retrieval if turn < len(t.turns) else None for t in (a, b)]
    return ("the observation differs: all tokens of the policy before it agree, so the retrieval differed",
            *_retrievals(*found))


def _retrievals(a: Retrieval | None, b: Retrieval | None) -> tuple[str, ...]:
    """Return a sentence for each thing in which two answers to one query differ; of the passages the first."""
    if a is None or b is None:
        return () if a is b else (f"only {'B' if a is None else 'A'} carried out a search",)
    told = [f"{name} {x!r} / {y!r}" for name, x, y in (
        ("query", a.request.query, b.request.query),
        ("noise probability", a.request.noise_probability, b.request.noise_probability),
        ("misleading", a.noisy, b.noisy), ("source", a.source, b.source), ("error", a.error, b.error),
    ) if x != y]
    for number, (one, other) in enumerate(zip_longest(a.passages, b.passages), 1):
        if one != other:
            told.append(f"passage {number}: {_passage(one)} / {_passage(other)}")
            break
    return tuple(told)


def _passage(passage: Passage | None) -> str:
    return "(none)" if passage is None else repr(passage.text[:80])


def _timeless(retrieval: Retrieval | None) -> Retrieval | None:
    return retrieval and replace(retrieval, wall_seconds=0.0, cached=False)


def _log_probs_only(a: Trajectory, b: Trajectory) -> Difference:
    i = _first(a.logprobs, b.logprobs) or 0
    largest = max(abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True))
    what = (
        f"all tokens agree; log-probabilities do not: first at token {i}, {a.logprobs[i]:.6g} / {b.logprobs[i]:.6g}, "
        f"by {largest:.1e} at most in this trajectory: the arithmetic or the weights differ"
    )
    return Difference(a.step, _where(a, turn_of(a, i)), (what,))


def _first(a: Sequence[Any], b: Sequence[Any]) -> int | None:
    """Return the first position at which two sequences differ (the shorter one's end), None when equal."""
    if a == b:
        return None
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _tokens(name: str, i: int, a: Sequence[int], b: Sequence[int], decode: Decode | None) -> str:
    def shown(ids: Sequence[int]) -> str:
        if i >= len(ids):
            return "(end)"
        return f"{ids[i]} {decode([ids[i]])!r}" if decode else str(ids[i])

    return f"{name} {i}: {shown(a)} / {shown(b)}{'' if decode else ' (no tokenizer at hand, so no text)'}"


def _context(t: Trajectory, i: int, decode: Decode | None) -> tuple[str, ...]:
    return (f"after {decode(t.token_ids[max(0, i - _BEFORE): i])!r}",) if decode and i else ()


def transcript_difference(a: str, b: str) -> str:
    """Return what two transcripts (own text and observations joined) differ in first, and who wrote that."""
    i = _first(a, b)
    if i is None:
        return "the transcripts agree"
    inside = any(block.start() < i < block.end() for block in _INFORMATION.finditer(a))
    who = "inside an observation, so the retrieval differed" if inside else \
        "in the policy's own text, everything that it had read before agrees"
    return f"character {i} of the transcript, {who}: {a[max(0, i - 40): i + 20]!r} / {b[max(0, i - 40): i + 20]!r}"

