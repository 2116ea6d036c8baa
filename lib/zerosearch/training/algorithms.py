"""The algorithms of policy RL, behind one name: what each makes of rewards, and where its KL stands.

``A`` is the advantage of a token, ``r`` the reward of its trajectory, ``g`` the rewards of the trajectories of the
same question.  All of them take the same clipped step with it, see ``objective``.  Nothing heavy is imported here:
the command line asks for the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, get_args

from zerosearch.errors import unknown_name
from zerosearch.stage_parameters import KlIn


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way from rewards to advantages.

    formula: of the advantage.  advantage: a name of ``advantages.ESTIMATORS``; empty where a critic estimates.
    kl_in: where the KL to the base stands unless something else is asked for.  least_group: the fewest
    trajectories per question from which it can learn.
    """

    formula: str
    advantage: str
    kl_in: str = "loss"
    least_group: int = 1


ALGORITHMS: dict[str, Algorithm] = {
    "grpo": Algorithm("A = (r - mean(g)) / std(g)", "grpo", least_group=2),
    "reinforce": Algorithm("A = r", "plain"),
    "reinforce-loo": Algorithm("A = r - mean of the others of g", "leave_one_out", least_group=2),
    "ppo": Algorithm("A = r - KL to come - V(state), whitened over the batch", "", kl_in="reward"),
}
"""Name -> algorithm; the parameter ``algorithm`` of stage 03."""


def get_algorithm(name: str) -> Algorithm:
    """Return an algorithm by its name; ConfigError with the nearest one otherwise."""
    if name not in ALGORITHMS:
        raise unknown_name("algorithm", name, tuple(ALGORITHMS))
    return ALGORITHMS[name]


def place_of_kl(algorithm: str, kl_in: str = "") -> str:
    """Return where the KL stands: as asked for, else as suits the algorithm.  ConfigError for an unknown place."""
    if kl_in not in get_args(KlIn):
        raise unknown_name("kl_in", kl_in, tuple(filter(None, get_args(KlIn))))
    return kl_in or get_algorithm(algorithm).kl_in


def problem_of(values: Mapping[str, Any]) -> str:
    """Return why nothing could be learned with the parameters of stage 03, and what mends it; empty if all is well."""
    name, size = values["algorithm"], values["group_size"]
    least = get_algorithm(name).least_group
    if size >= least:
        return ""
    alone = " or ".join(f"--set 03.algorithm={n}" for n, other in ALGORITHMS.items() if other.least_group <= size)
    return (
        f"03.algorithm {name}: expected groups of at least {least}, since it compares a trajectory with the others of "
        f"its question, found 03.group_size {size}, from which nothing can be learned; add --set 03.group_size=8, or "
        f"choose {alone}"
    )
