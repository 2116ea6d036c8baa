"""The block ``layout`` of a profile in the trainers: precision, adapters, blocks computed again, smaller passes."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_policy_rl import (
    CURRICULUM, QUESTIONS, ROLLOUT, SETTINGS, TOKENIZER, _Stopped, dense_reward, micro_model, stop_after, train,
    weights,
)
from test_simulator_sft import SETTINGS as SFT
from test_simulator_sft import tune
from training_toys import ScriptedRetriever, random_trajectories, read_rows, toy_model

from zerosearch import adapters, artifacts, cli, layouts, notebook_runner, profiles
from zerosearch.arithmetic import computing, held_in
from zerosearch.engines.base import GenerationRequest
from zerosearch.engines.opening import open_text_engine
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError
from zerosearch.layouts import LAYOUT_VARIABLE, Layout
from zerosearch.microworld import models
from zerosearch.planning import fit
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import FailureLimit
from zerosearch.retrievers.sharing import SharedSimulator
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.training import laying, losses
from zerosearch.training.batching import MicroBatch, make_micro_batches
from zerosearch.training.objective import token_logprobs
from zerosearch.training.policy_rl import run_fingerprint
from zerosearch.training.policy_trainer import RLSettings
from zerosearch.training.sampler import follow, rest_simulator
from zerosearch.training.simulator_data import row_parts
from zerosearch.training.simulator_sft import SimulatorTrainer
from zerosearch.training.step_metrics import TimedRetriever

ADAPTED = Layout(lora_rank=4)
SHORT = replace(SETTINGS, steps=2, kl_weight=0.1)
BRIEF = {"curriculum": replace(CURRICULUM, total_steps=2)}


def batches(max_tokens: int = 400) -> list[MicroBatch]:
    trajectories = random_trajectories(6)
    return make_micro_batches(trajectories, np.linspace(-1.0, 1.5, 6), pad_id=0, max_tokens=max_tokens)


def adapted_model(rank: int = 4, **changes: object) -> torch.nn.Module:
    """Return a model whose adapters have learned something."""
    model = toy_model(**changes)
    adapters.add(model, rank, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapters.trained(model).items():
            if "lora_B" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def logps(model: torch.nn.Module) -> torch.Tensor:
    (batch,) = batches(10_000)
    with torch.no_grad():
        return token_logprobs(model, batch.input_ids, batch.positions, batch.targets)[0]


def loss_and_gradients(
    model: torch.nn.Module, reference: torch.nn.Module | None = None, loss: str = "plain"
) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Return (loss, KL in all, gradient by name) of a few trajectories, computed as the layout in force says."""
    total, kl = 0.0, 0.0
    model.train()
    for batch in batches():
        with computing(torch.device("cpu")):
            value, terms, _ = losses.micro_batch_loss(
                model, reference, batch, clip=0.2, kl_weight=0.1, temperature=1.0, loss=loss
            )
        value.backward()
        total, kl = total + value.item(), kl + terms.kl_sum
    return total, kl, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# -- adapters -------------------------------------------------------------------------------------


