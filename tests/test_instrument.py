"""The promises about the instrument, held against what is committed: the bases and the sentinels."""

from __future__ import annotations

import pandas as pd
import pytest

from zerosearch.microworld import abilities, bases, models
from zerosearch.microworld.world import WORLD_VERSION

@pytest.fixture(scope="module")
def manifest() -> dict:
    return bases.verify()  # raises with the command that rebuilds them when a recipe has changed


def test_the_main_base_lies_within_every_bound(manifest: dict) -> None:
    rows = abilities.gate_rows(manifest["models"][bases.MAIN_BASE]["abilities"])
    assert rows == manifest["card"]  # the manifest says what its own figures say
    assert {row["ability"] for row in rows} == set(abilities.GATE)
    assert [row["ability"] for row in rows if not row["passed"]] == []


def test_every_policy_base_can_search_and_needs_to_learn(manifest: dict) -> None:
    for name, entry in manifest["models"].items():
        if not name.startswith("simulator"):
            card = {ability: row["value"] for ability, row in entry["abilities"].items()}
            assert card["valid_query"] >= 0.9 and card["forced_em"] <= 0.25 and card["oracle_gain"] >= 0.2, name
            assert 0.3 < entry["trajectory_share"] < 0.7


def test_the_zoo_is_complete_and_small(manifest: dict) -> None:
    assert manifest["world_version"] == WORLD_VERSION == 2
    folders = {path.name for path in models.MICRO_FOLDER.iterdir() if path.is_dir()}
    assert folders == set(manifest["models"]) == set(models.RECIPES)
    assert sum(path.stat().st_size for path in models.MICRO_FOLDER.rglob("*") if path.is_file()) < 20e6


def test_stored_in_bfloat16_and_loaded_as_stored() -> None:
    from safetensors.torch import load_file

    name = bases.MAIN_BASE
    stored = load_file(models.MICRO_FOLDER / name / "model.safetensors")
    model, _ = models.load(f"micro/{name}")
    loaded = dict(model.named_parameters())
    assert all(str(tensor.dtype) == "torch.bfloat16" for tensor in stored.values())
    assert all((loaded[key] == tensor.float()).all() for key, tensor in stored.items() if key in loaded)


def test_sentinels_leave_room(manifest: dict) -> None:
    table = pd.DataFrame(manifest["sentinels"]).pivot(index="condition", columns="sentinel", values="em")
    gap = table["notices every miss"] - table["notices no miss"]
    assert gap["corrupt-0.5"] >= 0.3
    assert gap.min() >= 0.0  # noticing never costs
