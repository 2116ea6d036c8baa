"""Six tiny notebooks with the real parameter cells: the chain without models, for tests of the machinery.

They react to parameters: 04 with ``temperature`` 0.25 raises an error meant for users, with 0.5 a
plain one, with 0.75 its process dies; 03 of arm zerosearch with ``noise_base`` N > 100 sleeps N - 100 seconds
on the way, unless it goes on with an attempt that was cut off.
"""

from __future__ import annotations

from pathlib import Path

import nbformat

from zerosearch import artifacts, profiles

OPEN = """from zerosearch import artifacts
parameters = {name: globals()[name] for name in parameter_names}
stage = artifacts.open_stage(run, "%s", parameters%s)"""
BODIES = {
    "00": 'stage.write_jsonl([{"id": "1"}], "corpus.jsonl")',
    "01": 'stage.require("00", "corpus.jsonl")\nstage.write_text("pairs", "pairs.parquet")',
    "02": 'stage.require("01", "pairs.parquet")\n'
    'stage.save_model(lambda folder: (folder / "model").write_text(str(steps)), "simulator")',
    "03": """import time
from zerosearch.interrupts import StopRequest
stage.require("00", "corpus.jsonl")
if arm == "zerosearch":
    stage.require("02", "simulator")
stage.ledger.event("queries", engine="bm25", fresh=1, cached=0, paid=0)
stage.path("steps.log").open("a").write("x")
with StopRequest() as stop:
    for done in range(1, 11):
        stage.progress(done, 10, reward=done / 10)
        if arm == "zerosearch" and not stage.resumed:
            time.sleep(max(0.0, noise_base - 100) / 10)
        stop.check(f"{done} of 10 steps")
stage.save_model(lambda folder: (folder / "model").write_text(f"{arm} {seed}"), "policy")""",
    "04": """import os
from zerosearch.errors import BadInput
for one in arms.split(","):
    stage.require("03", "policy", one, int(seeds.split(",")[0]))
if temperature == 0.25:
    raise BadInput("corpus.jsonl: expected passages, found nothing", ["corpus.jsonl:3: no text"])
if temperature == 0.5:
    1 / 0
if temperature == 0.75:
    os._exit(9)
stage.write_text("method,value\\n", "scores.csv")""",
    "05": 'stage.require("04", "scores.csv")\n(artifacts.run_dir(run) / "report.html").write_text("<p></p>")',
}


def write_all(folder: Path) -> Path:
    """Write the six notebooks into folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for stage, name in artifacts.NOTEBOOKS.items():
        nbformat.write(notebook(stage), folder / f"{name}.ipynb")
    return folder


def notebook(stage: str, body: str | None = None) -> nbformat.NotebookNode:
    """Return one notebook: parameters, setup, body, finish."""
    values = profiles.defaults(stage)
    lines = [f"{name}: {type(value).__name__} = {value!r}  # help" for name, value in values.items()]
    place = ", arm, seed" if stage in artifacts.PER_ARM else ""
    parameters = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})
    sources = [
        f"parameter_names = {list(values)!r}",
        OPEN % (stage, place),
        body or BODIES[stage],
        "stage.finish(n=1)",
    ]
    cells = [parameters, *map(nbformat.v4.new_code_cell, sources)]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