def test_new_adapters_add_nothing_and_are_the_same_for_the_same_seed() -> None:
    base, made = toy_model(), []
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    for seed in (1, 1, 2):
        model = toy_model()
        torch.random.set_rng_state(state)
        adapters.add(model, 4, seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert torch.equal(logps(model), logps(base))
        made.append(torch.cat([p.flatten() for p in adapters.trained(model).values()]))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    names = set(adapters.layers(model))
    linear = {n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    assert names == linear and len(names) == 2 * 7
    assert all(".lora_" in name for name in adapters.trained(model))


def test_a_rank_by_hand() -> None:
    """One layer: what the adapter adds is 32 / rank * B A."""
    model = adapted_model()
    layer = adapters.layers(model)["model.layers.0.mlp.up_proj"]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (4, 32) and b.shape == (48, 4)
    x = torch.randn(3, 32)
    torch.testing.assert_close(layer(x), x @ (layer.base_layer.weight + 32 / 4 * b @ a).T, rtol=1e-5, atol=1e-6)


def test_the_merged_model_is_the_adapted_one_under_the_names_of_its_base() -> None:
    base, model = toy_model(), adapted_model()
    wanted, present = logps(model), dict(adapters.present_weights(model))
    assert (wanted - logps(base)).abs().max() > 0.05
    assert list(present) == [name for name, _ in base.named_parameters()]
    adapters.merge(model)
    assert not adapters.layers(model) and model.state_dict().keys() == base.state_dict().keys()
    assert type(model) is type(base) and all(p.requires_grad for p in model.parameters())
    assert (logps(model) - wanted).abs().max() < 1e-5
    assert all(torch.equal(p, present[name]) for name, p in model.named_parameters())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_merged_model_is_saved_and_loaded_as_any_other(tmp_path: Path) -> None:
    model = adapted_model(vocab_size=len(TOKENIZER))
    wanted = logps(model)
    adapters.merge(model)
    models.save(model, TOKENIZER, tmp_path / "policy")
    assert not list((tmp_path / "policy").glob("*adapter*"))
    assert (logps(models.load(str(tmp_path / "policy"))[0]) - wanted).abs().max() < 1e-5


def test_left_out_adapters_leave_the_base_and_come_back() -> None:
    base, model = toy_model(), adapted_model().train()
    wanted = logps(model)
    with adapters.left_out(model):
        assert torch.equal(logps(model), logps(base)) and not model.training
    assert model.training and torch.equal(logps(model), wanted) and len(adapters.trained(model)) == 2 * 14
    with adapters.left_out(base):
        assert not base.training and all(p.requires_grad for p in base.parameters())


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_only_adapters_have_gradients_and_the_reference_is_the_base(loss: str) -> None:
    model, base = adapted_model(), toy_model()
    value, kl, gradients = loss_and_gradients(model, model, loss)
    other = adapted_model()
    same = loss_and_gradients(other, laying.frozen_copy(base), loss)
    assert kl > 0.01 and set(gradients) == set(adapters.trained(model)) and len(gradients) == 28
    assert (value, kl) == pytest.approx(same[:2], rel=1e-6)
    assert all(torch.equal(g, same[2][name]) for name, g in gradients.items())


def test_an_engine_with_a_copy_is_handed_merged_weights() -> None:
    class Copy:
        holds_a_copy = True

        def take_weights(self, model: torch.nn.Module) -> None:
            self.taken = dict(adapters.present_weights(model))  # as VllmEngine does

    copy, model, fresh = Copy(), adapted_model(), toy_model(seed=5)
    follow(copy, model)
    fresh.load_state_dict(copy.taken, strict=False)
    assert (logps(fresh) - logps(model)).abs().max() < 1e-5


def test_adapters_of_another_rank_are_not_loaded(tmp_path: Path) -> None:
    adapters.save(adapted_model(rank=4), tmp_path)
    with pytest.raises(ValueError, match="expected 28 adapter weights of this model"):
        adapters.load(adapted_model(rank=2), tmp_path)


# -- whole trainings ------------------------------------------------------------------------------


def test_a_training_with_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    with layouts.using(ADAPTED):
        _, history, model = train(tmp_path, SHORT, **BRIEF)
    assert history["kl"][0] == 0.0 and history["kl"][1] > 0.0 and (history["logprob_gap"] < 1e-4).all()
    assert not adapters.layers(model) and "forward" not in model.__dict__
    base = micro_model()
    moved = {n for (n, p), q in zip(model.named_parameters(), base.parameters()) if not torch.equal(p, q)}
    linear = {f"{name}.weight" for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    assert moved == linear - {"lm_head.weight"}


def test_a_resumed_training_with_adapters_ends_like_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense_reward(monkeypatch)
    with layouts.using(ADAPTED):
        _, whole, model = train(tmp_path / "whole")
        stop_after(monkeypatch, 3)
        with pytest.raises(_Stopped):
            train(tmp_path / "cut")
        saved = {path.name for path in (tmp_path / "cut/checkpoints/checkpoint-2").iterdir()}
        assert adapters.FILE in saved and not any(name.startswith("model") for name in saved)
        stage, resumed, again = train(tmp_path / "cut")
    assert stage.progressed == [(2, 4), (3, 4), (4, 4)]
    timeless = [c for c in whole if not c.startswith("seconds_")]
    pd.testing.assert_frame_equal(resumed[timeless], whole[timeless], check_exact=True)
    assert torch.equal(weights(model), weights(again))


def test_a_finished_training_is_merged_again_from_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense_reward(monkeypatch)
    with layouts.using(ADAPTED):
        _, _, model = train(tmp_path, replace(SETTINGS, save_every=4))
        _, _, again = train(tmp_path, replace(SETTINGS, save_every=4))
    assert torch.equal(weights(model), weights(again))


def test_the_simulator_with_adapters_resumes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, original = replace(SFT, steps=4), SimulatorTrainer.training_step

    def dying(self, *given):  # noqa: ANN001, ANN002, ANN202
        if self.state.global_step == 3:
            raise _Stopped
        return original(self, *given)

    with layouts.using(Layout(lora_rank=4, sft_rows=2)):
        _, whole, model = tune(tmp_path / "whole", short)
        monkeypatch.setattr(SimulatorTrainer, "training_step", dying)
        with pytest.raises(_Stopped):
            tune(tmp_path / "cut", short)
        monkeypatch.setattr(SimulatorTrainer, "training_step", original)
        stage, again, same = tune(tmp_path / "cut", short)
    assert stage.progressed == [(2, 4), (3, 4), (4, 4)]
    assert whole["loss"].tolist() == again["loss"].tolist() and torch.equal(weights(model), weights(same))
    assert not adapters.layers(model) and not torch.equal(weights(model), weights(micro_model()))


# -- precision ------------------------------------------------------------------------------------


def test_bf16_computes_short_and_trains_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense_reward(monkeypatch)
    _, plain, _ = train(tmp_path / "plain", SHORT, **BRIEF)
    for name, layout in (("all", Layout(precision="bf16")), ("few", Layout(precision="bf16", lora_rank=4))):
        with layouts.using(layout):
            _, history, model = train(tmp_path / name, SHORT, **BRIEF)
        assert {p.dtype for p in model.parameters()} == {torch.float32}  # this one was handed over in float32
        assert history["loss"][0] != plain["loss"][0]
        assert history["loss"].to_numpy() == pytest.approx(plain["loss"].to_numpy(), abs=2e-2)
        assert (history["logprob_gap"] < 2e-2).all()


@pytest.mark.parametrize("rank", [0, 4])
def test_bf16_holds_frozen_weights_short_and_trained_ones_long(rank: int) -> None:
    with layouts.using(Layout(precision="bf16", lora_rank=rank)):
        model = toy_model().to(held_in())
        reference = laying.reference_of(model)
        laying.lay_out(model, seed=0)
        _, kl, gradients = loss_and_gradients(model, reference)
    assert kl == 0.0 and {p.dtype for p in reference.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in adapters.trained(model).values()} == {torch.float32}
    assert {g.dtype for g in gradients.values()} == {torch.float32} and any(g.any() for g in gradients.values())
    assert (reference is model) == (rank > 0)
    long = toy_model().to(torch.bfloat16).float()
    gaps = loss_and_gradients(model, None)[0] - loss_and_gradients(long, None)[0]
    assert abs(gaps) < 2e-2


def test_models_are_loaded_as_the_layout_says(tmp_path: Path) -> None:
    models.save(micro_model(), TOKENIZER, tmp_path / "policy")
    name = str(tmp_path / "policy")
    assert models.load(name)[0].dtype == torch.float32
    with layouts.using(Layout(precision="bf16")):
        model = models.load(name)[0]
        assert model.dtype == torch.bfloat16 and models.load(name, torch.float32)[0].dtype == torch.float32
        made = open_text_engine("transformers", model, TOKENIZER, "toy").generate([GenerationRequest((5, 6, 7), 1, 8)])
    assert len(made[0].token_ids) == 8 and all(logp < 0 for logp in made[0].logprobs)


def test_a_bf16_engine_is_opened_over_a_model_just_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened:
        def __init__(self, *_: object, dtype: str):
            self.dtype = dtype

        def close(self) -> None: ...

    monkeypatch.setattr("zerosearch.engines.opening.VllmEngine", Opened)
    with layouts.using(Layout(precision="bf16")):
        assert open_text_engine("vllm", micro_model(), TOKENIZER, "toy").dtype == "bfloat16"
    assert open_text_engine("vllm", micro_model(), TOKENIZER, "toy").dtype == "float32"


# -- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 4])
def test_blocks_computed_again_give_the_same_gradients(rank: int) -> None:
    found, calls = [], list[int]()
    for again in (False, True):
        model = adapted_model() if rank else toy_model()
        if again:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            counted(model, calls)
        found.append(loss_and_gradients(model, laying.frozen_copy(toy_model())))
    assert calls and found[0][0] == found[1][0]
    for name, gradient in found[0][2].items():
        torch.testing.assert_close(found[1][2][name], gradient, rtol=1e-6, atol=1e-7)
    assert set(found[0][2]) == set(found[1][2])


def counted(model: torch.nn.Module, calls: list[int]) -> torch.nn.Module:
    """Let a list grow with every forward pass of a model's first block during a backward pass; return the model."""
    model.model.layers[0].mlp.register_forward_pre_hook(
        lambda *_: calls.append(1) if torch._C._current_graph_task_id() != -1 else None
    )
    return model


def test_trainers_compute_blocks_again_where_the_layout_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense_reward(monkeypatch)
    found = []
    for name, layout in (("plain", Layout()), ("again", Layout(gradient_checkpointing=True))):
        calls: list[int] = []
        for module in ("test_policy_rl", "test_simulator_sft"):
            monkeypatch.setattr(f"{module}.micro_model", lambda calls=calls: counted(micro_model(), calls))
        with layouts.using(layout):
            _, history, model = train(tmp_path / name, SHORT, **BRIEF)
            policy_calls = len(calls)
            _, tuned, simulator = tune(tmp_path / f"{name}-sft", replace(SFT, steps=2))
        found.append((history["loss"].tolist(), tuned["loss"].tolist(), weights(model), weights(simulator)))
        assert (policy_calls > 0, len(calls) > policy_calls) == (layout.gradient_checkpointing,) * 2
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(a, b) for a, b in zip(found[0][2:], found[1][2:]))


def test_parts_of_a_batch_by_hand() -> None:
    """Three texts of 4, 3 and 2 read tokens, of which the last 1, 2 and 1 predict a learned one."""
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0], [8, 9, 0, 0]]),
        "positions": torch.tensor([3, 5, 6, 9]), "targets": torch.tensor([20, 21, 22, 23]),
        "weights": torch.tensor([1.0, 4.0, 1.0, 2.0]),
    }
    assert row_parts(batch, 0) == row_parts(batch, 3) == [batch]
    first, second, third = row_parts(batch, 1)
    assert second["input_ids"].tolist() == [[5, 6, 7]] and second["positions"].tolist() == [1, 2]
    assert third["input_ids"].tolist() == [[8, 9]] and third["positions"].tolist() == [1]
    assert (second["targets"].tolist(), second["weights"].tolist()) == ([21, 22], [4.0, 1.0])
    two, one = row_parts(batch, 2)
    assert two["positions"].tolist() == [3, 5, 6] and one["input_ids"].tolist() == [[8, 9]]


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_smaller_passes_tune_the_same_simulator(tmp_path: Path, loss: str) -> None:
    settings, found = replace(SFT, steps=3, loss=loss), []
    for rows in (0, 1, 3):
        with layouts.using(Layout(sft_rows=rows)):
            _, history, model = tune(tmp_path / str(rows), settings)
        found.append((history, weights(model)))
    for history, tuned in found[1:]:
        for name in ("loss", "nll", "nll_golden", "grad_norm"):
            assert history[name].to_numpy() == pytest.approx(found[0][0][name].to_numpy(), rel=2e-4, nan_ok=True)
        assert (tuned - found[0][1]).abs().max() < 2e-3


