"""The exercises of notebook 01: solutions pass, typical mistakes are named, stubs never fail."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "notebooks" / "solutions.py"
spec = importlib.util.spec_from_file_location("notebook_solutions_01", SOURCE)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


@pytest.mark.parametrize("name", ["01_1", "01_2"])
def test_the_solution_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(solutions, f"check_{name}")(getattr(solutions, f"solution_{name}")())
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["01_1", "01_2"])
def test_an_untouched_stub_is_not_an_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for stub in (None, lambda *_: None):
        getattr(solutions, f"check_{name}")(stub)
        assert "not tried yet" in capsys.readouterr().out


def agreement(first, second):  # noqa: ANN001, ANN201
    return sum(a == b for a, b in zip(first, second)) / len(first)


def chance(first, second):  # noqa: ANN001, ANN201
    return sum(first.count(label) * second.count(label) for label in "um") / len(first) ** 2


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("01_1", lambda queries, golden: list(zip([q for q in queries if q], golden)), "q2 got 'Port Amber'"),
        ("01_1", lambda queries, golden: list(zip(queries, golden)), "have no request"),
        ("01_1", lambda queries, golden: [], "expected the queries"),
        ("01_1", lambda queries, golden: [(q, "Rosa Voss") for q in queries if q], "expected"),
        ("01_2", agreement, "subtract what chance gives"),
        ("01_2", lambda a, b: agreement(a, b) - chance(a, b), "divide by 1 - chance"),
        ("01_2", lambda a, b: 2 * agreement(a, b) - 1, "chance is not one half"),
        ("01_2", lambda a, b: 0.7, "expected 1.000, found 0.700"),
    ],
)
def test_mistakes_are_named(name: str, answer, words: str) -> None:  # noqa: ANN001
    with pytest.raises(AssertionError) as caught:
        getattr(solutions, f"check_{name}")(answer)
    assert words in str(caught.value)
