"""Bad input never gives a traceback, never loses data, and every message names the file and the fix.

The cases stand in bad_input_cases (by hand) and bad_input_generated (seeded mutations of good files).  For each:
the exit code, no traceback, the damaged thing and the fix in the message, no temporary file left, and a
finished run in the same outputs folder byte for byte as before.
"""

from __future__ import annotations

import re
from pathlib import Path

import bad_input_cases as catalogue
import bad_input_generated as generated
import pytest
import toy_run

from zerosearch import artifacts

CASES = [*catalogue.HAND_WRITTEN, *generated.CASES]
FIX = re.compile(
    r"`[^`]+`|\b(use|choose|add|remove|mend|delete|deleted|restore|free|run|edit|give|check|convert|write|shorten|"
    r"split|rename|copy|make|see|set|point|raise|did you mean|expected one of|such as)\b"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with one finished run."""
    folder = tmp_path_factory.mktemp("finished") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROSEARCH_OUTPUTS", str(folder))
        toy_run.write(catalogue.FINISHED)
        (folder / catalogue.FINISHED / "settings.json").write_text('{"profile": "smoke", "code": {}}\n')
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> catalogue.Place:
    """Good files to be damaged, and the outputs folder with the finished run."""
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(finished))
    made = catalogue.prepare(tmp_path / "case", finished, monkeypatch)
    yield made
    for path in finished.iterdir():
        if path.name != catalogue.FINISHED:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        catalogue.shutil.rmtree(path)
    else:
        path.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes, temporary ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: catalogue.Case, place: catalogue.Place) -> None:
    before = contents(place.outputs / catalogue.FINISHED)
    seen = case.act(place)
    print(seen.text)
    assert "Traceback" not in seen.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", seen.text)
    assert seen.code == 0 if case.goes_on else seen.code in (1, 2, 3)
    for word in (case.names, *case.words):
        assert word in seen.text, word
    assert case.goes_on or FIX.search(seen.text)
    assert contents(place.outputs / catalogue.FINISHED) == before
    left = [path for root in (place.outputs, place.folder) for path in root.rglob("*.part*")]
    assert left == []


def test_there_are_many_and_each_is_itself() -> None:
    assert len(CASES) >= 200 and len({case.name for case in CASES}) == len(CASES)
    assert len(catalogue.HAND_WRITTEN) >= 90 and len(generated.CASES) >= 60
    assert sum(not case.goes_on for case in CASES) >= 180
    counts = f"{len(catalogue.HAND_WRITTEN)} written by hand, {len(generated.CASES)} generated"
    readme = " ".join((artifacts.REPO / "README.md").read_text("utf-8").split())
    assert f"{len(CASES)} kinds of bad input ({counts})" in readme


def test_the_generator_damages_most_of_what_it_touches() -> None:
    """The oracle recognises what stayed valid; were that most of it, the generator would test nothing."""
    assert sum(case.goes_on for case in generated.CASES) < len(generated.CASES) / 3
