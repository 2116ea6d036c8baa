"""The trajectory explorer: one HTML file per run, and the same page inside a notebook cell.

``outputs/<run>/trajectories.html`` opens from disk, with everything inside it: no network, no library.
The page's policy allows its own script and style by their hashes and nothing else; what models, engines
and files wrote travels as compressed JSON and is inserted as text, never as markup.
Called by notebooks 03 and 04 (``embed``) and by whoever makes the report (``build``).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import jinja2
import pandas as pd
from markupsafe import Markup

from zerosearch import artifacts, explorer_records, files, seeds
from zerosearch.display import Html, clean, escape
from zerosearch.errors import MissingInput
from zerosearch.evaluation.kept import TRAJECTORIES as KEPT
from zerosearch.explorer_records import Origin, Record, Segment, ShownPassage, ShownSearch, Speller
from zerosearch.microworld import models

EXPLORER = "trajectories.html"
TEMPLATES = Path(__file__).resolve().parent / "templates"
SCRIPTS = ("explorer_logic.js", "explorer_page.js")
GROUPS_PER_SEED, PER_SET = 20, 10  # of a run's file: whole groups of 03, questions of 04 per method, seed and set
_NOT_IN_SCRIPT = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def write(path: Path, records: Sequence[Record], title: str, notes: Sequence[str] = ()) -> Path:
    """Write the page of some records in one step, and return its path.  notes: shown in its help."""
    return files.write_atomic(path, page(records, title, notes))


def embed(records: Sequence[Record], height: int = 720, title: str = "Trajectories") -> Html:
    """Return the page for a notebook cell: in a frame that may run its own script and nothing else.

    height: of the frame in pixels.
    """
    inner = escape_attribute(page(records, title, embedded=True))
    frame = (f'<iframe title="{escape(title)}" sandbox="allow-scripts" srcdoc="{inner}" loading="lazy" '
             f'style="width:100%;height:{int(height)}px;border:1px solid rgba(127,127,127,.35);'
             'border-radius:6px"></iframe>')
    return Html(frame, clean(f"{title}: {len(records):,} trajectories, to be read in a browser"))


def escape_attribute(text: str) -> str:
    """Return the text for an attribute in double quotes; nothing of it is changed for whoever reads it."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def page(records: Sequence[Record], title: str, notes: Sequence[str] = (), embedded: bool = False) -> str:
    """Return the explorer as one HTML document.

    embedded: inside a frame, where the address and the printer are the outer page's.
    """
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (TEMPLATES / "explorer.css").read_text(encoding="utf-8")
    data = {"title": clean(title), "notes": [clean(n) for n in notes], "embedded": embedded,
            "gzip": base64.b64encode(_packed(records)).decode("ascii")}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("explorer.html.j2").render(
        title=clean(title), script=Markup(script), style=Markup(style), script_hash=_hash(script),
        style_hash=_hash(style), data=Markup(script_json(data)),
    )


def script_json(value: Any) -> str:
    """Return JSON that can stand in a script element: no sign that could end it, or a line of it."""
    return json.dumps(value, ensure_ascii=True).translate(_NOT_IN_SCRIPT)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


# -- data -----------------------------------------------------------------------------------------