def test_micro_batches_are_as_long_as_the_layout_says() -> None:
    assert RLSettings(steps=1).resolved().micro_batch_tokens == 4096
    with layouts.using(Layout(micro_batch_tokens=77)):
        assert RLSettings(steps=1).resolved().micro_batch_tokens == 77
        assert replace(SETTINGS, micro_batch_tokens=5).resolved().micro_batch_tokens == 5


def test_a_simulator_in_this_process_is_put_to_sleep_where_the_layout_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep: list[object] = []
    monkeypatch.setattr(TransformersEngine, "sleep", lambda self: asleep.append(self.model))
    engine = TransformersEngine(micro_model(), TOKENIZER)
    simulator = SimulatorRetriever(engine, Prompts.load("micro", TOKENIZER))
    timed = TimedRetriever(SharedSimulator(simulator, FailureLimit(simulator)))
    rest_simulator(timed, toy_model())
    assert asleep == []
    with layouts.using(Layout(sleep=True)):
        rest_simulator(timed, engine.model)  # the policy itself is what is updated
        rest_simulator(TimedRetriever(ScriptedRetriever()), toy_model())
        assert asleep == []
        rest_simulator(timed, toy_model())
    assert asleep == [engine.model]


def test_sleep_does_nothing_on_a_cpu() -> None:
    engine, request = TransformersEngine(micro_model().to("cpu"), TOKENIZER), GenerationRequest((5, 6), 1, 6)
    before = engine.generate([request])
    engine.sleep()
    assert engine.generate([request]) == before


