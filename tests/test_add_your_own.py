"""The README's two examples of adding something of one's own: run exactly as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

import pytest

from zerosearch import artifacts
from zerosearch.evaluation import methods
from zerosearch.training import arm_setup
from zerosearch.training.arms import ARMS

README = (artifacts.REPO / "README.md").read_text(encoding="utf-8")


def snippet(name: str) -> str:
    """Return the Python block that follows a marker of the README."""
    found = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found, f"README: expected a Python block after <!-- {name} -->"
    return found[1]


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Give the registries back as they were."""
    kept = [(registry, dict(registry)) for registry in (methods.UNTRAINED, arm_setup.OPENERS, ARMS)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)


@pytest.mark.parametrize("name", ["own-method", "own-arm"])
def test_a_snippet_fits_the_promise(name: str) -> None:
    assert len(snippet(name).splitlines()) <= 30 and max(map(len, snippet(name).splitlines())) <= 130


def test_a_method_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet("own-method"), "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"search-o1    EM 0\.\d\d", lines[0]) and re.fullmatch(r"one-search   EM 0\.\d\d", lines[1])


def test_an_arm_of_ones_own(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known: dict[str, object] = {"__name__": "readme"}
    exec(compile(snippet("own-arm"), "README.md", "exec"), known)
    assert list(known["history"]["step"]) == [1, 2] and known["history"]["searches_mean"].gt(0).all()
    folder = outputs / "own-arm" / "03_rl" / "oracle" / "seed0"
    assert {"metrics.jsonl", "ledger.jsonl", "trajectories.parquet"} <= {path.name for path in folder.iterdir()}
    assert "reward_mean" in capsys.readouterr().out


def test_nothing_of_it_stays() -> None:
    assert "one-search" not in methods.UNTRAINED and "oracle" not in ARMS and "oracle" not in arm_setup.OPENERS
