"""profiles.py: every profile is complete, classes and smoke.yaml agree, wrong keys and values are refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from zerosearch import artifacts, profiles
from zerosearch.errors import ConfigError, MissingInput
from zerosearch.layouts import Layout
from zerosearch.profiles import load
from zerosearch.stage_parameters import METHODS, STAGE_CLASSES, Common
from zerosearch.training.arms import ARMS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profiles folder to spoil, with a copy of smoke.yaml in it."""
    (tmp_path / "smoke.yaml").write_text((profiles.FOLDER / "smoke.yaml").read_text())
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    return tmp_path


def spoil(folder: Path, old: str, new: str) -> None:
    text = (folder / "smoke.yaml").read_text()
    assert old in text
    (folder / "smoke.yaml").write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_gives_every_stage_all_its_parameters(name: str) -> None:
    settings = load(name)
    for stage in artifacts.STAGES:
        values = settings.stage(stage)
        assert list(values) == [f.name for f in fields(STAGE_CLASSES[stage])]
        assert all(type(values[key]) is type(value) for key, value in profiles.defaults(stage).items())
    assert set(settings.source.expected_seconds) == set(artifacts.STAGES)


@pytest.mark.parametrize("stage", artifacts.STAGES)
def test_smoke_equals_the_defaults(stage: str) -> None:
    assert load("smoke").stage(stage) == profiles.defaults(stage)


def test_the_profiles_and_the_common_parameters_come_first() -> None:
    assert profiles.names() == ("smoke", "laptop", "full_table", "single_gpu", "a100_node")
    assert all(list(profiles.defaults(s))[:4] == [f.name for f in fields(Common)] for s in artifacts.STAGES)


def test_the_full_table_is_the_laptop_with_more_rows() -> None:
    full, laptop = profiles.read_profile("full_table"), profiles.read_profile("laptop")
    assert set(full.arms) == set(ARMS) and set(laptop.arms) <= set(full.arms)
    assert full.seeds == laptop.seeds and len(full.seeds) >= 3
    assert set(full.stages["04"].pop("methods").split(",")) == set(METHODS)
    assert full.stages["04"].pop("samples_per_question") >= 5
    del laptop.stages["04"]["methods"], laptop.stages["04"]["samples_per_question"]
    assert full.stages == laptop.stages


def test_published_settings() -> None:
    values = load("a100_node").stage("03")
    wanted = {
        "policy_model": "Qwen/Qwen2.5-3B",
        "steps": 200,
        "questions_per_step": 64,
        "group_size": 5,
        "learning_rate": 1e-6,
        "kl_weight": 1e-3,
        "clip": 0.2,
        "noise_start": 0.0,
        "noise_end": 0.25,
        "noise_base": 4.0,
        "passages_per_query": 5,
    }
    assert {key: values[key] for key in wanted} == wanted


