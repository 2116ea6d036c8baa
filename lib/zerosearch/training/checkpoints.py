"""Checkpoints that are either complete or ignored, and files that follow them back.

transformers' Trainer resumes from whatever it finds: without its optimizer or random-state file a
run goes on silently and differently.  So a marker is written last, naming every file with its size
and the settings of the run; a folder whose marker is missing, does not match, or belongs to other
settings is not resumed from.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from zerosearch import adapters
from zerosearch.errors import ConfigError
from zerosearch.interrupts import StopRequest
from zerosearch.training import sharding
from zerosearch.training.team import ALONE, Team

MARKER = "COMPLETE.json"
PREFIX = "checkpoint-"
_CUT_OFF = "_training_was_cut_off"
LOST_SECONDS = 60.0  # of training that a kill may cost, whatever ``save_every`` says ...
_SAVING_SHARE = 0.05  # ... unless saving would take a larger share of the time than this
# Files without which a resumed run would differ (weights may be one file or several shards).
REQUIRED = ("optimizer.pt", "scheduler.pt", "trainer_state.json")


class MarkedCheckpoints:
    """Mixed into a Trainer: checkpoints end with the marker, and nothing is sent anywhere.

    Of a model with adapters they hold the adapters alone: its base is loaded anew, and named by the fingerprint.
    Of several processes the first writes, and what is spread over them is put together before: a checkpoint does not say
    how many there were, and any number goes on from it.

    fingerprint: what names the run; team: who trains; set both before training.  Stands before TRL's class, whose own saving
    would also write a model card.
    """

    fingerprint: Mapping[str, Any] = {}
    team: Team = ALONE
    _together: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None  # (weights, optimiser) of a spread model

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        own: PreTrainedModel = self.model  # type: ignore[attr-defined]
        if sharding.is_spread(own):
            kept, chosen = self.team.leads, adapters.trained(own) if adapters.layers(own) else dict(own.named_parameters())
            weights = sharding.whole_weights(chosen.items(), kept=kept)
            self._together = weights, sharding.whole_state(self.optimizer, kept=kept)  # type: ignore[attr-defined]
        if self.team.leads:
            self._write_checkpoint(model, trial)
        self._together = None
        self.team.first(None)  # nobody goes on, and perhaps is ended, before it is written

    def _write_checkpoint(self, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)  # type: ignore[arg-type]
        step = self.state.global_step  # type: ignore[attr-defined]
        folder = Path(self.args.output_dir) / f"{PREFIX}{step}"  # type: ignore[attr-defined]
        self.save_beside(folder)
        mark_complete(folder, step, self.fingerprint)

    def save_beside(self, folder: Path) -> None:
        """Write what a trainer needs beside transformers' files into a checkpoint, before it is declared complete."""

    def load_beside(self, folder: Path) -> None:
        """Read what ``save_beside`` wrote."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        model: PreTrainedModel = self.model  # type: ignore[attr-defined]
        weights = self._together[0] if self._together else None
        if not adapters.layers(model):
            Trainer._save(self, output_dir, weights or state_dict)  # type: ignore[arg-type]
            return
        folder = Path(output_dir or self.args.output_dir)  # type: ignore[attr-defined]
        folder.mkdir(parents=True, exist_ok=True)
        adapters.save(model, folder, weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._together is None:
            Trainer._save_optimizer_and_scheduler(self, output_dir)  # type: ignore[arg-type]
            return
        torch.save(self._together[1], Path(output_dir) / "optimizer.pt")
        torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")  # type: ignore[attr-defined]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not sharding.is_spread(self.model):  # type: ignore[attr-defined]
            Trainer._load_optimizer_and_scheduler(self, checkpoint)  # type: ignore[arg-type]
            return
        state = torch.load(Path(checkpoint) / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
        sharding.load_state(self.optimizer, state)  # type: ignore[attr-defined]
        schedule = torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True)
        self.lr_scheduler.load_state_dict(schedule)  # type: ignore[attr-defined]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        adapted: PreTrainedModel = self.model  # type: ignore[attr-defined]
        if sharding.is_spread(adapted):
            sharding.load_weights(adapted, Path(resume_from_checkpoint))
        elif adapters.layers(adapted):
            adapters.load(adapted, Path(resume_from_checkpoint))
        else:
            Trainer._load_from_checkpoint(self, resume_from_checkpoint, model)  # type: ignore[arg-type]

    def _clip_grad_norm(self, model: PreTrainedModel) -> torch.Tensor:
        """Clip the gradient and return its norm before; of a model that is spread, that of all parts together."""
        return sharding.whole(super()._clip_grad_norm(model))  # type: ignore[misc]

    def _send_telemetry(self) -> None:
        """Make no network call that nobody asked for."""

    def train_from(self, found: tuple[Path, int] | None, steps: int) -> None:
        """Train to ``steps`` from a checkpoint of ``latest``, or from the start without one.

        Asked to stop (see ``interrupts``), it finishes the step, saves a checkpoint and raises Stopped.
        """
        transformers_logging.disable_progress_bar()  # a bar per checkpoint hides our own progress
        with StopRequest() as stop:
            self.add_callback(SaveByTheClock())  # type: ignore[attr-defined]
            self.add_callback(_SaveAndStop(stop))  # type: ignore[attr-defined]
            if self.team.size > 1:
                self.add_callback(_AsTheFirst(self.team, stop))  # type: ignore[attr-defined]
            if found is None:
                self.train()  # type: ignore[attr-defined]
            elif found[1] < steps:
                self.load_beside(found[0])
                self.train(resume_from_checkpoint=str(found[0]))  # type: ignore[attr-defined]
            else:  # all steps were done before; only what follows them was cut off
                self._load_from_checkpoint(str(found[0]))  # type: ignore[attr-defined]
            stop.check(f"{self.state.global_step} of {steps} steps")  # type: ignore[attr-defined]


class SaveByTheClock(TrainerCallback):
    """Saves between the steps of ``save_every`` too: a short run of slow steps would never come to one.

    A checkpoint changes no result.  clock: seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.saved, self.asked, self.patience = clock, clock(), 0.0, LOST_SECONDS

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a checkpoint when the last one is too long ago."""
        self.asked = self.clock()
        if self.asked - self.saved >= self.patience:
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin to count anew; what the saving itself took decides how soon the next one is worth it."""
        self.saved = self.clock()
        self.patience = max(LOST_SECONDS, (self.saved - self.asked) / _SAVING_SHARE)


