"""The shipped base models: verify that they belong to the recipe in the library, or rebuild them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from zerosearch import artifacts
from zerosearch.errors import MissingInput
from zerosearch.microworld import abilities, models
from zerosearch.microworld.world import WORLD_VERSION

Manifest = dict[str, Any]
_CARDS = {"policy": abilities.policy_card, "simulator": abilities.simulator_card}


def verify() -> Manifest:
    """Return the manifest of data/micro_lm after checking both models' recipe digests.

    Raises MissingInput when a model or the manifest is absent or was made by another recipe.
    """
    manifest = models.manifest()
    for which, recipe in models.RECIPES.items():
        entry = manifest.get("models", {}).get(which)
        if entry is None or not (models.MICRO_FOLDER / which / "model.safetensors").is_file():
            raise MissingInput(
                f"base model {which!r}: expected {models.MICRO_FOLDER / which} and its manifest entry, found none; "
                f"rebuild with `{models.REBUILD_COMMAND}`"
            )
        if entry["recipe_sha256"] != recipe.digest():
            raise MissingInput(
                f"base model {which!r}: expected one made by the recipe in the library ({recipe.digest()[:12]}), "
                f"found {entry['recipe_sha256'][:12]}; rebuild with `{models.REBUILD_COMMAND}`"
            )
    return manifest


def rebuild(stage: artifacts.Stage) -> Manifest:
    """Pretrain both bases into data/micro_lm (about 25 minutes on one core) and return the manifest."""
    made: Manifest = {"world_version": WORLD_VERSION, "models": {}}
    for number, which in enumerate(models.RECIPES):
        folder = models.MICRO_FOLDER / which

        def report(progress: float, loss: float, seconds: float, which: str = which, number: int = number) -> None:
            stage.progress(number * 1000 + int(progress * 1000), 2000, f"pretraining {which}", f"loss {loss:.3f}")

        made["models"][which] = models.build(which, folder, _CARDS[which], report)
    artifacts.write_atomic(models.MICRO_FOLDER / "manifest.json", json.dumps(made, indent=1) + "\n")
    return made


def card_table(manifest: Manifest) -> pd.DataFrame:
    """Return the ability card: columns model, ability, value, n, meaning."""
    rows = [
        {"model": which, "ability": name, **entry}
        for which, made in manifest["models"].items()
        for name, entry in made["abilities"].items()
    ]
    return pd.DataFrame(rows, columns=["model", "ability", "value", "n", "meaning"])
