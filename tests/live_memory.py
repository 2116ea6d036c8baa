"""Bytes of all tensors that are alive, and their peak, on any device: every operation of torch is watched."""

from __future__ import annotations

import weakref
from typing import Any, Callable, Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts storages that operations under it made and that still live.  peak: the most since the last reset, bytes.

    besides: tensors that were there before, and are not counted.
    """

    def __init__(self, besides: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}
        self.outside = {tensor.untyped_storage()._cdata for tensor in besides}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.known or key in self.outside:
            return
        self.known[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.known.pop(key, 0)

    def measured(self, work: Callable[[], object]) -> int:
        """Return the most bytes that ``work`` holds above what lived before it."""
        before = self.peak = self.now
        with self:
            work()
        return self.peak - before