# -- how notebooks learn it -----------------------------------------------------------------------


def test_every_field_is_read_or_refused() -> None:
    other = {
        "precision": "bf16", "lora_rank": 8, "gradient_checkpointing": True, "micro_batch_tokens": 99, "sft_rows": 2,
        "policy_gpus": 2, "sharding": "fsdp", "simulator_gpus": 1, "sleep": True, "overlap": True,
        "simulator_weights": "int8",
    }
    assert set(other) == {field.name for field in fields(Layout)} >= layouts.READ
    for name, value in other.items():
        refused = fit.layout_problems(replace(Layout(), **{name: value}))
        assert bool(refused) == (name not in layouts.READ) and all(name in problem for problem in refused)
    assert set(other) == layouts.READ
    assert fit.layout_problems(Layout(sharding="zero3"))  # a dry start tries it, no trainer reads it


def test_the_profiles_layout_reaches_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = profiles.load("single_gpu")
    environment = notebook_runner.kernel_environment(1, offline=True, layout=layouts.said(settings.layout))
    monkeypatch.setenv(LAYOUT_VARIABLE, environment[LAYOUT_VARIABLE])
    assert layouts.in_force() == settings.layout != Layout()
    assert fit.layout_problems(settings.layout) == []
    monkeypatch.setenv(LAYOUT_VARIABLE, notebook_runner.kernel_environment(1, offline=True)[LAYOUT_VARIABLE])
    assert layouts.in_force() == Layout()


