"""checkpoints.py: a checkpoint counts only when it is whole and of the same run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from zerosearch.training import checkpoints

FINGERPRINT = {"settings": {"seed": 0, "pair": (1, 2)}}


def checkpoint(folder: Path, step: int, *, mark: bool = True, without: str = "") -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"):
        if name != without:
            (path / name).write_text(f"{name} {step}")
    if mark:
        checkpoints.mark_complete(path, step, FINGERPRINT)
    return path


def test_the_newest_complete_one_is_found(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)  # by number, not by name
    checkpoint(tmp_path, 11, mark=False)  # cut off while saving
    assert checkpoints.latest(tmp_path, FINGERPRINT) == (newest, 10)
    assert checkpoints.discard_unusable(tmp_path, FINGERPRINT) == 1
    assert not (tmp_path / "checkpoint-11").exists()


@pytest.mark.parametrize("missing", ["optimizer.pt", "rng_state.pth", "scheduler.pt"])
def test_a_checkpoint_without_its_random_or_optimizer_state_cannot_be_marked(tmp_path: Path, missing: str) -> None:
    with pytest.raises(FileNotFoundError, match=missing):
        checkpoint(tmp_path, 5, without=missing)
    assert checkpoints.latest(tmp_path, FINGERPRINT) is None


def test_a_file_lost_or_cut_after_marking_disqualifies(tmp_path: Path) -> None:
    lost, cut = checkpoint(tmp_path, 5), checkpoint(tmp_path, 6)
    (lost / "optimizer.pt").unlink()
    (cut / "model.safetensors").write_text("m")
    assert checkpoints.latest(tmp_path, FINGERPRINT) is None


def test_other_settings_are_not_resumed_from(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    assert checkpoints.latest(tmp_path, FINGERPRINT | {"settings": {"seed": 1}}) is None
    assert checkpoints.latest(tmp_path, FINGERPRINT) is not None


def test_no_folder_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.latest(tmp_path / "none", FINGERPRINT) is None
    assert checkpoints.discard_unusable(tmp_path / "none", FINGERPRINT) == 0


def test_the_log_goes_back_with_the_checkpoint(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": s}) + "\n" for s in (1, 2, 3, 4)) + '{"step": 5, "rew')
    assert checkpoints.cut_log(log, 3) == [{"step": 1}, {"step": 2}, {"step": 3}]
    assert log.read_text().count("\n") == 3
    assert checkpoints.cut_log(tmp_path / "none.jsonl", 3) == []


def test_the_clock_saves_once_a_minute_unless_saving_is_slow() -> None:
    now = [0.0]
    callback, arguments = checkpoints.SaveByTheClock(lambda: now[0]), (TrainingArguments(use_cpu=True), TrainerState())

    def saved_at(seconds: float, saving: float = 0.0) -> bool:
        now[0], control = seconds, TrainerControl()
        if callback.on_step_end(*arguments, control).should_save:
            now[0] += saving
            callback.on_save(*arguments, control)
        return control.should_save

    assert [saved_at(s) for s in (10, 59, 60, 90, 119, 125)] == [False, False, True, False, False, True]
    assert saved_at(190, saving=6.0)  # 6 s are a twentieth of 120 s
    assert [saved_at(s) for s in (256, 315, 316)] == [False, False, True]
