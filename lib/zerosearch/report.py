"""The report of a run: one HTML file that opens from disk, with everything inside it.

``outputs/<run>/report.html`` holds figures (embedded), tables, parameters, times and versions, and
links to the executed notebooks beside it.  It computes nothing: it shows what the stages wrote, says
which are missing and how to make them.  It contains no script and loads nothing; every text that a
model, an engine or a file supplied is cleaned and escaped.  Called by notebook 05 and the command line.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Mapping
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from zerosearch import artifacts, display, figures, files
from zerosearch.errors import MissingInput
from zerosearch.explorer import EXPLORER

REPORT = "report.html"
TEMPLATES = Path(__file__).resolve().parent / "templates"
QUESTIONS = {
    "00": ("The world", "What is there to read, and what can the base models do?"),
    "01": ("Collection", "What does the untrained policy find with a real search engine?"),
    "02": ("Simulator", "Can a small model imitate the engine, usefully or misleadingly as asked?"),
    "03": ("Reinforcement learning", "Does the policy learn to search?"),
    "04": ("Evaluation", "How many questions does each method answer, with the real engine?"),
    "05": ("Costs", "What did it cost, and what would paid searches have cost?"),
}
_OWN_DATA = ("corpus_file", "questions_dir", "questions_source")  # parameters of stage 00 that name a reader's data
_OTHER_WORLD = (
    "This run has questions or passages of its own. The graph of entities and facts shows the micro-world on which the "
    "shipped models were made, not the corpus of this run."
)
_BY_RULE = "No model was asked in this run: where the figure says “judge per passage”, the labels are the rule's."
HEADLINE, MAX_ROWS, N_SAMPLES = "headline.png", 60, 6
_SHOWN_KEYS = artifacts.MANIFEST_KEYS | {
    "finished": str, "wall_seconds": (int, float), "peak_rss_mib": (int, float), "python": str, "platform": str,
    "n_cpus": int, "device": str, "versions": dict,
}
_FORMATS = {"usd": "{:,.4f}", "unit_usd": "{:,.3g}", "kwh": "{:,.5f}"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One embedded figure.  title, description: from the PNG itself, used as its alternative text."""

    path: str
    title: str
    description: str
    data: str


@dataclass(frozen=True, slots=True)
class Part:
    """One finished attempt of a stage: its arm and seed, time, parameters and results."""

    name: str
    time: str
    parameters: Markup
    results: Markup


@dataclass(slots=True)
class Section:
    """What the report shows of one stage.  note: what its figures do not say about this run, or empty."""

    number: str
    name: str
    question: str
    note: str = ""
    missing: list[str] = field(default_factory=list)
    figures: list[Picture] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    samples: list[Markup] = field(default_factory=list)


def write(run: str) -> Path:
    """Write ``outputs/<run>/report.html`` from what the run's stages left, and return its path.

    Stages that have not finished are named with the command that runs them.  MissingInput when no
    stage of the run has finished.
    """
    return artifacts.write_atomic(artifacts.run_dir(run) / REPORT, render(run))


def render(run: str) -> str:
    """Return the report as one HTML document."""
    root = artifacts.run_dir(run)
    manifests = _manifests(root)
    if not manifests:
        raise MissingInput(f"report: expected a finished stage in {root}, found none; "
                           f"run `./run_all.sh --run {run} --profile smoke`")
    sections = [_section(run, root, number, manifests) for number in QUESTIONS]
    pictures = [picture for section in sections for picture in section.figures]
    headline = next((p for p in pictures if p.path.endswith("/" + HEADLINE)), None)
    for section in sections:
        section.figures = [p for p in section.figures if p is not headline]
    newest = max(manifests, key=lambda manifest: manifest["finished"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, finalize=_safe, trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        run=run, written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), headline=headline,
        stages=sections, results=_results(root), times=_times(manifests), notebooks=_notebooks(root),
        explorer=EXPLORER if (root / EXPLORER).is_file() else None, facts=_facts(newest), versions=_versions(manifests, newest),
    )