@pytest.mark.parametrize(("text", "message"), [
    ("{", "expected values as a profile has them"), ('{"lora": 4}', "did you mean 'lora_rank'"),
    ('{"precision": "fp8"}', "found .*fp8"), ('{"lora_rank": -1}', "expected values"), ("[1]", "layout"),
])
def test_an_unknown_layout_is_refused(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAYOUT_VARIABLE, text)
    with pytest.raises(ConfigError, match=message):
        layouts.in_force()


def test_a_block_ends_with_the_layout_before_it() -> None:
    with layouts.using(ADAPTED):
        with layouts.using(Layout()):
            assert layouts.in_force() == Layout()
        assert layouts.in_force() == ADAPTED
    assert layouts.in_force() == Layout() and not os.environ[LAYOUT_VARIABLE]


def test_settings_of_a_run_name_a_layout_and_nothing_of_the_default() -> None:
    assert "layout" not in str(cli.run_settings(profiles.load("smoke")).keys())
    made = cli.run_settings(profiles.load("single_gpu"))
    assert made["layout"] == {
        "precision": "bf16", "lora_rank": 16, "gradient_checkpointing": True, "micro_batch_tokens": 8192, "sft_rows": 4,
        "sleep": True,
    }
    both, one = {"precision": "bf16", "lora_rank": 16}, {"precision": "bf16"}
    assert made["deciding_layout"] == {"00": {}, "01": one, "02": both, "03": both, "04": one, "05": {}}
    json.dumps(made)


