"""Who answers the questions: eight ways to use the untrained policy, and the trained policies.

    direct      answers at once, from memory
    cot         thinks first, then answers, no search
    rag         reads the passages found for the question itself, then answers
    search      the policy's own prompt: it may search, and decides by itself
    forced      the same, but its first message is made to begin as a search does
    ra-agent    an agent: thought, action, observation, with a limit of steps
    search-o1   as search, but the policy condenses what was found before it goes on
    own-search  as search, but the policy writes the passages from its memory
    <arm>       a trained policy, asked as in its training

An answer counts only if the policy itself wrote it (rule 3): prompts and passages are never parsed.  A
method of your own is one class: see ``template``.  Called by ``evaluation.runner``; scores are made there.
"""

from __future__ import annotations

from typing import Mapping, Sequence

from zerosearch.errors import ConfigError, unknown_name
from zerosearch.evaluation.methods.base import Bench, Method, Prediction, Progress, make_bench, open_policy
from zerosearch.evaluation.methods.closed import ChainOfThought, Direct, Rag
from zerosearch.evaluation.methods.searching import Forced, OwnSearch, RaAgent, Search, SearchO1
from zerosearch.evaluation.methods.trained import Trained

__all__ = [
    "UNTRAINED", "Bench", "ChainOfThought", "Direct", "Forced", "Method", "OwnSearch", "Prediction", "Progress",
    "RaAgent", "Rag", "Search", "SearchO1", "Trained", "make_bench", "make_methods", "open_policy",
]

_CLASSES = (Direct, ChainOfThought, Rag, Search, Forced, RaAgent, SearchO1, OwnSearch)
UNTRAINED: dict[str, type[Method]] = {c.name: c for c in _CLASSES}


def make_methods(
    names: Sequence[str], base: Bench, trained: Mapping[tuple[str, int], Bench], seed: int = 0
) -> list[Method]:
    """Return the methods in the order of the tables: the untrained ones as named, then arm by arm.

    base: the untrained policy's bench.  trained: (arm, training seed) -> bench of that policy.
    Raises ConfigError for an unknown or repeated name.
    """
    for name in names:
        if name not in UNTRAINED:
            raise unknown_name("method", name, tuple(UNTRAINED))
    if len(set(names)) < len(names):
        raise ConfigError(f"methods: expected each name once, found {', '.join(names)}; remove one")
    untrained = [UNTRAINED[name](base, seed) for name in names]
    return untrained + [Trained(bench, seed=k, arm=arm) for (arm, k), bench in trained.items()]
