"""Seeded sub-samples: some questions of each set for evaluation, and a mix of sets for training.

Every draw is keyed by (seed, set, question id): it depends neither on the order of the files nor on its own size,
so that a larger draw holds every smaller one.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Iterable, Mapping, Sequence

from zerosearch import seeds
from zerosearch.errors import ConfigError, did_you_mean
from zerosearch.schema import Question
from zerosearch.stage_parameters import MIX


def eval_sample(questions: Sequence[Question], per_set: int, seed: int) -> list[Question]:
    """Return the questions, of each set's evaluated ones at most per_set (0: all), in their order."""
    if per_set == 0:
        return list(questions)
    drawn: Counter[str] = Counter()
    chosen: set[str] = set()
    for q in _shuffled((q for q in questions if q.split == "eval"), seed):
        drawn[q.dataset] += 1
        if drawn[q.dataset] <= per_set:
            chosen.add(q.id)
    return [q for q in questions if q.split == "train" or q.id in chosen]


def training_mix(questions: Sequence[Question], mix: str, size: int, seed: int) -> list[Question]:
    """Return the questions, of the training ones a mix, in their order.

    mix: sets that train, with or without shares (``nq:1,hotpotqa:1``); "" for all, as large as they are.  size: of
    the mix; 0 for all.  Where a set has too few for its share, the others fill the mix.  ConfigError for sets that
    do not train, for shares without a size, and for shares of 0.
    """
    training = [q for q in questions if q.split == "train"]
    weights = _weights(mix, Counter(q.dataset for q in training), size)
    ranks: defaultdict[str, int] = defaultdict(int)
    places: list[tuple[float, int, str]] = []
    order = {name: number for number, name in enumerate(weights)}
    for q in _shuffled((q for q in training if q.dataset in weights), seed):
        ranks[q.dataset] += 1
        places.append(((ranks[q.dataset] - 0.5) / weights[q.dataset], order[q.dataset], q.id))
    chosen = {key for _, _, key in sorted(places)[: size or None]}
    return [q for q in questions if q.split == "eval" or q.id in chosen]


def mixed_sets(mix: str) -> tuple[str, ...]:
    """Return the sets that a mix names; ConfigError for a text that is none."""
    return tuple(_parsed(mix))


def _shuffled(questions: Iterable[Question], seed: int) -> list[Question]:
    return sorted(questions, key=lambda q: (seeds.uniform(seed, "sub-sample", q.dataset, q.id), q.id))


def _weights(mix: str, counts: Mapping[str, int], size: int) -> dict[str, float]:
    """Return the sets of a mix and their shares, in any unit."""
    named = _parsed(mix)
    for name in named:
        if name not in counts:
            known = ", ".join(counts) or "none does"
            raise ConfigError(
                f"--set 00.train_mix={mix}: expected sets that train ({known}), found {name!r}"
                f"{did_you_mean(name, counts)}"
            )
    given = {name: share for name, share in named.items() if share is not None}
    if given and (len(given) < len(named) or size == 0):
        raise ConfigError(
            f"--set 00.train_mix={mix}: expected a share for every set and --set 00.train_size=N with it, found "
            f"{'no size' if size == 0 else 'sets without a share'}"
        )
    return given or {name: float(counts[name]) for name in (named or counts)}


def _parsed(mix: str) -> dict[str, float | None]:
    """Return the sets of a mix with their shares, None where it gives none."""
    if not re.fullmatch(MIX, mix):
        raise ConfigError(f"--set 00.train_mix={mix}: expected sets such as nq:1,hotpotqa:1, found another text")
    parts = [part.strip().partition(":") for part in mix.split(",") if part.strip()]
    shares = {name: float(share) if colon else None for name, colon, share in parts}
    if len(shares) < len(parts) or 0.0 in shares.values():
        raise ConfigError(f"--set 00.train_mix={mix}: expected each set once and shares above 0, found otherwise")
    return shares
