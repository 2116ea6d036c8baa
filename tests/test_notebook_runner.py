"""notebook_runner.py: papermill's silent traps are errors, failures are sentences, the kernel is ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from fake_notebooks import notebook, write_all

from zerosearch import jobs, notebook_runner, profiles
from zerosearch.errors import ConfigError, MissingInput
from zerosearch.notebook_runner import NotebookFailed, NotebookRun, check_parameters, run_notebook


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_all(tmp_path / "nb") / "02_simulator_sft.ipynb"


def saved(path: Path, *cells: str, tag: str = "parameters") -> Path:
    """A notebook whose first cell holds the parameters."""
    nodes = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nodes[0].metadata["tags"] = [tag]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=nodes, metadata={"kernelspec": kernel}), path)
    return path


def run_of(source: Path, **parameters: object) -> NotebookRun:
    folder = source.parent
    return NotebookRun(source, folder / "out" / "x.ipynb", folder / "out" / "x.log", parameters)


def test_the_right_parameters_pass(source: Path) -> None:
    check_parameters(source, profiles.defaults("02"))
    check_parameters(source, profiles.defaults("02") | {"golden_weight": 4})  # a whole number is a float too


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rat": 1.0}, "did you mean 'learning_rate'"),
        ({"steps": "120"}, "parameter steps: expected int, found str"),
        ({"steps": 1.0}, "expected int, found float"),
        ({"learning_rate": "1e-3"}, "expected float, found str"),
        ({"steps": True}, "expected int, found bool"),
    ],
)
def test_wrong_parameters(source: Path, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_parameters(source, profiles.defaults("02") | change)


def test_a_parameter_nobody_set_is_refused(source: Path) -> None:
    given = profiles.defaults("02")
    del given["steps"]
    with pytest.raises(ConfigError, match="found none for steps"):
        check_parameters(source, given)


def test_a_notebook_without_the_tag_or_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one cell tagged 'parameters'"):
        check_parameters(saved(tmp_path / "a.ipynb", "steps: int = 1", tag="other"), {"steps": 2})
    with pytest.raises(MissingInput, match="git checkout notebooks"):
        check_parameters(tmp_path / "none.ipynb", {})


def test_kernel_is_this_interpreter_with_its_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "user" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(
        json.dumps({"argv": ["/no/such/python"], "display_name": "x", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "user"))  # a kernel of that name that belongs to nobody
    show = "import os, sys\nprint(sys.executable, os.getcwd(), steps, *(os.environ[n] for n in names))"
    names = "names = ['OMP_NUM_THREADS', 'HF_HUB_OFFLINE', 'PYTHONHASHSEED', 'TOKENIZERS_PARALLELISM']"
    run = run_of(
        saved(tmp_path / "a.ipynb", "steps: int = 1\nthreads: int = 1", names, show), steps=5, threads=3
    )
    run_notebook(run)
    assert run.log.read_text().split() == [sys.executable, str(tmp_path), "5", "3", "1", "0", "false"]
    executed = nbformat.read(run.executed, as_version=4)
    assert "5 3 1 0 false" in executed.cells[-1].outputs[0].text


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "from zerosearch.errors import BadInput\nraise BadInput('x.jsonl: no text', ['x.jsonl:3: none'])",
            "x.jsonl: no text\n  x.jsonl:3: none",
        ),
        ("1 / 0", "a.ipynb stopped in cell [3]: ZeroDivisionError: division by zero"),
    ],
)
def test_failures(tmp_path: Path, code: str, message: str) -> None:
    run = run_of(saved(tmp_path / "a.ipynb", "steps: int = 1", code), steps=5)
    with pytest.raises(NotebookFailed) as caught:
        run_notebook(run)
    assert str(caught.value) == message
    executed = nbformat.read(run.executed, as_version=4)
    assert any(output.output_type == "error" for cell in executed.cells for output in cell.get("outputs", ()))
    assert message.split(": ")[-1] in run.log.read_text()


def test_a_kernel_that_dies(tmp_path: Path) -> None:
    run = run_of(saved(tmp_path / "a.ipynb", "steps: int = 1", "import os\nos._exit(9)"), steps=5)
    with pytest.raises(NotebookFailed, match="died, most often because memory ran out"):
        run_notebook(run)


def test_one_stage_as_the_snakefile_calls_it(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEROSEARCH_NOTEBOOKS", str(write_all(tmp_path / "nb")))
    nbformat.write(
        notebook("05", body="raise ValueError('x' * 3)"), tmp_path / "nb" / "05_cost_comparison.ipynb"
    )
    stages = {stage: profiles.defaults(stage) | {"run": "r"} for stage in ("00", "05")}
    settings = outputs / "r" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"stages": stages, "offline": True, "loss": "plain", "packing": "padded"}))
    assert notebook_runner.main(["--settings", str(settings), "--stage", "00"]) == 0
    assert (outputs / "r" / "00_micro_world" / "manifest.json").is_file()
    assert notebook_runner.main(["--settings", str(settings), "--stage", "05"]) == 1
    status = jobs.Board(outputs / "r").status(jobs.Job("05"))
    assert status is not None and status.state == "failed" and status.message.endswith("ValueError: xxx")
    assert "ValueError: xxx" in capsys.readouterr().err


def test_the_runner_stays_light() -> None:
    heavy = "[m for m in ('torch', 'transformers', 'pandas') if m in sys.modules]"
    check = f"import sys, zerosearch.notebook_runner, zerosearch.cli; print({heavy})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
