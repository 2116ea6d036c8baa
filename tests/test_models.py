"""Loading and saving models, published-size tokenizers, and the building of the shipped bases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest_models import FAMILIES, TOKENIZER, EchoRetriever, ScriptedEngine, tiny_model, tokenizer_of
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from zerosearch import artifacts
from zerosearch.errors import BadInput, MissingInput, WorkbookError
from zerosearch.microworld import abilities, bases, models
from zerosearch.microworld.pretrain import Phase, Recipe, Trunk
from zerosearch.prompts import Prompts, prompt_ids
from zerosearch.rollout import RolloutRequest, RolloutSettings, rollout
from zerosearch.schema import Question


def test_saved_model_and_tokenizer_come_back_the_same(tmp_path: Path) -> None:
    """Also for qwen2 folders, to which transformers gives Qwen's own tokenizer when it finds one of ours."""
    model = tiny_model()
    models.save(model, TOKENIZER, tmp_path / "policy")
    loaded, tokenizer = models.load(str(tmp_path / "policy"))
    text = "Question: who directed Silver Harbor\n<search> 東京</search>"
    assert tokenizer(text).input_ids == TOKENIZER(text).input_ids
    assert all((a == b).all() for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize(("family", "chat"), FAMILIES)
def test_every_family_comes_back_with_its_special_tokens(tmp_path: Path, family: str, chat: bool) -> None:
    tokenizer = tokenizer_of(family, chat)
    models.save(tiny_model(family, tokenizer=tokenizer), tokenizer, tmp_path / "policy")
    model, loaded = models.load(str(tmp_path / "policy"))
    text = "Question: who directed Silver Harbor\n"
    assert prompt_ids(loaded, text) == prompt_ids(tokenizer, text) and models.prompt_template(loaded) == "micro"
    assert model.config.model_type == family and model.config.eos_token_id == tokenizer.eos_token_id


def test_saving_in_bfloat16_rounds_the_file_and_not_the_model(tmp_path: Path) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    models.save(model, TOKENIZER, tmp_path / "half", torch.bfloat16)
    models.save(model, TOKENIZER, tmp_path / "whole")
    sizes = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")}
    assert sizes["half"] < 0.55 * sizes["whole"]
    loaded, _ = models.load(str(tmp_path / "half"))
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name].bfloat16().float())
        assert torch.equal(model.state_dict()[name], before[name])


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
    with pytest.raises(BadInput, match="expected a whole safetensors file"):
        models.load(str(folder))


def test_a_hub_name_that_is_not_cached_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match="hf download some-team/some-model"):
        models.load("some-team/some-model")


def test_templates_follow_the_tokenizer() -> None:
    for family, chat in FAMILIES:
        assert models.prompt_template(tokenizer_of(family, chat)) == "micro"
    assert models.prompt_template(published_tokenizer(LLAMA_TEMPLATE)) == "paper"


# -- the path of published models -----------------------------------------------------------------

