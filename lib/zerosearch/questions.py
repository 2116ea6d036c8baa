"""Questions and passages in files: reading a reader's own, writing and reading those of a run.

A folder holds any number of ``<set>.jsonl``, one question a line (``id``, ``question``,
``golden_answers``, optional ``metadata``); a passages file holds ``id``, ``title``, ``text`` (optional
``metadata``).  Other keys are passed over.  A ``<set>_train.jsonl`` trains; in a folder without any, a
seeded share of ``nq`` and ``hotpotqa`` trains.  A question that trains is never evaluated, not even
under another id.

Files are checked to the end: all their problems are raised at once, each with file and line.
Called by stage 00 (a reader's own files) and by every later stage (the run's files).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

from zerosearch import files, seeds
from zerosearch.errors import BadInput, MissingInput, did_you_mean
from zerosearch.schema import Passage, Question, Split

TRAIN_SUFFIX = "_train"
SPLIT_SETS = ("nq", "hotpotqa")  # give a share of their questions to training when nothing else trains
MAX_SHOWN = 100  # problems of one file that are listed one by one
_SPLITS: tuple[Split, ...] = ("train", "eval")
_OWN_FORMAT = '{"id": "1", "question": "...", "golden_answers": ["..."]}'
_RUN_FORMAT = '{"id": "nq/1", "dataset": "nq", "split": "eval", "question": "...", "golden_answers": ["..."]}'
_PASSAGE_FORMAT = '{"id": "1", "title": "...", "text": "..."}'


# -- reading --------------------------------------------------------------------------------------


def load_questions_dir(folder: Path | str, train_fraction: float = 0.2, seed: int = 0) -> list[Question]:
    """Return all questions of a folder, set by set in the order of the file names.

    Ids become ``<file name>/<id>`` and so are unique over all sets.  train_fraction: share in [0, 1] of
    nq and of hotpotqa that trains when there is no ``<set>_train.jsonl``, drawn by (seed, question text).
    Raises MissingInput without a question file, BadInput for anything wrong in the files, or when
    no question would train or none be evaluated.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        found = "no such file" if folder.is_dir() else "no such folder"
        raise MissingInput(
            f"questions: expected files named <set>.jsonl in {folder}, found {found}; give the folder with "
            "`./run_all.sh --questions DIR --corpus FILE`"
        )
    problems: list[str] = []
    loaded = [q for path in paths for q in _read_set(path, problems)]
    _raise_if(problems, f"questions in {folder}", _OWN_FORMAT)
    if any(q.split == "train" for q in loaded):
        _check_overlap(loaded, folder)
    else:
        loaded = draw_training_share(loaded, train_fraction, seed)
    _check_both_splits(loaded, folder)
    return loaded


def read_questions(path: Path | str) -> list[Question]:
    """Return the questions of a run's ``questions.jsonl``, in the order of the file."""
    problems: list[str] = []
    questions = list(_questions(Path(path), None, None, "", problems))
    _raise_if(problems, f"questions in {path}", _RUN_FORMAT)
    return questions


def load_corpus(file: Path | str) -> list[Passage]:
    """Return the passages of a file, in its order; at least one.  A title may be empty or missing."""
    path, problems = Path(file), []
    made: list[Passage] = []
    lines = _Lines(path, problems)
    for row in lines:
        values = (row.key("id"), row.text("title", default=""), row.text("text"), row.mapping("metadata"))
        if row.is_fine():
            made.append(Passage(*values))
    if not made and not problems:
        problems.append(f"{path}: expected at least one passage, found none")
    _raise_if(problems, f"passages in {path}", _PASSAGE_FORMAT)
    return made


read_corpus = load_corpus  # a run's corpus.jsonl has the same format


# -- writing --------------------------------------------------------------------------------------


def write_questions(path: Path | str, questions: Iterable[Question]) -> Path:
    """Write questions as JSON lines that ``read_questions`` gives back unchanged."""
    return files.write_jsonl(Path(path), (asdict(q) for q in questions))


def write_corpus(path: Path | str, passages: Iterable[Passage]) -> Path:
    """Write passages as JSON lines that ``load_corpus`` gives back unchanged."""
    return files.write_jsonl(Path(path), (asdict(p) for p in passages))


# -- training and evaluation ----------------------------------------------------------------------