def test_manifest_and_attempt_say_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    layout = Layout(lora_rank=4, sleep=True)
    with layouts.using(layout):
        artifacts.open_stage("toy", "02", {"steps": 1}).release()
        assert artifacts.open_stage("toy", "02", {"steps": 1}).resumed
    with layouts.using(Layout(lora_rank=4)):  # sleep changes no number
        stage = artifacts.open_stage("toy", "02", {"steps": 1})
        assert stage.resumed
        stage.release()
    with layouts.using(Layout(lora_rank=8)):
        stage = artifacts.open_stage("toy", "02", {"steps": 1})
        assert not stage.resumed
        stage.finish()
    assert artifacts.read_manifest("toy", "02")["layout"] == {"lora_rank": 8}
    plain = artifacts.open_stage("toy", "01", {"steps": 1})
    plain.finish()
    assert "layout" not in plain.path("manifest.json").read_text() + plain.path("attempt.json").read_text()


def test_checkpoints_of_another_layout_are_not_continued() -> None:
    def made(layout: Layout) -> dict[str, object]:
        with layouts.using(layout):
            return run_fingerprint(QUESTIONS, micro_model(), "bm25", SETTINGS, CURRICULUM, ROLLOUT)

    plain = made(Layout())
    assert "layout" not in plain and plain == made(Layout(gradient_checkpointing=True, sft_rows=2, sleep=True))
    assert made(ADAPTED) == plain | {"layout": {"lora_rank": 4}} != made(Layout(lora_rank=8))
    assert made(Layout(precision="bf16"))["layout"] == {"precision": "bf16"}


def test_a_default_layout_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable unset, empty and of a default layout: weights, metrics and checkpoints are the same."""
    dense_reward(monkeypatch)
    found = []
    for name, text in (("unset", None), ("empty", ""), ("default", "{}")):
        monkeypatch.delenv(LAYOUT_VARIABLE, raising=False)
        if text is not None:
            monkeypatch.setenv(LAYOUT_VARIABLE, text)
        _, history, model = train(tmp_path / name, SHORT, **BRIEF)
        folder = tmp_path / name / "checkpoints/checkpoint-2"
        logged = read_rows(tmp_path / name / "metrics.jsonl")
        rows = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in logged]
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".safetensors", ".json")}
        files.pop("trainer_state.json")  # has seconds
        found.append((rows, weights(model).tolist(), files))
    assert found[0] == found[1] == found[2] and "model.safetensors" in found[0][2]
