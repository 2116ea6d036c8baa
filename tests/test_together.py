"""Two processes train what one trains: gradients, both trainings through their doors, and how it ends when one dies."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import several_processes
import torch
from test_arm_training import CORPUS
from test_policy_rl import ROLLOUT, SETTINGS, weights
from test_simulator_sft import SETTINGS as SFT
from test_simulator_sft import micro_model, tune
from training_toys import FakeStage, ScriptedRetriever, read_rows, toy_question
from transformers import TrainerControl

from zerosearch import dry_start, files, layouts
from zerosearch.curriculum import constant
from zerosearch.engines.transformers_engine import TransformersEngine
from zerosearch.errors import ConfigError, WorkbookError
from zerosearch.interrupts import StopRequest
from zerosearch.layouts import Layout
from zerosearch.microworld import models
from zerosearch.passages import write_corpus
from zerosearch.prompts import Prompts
from zerosearch.retrievers.corpus import open_passages
from zerosearch.training import checkpoints, dry_steps, launching, sharding
from zerosearch.training.arm_setup import open_again, open_retriever, opened_with
from zerosearch.training.arm_training import train_arm
from zerosearch.training.arms import get_arm
from zerosearch.training.launching import Machines, command, config, machines_of
from zerosearch.training.policy_together import how_to_open
from zerosearch.training.simulator_sft import SimulatorTrainer, rows_of_a_pass
from zerosearch.training.team import Team
from zerosearch.training.together import FOLDER

NAMES = ("Aldo Vance", "Gerda Elster", "Nora Garrow", "Hedda Garrow")  # the untrained policy's favourites earn something
QUESTIONS = [replace(toy_question(i), golden_answers=NAMES) for i in range(4)]
TRAINED = replace(
    SETTINGS, steps=2, questions_per_step=3, group_size=4, learning_rate=1e-3, micro_batch_tokens=300, save_every=1
)
TUNED = replace(SFT, steps=3, batch_size=5, save_every=1, loss="fused")
LIMITS = replace(ROLLOUT, max_turn_tokens=24, max_total_tokens=300)
FREE = ("seconds_", "logprob_gap")  # clocks, and what is rounding itself


def train(folder: Path) -> tuple[pd.DataFrame, torch.nn.Module, FakeStage]:
    """Train a shipped model for two steps through the one door."""
    arm, stage = get_arm("search-r1"), FakeStage(folder)
    model, tokenizer = models.load("micro/llama-base")
    engine, prompts = TransformersEngine(model, tokenizer), Prompts.load("micro", tokenizer)
    retriever = open_retriever(arm, k=1, seed=0, passages=CORPUS, policy=(engine, prompts))
    history = train_arm(
        arm, QUESTIONS, model, tokenizer, retriever, prompts, TRAINED, stage, curriculum=constant(0.0, 2),
        rollout_settings=LIMITS, engine=engine, identity={"inputs": "toy"},
    )
    return history, model, stage


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, torch.nn.Module, FakeStage]:
    return train(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Return the same training by two processes, with the model spread over them, and the tuning of a simulator.

    Processes are started once for all tests: where the tuning would start its own, the training starts them for both.
    """
    trained: list[Any] = []
    with pytest.MonkeyPatch.context() as patch, layouts.using(Layout(policy_gpus=2, sharding="fsdp", sft_rows=2)):
        patch.setattr(launching, "WORKER", several_processes.__name__)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        start = launching.run

        def run(folder: Path, processes: int, arguments: Any, show: launching.Show, threads: int) -> dict[str, Any]:
            patch.setattr(launching, "run", start)
            patch.setenv(several_processes.FIRST, str(folder))
            trained.append(train(tmp_path_factory.mktemp("two")))
            launching._show_new(folder / launching.PROGRESS, 0, show)
            return files.read_object(folder / launching.DONE, {"kind": str}, "")

        patch.setattr(launching, "run", run)
        tuned = tune(cut_off(tmp_path_factory.mktemp("tuned"), patch), TUNED)
    return trained[0], tuned