LLAMA_TEMPLATE = (  # as in Llama 3: writes begin-of-text itself and a system turn that nobody asked for
    "{{- bos_token }}{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday.<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim"
    " + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


def published_tokenizer(template: str | None) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer built like Llama 3's: begin-of-text by post-processing, no pad token."""
    alphabet = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(BPE(vocab=alphabet, merges=[]))
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    made.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    begin = specials[0]
    single = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, made.token_to_id(begin))]
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), single])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=begin, eos_token="<|eot_id|>" if template else "<|end_of_text|>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [None, LLAMA_TEMPLATE])
def test_a_published_model_is_prompted_with_one_template_and_one_begin_of_text(
    tmp_path: Path, template: str | None
) -> None:
    """Saved, loaded by folder as ``policy_model: Qwen/...`` is, and rolled out for a question with two searches."""
    original = published_tokenizer(template)
    padded = published_tokenizer(template)
    padded.pad_token = padded.eos_token  # only the model's settings need one here; the file has none
    models.save(tiny_model("llama", tokenizer=padded), original, tmp_path / "published")
    _, tokenizer = models.load(str(tmp_path / "published"))
    assert original.pad_token is None and tokenizer.pad_token == tokenizer.eos_token
    prompts = Prompts.load(models.prompt_template(tokenizer), tokenizer)
    assert prompts.template.numbered  # the wording for real language models

    def script(prompt: str) -> str:
        found = prompt.count("</information>") - 1  # the instruction names the tags once
        return "<answer>Alda Falk</answer>" if found == 2 else "<search>director</search>"

    asked = Question("nq/0", "nq", "who directed Silver Harbor", ("Alda Falk",))
    settings = RolloutSettings(max_searches=2, max_turn_tokens=60, max_observation_tokens=200, max_total_tokens=4000)
    (made,) = rollout([RolloutRequest(asked)], ScriptedEngine(script, tokenizer), EchoRetriever(), prompts, settings)
    assert (made.answer, made.n_searches) == ("Alda Falk", 2)
    assert [*made.prompt_ids, *made.token_ids].count(tokenizer.bos_token_id) == 1
    text = tokenizer.decode(made.prompt_ids)
    wanted = prompts.policy_prompt(asked.question)
    if template is None:
        assert text == "<|begin_of_text|>" + wanted
    else:
        assert text.startswith("<|begin_of_text|><|start_header_id|>system") and text.count(wanted.strip()) == 1
        assert text.endswith("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
        assert text.count("<|start_header_id|>") == 3


# -- the shipped bases ----------------------------------------------------------------------------


def test_the_shipped_ability_card_is_what_the_shipped_model_does() -> None:
    model, tokenizer = models.load(f"micro/{bases.MAIN_BASE}")
    shipped = bases.verify()["models"][bases.MAIN_BASE]["abilities"]
    for name, entry in abilities.policy_card(model, tokenizer).items():
        assert entry["value"] == pytest.approx(shipped[name]["value"], abs=0.02), name  # other machines round otherwise


def test_the_manifest_says_what_the_files_are() -> None:
    manifest = bases.verify()
    assert set(manifest["models"]) == set(models.RECIPES)
    for name, entry in manifest["models"].items():
        recipe, settings = models.RECIPES[name], json.loads((models.MICRO_FOLDER / name / "config.json").read_text())
        assert (settings["model_type"], settings["dtype"]) == (recipe.family, "bfloat16")
        assert (entry["family"], entry["chat"], entry["tokens"]) == (recipe.family, recipe.chat, recipe.tokens)
    assert all(row["passed"] for row in manifest["card"])
    assert {row["sentinel"] for row in manifest["sentinels"]} == {"notices every miss", "notices no miss"}


SIZE = dict(hidden_size=32, n_layers=1, n_heads=2, n_kv_heads=1, ffn_size=64, batch_tokens=512)
WARM_UP, LAST = Phase(4_000, (("copy", 1.0),)), Phase(2_000, (("search", 1.0),))
ZOO = {
    "simulator-small": Recipe((LAST,), seed=1, eos=True, **SIZE),
    "qwen2-base": Recipe((WARM_UP, LAST), **SIZE),
    "qwen2-instruct": Recipe((WARM_UP, replace(LAST, chat=True)), **SIZE),
    "llama-instruct": Recipe((LAST, replace(LAST, chat=True)), family="llama", **SIZE),
}


def tiny_card(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, dict]:
    """Stand in for both cards: every ability of the gate, and one number that belongs to the stored weights."""
    total = sum(p.double().sum().item() for p in model.parameters())
    return {name: {"value": 0.3, "n": 1, "meaning": name} for name in abilities.GATE} | {
        "sum": {"value": total, "n": 1, "meaning": "sum of all weights"}
    }


@pytest.fixture
def micro_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of data/micro_lm, and recipes that take seconds."""
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(models, "MICRO_FOLDER", tmp_path / "micro_lm")
    monkeypatch.setattr(models, "RECIPES", ZOO)
    monkeypatch.setattr(bases, "SENTINEL_QUESTIONS", 2)
    return tmp_path / "micro_lm"


def test_families_differ_in_the_last_phase_only_and_the_longest_come_first() -> None:
    assert bases.families(ZOO) == [["qwen2-base", "qwen2-instruct"], ["llama-instruct"], ["simulator-small"]]
    grouped = bases.families(models.RECIPES)
    assert sorted(len(names) for names in grouped) == [1, 1, 1, 2, 2]
    assert ["llama-base", "llama-instruct"] in grouped and grouped[-1] == ["simulator-small"]


def test_a_family_shares_its_trunk_and_each_model_names_its_own_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunks: list[Trunk | None] = []
    build = models.build

    def watched(*arguments, **named):  # noqa: ANN002, ANN003, ANN202
        trunks.append(arguments[4])
        return build(*arguments, **named)

    monkeypatch.setattr(models, "build", watched)
    names, seen = ["qwen2-base", "qwen2-instruct"], []
    made = bases.build_family(names, tmp_path, tiny_card, lambda *at: seen.append(at), ZOO)
    assert trunks[0] is None and trunks[1] is not None and trunks[1].phases == (WARM_UP,)
    assert {name for name, _, _ in seen} == set(names) and all(0.0 <= at < 1.0 for _, at, _ in seen)
    for name in names:
        model, tokenizer = models.load(str(tmp_path / name))
        assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert bool(tokenizer.chat_template) is made[name]["chat"] is name.endswith("instruct")
        assert made[name]["abilities"] == tiny_card(model, tokenizer)  # measured as stored
        assert made[name]["parameters"] == model.num_parameters() and made[name]["trajectory_share"] > 0
    again = bases.build_family(names, tmp_path, tiny_card, None, ZOO)
    assert again == made and len(trunks) == 2  # nothing is built twice
    (tmp_path / "qwen2-instruct.json").unlink()
    assert bases.build_family(names, tmp_path, tiny_card, None, ZOO)["qwen2-base"] == made["qwen2-base"]
    assert len(trunks) == 3 and trunks[2] is None


def test_llamas_settings_name_no_pad_token(tmp_path: Path) -> None:
    """The input embedding of a pad token never learns: the end of text must not be one."""
    bases.build_family(["llama-instruct"], tmp_path, tiny_card, None, ZOO)
    model, tokenizer = models.load(str(tmp_path / "llama-instruct"))
    assert model.config.pad_token_id is None and model.get_input_embeddings().padding_idx is None
    assert model.config.bos_token_id == tokenizer.bos_token_id and tokenizer.pad_token == tokenizer.eos_token


def test_bases_are_rebuilt_by_two_workers_and_verified(micro_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path of ``rebuild_models``, with recipes that take seconds."""
    monkeypatch.setattr(bases, "MAIN_BASE", "qwen2-base")
    stage = artifacts.open_stage("rebuild", "00", {})
    cards = {"policy": tiny_card, "simulator": tiny_card}
    made = bases.rebuild(stage, cards=cards)
    assert bases.verify() == made and set(made["models"]) == set(ZOO) and made["world_version"] == bases.WORLD_VERSION
    assert len(bases.card_table(made)) == len(ZOO) * (len(abilities.GATE) + 1)
    assert [row["ability"] for row in made["card"]] == list(abilities.GATE)
    assert {row["sentinel"] for row in made["sentinels"]} == {"notices every miss", "notices no miss"}
    model, _ = models.load("micro/llama-instruct")
    assert model.num_parameters() == made["models"]["llama-instruct"]["parameters"]
    assert sorted(p.name for p in micro_folder.iterdir()) == sorted([*ZOO, "manifest.json"])
    assert not stage.path(bases.BUILDING).exists()
    monkeypatch.setattr(models, "RECIPES", {"qwen2-base": replace(ZOO["qwen2-base"], seed=9)})
    with pytest.raises(MissingInput, match="rebuild_models=true"):
        bases.verify()


def test_a_worker_that_fails_is_told_with_its_reason_and_a_second_try_builds_the_rest(
    micro_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poetry = Recipe((Phase(2_000, (("poetry", 1.0),)),), **SIZE)
    monkeypatch.setattr(bases, "MAIN_BASE", "qwen2-base")
    monkeypatch.setattr(models, "RECIPES", {"simulator-small": ZOO["simulator-small"], "qwen2-base": poetry})
    stage = artifacts.open_stage("rebuild", "00", {})
    with pytest.raises(WorkbookError, match="models qwen2-base: expected them to be built, found: KeyError: .*poetry"):
        bases.rebuild(stage, workers=1, cards={"policy": tiny_card, "simulator": tiny_card})
    assert not micro_folder.exists()
    assert stage.path(f"{bases.BUILDING}/qwen2-base.error.txt").is_file()
    kept = stage.path(f"{bases.BUILDING}/simulator-small/model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(models, "RECIPES", {name: ZOO[name] for name in ("simulator-small", "qwen2-base")})
    again = artifacts.open_stage("rebuild", "00", {})
    made = bases.rebuild(again, cards={"policy": tiny_card, "simulator": tiny_card})
    assert again.resumed and set(made["models"]) == {"simulator-small", "qwen2-base"}
    assert (micro_folder / "simulator-small" / "model.safetensors").stat().st_mtime_ns == kept  # not built again


@pytest.mark.parametrize(("version", "said"), [(None, "found none"), (1, "found version 1")])
def test_bases_of_another_world_are_refused(micro_folder: Path, version: int | None, said: str) -> None:
    if version is not None:
        micro_folder.mkdir()
        (micro_folder / "manifest.json").write_text(json.dumps({"world_version": version, "models": {}}))
    with pytest.raises(MissingInput, match=f"{said}; rebuild with `./run_all.sh"):
        bases.verify()
