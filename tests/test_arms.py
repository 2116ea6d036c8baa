"""arms.py: the arms differ in what is searched, and unknown ones are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zerosearch.errors import ConfigError
from zerosearch.training.arms import ARMS, get_arm


def test_the_arms_of_the_comparison() -> None:
    ours, real, untuned = get_arm("zerosearch"), get_arm("search-r1"), get_arm("untuned")
    assert (ours.retriever, ours.curriculum, ours.simulated) == ("simulator", True, True)
    assert (real.retriever, real.curriculum, real.simulated) == ("bm25", False, False)
    assert (untuned.retriever, untuned.curriculum, untuned.simulated) == ("simulator-base", True, True)


def test_names_match_their_keys_and_labels_differ() -> None:
    assert all(arm.name == name for name, arm in ARMS.items())
    assert len({arm.label for arm in ARMS.values()}) == len(ARMS)


def test_unknown_arm_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'search-r1'"):
        get_arm("search_r1")


def test_asking_for_names_imports_nothing_heavy() -> None:
    code = "import sys, zerosearch.training.arms; print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