def draw_training_share(questions: Sequence[Question], fraction: float, seed: int) -> list[Question]:
    """Return the questions with a share of nq and of hotpotqa turned into training questions.

    fraction: in [0, 1], of each of the two sets, rounded.  The draw is keyed by (seed, set, text) and
    does not depend on the order.  A text that occurs more than once stays in evaluation.
    """
    if not 0.0 <= fraction <= 1.0:
        raise BadInput(f"train_fraction: expected a share in [0, 1], found {fraction}; use --set 00.train_fraction=0.2")
    places: defaultdict[str, list[str]] = defaultdict(list)
    for q in questions:
        places[_same_text(q.question)].append(q.id)
    chosen: set[str] = set()
    for name in SPLIT_SETS:
        mine = [q for q in questions if q.dataset == name]
        single = [q for q in mine if len(places[_same_text(q.question)]) == 1]
        single.sort(key=lambda q: seeds.uniform(seed, "training share", name, _same_text(q.question)))
        chosen.update(q.id for q in single[: round(fraction * len(mine))])
    return [replace(q, split="train") if q.id in chosen else q for q in questions]


def split_counts(questions: Iterable[Question]) -> dict[str, dict[Split, int]]:
    """Return the number of training and evaluation questions per set: ``{"nq": {"train": 40, "eval": 160}}``."""
    counts: dict[str, dict[Split, int]] = {}
    for q in questions:
        counts.setdefault(q.dataset, {split: 0 for split in _SPLITS})[q.split] += 1
    return counts


def training_questions(questions: Iterable[Question]) -> list[Question]:
    """Return those that train."""
    return [q for q in questions if q.split == "train"]


def evaluation_questions(questions: Iterable[Question]) -> list[Question]:
    """Return those that are evaluated."""
    return [q for q in questions if q.split == "eval"]


def _same_text(question: str) -> str:
    """Return what two questions must share to be one and the same: words in lower case."""
    return " ".join(question.lower().split())


def _check_overlap(questions: Sequence[Question], folder: Path) -> None:
    evaluated = {_same_text(q.question): q.id for q in questions if q.split == "eval"}
    shared = [q for q in questions if q.split == "train" and _same_text(q.question) in evaluated]
    problems = [f"{q.id} asks the same as {evaluated[_same_text(q.question)]}: {q.question!r}" for q in shared]
    if problems:
        raise BadInput(
            f"questions in {folder}: expected training questions that are not evaluated, found {len(problems)} that "
            f"are; remove them from the *{TRAIN_SUFFIX}.jsonl files", _capped(problems),
        )


def _check_both_splits(questions: Sequence[Question], folder: Path) -> None:
    counts = {split: sum(q.split == split for q in questions) for split in _SPLITS}
    if not counts["train"]:
        raise BadInput(
            f"questions in {folder}: expected some that train, found none; add a <set>{TRAIN_SUFFIX}.jsonl, or "
            "nq.jsonl or hotpotqa.jsonl with --set 00.train_fraction above 0"
        )
    if not counts["eval"]:
        raise BadInput(
            f"questions in {folder}: expected some that are evaluated, found only training questions; add a "
            f"<set>.jsonl without {TRAIN_SUFFIX} in its name, or lower --set 00.train_fraction"
        )


# -- one line of a file ---------------------------------------------------------------------------


def _read_set(path: Path, problems: list[str]) -> Iterator[Question]:
    trains = path.stem.endswith(TRAIN_SUFFIX)
    dataset = path.stem.removesuffix(TRAIN_SUFFIX) if trains else path.stem
    return _questions(path, dataset, "train" if trains else "eval", f"{path.stem}/", problems)


def _questions(
    path: Path, dataset: str | None, split: Split | None, prefix: str, problems: list[str]
) -> Iterator[Question]:
    """Yield the faultless questions of a file; dataset and split: None when each line names its own."""
    for row in _Lines(path, problems):
        key, text, answers = row.key("id"), row.text("question"), row.answers("golden_answers")
        metadata = row.mapping("metadata")
        own_set, own_split = dataset or row.text("dataset"), split or row.choice("split", _SPLITS)
        if row.is_fine():
            yield Question(prefix + key, own_set, text, answers, own_split, metadata)  # type: ignore[arg-type]


