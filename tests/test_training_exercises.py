"""The exercises of notebooks 02 and 03: solutions pass, typical mistakes are named, stubs never fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "notebooks" / "solutions.py"
spec = importlib.util.spec_from_file_location("notebook_solutions", SOURCE)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)

NAMES = ("02_1", "02_2", "03_1", "03_2")


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(solutions, f"check_{name}")(getattr(solutions, f"solution_{name}")())
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_stub_is_not_an_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for stub in (None, lambda *_: None):
        getattr(solutions, f"check_{name}")(stub)
        assert "not tried yet" in capsys.readouterr().out


def count_passages(lists, answers):  # noqa: ANN001, ANN201
    hits = [a.lower() in t.lower() and "Falkner" not in t for ts, a in zip(lists, answers) for t in ts]
    return sum(hits) / len(hits)


def one_after_another(text, mapping):  # noqa: ANN001, ANN201
    for old, new in mapping.items():
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("02_1", lambda lists, answers: 0.25, "compare as zerosearch.scoring does"),
        ("02_1", lambda lists, answers: 0.75, "whole words"),
        ("02_1", count_passages, "count lists"),
        ("02_1", lambda lists, answers: 0.9, "expected 0.5"),
        ("02_2", lambda text, mapping: text, "not replaced"),
        ("02_2", one_after_another, "go through the text once"),
        ("03_1", lambda rewards: [r - sum(rewards) / len(rewards) for r in rewards], "leave the trajectory itself"),
        ("03_1", lambda rewards: rewards, "no baseline"),
        ("03_1", lambda rewards: [-x for x in solutions.solution_03_1()(rewards)], "sign is turned round"),
        ("03_1", lambda rewards: [7.0] * len(rewards), "mean of the others"),
        ("03_2", lambda turns: [True] * 9, "write passages itself"),
        ("03_2", lambda turns: [who == "policy" for who, _ in turns], "one entry per token"),
        ("03_2", lambda turns: [not x for x in solutions.solution_03_2()(turns)], "turned round"),
        ("03_2", lambda turns: [False] * 9, "wrong at token 0"),
    ],
)
def test_typical_mistakes_are_named(name: str, answer, words: str) -> None:  # noqa: ANN001
    with pytest.raises(AssertionError, match=words):
        getattr(solutions, f"check_{name}")(answer)
