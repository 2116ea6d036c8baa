"""The rows of the published tables as options: ``--row qwen2.5-7b-instruct`` sets what that row had.

Read by the command line.  What a row says is a default: ``--set`` has the last word.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Mapping

import yaml

from zerosearch import artifacts
from zerosearch.errors import ConfigError, unknown_name
from zerosearch.profiles import LAYOUT, Profile

TABLE = artifacts.REPO / "data" / "published" / "rows.yaml"


@lru_cache(maxsize=1)
def rows() -> Mapping[str, Mapping[str, Any]]:
    """Return the published rows: name -> policy, noise, simulator, gpus."""
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def overrides(name: str, profile: Profile) -> dict[str, Any]:
    """Return what ``--set`` would have to say for a row; ConfigError for another name or a profile without GPUs.

    A profile whose simulator shares the policy's cards keeps it so.
    """
    if name not in rows():
        raise unknown_name("--row", name, tuple(rows()))
    if not profile.needs.gpus:
        raise ConfigError(
            f"--row {name}: expected a profile for GPUs, since published rows have models of billions of parameters, "
            f"found {profile.name!r}; add --profile a100_node"
        )
    row = rows()[name]
    found = dict.fromkeys(("03.policy_model", "04.policy_model"), row["policy"])
    found |= dict.fromkeys(("02.simulator_model", "03.simulator_model"), row["simulator"])
    found |= dict(zip(("03.noise_start", "03.noise_end"), row["noise"], strict=True))
    if profile.layout.simulator_gpus:
        found[f"{LAYOUT}.simulator_gpus"] = row["gpus"]
    return found
