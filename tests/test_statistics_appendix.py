"""The appendix on statistics, executed as a reader would: its asserts hold, its figures show something; exercises."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from solutions import check_a2_1, check_a2_2, solution_a2_1, solution_a2_2

from zerosearch import artifacts, notebook_runner
from zerosearch.notebook_files import code_cells

NAME = "A2_statistics"
NOTEBOOK = artifacts.REPO / "notebooks" / f"{NAME}.ipynb"
EXPLAINED = (  # the functions whose numbers stand in the tables of stage 04, and those for whoever samples or judges
    "scoring.score(", "statistics.score_table(", "statistics.average_table(", "statistics.seed_spread(",
    "statistics.comparison_table(", "comparison.comparison_report(", "paired_tests.mcnemar(",
    "paired_tests.sign_flips(", "paired_tests.welch_seeds(", "paired_tests.holm(", "precision.combine(",
    "precision.question_term(", "precision.seed_term(", "precision.scaled(", ".interval(", ".p_equivalence(",
    ".detectable(", "subsets.subset_draws(", "subsets.subset_order(", "calibration.search_calibration(",
    "pass_at_k(", "judge.agreement_table(",
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The notebook with its outputs, from a kernel of its own, and the folder that stood in the place of outputs/."""
    outputs, kernel = tmp_path_factory.mktemp("outputs"), tmp_path_factory.mktemp("kernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = notebook_runner.kernel_environment(1, offline=True) | {"ZEROSEARCH_OUTPUTS": str(outputs)}
    with notebook_runner.own_kernel(environment, kernel):
        place = {"metadata": {"path": str(NOTEBOOK.parent)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return notebook, outputs


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def _printed(notebook: nbformat.NotebookNode, stream: str) -> str:
    return "".join(o.text for o in _outputs(notebook) if o.output_type == "stream" and o.name == stream)


def test_it_runs_and_both_ways_agree(executed: tuple[nbformat.NotebookNode, Path]) -> None:
    notebook, outputs = executed
    agreements = [line for line in _printed(notebook, "stdout").splitlines() if ": by hand " in line]
    shown = [o.data["text/markdown"] for o in _outputs(notebook) if "text/markdown" in o.get("data", {})]
    assert shown[0].startswith(f"1. {len(agreements)} numbers") and len(agreements) >= len(EXPLAINED)
    assert "Published gap, not measured here: 1.7 points" in shown[0]
    assert _printed(notebook, "stderr") == "", "a reader would see warnings"
    assert list(outputs.iterdir()) == [], "the appendix belongs to no run"


def test_no_figure_is_empty(executed: tuple[nbformat.NotebookNode, Path]) -> None:
    """Axes, grid and text are grey; what a figure shows has colour."""
    pictures = [o.data["image/png"] for o in _outputs(executed[0]) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert ((pixels.max(axis=2) - pixels.min(axis=2)) > 90).mean() > 0.002


def test_a_wrong_number_stops_the_notebook() -> None:
    """The helper that compares: with it every statement of the notebook can fail."""
    space: dict = {}
    for _, source in code_cells(NOTEBOOK)[:2]:
        exec(compile(source, NAME, "exec"), space)
    with pytest.raises(AssertionError, match=r"mean: by hand 0\.5, library 0\.501"):
        space["agree"]("mean", 0.5, 0.501)
    with pytest.raises(AssertionError, match="bounds"):
        space["agree"]("bounds", [0.0, 1.0], [0.0, float("nan")])
    space["agree"]("drawn", 0.5, 0.501, within=space["LOOSE"])
    assert space["agreed"] == [("drawn", "0.5", "0.501")]


@pytest.mark.parametrize("function", EXPLAINED)
def test_every_statistic_is_called(function: str) -> None:
    assert function in "\n".join(source for _, source in code_cells(NOTEBOOK))


def test_it_is_no_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert NAME not in artifacts.NOTEBOOKS.values() and "A2" not in artifacts.STAGES
    settings = tmp_path / "settings.json"
    settings.write_text("{}", encoding="utf-8")
    for name in ("A2", NAME):
        with pytest.raises(SystemExit):
            notebook_runner.main(["--settings", str(settings), "--stage", name])
        assert "invalid choice" in capsys.readouterr().err


# -- exercises ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("check", "solution"), [(check_a2_1, solution_a2_1), (check_a2_2, solution_a2_2)])
def test_solutions_pass_and_untried_exercises_do_not_fail(check, solution, capsys) -> None:  # noqa: ANN001
    check(solution())
    check(None)
    out = capsys.readouterr().out
    assert "right" in out and "not tried yet" in out


@pytest.mark.parametrize(("check", "wrong", "advice"), [
    (check_a2_1, 1, "standard error"), (check_a2_1, 30, "too few"), (check_a2_1, 98, "one-sided"),
    (check_a2_2, 5, "too few"), (check_a2_2, 6, "multiplied by 7"), (check_a2_2, 8, "two sides"),
    (check_a2_2, 20, "smallest k"),
])
def test_wrong_answers_are_explained(check, wrong, advice) -> None:  # noqa: ANN001
    with pytest.raises(AssertionError, match=advice):
        check(wrong)


def test_solutions_say_what_the_library_says() -> None:
    from zerosearch.evaluation.paired_tests import holm, mcnemar
    from zerosearch.evaluation.precision import combine, question_term

    p = [combine([question_term(np.zeros(n))]).p_equivalence(0.0, 0.02) for n in (81, 82)]
    assert p[0] > 0.05 > p[1] and solution_a2_1() == 82
    corrected = [holm([mcnemar(np.ones(k), np.zeros(k)), *[1.0] * 6])[0] for k in (8, 9)]
    assert corrected[0] > 0.05 > corrected[1] and solution_a2_2() == 9