class _Table:
    """Values that occur again and again, each stored once; ``at`` returns the place of one."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}

    def at(self, value: Any) -> int:
        return self._places.setdefault(value, len(self._places))

    def values(self) -> list[Any]:
        return list(self._places)


class _Texts(_Table):
    """Texts without control characters, names of data sets, methods and engines included."""

    def at(self, value: str) -> int:
        return super().at(clean(value))


def _packed(records: Sequence[Record]) -> bytes:
    """Return the records as compressed JSON; the same records give the same bytes."""
    texts, tokens = _Texts(), _Table()
    rows = [_row(record, texts, tokens) for record in records]
    spans = [[texts.at(text), *ids] for text, ids in tokens.values()]
    packed = {"texts": texts.values(), "tokens": spans, "records": rows}
    return gzip.compress(json.dumps(packed, separators=(",", ":")).encode("ascii"), 9, mtime=0)


def _row(record: Record, texts: _Texts, tokens: _Table) -> dict[str, Any]:
    scores = record.scores
    return {
        "key": clean(record.key), "group": texts.at(record.group), "stage": record.origin.stage,
        "method": texts.at(record.origin.method), "seed": record.origin.seed, "step": record.step,
        "sample": record.sample, "dataset": texts.at(record.dataset), "question": texts.at(record.question),
        "golden": [texts.at(answer) for answer in record.golden_answers],
        "answer": None if record.answer is None else texts.at(record.answer),
        "em": scores.em, "cover": scores.cover_em, "f1": round(scores.f1, 4), "reward": _short(record.reward),
        "advantage": _short(record.advantage), "stop": record.stop_reason, "error": texts.at(record.error),
        "nSearches": record.n_searches, "nTokens": record.n_tokens, "nWritten": record.n_written,
        "segments": [_segment(segment, tokens) for segment in record.segments],
        "searches": [_search(search, texts) for search in record.searches],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _segment(segment: Segment, tokens: _Table) -> list[Any]:
    """Return [source, places of its tokens, log-probabilities in thousandths of a nat, golden places]."""
    return [
        segment.source, [tokens.at(span) for span in segment.spans],
        [round(1000 * value) for value in segment.logprobs],
        [place for place, golden in enumerate(segment.golden) if golden],
    ]


def _search(search: ShownSearch, texts: _Texts) -> list[Any]:
    return [search.turn, texts.at(search.query), texts.at(search.source), search.noisy, search.cached,
            texts.at(search.error), [_passage(passage, texts) for passage in search.passages]]


def _passage(passage: ShownPassage, texts: _Texts) -> list[Any]:
    return [texts.at(passage.title), texts.at(passage.text), texts.at(passage.kind), passage.misleading,
            [edge for pair in passage.golden for edge in pair]]


# -- a whole run ----------------------------------------------------------------------------------


def build(run: str, groups_per_seed: int = GROUPS_PER_SEED, per_set: int = PER_SET, seed: int = 0) -> Path:
    """Write ``outputs/<run>/trajectories.html`` from what the run's stages left, and return its path.

    groups_per_seed: whole groups of each training (0: all).  per_set: questions of each data set that are
    shown of every method (0: all).  seed: of both draws.  MissingInput when there is nothing to show.
    """
    root = artifacts.run_dir(run)
    records, notes = [], []
    for made, note in (_of_training(root, groups_per_seed, seed), _of_evaluation(run, root, per_set, seed)):
        records += made
        notes += note
    if not records:
        raise MissingInput(f"explorer: expected trajectories of stage 03 or predictions of stage 04 in {root}, "
                           f"found none; run `./run_all.sh --run {run} --profile smoke`")
    return write(root / EXPLORER, records, f"Trajectories of run {run}", notes)


def _of_training(root: Path, n_groups: int, seed: int) -> tuple[list[Record], list[str]]:
    """Return (records of all trainings, one note for each)."""
    records, notes = [], []
    for path in sorted((root / artifacts.STAGES["03"]).glob("*/seed*/trajectories.parquet")):
        table, arm, k = files.read_table(path), path.parent.parent.name, int(path.parent.name[4:])
        shown = _drawn_groups(table, n_groups, seed)
        speller = Speller(models.load_tokenizer(str(path.parent / "policy")))
        records += explorer_records.of_table(shown, speller, Origin("03", arm, k))
        notes.append(f"Training of {arm}, seed {k}: {len(shown):,} of the {len(table):,} trajectories kept.")
    return records, notes


def _drawn_groups(table: pd.DataFrame, n_groups: int, seed: int) -> pd.DataFrame:
    """Return the rows of n_groups groups (step and question), in their order; 0 for all."""
    groups = pd.Series(list(zip(table["step"], table["question_id"])), index=table.index, dtype=object)
    return table[groups.isin(_first(groups, n_groups, seed))]


def _of_evaluation(run: str, root: Path, per_set: int, seed: int) -> tuple[list[Record], list[str]]:
    """Return (records of a draw of the questions, by every method, and a note).

    Whole trajectories where the stage kept them, otherwise what ``predictions.parquet`` has: the text.
    """
    folder = root / artifacts.STAGES["04"]
    whole = (folder / KEPT).is_file()
    path = folder / (KEPT if whole else "predictions.parquet")
    if not path.is_file():
        return [], []
    table = files.read_table(path)
    shown = _drawn_questions(table, per_set, seed)
    records = _with_tokens(run, root, shown) if whole else explorer_records.of_transcripts(shown)
    without = "" if whole else ", text only: this run kept neither tokens nor passages of them"
    return records, [f"Evaluation: {len(shown):,} of the {len(table):,} answers kept{without}."]


def _drawn_questions(table: pd.DataFrame, per_set: int, seed: int) -> pd.DataFrame:
    """Return the rows of per_set questions of every data set, the same for all methods; 0 for all."""
    chosen: set[Any] = set()
    for _, part in table.groupby("dataset", sort=False):
        chosen |= _first(part["question_id"], per_set, seed)
    return table[table["question_id"].isin(chosen)]


def _first(names: Iterable[Any], n: int, seed: int) -> set[Any]:
    """Return n of the names, drawn with the seed; the draw of a smaller n is part of that of a larger one."""
    ordered = sorted(set(names), key=lambda name: seeds.uniform(seed, "explorer", repr(name)))
    return set(ordered[:n] if n else ordered)


def _with_tokens(run: str, root: Path, table: pd.DataFrame) -> list[Record]:
    """Return the records of kept trajectories, each decoded with the tokenizer of its own policy."""
    spellers: dict[str, Speller] = {}
    records: list[Record] = []
    for (arm, seed), part in table.groupby(["arm", "seed"], sort=False):
        name = str(_policy(run, root, arm, seed))
        if name not in spellers:
            spellers[name] = Speller(models.load_tokenizer(name))
        records += explorer_records.of_table(part, spellers[name])
    return records


def _policy(run: str, root: Path, arm: str, seed: int) -> str | Path:
    """Return the folder or name of the policy that answered."""
    if arm:
        return root / artifacts.STAGES["03"] / arm / f"seed{seed}" / "policy"
    parameters: Mapping[str, Any] = artifacts.read_manifest(run, "04")["parameters"]
    return str(parameters["policy_model"])