def test_options_reach_the_stages() -> None:
    settings = load(
        "laptop", run="mine", arms=["search-r1"], seeds=[3, 4], questions_dir="/q", corpus_file="/c"
    )
    assert settings.stage("03") | {"arm": "search-r1", "seed": 3, "run": "mine"} == settings.stage("03")
    assert (
        settings.stage("03", "zerosearch", 0)["arm"] == "zerosearch"
        and settings.stage("03", seed=0)["seed"] == 0
    )
    assert (settings.stage("04")["arms"], settings.stage("05")["seeds"]) == ("search-r1", "3,4")
    assert (settings.stage("00")["questions_dir"], settings.stage("00")["corpus_file"]) == ("/q", "/c")
    assert settings.stage("01")["seed"] == 0  # shared stages stay the same whatever the trained seeds


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("03.learning_rate", "1.0e-3", 1e-3),
        ("03.learning_rate", "1e-3", 1e-3),
        ("03.clip", "1", 1.0),
        ("03.steps", "7", 7),
        ("00.rebuild_models", "true", True),
        ("02.label_kind", "trajectory", "trajectory"),
        ("01.seed", "5", 5),
        ("04.conditions", "random, empty", "random, empty"),
        ("04.conditions", "", ""),
    ],
)
def test_overrides_are_read_by_type(key: str, text: str, value: object) -> None:
    found = load("smoke", {key: text}).stage(key[:2])[key[3:]]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("03.learning_rat", "1", "did you mean 'learning_rate'"),
        ("3.steps", "1", "did you mean '03'"),
        ("steps", "1", "expected STAGE.NAME=VALUE"),
        ("03.steps", "1.5", "--set 03.steps=1.5: expected int"),
        ("03.steps", "0", "greater than or equal to 1"),
        ("03.learning_rate", "fast", "expected float"),
        ("03.learning_rate", "nan", "expected float"),
        ("03.noise_end", "1.5", "less than or equal to 1"),
        ("00.rebuild_models", "maybe", "expected bool"),
        ("02.label_kind", "votes", "02.label_kind=votes: expected one of judge, trajectory; found 'votes'"),
        ("01.retriever", "bm25_plan", "one of bm25, bm25_plain, serpapi, wikipedia, dense; found 'bm25_plan'; "
         "did you mean 'bm25_plain'"),
        ("00.questions_source", "flashrags", r"expected one of flashrag, .* \(or nothing\); found 'flashrags'; did you"),
        ("03.group_size", "0", "greater than or equal to 1"),
        ("03.algorithm", "grop", "expected one of grpo, reinforce, reinforce-loo, ppo; found 'grop'; did you mean 'grpo'"),
        ("03.kl_in", "rewards", r"expected one of loss, reward \(or nothing\); found 'rewards'; did you mean 'reward'"),
        ("03.arm", "x", "use --arms"),
        ("04.methods", "direct,rags", "should match pattern"),
        ("04.conditions", "corrupt-0.6", "should match pattern"),
        ("04.conditions", "corrupt-0x5", "should match pattern"),
        ("04.conditions", "random,,empty", "should match pattern"),
        ("03.seed", "1", "use --seeds"),
        ("00.corpus_file", "x", "use --corpus"),
    ],
)
def test_wrong_overrides(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("smoke", {key: value})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate: 1.5e-3", "learning_rate: 1e-3", "in YAML write 1.0e-6"),
        ("steps: 120", "steps: 120.0", r"02.steps: expected int"),
        ("steps: 120", "stepps: 120", "did you mean 'steps'"),
        ("    steps: 120\n", "", "every parameter of stage 02, found none for steps"),
        ("cores: 2", "coers: 2", "did you mean 'cores'"),
        ("cores: 2", "cores: two", "cores: "),
        ('  "05":', '  "06":', "stage 05 under"),
        ("arms: [zerosearch]", "arms: [zerosearch", "expected YAML"),
        ("rebuild_models: false", "rebuild_models: 0", "expected bool"),
        ("offline: true", "", "offline"),
    ],
)
def test_wrong_files(folder: Path, old: str, new: str, message: str) -> None:
    spoil(folder, old, new)
    with pytest.raises((ConfigError, MissingInput), match=message) as caught:
        load("smoke")
    assert "smoke.yaml" in str(caught.value)


def test_unknown_profile_and_stage() -> None:
    with pytest.raises(ConfigError, match="did you mean 'laptop'"):
        load("labtop")
    with pytest.raises(ConfigError, match="stage: expected one of 00"):
        load("smoke").stage("06")


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-12, max_value=1e6))
def test_any_float_that_yaml_and_python_write_arrives(value: float) -> None:
    assert load("smoke", {"03.learning_rate": repr(value)}).stage("03")["learning_rate"] == value


def test_yaml_really_reads_1e_minus_6_as_text() -> None:
    assert yaml.safe_load("1e-6") == "1e-6" and yaml.safe_load("1.0e-6") == 1e-6


def test_a_layout_is_read_checked_and_set() -> None:
    assert load("smoke").layout == load("laptop").layout == Layout()
    settings = load("single_gpu", {"layout.lora_rank": "8", "layout.sleep": "false"})
    assert (settings.layout.lora_rank, settings.layout.sleep, settings.layout.precision) == (8, False, "bf16")
    for key, text, message in (
        ("layout.lora", "8", "did you mean 'lora_rank'"),
        ("layout.lora_rank", "-1", "greater than or equal to 0"),
        ("layout.sharding", "all", "found 'all'"),
        ("layout.sleep", "maybe", "expected bool"),
        ("layouts.sleep", "true", "did you mean 'layout'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load("single_gpu", {key: text})


def test_unknown_keys_of_needs_and_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (profiles.FOLDER / "single_gpu.yaml").read_text("utf-8")
    spoilt = text.replace("gpu: A100-80GB", "gpy: A100-80GB").replace("lora_rank", "lora_rang")
    (tmp_path / "mine.yaml").write_text(spoilt)
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    with pytest.raises(ConfigError) as error:
        profiles.read_profile("mine")
    assert "needs: key" in str(error.value) and "did you mean 'gpu'" in str(error.value)
    assert "layout: key" in str(error.value) and "did you mean 'lora_rank'" in str(error.value)