def _safe(value: Any) -> Any:
    """Clean every text that is not finished HTML; jinja escapes it afterwards."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else display.clean(value)


def _view(frame: pd.DataFrame, caption: str = "") -> Markup:
    return Markup(display.table(frame, caption, max_rows=MAX_ROWS, formats=_FORMATS).html)


def _manifests(root: Path) -> list[dict[str, Any]]:
    """Return the manifests of all finished stages, in the order of the stages."""
    paths = sorted(root.glob(f"0*/**/{artifacts.MANIFEST}"))
    return [
        files.read_object(path, _SHOWN_KEYS, artifacts.rerun_command(root.name, path.relative_to(root).parts[0][:2]))
        for path in paths if "superseded" not in path.parts
    ]


def _section(run: str, root: Path, number: str, manifests: list[dict[str, Any]]) -> Section:
    section, folder = Section(number, *QUESTIONS[number]), root / artifacts.STAGES[number]
    done = [m for m in manifests if m["stage"] == artifacts.STAGES[number]]
    if not done:
        section.missing.append(f"Not finished in this run. Make it with `./run_all.sh --run {run} --only "
                               f"{number}` or notebooks/{artifacts.NOTEBOOKS[number]}.ipynb.")
    section.note = _note(number, done)
    section.figures = [_picture(path, root) for path in sorted(folder.glob("**/figures/*.png"))]
    section.tables = [_table(path, root) for path in sorted(folder.glob("**/*.csv"))]
    section.parts = [_part(manifest) for manifest in done]
    if number == "04" and (folder / "predictions.parquet").is_file():
        section.samples = _samples(artifacts.read_table(folder / "predictions.parquet"))
    return section


def _note(number: str, done: list[dict[str, Any]]) -> str:
    """Return what a reader of the stage's figures must know about this run, if anything."""
    if number == "00" and any(manifest["parameters"].get(name) for manifest in done for name in _OWN_DATA):
        return _OTHER_WORLD
    return _BY_RULE if number == "01" and any(manifest["results"].get("judge") == "rule" for manifest in done) else ""


def _picture(path: Path, root: Path) -> Picture:
    with Image.open(path) as image:
        texts = {key: str(value) for key, value in image.info.items() if isinstance(value, str)}
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = path.relative_to(root).as_posix()
    return Picture(name, texts.get("Title", path.stem), texts.get("Description", ""), data)


def _table(path: Path, root: Path) -> dict[str, Any]:
    return {"name": path.relative_to(root).as_posix(), "view": _view(artifacts.read_table(path))}


def _part(manifest: Mapping[str, Any]) -> Part:
    place = f"of {manifest['arm']}, seed {manifest['seed']}" if manifest.get("arm") else ""
    seconds, memory = manifest["wall_seconds"], manifest["peak_rss_mib"]
    return Part(place, f"{seconds:,.1f} s, at most {memory:,.0f} MiB, finished {manifest['finished']}",
                _pairs(manifest["parameters"], "Parameters"), _pairs(manifest["results"], "Results"))


def _pairs(values: Mapping[str, Any], caption: str) -> Markup:
    frame = pd.DataFrame([(key, _plain(value)) for key, value in values.items()], columns=["name", "value"])
    return _view(frame, caption) if len(frame) else Markup("")


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _results(root: Path) -> list[Markup]:
    """Return the tables that belong at the top: the scores over all seeds with their intervals."""
    path = root / artifacts.STAGES["04"] / "averages.csv"
    if not path.is_file():
        return []
    scores = artifacts.read_table(path)
    return [_view(display.scores_wide(scores, metric), f"{name} with 95 % interval")
            for metric, name in figures.METRIC_LABELS.items() if (scores["metric"] == metric).any()]


def _samples(predictions: pd.DataFrame) -> list[Markup]:
    """Return transcripts of the ZeroSearch arm, or of the last method: first right, then wrong answers."""
    methods = predictions["method"]
    own = predictions[methods == ("zerosearch" if (methods == "zerosearch").any() else methods.iloc[-1])]
    shown = pd.concat([own[own["em"] == value].head(N_SAMPLES // 2) for value in (1, 0)])
    outcomes = [f"({row.method}, EM {row.em:g}, golden: {'; '.join(row.golden_answers)})"
                for row in shown.itertuples()]
    return [Markup(display.transcript(row.transcript, row.question, outcome).html)
            for row, outcome in zip(shown.itertuples(), outcomes)]


def _times(manifests: list[dict[str, Any]]) -> Picture:
    figure = figures.stage_times(manifests)
    data = base64.b64encode(figures.png_bytes(figure, dpi=130)).decode("ascii")
    return Picture("drawn for this report from the manifests", figure.get_suptitle(), "", data)


def _notebooks(root: Path) -> list[dict[str, str]]:
    return [{"name": path.name, "link": quote(path.relative_to(root).as_posix())}
            for path in sorted((root / "notebooks").glob("*.ipynb"))]


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    changed = " with local changes" if manifest.get("dirty") else ""
    commit = str(manifest.get("commit") or "none")[:12] + changed
    return {"profile": str(manifest["parameters"].get("profile", "unknown")), "commit": commit,
            "python": str(manifest["python"]), "platform": str(manifest["platform"]),
            "cores": str(manifest["n_cpus"]), "device": str(manifest["device"])}


def _versions(manifests: list[dict[str, Any]], newest: Mapping[str, Any]) -> Markup:
    """Return the libraries' versions, and the hash of every input that a stage read."""
    inputs = {name: digest[:16] for manifest in manifests for name, digest in manifest["inputs"].items()}
    return _pairs(newest["versions"], "Libraries") + _pairs(inputs, "Inputs (SHA-256, first 16 digits)")