class _Lines:
    """The JSON objects of a file as ``_Row``s; what is no such object goes to problems."""

    def __init__(self, path: Path, problems: list[str]):
        self.path, self.problems = path, problems

    def __iter__(self) -> Iterator[_Row]:
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingInput(
                f"expected a file of JSON lines at {self.path}, found none; check the paths given to "
                "`./run_all.sh --questions DIR --corpus FILE`"
            ) from error
        ids: dict[str, int] = {}
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if line.strip():
                row = _Row(f"{self.path}:{number}", number, self.problems, ids)
                row.fields = row.parse(line)
                if row.fields is not None:
                    yield row


@dataclass
class _Row:
    """One line being checked; every complaint goes to problems with its place."""

    place: str
    number: int
    problems: list[str]
    ids: dict[str, int]  # ids of the lines before -> line number
    fields: dict[str, Any] | None = None
    faults: list[str] = field(default_factory=list)

    def parse(self, line: bytes) -> dict[str, Any] | None:
        """Return the JSON object in a line, None (and a problem) when there is none."""
        try:
            found = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            return self._fault(f"expected UTF-8, found byte {line[error.start]:#04x} at column {error.start + 1}")
        except json.JSONDecodeError as error:
            return self._fault(f"expected a JSON object, found bad JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            return self._fault("expected a JSON object, found one that is nested too deeply")
        return found if isinstance(found, dict) else self._fault(f"expected a JSON object, found {_shown(found)}")

    def is_fine(self) -> bool:
        """Say whether nothing was wrong with the line."""
        return not self.faults

    def key(self, name: str) -> str:
        """Return the row's id (text, or a whole number as text) after checking that it is new."""
        value = self._get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not _is_text(value):
            return self._missing(name, "a text that is not empty") or ""
        if value in self.ids:
            self._fault(f"{name}: expected an id of its own, found {value!r} of line {self.ids[value]} again")
        self.ids.setdefault(value, self.number)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; without a default it may be neither missing nor blank."""
        value = self._get(name)
        if default is not None and value in (None, ""):
            return default
        return value if _is_text(value) else self._missing(name, "a text that is not empty") or ""

    def answers(self, name: str) -> tuple[str, ...]:
        """Return a list of texts with at least one text in it, none of them blank."""
        value = self._get(name)
        if isinstance(value, list) and value and all(_is_text(v) for v in value):
            return tuple(value)
        return self._missing(name, "a list of one or more texts that are not empty") or ()

    def mapping(self, name: str) -> dict[str, Any]:
        """Return a JSON object, empty when missing."""
        value = self._get(name)
        return value if isinstance(value, dict) else {} if value is None else self._missing(name, "an object") or {}

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return one of some texts."""
        value = self._get(name)
        return value if value in choices else self._missing(name, f"one of {', '.join(choices)}") or ""

    def _get(self, name: str) -> Any:
        return (self.fields or {}).get(name)

    def _missing(self, name: str, wanted: str) -> None:
        """Note that a key is absent (with the nearest one there is) or holds something else."""
        keys = [*(self.fields or {})]
        if name in keys:
            return self._fault(f"{name}: expected {wanted}, found {_shown(self._get(name))}")
        return self._fault(f"{name}: expected {wanted}, found no such key{did_you_mean(name, keys)}")

    def _fault(self, text: str) -> None:
        self.faults.append(text)
        self.problems.append(f"{self.place}: {text}")


def _is_text(value: Any) -> bool:
    """Say whether a value is a text with something in it that can be written as UTF-8 again."""
    if not isinstance(value, str) or not value.strip():
        return False
    return not any("\ud800" <= c <= "\udfff" for c in value)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _raise_if(problems: Sequence[str], what: str, example: str) -> None:
    if problems:
        raise BadInput(
            f"{what}: expected lines like {example}, found {len(problems)} problem{'s' * (len(problems) > 1)}; "
            "mend these lines and start again", _capped(problems),
        )


def _capped(problems: Sequence[str]) -> list[str]:
    """Return the problems, the first hundred of each file, with a line that counts the others."""
    by_file: defaultdict[str, list[str]] = defaultdict(list)
    for problem in problems:
        by_file[problem.split(":", 1)[0]].append(problem)
    shown: list[str] = []
    for path, mine in by_file.items():
        shown += mine[:MAX_SHOWN]
        if len(mine) > MAX_SHOWN:
            shown.append(f"{path}: and {len(mine) - MAX_SHOWN} more")
    return shown
