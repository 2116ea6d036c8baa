"""Counter-based randomness: every draw is a pure function of the names that identify it.

Rule 11 of the house plan: keyed by (run seed, step, question, sample, turn), a draw is the same
whatever the concurrency, the batch it was made in, or the draws made before it.  No function here
has state and nothing here touches the global generators of Python, NumPy or torch.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(*parts: str | int) -> int:
    """Return a 64-bit seed that depends on every part and on their order.

    Parts are ints or strings, e.g. ``derive_seed(run_seed, "noise", step, question_id, sample, turn)``.
    """
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def uniform(*parts: str | int) -> float:
    """Return one draw from [0, 1), a pure function of its parts."""
    return (derive_seed(*parts) >> 11) * 2.0**-53  # 53 bits fit a float exactly, so 1.0 is never returned


def generator(*parts: str | int) -> np.random.Generator:
    """Return a fresh NumPy generator (Philox, counter-based) keyed by the parts."""
    return np.random.Generator(np.random.Philox(key=derive_seed(*parts)))
