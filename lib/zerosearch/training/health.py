"""The collapse watch of a training: looks at every step, writes down what it sees, and ends a run that is lost.

Three ways to watch: ``stop`` ends the training at the first alarm, with a checkpoint and the trajectories of
that step on disk; ``warn`` only says it (progress line, log, ``health.json``, manifest); ``off`` looks away.
The rules are in ``health_rules``.  Watching changes no number of a run.  Called by ``policy_rl.PolicyRun``;
notebook 03 shows what a ``Collapsed`` carries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Mapping, Protocol, Sequence, get_args

import pandas as pd

from zerosearch import artifacts, files
from zerosearch.errors import WorkbookError, unknown_name
from zerosearch.training import health_rules
from zerosearch.training.health_rules import Alarm, Row

WatchKind = Literal["stop", "warn", "off"]
HEALTH, COLLAPSE = "health.json", "collapse.parquet"
_SHOWN, _SHOWN_TEXT = 8, 200  # trajectories of a collapse that are shown, characters of each


class Folder(Protocol):
    """What is asked of a stage: where its files go."""

    def path(self, name: str) -> Path:
        """Return the path of a file of the stage."""
        ...


class Collapsed(WorkbookError):
    """A training left its healthy range; it was stopped and saved.

    trajectories: those of the step at which it was noticed, as one table for people, the worst first.
    """

    exit_code = 3

    def __init__(self, message: str, trajectories: pd.DataFrame):
        self.trajectories = trajectories
        super().__init__(message)


class Watcher:
    """Watches one training.  present: its settings by name, for the commands that it proposes."""

    def __init__(self, stage: Folder, kind: WatchKind, steps: int, present: Mapping[str, Any]):
        if kind not in get_args(WatchKind):
            raise unknown_name("watch", kind, get_args(WatchKind))
        self.stage, self.kind, self.steps, self.present = stage, kind, steps, present
        self.history: Sequence[Row] = ()
        self.began: list[Alarm] = []

    def start(self, history: Sequence[Row]) -> None:
        """Take up the history that a run goes on from; Collapsed when it is to stop and had collapsed there."""
        self.history = history
        self.began = health_rules.began(history) if self.kind != "off" else []
        self._write()
        self.check()

    def look(self, history: Sequence[Row]) -> list[Alarm]:
        """Take a history with one more step; return the alarms that ring now, after writing down new ones."""
        self.history = history
        if self.kind == "off":
            return []
        now = health_rules.ringing(history)
        before = {alarm.rule for alarm in health_rules.ringing(history[:-1])}
        new = [alarm for alarm in now if alarm.rule not in before]
        self.began += new
        for alarm in new:
            print(f"warning: {alarm.text()}; likely cause: {alarm.rule.cause}", flush=True)
        if new:
            self._write()
        return now

    def keep(self, trajectories: pd.DataFrame) -> None:
        """Write the trajectories of the step at which an alarm rang, the worst first."""
        files.write_table(self.stage.path(COLLAPSE), worst_first(trajectories))

    def check(self) -> None:
        """Raise Collapsed when an alarm that is to stop the run rings at the last step."""
        if self.kind == "stop" and (alarms := health_rules.ringing(self.history)):
            kept = self.stage.path(COLLAPSE)
            table = for_people(files.read_table(kept)) if kept.is_file() else pd.DataFrame()
            raise Collapsed(self._message(alarms), table)

    def _message(self, alarms: Sequence[Alarm]) -> str:
        first, step = alarms[0], alarms[0].steps[-1]
        also = f"; also {'; '.join(alarm.text() for alarm in alarms[1:])}" if alarms[1:] else ""
        where = artifacts.shown(self.stage.path(COLLAPSE).parent)
        return (
            f"the training collapsed at step {step} of {self.steps} and was stopped.\n"
            f"  {first.text()}{also}\n  likely cause: {first.rule.cause}\n"
            f"  try the same command with {self.remedy(first)}\n"
            f"  saved in {where}: a checkpoint of step {step}, {HEALTH}, and {COLLAPSE} with the trajectories of that "
            f"step, the worst first; to go on from there all the same add --set 03.watch=warn"
        )

    def remedy(self, alarm: Alarm) -> str:
        """Return the option to try, with its value for this run."""
        return f"{alarm.rule.remedy.command(self.present)} ({alarm.rule.remedy.words})"

    def _write(self) -> None:
        """Write ``health.json``; a run without an alarm has none, and no trajectories of a collapse either."""
        if self.began:
            alarms = [self._entry(alarm) for alarm in self.began]
            files.write_json(self.stage.path(HEALTH), {"watch": self.kind, "alarms": alarms})
        else:
            for name in (HEALTH, COLLAPSE):
                self.stage.path(name).unlink(missing_ok=True)

    def _entry(self, alarm: Alarm) -> dict[str, Any]:
        return {
            "metric": alarm.rule.metric, "step": alarm.steps[-1], "what": alarm.text(),
            "likely_cause": alarm.rule.cause, "try": self.remedy(alarm),
        }


def manifest_results(stage: Folder) -> dict[str, str]:
    """Return what the manifest of a finished training says about its alarms: nothing without one."""
    found = files.find_object(stage.path(HEALTH), {"alarms": list})
    return {"health_warnings": "; ".join(str(one["what"]) for one in found["alarms"])} if found else {}


def worst_first(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Return the trajectories of a step: those without an answer first, then low rewards, then long ones."""
    order = trajectories.assign(answered=trajectories["stop_reason"] == "answer")
    sorted_rows = order.sort_values(["answered", "reward", "n_tokens"], ascending=[True, True, False], kind="stable")
    return sorted_rows.drop(columns="answered").reset_index(drop=True)


def for_people(trajectories: pd.DataFrame, count: int = _SHOWN) -> pd.DataFrame:
    """Return the first trajectories as a table to read: the question, how it ended, what the policy wrote."""
    shown = trajectories.head(count)
    wrote = [" … ".join(turn["text"] for turn in json.loads(turns)) for turns in shown["turns"]]
    cut = [text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]} …" for text in wrote]
    columns = {"stop_reason": "stop reason", "n_searches": "searches", "n_tokens": "tokens"}
    table = shown[["question", "stop_reason", "n_searches", "n_tokens", "answer", "reward"]].rename(columns=columns)
    return table.assign(**{"the policy wrote": cut}).reset_index(drop=True)
