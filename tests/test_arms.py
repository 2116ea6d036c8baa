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


def test_only_who_searches_the_tuned_simulator_waits_for_it() -> None:
    assert [arm.name for arm in ARMS.values() if arm.retriever == "simulator"] == ["zerosearch"]
    simulated = [arm.name for arm in ARMS.values() if arm.simulated]
    assert simulated == ["zerosearch", "untuned", "prompted"] == [arm.name for arm in ARMS.values() if arm.curriculum]


def test_who_never_searches_is_trained_and_asked_without_it() -> None:
    closed = {arm.name: (arm.trainer, arm.prompt) for arm in ARMS.values() if not arm.searches}
    assert closed == {"r1": ("rl", "r1"), "sft": ("sft", "direct")}
    assert get_arm("rejection").trainer == "rejection" and get_arm("self-search").retriever == "self"


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
