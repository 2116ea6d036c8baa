"""Rollouts of the next batch while the policy learns from this one: ``layout.overlap``, off by default.

Batch 1 is made first.  At the start of step n, with batch n there, the engine's copy of the weights is renewed and
batch n + 1 is begun in a thread; then the policy learns from batch n.  So batch n + 1 is written by the policy before
update n, whatever is the faster of the two, and learned from by the policy after it: every batch but the first is
exactly one update old, and the numbers do not depend on timing.

What corrects for that is ``correction``, without which overlap is refused.  Write q for the policy that sampled a
token (its log-probs are recorded with the trajectory) and p for the policy that learns from it.

- ``token``: the gradient is that of  -min(p / q, cap) A log p.  The ratio that the clip looks at is taken against p
  itself: there is one update per batch, it is 1, and nothing is clipped.  The cap takes the clip's place; it cuts
  weights, not gradients.  What the policy would have read and written before a token is not reweighted: a bias that
  grows with the distance between p and q.
- ``sequence``: the same with the ratio of whole trajectories; those above the cap are dropped.

Rewards, group baselines and the whitening of PPO's advantages belong to the batch and are not reweighted, and neither
is the KL in the loss.  The KL in the reward is what the sampler paid, log q - log p_base.  PPO's critic values the
states as it is now, and its returns are those that q earned: one update old too.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Callable, Sequence

from zerosearch import files
from zerosearch.errors import WorkbookError
from zerosearch.rollout import table_to_trajectories, trajectories_to_table
from zerosearch.schema import Trajectory
from zerosearch.training.policy_trainer import Slot

BATCH, ACCOUNT = "next_batch.parquet", "next_batch.json"  # of a checkpoint
_PATIENCE_SECONDS = 10.0  # for rollouts that nobody waits for any more to end


@dataclass(frozen=True)
class Rolled:
    """The rollouts of one step.

    noise: planned.  prompt, generated: tokens of the policy.  asked: fields of the ledger's events about its searches.
    answering: role of what answered them.  seconds, searching: wall seconds of all, and of them with searches.
    """

    trajectories: Sequence[Trajectory]
    noise: float
    prompt: int
    generated: int
    asked: Sequence[dict[str, Any]]
    answering: str
    seconds: float
    searching: float


OnProgress = Callable[[int, int], None]


class GivenUp(WorkbookError):
    """Rollouts ended because nobody waits for them any more."""


class Ahead:
    """Keeps one batch under way.  Use as a context manager: rollouts under way at its end are given up.

    make: (slots, on_progress) -> their rollouts; called in a thread, one at a time, and ends when on_progress raises.
    renew: gives the engine the policy's present weights; called here, while nothing is being made.
    slots_of: (step) -> what is made for it.  steps: of the whole training.
    """

    def __init__(
        self, make: Callable[[list[Slot], OnProgress], Rolled], renew: Callable[[], None],
        slots_of: Callable[[int], list[Slot]], steps: int,
    ):
        self._make, self._renew, self._slots_of, self._steps = make, renew, slots_of, steps
        self._given_up = threading.Event()
        self._thread: threading.Thread | None = None
        self._made: Future[Rolled] = Future()
        self._step = 0  # that the batch under way is for, 0 for none

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_SECONDS)

    def take(self, step: int) -> Rolled:
        """Return the batch of a step, waiting for it, and begin the next; raises what ended its rollouts."""
        if self._step != step:
            self._begin(step)
        rolled, self._step = self._made.result(), 0
        if step < self._steps:
            self._begin(step + 1)
        return rolled

    def save(self, folder: Path) -> None:
        """Write the batch under way, waiting for it, into a checkpoint; raises what ended its rollouts.

        Nothing at the last step: no batch follows it.
        """
        if self._step:
            save(self._made.result(), folder)

    def load(self, folder: Path) -> None:
        """Take the batch that ``save`` wrote into a checkpoint as the one under way."""
        rolled = load(folder)
        self._made, self._step = Future(), rolled.trajectories[0].step
        self._made.set_result(rolled)

    def _begin(self, step: int) -> None:
        self._renew()
        self._made, self._step = Future(), step
        work = (self._made, self._slots_of(step))
        self._thread = threading.Thread(target=self._work, args=work, name="rollouts ahead", daemon=True)
        self._thread.start()

    def _work(self, made: Future[Rolled], slots: list[Slot]) -> None:
        try:
            made.set_result(self._make(slots, self._go_on))
        except BaseException as error:  # raised again by whoever waits
            made.set_exception(error)

    def _go_on(self, done: int, total: int) -> None:
        if self._given_up.is_set():
            raise GivenUp(f"rollouts given up, {done} of {total} trajectories finished")


def save(rolled: Rolled, folder: Path) -> None:
    """Write rollouts into a folder; ``load`` is the inverse."""
    files.write_table(folder / BATCH, trajectories_to_table(rolled.trajectories))
    files.write_json(folder / ACCOUNT, asdict(replace(rolled, trajectories=())))


def load(folder: Path) -> Rolled:
    """Return the rollouts that ``save`` wrote."""
    wanted = {field.name: object for field in fields(Rolled)}
    account = files.read_object(folder / ACCOUNT, wanted, f"delete {folder}: the checkpoint before it is taken then")
    return Rolled(**account | {"trajectories": table_to_trajectories(files.read_table(folder / BATCH))})
