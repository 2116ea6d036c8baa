"""Loading and saving models, and the ability card of the shipped bases."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest_models import TOKENIZER, tiny_model

from zerosearch.errors import BadInput, MissingInput
from zerosearch import artifacts
from zerosearch.microworld import abilities, bases, models
from zerosearch.microworld.pretrain import Recipe


def test_saved_model_and_tokenizer_come_back_the_same(tmp_path: Path) -> None:
    """Also for qwen2 folders, to which transformers gives Qwen's own tokenizer when it finds one of ours."""
    model = tiny_model()
    models.save(model, TOKENIZER, tmp_path / "policy")
    loaded, tokenizer = models.load(str(tmp_path / "policy"))
    text = "Question: who directed Silver Harbor\n<search> 東京</search>"
    assert tokenizer(text).input_ids == TOKENIZER(text).input_ids
    assert all((a == b).all() for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


def test_saving_again_replaces_the_folder(tmp_path: Path) -> None:
    for seed in (1, 2):
        models.save(tiny_model(seed=seed), TOKENIZER, tmp_path / "policy")
    loaded, _ = models.load(str(tmp_path / "policy"))
    assert (loaded.state_dict()["model.norm.weight"] == tiny_model(seed=2).state_dict()["model.norm.weight"]).all()


@pytest.mark.parametrize("name", ["micro/nobody", "/no/such/folder", "./no-such-folder"])
def test_a_missing_folder_names_the_command(name: str) -> None:
    with pytest.raises(MissingInput, match="run_all.sh"):
        models.load(name)


def test_a_truncated_model_file_is_said_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    models.save(tiny_model(), TOKENIZER, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(BadInput, match="expected a Hugging Face causal LM"):
        models.load(str(folder))


def test_a_hub_name_that_is_not_cached_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match="hf download some-team/some-model"):
        models.load("some-team/some-model")


def test_templates_follow_the_tokenizer() -> None:
    assert models.prompt_template(TOKENIZER) == "micro"


def test_the_shipped_ability_card_is_what_the_shipped_model_does() -> None:
    model, tokenizer = models.load("micro/policy")
    shipped = models.manifest()["models"]["policy"]["abilities"]
    for name, entry in abilities.policy_card(model, tokenizer).items():
        assert entry["value"] == pytest.approx(shipped[name]["value"], abs=0.02), name  # other machines round otherwise


def test_bases_are_rebuilt_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path of ``rebuild_models``, with a recipe that takes seconds."""
    small = Recipe(
        phases=((0.5, {"copy": 1.0}), (0.5, {"poor": 1.0})), tokens=3_000, hidden_size=32, n_layers=1, n_heads=2,
        n_kv_heads=1, ffn_size=64,
    )
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(models, "MICRO_FOLDER", tmp_path / "micro_lm")
    monkeypatch.setattr(models, "RECIPES", {"policy": small, "simulator": small})
    monkeypatch.setattr(abilities, "N_PROBES", 4)
    made = bases.rebuild(artifacts.open_stage("rebuild", "00", {}))
    assert bases.verify() == made and set(made["models"]) == {"policy", "simulator"}
    assert len(bases.card_table(made)) == 7
    assert models.load("micro/policy")[0].num_parameters() == made["models"]["policy"]["parameters"]
    monkeypatch.setattr(models, "RECIPES", {"policy": Recipe(phases=small.phases, tokens=9)})
    with pytest.raises(MissingInput, match="rebuild_models=true"):
        bases.verify()
