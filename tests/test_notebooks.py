"""The source notebooks: stripped, paired, small cells; of the stages, parameters that equal the smoke profile."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import jupytext
import nbformat
import papermill
import pytest

from zerosearch import artifacts, profiles

FOLDER = artifacts.notebook_path("00").parent  # $ZEROSEARCH_NOTEBOOKS: to check your own copies
APPENDICES = ("A1_kernels", "A2_statistics")  # belong to no run: no parameters, no stage folder
STAGE = pytest.mark.parametrize("stage", artifacts.STAGES)
EVERY = pytest.mark.parametrize("name", (*artifacts.NOTEBOOKS.values(), *APPENDICES))
MAX_LINES = 25


def path_of(name: str) -> Path:
    """Return the notebook of a stage, or of this name."""
    return FOLDER / f"{artifacts.NOTEBOOKS.get(name, name)}.ipynb"


def cells_of(name: str, kind: str | None = None) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path_of(name), as_version=4).cells
    return [cell for cell in cells if kind in (None, cell.cell_type)]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def declared(cell: nbformat.NotebookNode) -> dict[str, tuple[str, Any]]:
    """Return {name: (type, value)} of a cell that holds annotated scalars and nothing else."""
    found = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.AnnAssign) and node.value is not None, (
            f"not `name: type = value`: {ast.unparse(node)}"
        )
        found[ast.unparse(node.target)] = (ast.unparse(node.annotation), ast.literal_eval(node.value))
    return found


def test_there_are_exactly_the_six_stages() -> None:
    numbered = {path.stem for path in FOLDER.glob("[0-9]*.ipynb")}
    assert numbered == set(artifacts.NOTEBOOKS.values())


def test_every_other_notebook_is_an_appendix() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {*artifacts.NOTEBOOKS.values(), *APPENDICES}


def test_the_sync_script_writes_all_of_them() -> None:
    script = (artifacts.REPO / "scripts" / "sync_notebooks.sh").read_text(encoding="utf-8")
    (pattern,) = re.findall(r'"\$root"/notebooks/(\S+\.py)', script)
    assert {path.stem for path in FOLDER.glob(pattern)} == {*artifacts.NOTEBOOKS.values(), *APPENDICES}


def test_no_outputs() -> None:
    paths = [str(path_of(name)) for name in (*artifacts.NOTEBOOKS.values(), *APPENDICES)]
    done = subprocess.run([sys.executable, "-m", "nbstripout", "--verify", *paths], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run scripts/sync_notebooks.sh"


@EVERY
def test_metadata_is_portable(name: str) -> None:
    metadata = nbformat.read(path_of(name), as_version=4).metadata
    assert metadata.kernelspec.name == "python3" and metadata.kernelspec.language == "python"
    assert "papermill" not in metadata and not any("papermill" in cell.metadata for cell in cells_of(name))


@STAGE
def test_the_first_code_cell_holds_the_parameters(stage: str) -> None:
    code = cells_of(stage, "code")
    assert [number for number, cell in enumerate(code) if "parameters" in tags(cell)] == [0]


@STAGE
def test_parameters_are_the_smoke_profile(stage: str) -> None:
    wanted = profiles.load("smoke").stage(stage)
    found = declared(cells_of(stage, "code")[0])
    assert {name: value for name, (_, value) in found.items()} == wanted
    assert list(found) == list(wanted)  # the same order everywhere
    assert {name: kind for name, (kind, _) in found.items()} == {
        name: type(v).__name__ for name, v in wanted.items()
    }


@STAGE
def test_papermill_sees_every_parameter_with_its_help(stage: str) -> None:
    found = papermill.inspect_notebook(path_of(stage))  # an "=" in a comment makes a line drop out
    assert list(found) == list(profiles.defaults(stage))
    assert all(entry["help"] for entry in found.values())


@STAGE
def test_setup_comes_right_after_the_parameters(stage: str) -> None:
    code = [cell.source for cell in cells_of(stage, "code")]
    assert "import" in code[1] and any("artifacts.open_stage(run, " in source for source in code[1:4])
    assert sum("stage.finish(" in source for source in code[2:]) == 1


@EVERY
def test_cells_are_small_and_there_is_more_text_than_code(name: str) -> None:
    code, text = cells_of(name, "code"), cells_of(name, "markdown")
    lines = [len(cell.source.splitlines()) for cell in code]
    longest = max(lines[1:])  # the first is the list of parameters, one a line: as long as they are many
    assert longest <= MAX_LINES, f"cell {lines.index(longest)} has {longest} lines"
    steps = [
        n for n, cell in zip(lines, code, strict=True) if not {"parameters", "exercise"} & set(tags(cell))
    ]
    assert median(steps) <= 8 and len(text) >= len(steps)
    assert 30 <= len(code) + len(text) <= 50


@EVERY
def test_two_exercises(name: str) -> None:
    assert sum("exercise" in tags(cell) for cell in cells_of(name, "code")) >= 2


@EVERY
def test_notebook_and_script_say_the_same(name: str) -> None:
    script = jupytext.read(path_of(name).with_suffix(".py"))
    # if they differ: scripts/sync_notebooks.sh
    pairs = [(cell.cell_type, cell.source.strip(), tags(cell)) for cell in script.cells]
    assert pairs == [(cell.cell_type, cell.source.strip(), tags(cell)) for cell in cells_of(name)]


@EVERY
def test_nothing_is_installed_or_hidden(name: str) -> None:
    for cell in cells_of(name, "code"):
        assert not [
            line
            for line in cell.source.splitlines()
            if line.lstrip().startswith(("!", "%pip", "%conda", "%%"))
        ]
    assert "base64" not in "".join(cell.source for cell in cells_of(name))
