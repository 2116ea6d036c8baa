"""The appendix on kernels, executed as a reader would: its asserts hold, its figures show something; exercises."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from nbclient import NotebookClient
from PIL import Image
from solutions import check_a1_1, check_a1_2, check_a1_3, solution_a1_1, solution_a1_2, solution_a1_3

from zerosearch import artifacts, figures, notebook_runner
from zerosearch.errors import WorkbookError
from zerosearch.notebook_files import code_cells

NAME = "A1_kernels"
NOTEBOOK = artifacts.REPO / "notebooks" / f"{NAME}.ipynb"


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
    assert shown[0].startswith(f"1. {len(agreements)} numbers") and len(agreements) >= 12
    assert "34.9 GB in plain torch, 2.3 GB in one sweep, 0.39 GB with a frozen head" in shown[0]
    assert "gradient of masked rows, largest entry: 0.0" in _printed(notebook, "stdout")
    assert _printed(notebook, "stderr") == "", "a reader would see warnings"
    assert list(outputs.iterdir()) == [], "the appendix belongs to no run"


def test_the_walk_shown_is_the_kernels(executed: tuple[nbformat.NotebookNode, Path]) -> None:
    shown = _printed(executed[0], "stdout")
    assert "for start in range(0, n_cols, BLOCK):" in shown and "rescale = tl.exp(m - new_m)" in shown


def test_no_figure_is_empty(executed: tuple[nbformat.NotebookNode, Path]) -> None:
    """Axes, grid and text are grey; what a figure shows has colour."""
    pictures = [o.data["image/png"] for o in _outputs(executed[0]) if "image/png" in o.get("data", {})]
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert ((pixels.max(axis=2) - pixels.min(axis=2)) > 90).mean() > 0.002


def test_a_wrong_number_stops_the_notebook() -> None:
    space: dict = {}
    for _, source in code_cells(NOTEBOOK)[:2]:
        exec(compile(source, NAME, "exec"), space)
    with pytest.raises(AssertionError, match=r"loss: by hand 0\.5, library 0\.501"):
        space["agree"]("loss", 0.5, 0.501)
    with pytest.raises(AssertionError, match="bounds"):
        space["agree"]("bounds", [0.0, 1.0], [0.0, float("nan")])


# -- figures --------------------------------------------------------------------------------------

MEMORY = pd.DataFrame([(w, n, s * n / 1e3) for w, s in (("plain", 2.0), ("sweep", 0.1)) for n in (4096, 8192)],
                      columns=["way", "n_tokens", "gb"])
TIMES = pd.DataFrame({
    "contender": ["ours (torch)", "torch eager", "cut-cross-entropy"], "median_ms": [2.0, 8.0, np.nan],
    "p20_ms": [1.9, 7.0, np.nan], "p80_ms": [2.1, 9.0, np.nan], "share_of_floor": [0.5, 0.125, np.nan],
    "shape": "micro", "n_tokens": 1024, "policy_share": 0.35, "head": "trainable", "device": "a machine",
})


def test_figures_say_what_their_tables_say() -> None:
    memory, times = figures.loss_memory(MEMORY), figures.loss_times(TIMES)
    assert "8,192 tokens: from 16 GB down to 0.8 GB" in memory.get_suptitle().replace("\n", " ")
    said = times.get_suptitle().replace("\n", " ")
    assert "Fastest here: ours (torch), 2 ms; slowest: torch eager, 4.0 times" in said
    assert [bar.get_width() for bar in times.axes[0].patches] == [8.0, 2.0]  # who was not measured has no bar
    assert times.axes[0].lines[0].get_xdata()[0] == 1.0  # the floor: half of 2 ms
    for figure in (memory, times):
        canvas, box = FigureCanvasAgg(figure), figure.bbox
        canvas.draw()
        texts = [*figure.texts, figure._suptitle, *(axes.xaxis.label for axes in figure.axes)]
        extents = [text.get_window_extent(canvas.get_renderer()) for text in texts if text.get_text()]
        assert all(e.x0 >= -2 and e.y0 >= -2 and e.x1 <= box.x1 + 2 and e.y1 <= box.y1 + 2 for e in extents)
        assert all("(" in axes.get_xlabel() for axes in figure.axes), "units"


@pytest.mark.parametrize("draw", [
    lambda: figures.loss_memory(MEMORY.drop(columns="gb")), lambda: figures.loss_times(TIMES.iloc[:0]),
    lambda: figures.loss_times(TIMES.iloc[2:]),
])
def test_an_empty_or_incomplete_table_is_a_readable_error(draw) -> None:  # noqa: ANN001
    with pytest.raises(WorkbookError, match=r"^figure \w+: expected .*, found .*; run notebooks/A1_kernels.ipynb"):
        draw()


# -- exercises ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("check", "solution", "stub"), [
    (check_a1_1, solution_a1_1, lambda *_: None), (check_a1_2, solution_a1_2, None),
    (check_a1_3, solution_a1_3, lambda *_: None),
])
def test_solutions_pass_and_untried_exercises_do_not_fail(check, solution, stub, capsys) -> None:  # noqa: ANN001
    check(solution())
    check(stub)
    out = capsys.readouterr().out
    assert "right" in out and "not tried yet" in out


def test_the_solution_is_a_kernel(triton: None, capsys: pytest.CaptureFixture[str]) -> None:
    check_a1_3(solution_a1_3())
    assert "right as a Triton kernel" in capsys.readouterr().out


@pytest.mark.parametrize(("check", "wrong", "advice"), [
    (check_a1_1, lambda m, s, b: (b.max(), np.exp(b - b.max()).sum()), "maximum of the whole row"),
    (check_a1_1, lambda m, s, b: (max(m, b.max()), np.exp(b - max(m, b.max())).sum()), "earlier blocks is lost"),
    (check_a1_1, lambda m, s, b: (max(m, b.max()), s + np.exp(b - max(m, b.max())).sum()), "rescale the old sum"),
    (check_a1_1, lambda m, s, b: (max(m, b.max()), s + np.inf), "not finite"),
    (check_a1_2, 2092, "bfloat16 has 2 bytes"), (check_a1_2, 3898, "gibibyte"), (check_a1_2, 5000, "GiB"),
    (check_a1_2, 100, "more fit"),
    (check_a1_3, lambda tl, z, c, t, g, lt: -solution_a1_3()(tl, z, c, t, g, lt), "sign is turned round"),
    (check_a1_3, lambda tl, z, c, t, g, lt: solution_a1_3()(tl, z, c, t, 1.0, lt), "g is missing"),
    (check_a1_3, lambda tl, z, c, t, g, lt: -g * tl.exp(z - lt), "the target is missing"),
    (check_a1_3, lambda tl, z, c, t, g, lt: z, "expected"),
])
def test_wrong_answers_are_explained(check, wrong, advice) -> None:  # noqa: ANN001
    with pytest.raises(AssertionError, match=advice):
        check(wrong)