class _SaveAndStop(TrainerCallback):
    """Ends the training after the step under way, with a checkpoint, once that was asked for."""

    def __init__(self, stop: StopRequest):
        self.stop = stop

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Save and stop here, at the boundary of a step."""
        if self.stop.requested:
            control.should_save = control.should_training_stop = True
        return control


class _AsTheFirst(TrainerCallback):
    """Lets all processes save and stop where the first does: clocks and signals are each one's own.  Added last."""

    def __init__(self, team: Team, stop: StopRequest):
        self.team, self.stop = team, stop

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Take the decisions of the first process."""
        if self.stop.requested or self.team.asked_to_stop:
            control.should_save = control.should_training_stop = self.stop.requested = True
        control.should_save, control.should_training_stop, self.stop.requested = self.team.first(
            (control.should_save, control.should_training_stop, self.stop.requested)
        )
        return control


def require_base(model: PreTrainedModel) -> None:
    """Raise ConfigError for a model whose training was cut off: it is no base any more.

    Its weights have moved; trained on from here it would end elsewhere than an undisturbed run.
    """
    if getattr(model, _CUT_OFF, False):
        raise ConfigError(
            "training: expected a freshly loaded model, found one whose training was cut off; run the notebook again "
            "from its first cell: it goes on from the last checkpoint"
        )


@contextlib.contextmanager
def under_training(model: PreTrainedModel) -> Iterator[None]:
    """Mark a model while it trains (see ``require_base``) and take TRL's patches off it afterwards."""
    setattr(model, _CUT_OFF, True)
    try:
        yield
        setattr(model, _CUT_OFF, False)
    finally:
        model.__dict__.pop("forward", None)  # TRL patched it; give the plain model back


def mark_complete(folder: Path, step: int, fingerprint: Mapping[str, Any]) -> None:
    """Declare a checkpoint folder complete: sizes of all its files, step, fingerprint of the run.

    Raises FileNotFoundError when a file that resuming needs is absent.
    """
    missing = [name for name in REQUIRED if not (folder / name).exists()]
    if not list(folder.glob("rng_state*.pth")):
        missing.append("rng_state.pth")
    if missing:
        names = ", ".join(missing)
        raise FileNotFoundError(f"checkpoint {folder}: expected {names} beside the weights, found none")
    sizes = {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file() and p.name != MARKER}
    partial = folder / (MARKER + ".partial")
    partial.write_text(json.dumps({"step": step, "fingerprint": fingerprint, "sizes": sizes}, indent=1))
    os.replace(partial, folder / MARKER)


def is_complete(folder: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Say whether a checkpoint is whole and of this very run (same fingerprint)."""
    try:
        marker = json.loads((folder / MARKER).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    found = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    whole = marker["sizes"].items() <= found.items()
    return whole and marker["fingerprint"] == json.loads(json.dumps(fingerprint))


def latest(folder: Path, fingerprint: Mapping[str, Any]) -> tuple[Path, int] | None:
    """Return (checkpoint, its step) of the newest complete checkpoint of this run, or None."""
    for step, path in sorted(_found(folder), reverse=True):
        if is_complete(path, fingerprint):
            return path, step
    return None


def resume_point(folder: Path, fingerprint: Mapping[str, Any]) -> tuple[Path, int] | None:
    """Delete what cannot be resumed from, return ``latest`` of the rest."""
    discard_unusable(folder, fingerprint)
    return latest(folder, fingerprint)


def discard_unusable(folder: Path, fingerprint: Mapping[str, Any]) -> int:
    """Delete checkpoints that are broken or of another run; return how many."""
    unusable = [path for _, path in _found(folder) if not is_complete(path, fingerprint)]
    for path in unusable:
        shutil.rmtree(path)
    return len(unusable)


def cut_log(path: Path, last_step: int) -> list[dict[str, Any]]:
    """Keep the lines of a JSONL log whose ``step`` is at most last_step; return them.

    Steps after the checkpoint are trained again, so their old lines go.  A line cut off in the
    middle by a crash goes too.  A missing file gives an empty list.
    """
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if row["step"] <= last_step:
            rows.append(row)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(partial, path)
    return rows


def _found(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    names = [(p.name.removeprefix(PREFIX), p) for p in folder.iterdir() if p.name.startswith(PREFIX)]
    return [(int(step), path) for step, path in names if step.isdigit()]