def cut_off(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a tuning by one process that was cut off in its second step."""
    original = SimulatorTrainer.compute_loss

    def dying(self: Any, *arguments: Any, **named: Any) -> torch.Tensor:
        if self.state.global_step:
            raise KeyboardInterrupt
        return original(self, *arguments, **named)

    with patch.context() as dies, layouts.using(Layout()), pytest.raises(KeyboardInterrupt):
        dies.setattr(SimulatorTrainer, "compute_loss", dying)
        tune(folder, TUNED)
    return folder


@pytest.fixture(scope="module")
def two(both: Any) -> tuple[pd.DataFrame, torch.nn.Module, FakeStage]:
    return both[0]


def same(found: pd.DataFrame, truth: pd.DataFrame) -> None:
    columns = [name for name in truth if not name.startswith(FREE)]
    pd.testing.assert_frame_equal(found[columns], truth[columns], rtol=1e-5, atol=1e-7, check_dtype=False)


@pytest.mark.parametrize("kind", ["none", "fsdp"])
def test_two_processes_have_the_gradient_of_one(two: Any, tmp_path: Path, kind: str) -> None:
    made = torch.load(two[2].path("checkpoints") / several_processes.GRADIENTS)[kind]
    truth = several_processes.gradient("none", tmp_path)
    assert made["passes"] == truth["passes"] and truth["passes"] % 2 == 1  # one process has a pass less, and keeps step
    assert float(truth["gradient"].norm()) > 0.01
    assert float((made["gradient"] - truth["gradient"]).norm() / truth["gradient"].norm()) < 1e-5
    for name in ("loss", "kl", "norm"):
        assert made[name] == pytest.approx(truth[name], rel=1e-5)


def test_two_processes_have_the_gradient_of_one_tuning(two: Any, tmp_path: Path) -> None:
    loss, gradient = torch.load(two[2].path("checkpoints") / several_processes.GRADIENTS)["tuning"]
    with layouts.using(Layout(sft_rows=3)):
        right, truth = several_processes.tuning_gradient(tmp_path)
    assert loss == pytest.approx(right, rel=1e-5) and float(truth.norm()) > 0.01
    assert float((gradient - truth).norm() / truth.norm()) < 1e-5


def test_a_training_in_two_processes_has_the_numbers_of_one(one: Any, two: Any) -> None:
    assert one[0]["reward_std"].min() > 0  # there is something to learn
    same(two[0], one[0])
    assert [row["loss"] for row in read_rows(two[2].path("metrics.jsonl"))] == two[0]["loss"].tolist()
    start, _ = models.load("micro/llama-base")
    moved = (weights(one[1]) - weights(start)).norm()
    assert moved > 0 and (weights(two[1]) - weights(one[1])).norm() < 1e-3 * moved
    assert not two[1].training and two[2].progressed == one[2].progressed == [(0, 2), (1, 2), (2, 2)]
    kept = [pd.read_parquet(run[2].path("trajectories.parquet")) for run in (one, two)]
    assert kept[0]["token_ids"].map(tuple).tolist() == kept[1]["token_ids"].map(tuple).tolist()
    assert not two[2].path(FOLDER).exists()


def test_the_account_counts_what_all_processes_did(one: Any, two: Any) -> None:
    counted = [
        [{k: v for k, v in event.items() if k not in ("time", "seconds", "units")} for event in run[2].ledger.events]
        for run in (one, two)
    ]
    assert counted[0] == counted[1]
    units = {event["units"] for event in two[2].ledger.events if event["kind"] == "busy"}
    assert units == {2 * max(1, torch.get_num_threads() // 2)}


def test_one_process_goes_on_from_a_checkpoint_of_two(two: Any, tmp_path: Path) -> None:
    shutil.copytree(two[2].dir, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "checkpoint-2")
    history, model, stage = train(tmp_path / "cut")
    assert stage.progressed[0] == (1, 2)
    same(history, two[0])
    assert (weights(model) - weights(two[1])).norm() < 1e-5 * weights(two[1]).norm()


def test_two_processes_tune_a_simulator_as_one_does(both: Any, tmp_path: Path) -> None:
    (stage, history, model), (alone, truth, right) = both[1], tune(tmp_path / "one", TUNED)
    assert stage.progressed == [(1, 3), (2, 3), (3, 3)]  # one process had done the first step
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), truth.drop(columns="seconds"), rtol=1e-5)
    moved = (weights(right) - weights(micro_model())).norm()
    assert (weights(model) - weights(right)).norm() < 1e-5 * weights(right).norm() < 1e-3 * moved
    assert not model.training and not stage.path(FOLDER).exists()
    counted = [
        [(event["role"], event["unit"], event["device"]) for event in one.ledger.events] for one in (stage, alone)
    ]
    assert counted[0] == counted[1]
    threads = 2 * max(1, torch.get_num_threads() // 2)
    assert [event["units"] for event in stage.ledger.events][1:] == [threads] * 2
    _, _, again = tune(stage.dir, TUNED)  # by one process, from the last checkpoint of two
    assert torch.equal(weights(again), weights(model))


# -- what needs no second process ------------------------------------------------------------------


def test_passes_are_dealt_out_evenly() -> None:
    dealt = [Team(rank, 2).deal([3, 9, 8, 1, 5]) for rank in (0, 1)]
    assert dealt == [[1, 0, 3], [2, 4, None]]  # 9, 3 and 1 cells; 8 and 5
    assert [Team(rank, 3).part(7) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 7)]


def test_texts_are_cut_into_a_pass_for_every_process() -> None:
    assert [rows_of_a_pass(32, processes) for processes in (1, 2, 3)] == [32, 16, 11]
    with layouts.using(Layout(sft_rows=12)):
        assert [rows_of_a_pass(32, processes) for processes in (1, 2, 3)] == [12, 12, 11]


def test_only_the_process_that_writes_keeps_whole_weights() -> None:
    named = [("a", torch.ones(2, requires_grad=True))]
    assert sharding.whole_weights(named, kept=False) == {}
    assert sharding.whole_weights(named, kept=True)["a"].tolist() == [1.0, 1.0]
    optimiser = torch.optim.AdamW([named[0][1]])
    named[0][1].sum().backward()
    optimiser.step()
    assert set(sharding.whole_state(optimiser, kept=False)["state"][0].values()) == {None}
    assert sharding.whole_state(optimiser, kept=True)["state"][0]["exp_avg"].tolist() == pytest.approx([0.1, 0.1])


def child(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(launching, "command", lambda folder, *_: [sys.executable, "-c", program, str(folder)])


def test_a_process_that_dies_is_told_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "import os; print('the card fell off', flush=True); os.kill(os.getpid(), 9)")
    with pytest.raises(WorkbookError) as found:
        launching.run(tmp_path, 2, [], print)
    assert "found exit code 247" in str(found.value) and "processes.log ends with:\n  the card fell off\n" in str(found.value)
    assert "layout.policy_gpus=1" in str(found.value)


def test_what_ends_a_process_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> int:
        raise ConfigError("expected this, found that")

    assert launching.telling(failing, tmp_path, 1) == 1
    child(monkeypatch, "import sys; sys.exit(1)")
    with pytest.raises(WorkbookError, match="^expected this, found that; run the same"):
        launching.run(tmp_path, 2, [], print)

    def left_alone() -> int:
        raise RuntimeError("gloo: Connection reset by peer")

    assert launching.telling(left_alone, tmp_path / "other", 0) == 1
    assert "found one gone without a word" in launching.failure(tmp_path / "other")


def test_a_request_to_stop_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, """if True:
        import json, pathlib, sys, time
        folder = pathlib.Path(sys.argv[1])
        (folder / "progress.jsonl").write_text('{"done": 1}\\n')
        while not (folder / "stop").exists():
            time.sleep(0.05)
        (folder / "done.json").write_text('{"kind": "Stopped"}')
    """)
    seen: list[dict[str, Any]] = []

    def interrupted(row: dict[str, Any]) -> None:
        seen.append(row)
        os.kill(os.getpid(), signal.SIGINT)

    assert launching.run(tmp_path, 2, [], interrupted) == {"kind": "Stopped"}
    assert seen == [{"done": 1}]


def test_all_processes_stop_where_the_sign_is_seen(tmp_path: Path) -> None:
    control, stop = TrainerControl(), StopRequest()
    decisions = checkpoints._AsTheFirst(Team(sign=tmp_path / "stop"), stop)
    assert not decisions.on_step_end(None, None, control).should_save and not stop.requested  # type: ignore[arg-type]
    (tmp_path / "stop").touch()
    decisions.on_step_end(None, None, control)  # type: ignore[arg-type]
    assert control.should_save and control.should_training_stop and stop.requested


def test_the_command_of_every_machine(tmp_path: Path) -> None:
    assert machines_of({}) == Machines()
    told = {"ZEROSEARCH_MACHINES": "2", "ZEROSEARCH_MACHINE": "1", "ZEROSEARCH_MAIN": "10.0.0.1:29500"}
    machines = machines_of(told)
    assert machines == Machines(2, 1, "10.0.0.1:29500")
    words = command(tmp_path, 16, machines, ["JOB"], threads=4)
    assert words[1:3] == ["-m", "accelerate.commands.launch"] and words[-3:] == ["-m", launching.WORKER, "JOB"]
    pairs = dict(zip(words, words[1:]))
    assert (pairs["--machine_rank"], pairs["--num_processes"], pairs["--num_cpu_threads_per_process"]) == ("1", "16", "4")
    made = config(16, machines)
    assert (made["num_machines"], made["main_process_ip"], made["main_process_port"]) == (2, "10.0.0.1", 29500)
    for wrong in ({"ZEROSEARCH_MACHINES": "0"}, told | {"ZEROSEARCH_MACHINE": "2"}, told | {"ZEROSEARCH_MAIN": "here"}):
        with pytest.raises(ConfigError, match="machines: expected"):
            machines_of(wrong)


def test_what_cannot_be_started_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at most 3, the questions of a step"):
        launching.check(4, 3)
    many = layouts.using(Layout(policy_gpus=2, simulator_gpus=3))
    with many, pytest.raises(ConfigError, match="at most 4, the texts of a step") as found:
        tune(tmp_path, SFT)
    assert "policy_gpus + simulator_gpus" in str(found.value) and "02.batch_size" in str(found.value)
    retriever = ScriptedRetriever()
    retriever.asked = (one for one in ())  # type: ignore[assignment]  # no generator can be pickled
    with pytest.raises(ConfigError, match="or one that can be pickled, found ScriptedRetriever"):
        how_to_open(retriever)
    monkeypatch.setattr(dry_start.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install deepspeed"):
        dry_start.require_deepspeed("zero2")
    assert dry_steps.deepspeed_config("zero3")["zero_optimization"]["stage"] == 3
    assert layouts.unread(Layout(policy_gpus=2, sharding="fsdp")) == []
    assert layouts.unread(Layout(sharding="zero2")) == ["sharding"]


def test_a_retriever_is_opened_again_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(tmp_path))
    arm = get_arm("search-r1")
    retriever = open_retriever(arm, k=2, seed=0, passages=CORPUS, policy=("engine", "prompts"))  # type: ignore[arg-type]
    opening = opened_with(retriever)
    assert opening is not None and opening.needs.policy is None and opening.needs.k == 2
    path = write_corpus(tmp_path / "corpus.jsonl", CORPUS)
    assert list(pickle.loads(pickle.dumps(open_passages(path, tmp_path / "cache", in_memory=0)))) == CORPUS
    again = open_again(opening, ("other", "prompts"))  # type: ignore[arg-type]
    assert again.name == "bm25" and opened_with(ScriptedRetriever()) is None
