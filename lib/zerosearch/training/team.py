"""The processes that train one model together: who does what, and how all of them come to know all of it.

Every process holds the same questions, settings and history and takes the same decisions.  What is dealt out is work:
groups of rollouts, passes of a model.  What comes of it is gathered, in the order in which one process would have made
it, so that advantages, metrics and files do not depend on the number of processes.  Gradients are summed: the weights
of the micro-batches add up to the batch already (``batching``).  ``ALONE`` is the team of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Team:
    """One process among ``size``.

    group: carries objects between them (gloo), None for a team of one.  sign: a file that, once it is there, asks all of
    them to stop; None without.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    sign: Path | None = None

    @property
    def leads(self) -> bool:
        """Say whether this process is the one that writes files."""
        return self.rank == 0

    @property
    def asked_to_stop(self) -> bool:
        """Say whether the sign to stop is there."""
        return self.sign is not None and self.sign.exists()

    def part(self, count: int) -> slice:
        """Return which of ``count`` things in a row are this process's; parts differ by one at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, value: T) -> list[T]:
        """Return the value of every process, in the order of their ranks.  All processes call it."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def first(self, value: T) -> T:
        """Return the value of the first process.  All processes call it."""
        if self.size == 1:
            return value
        box = [value if self.leads else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]  # type: ignore[return-value]

    def deal(self, sizes: Sequence[int]) -> list[int | None]:
        """Return which of the passes are this process's, by their numbers; None where it only keeps step.

        sizes: cells of each pass.  The longest go first, in rounds: in a round every process has one pass, and the
        longest of them goes to whoever has had the least.  All processes have the same number of passes, since the
        collectives of a model that is spread over them must match.
        """
        if self.size == 1:
            return list(range(len(sizes)))
        order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        loads, own = [0] * self.size, list[int | None]()
        for start in range(0, len(order), self.size):
            free = sorted(range(self.size), key=lambda rank: (loads[rank], rank))
            taken = dict(zip(free, order[start : start + self.size]))
            for rank, index in taken.items():
                loads[rank] += sizes[index]
            own.append(taken.get(self.rank))
        return own

    def map(self, work: Callable[[T], torch.Tensor], passes: Sequence[T], sizes: Sequence[int]) -> list[torch.Tensor]:
        """Return what ``work`` makes of every pass, on the CPU and in their order; each is done by one process.

        work: as often in every process; what keeps step does the last pass once more, and nothing is kept of it.
        """
        if self.size == 1:
            return [work(one).cpu() for one in passes]
        made = [(index, work(passes[-1 if index is None else index]).cpu()) for index in self.deal(sizes)]
        return self.in_order([(index, value) for index, value in made if index is not None])

    def in_order(self, own: Sequence[tuple[int, T]]) -> list[T]:
        """Return what all processes have made of numbered pieces, by their numbers.  All processes call it."""
        found = [pair for part in self.gather(list(own)) for pair in part]
        return [value for _, value in sorted(found, key=lambda pair: pair[0])]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, in place."""
        if self.size == 1:
            return
        works = [dist.all_reduce(p.grad, async_op=True) for p in parameters if p.grad is not None]
        for work in works:
            work.wait()


ALONE = Team()
