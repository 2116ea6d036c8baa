"""checks.py: what a run needs is found missing before it starts, with the way to mend it."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from zerosearch import checks
from zerosearch.profiles import Needs

NOTHING = Needs(memory_gib=0, disk_gib=0, gpus=0, minutes=1)


def test_this_installation_is_complete() -> None:
    assert checks.package_problems() == []


def test_absent_and_outdated_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "numpy>=9999",
        "no-such-package==1",
        "other; extra == 'gpu'",
        "third; sys_platform == 'nowhere'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    problems = checks.package_problems()
    assert len(problems) == 2
    assert (
        problems[0].startswith("packages: expected numpy>=9999, found ") and "pip install -c" in problems[0]
    )
    assert "no-such-package==1, found none" in problems[1]


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "DISTRIBUTION", "no-such-distribution")
    assert "run ./run_all.sh" in checks.package_problems()[0]


def test_a_machine_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "gpu_count", lambda: 1)
    assert checks.machine_problems(NOTHING, tmp_path / "not" / "there" / "yet") == []
    huge = checks.machine_problems(Needs(memory_gib=1e6, disk_gib=1e9, gpus=8, minutes=1), tmp_path)
    assert [problem.split(":")[0] for problem in huge] == ["memory", "disk", "GPUs"]
    assert "found 1" in huge[2]
    assert checks.memory_warning(NOTHING) is None
    assert "are free now" in str(checks.memory_warning(Needs(1e6, 0, 0, 1)))


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "GPU 0: NVIDIA A100 (UUID: a)\nGPU 1: NVIDIA A100 (UUID: b)\n"
    answer = subprocess.CompletedProcess([], 0, stdout=listing)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: answer)
    assert checks.gpu_count() == 2

    def no_driver(*a: object, **k: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", no_driver)
    assert checks.gpu_count() == 0


def test_questions_and_corpus(tmp_path: Path) -> None:
    corpus = tmp_path / "passages.txt"
    assert checks.question_problems(None, None) == []
    assert "expected both" in checks.question_problems(tmp_path, None)[0]
    assert len(checks.question_problems(tmp_path, corpus)) == 2
    corpus.write_text("")
    (tmp_path / "nq.jsonl").write_text("")
    assert checks.question_problems(tmp_path, corpus) == []


def test_missing_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSEARCH_NOTEBOOKS", str(tmp_path))
    (tmp_path / "04_evaluate.ipynb").write_text("")
    assert len(checks.notebook_problems()) == 5


def test_price_book(tmp_path: Path) -> None:
    assert checks.price_book_problems("data/prices.yaml") == []
    assert "found none at" in checks.price_book_problems(str(tmp_path / "mine.yaml"))[0]
