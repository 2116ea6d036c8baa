"""The front door: a reader's questions (a folder, or a collection of the hub) and passages, loaded or only checked.

Problems of all files are raised together, each with file and line.  Called by the check before a run and by stage 00.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

from zerosearch import files
from zerosearch.errors import BadInput
from zerosearch.passages import PASSAGE_FORMAT, check_size, each_passage, problems_of, raise_if
from zerosearch.question_sets import formats, hub, sampling
from zerosearch.question_sets.folder import Read, read_folder
from zerosearch.question_sets.splits import check_both, split
from zerosearch.questions import answerable_share, evaluation_questions
from zerosearch.row_files import open_rows
from zerosearch.rows import Rows
from zerosearch.schema import Passage, Question

_OWN_FORMAT = '{"id": "1", "question": "...", "golden_answers": ["..."]}'


@dataclass(frozen=True, slots=True)
class Choice:
    """What a reader brings and how much of it is used; the parameters of stage 00 of the same names.

    questions_dir or questions_source: a folder, or a collection of the hub.  corpus_file: "" for an engine that
    has passages of its own.
    """

    questions_dir: str = ""
    corpus_file: str = ""
    questions_source: str = ""
    questions_format: str = ""
    train_fraction: float = 0.2
    eval_per_set: int = 0
    train_mix: str = ""
    train_size: int = 0
    drop_overlap: bool = False
    seed: int = 0

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Choice:
        """Return the choice that the parameters of stage 00 make."""
        return cls(**{name: parameters[name] for name in cls.__slots__})

    @property
    def brought(self) -> bool:
        """Whether the questions are a reader's and not the micro-world's."""
        return bool(self.questions_dir or self.questions_source)

    @property
    def where(self) -> str:
        """How messages name the questions."""
        return f"questions in {self.questions_dir}" if self.questions_dir else f"questions {self.questions_source!r}"


@dataclass(frozen=True, slots=True)
class OwnData:
    """What was loaded.  files: of the reader's, whose hashes belong into the manifest.  sources: one record per file
    of questions (place, format, dataset, split, n_questions, and for the hub revision and sha256)."""

    questions: list[Question]
    passages: list[Passage]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    sources: tuple[Mapping[str, Any], ...] = field(default=())


def load_own(choice: Choice) -> OwnData:
    """Return a reader's questions and passages.

    Raises MissingInput for what is not there, BadInput for anything wrong in the files, or when no question would
    train or none be evaluated, ConfigError for a mix that cannot be made.
    """
    read = _read(choice)
    passages: list[Passage] = []
    if choice.corpus_file:
        check_size(Path(choice.corpus_file))
        rows = open_rows(Path(choice.corpus_file), "passages")
        passages = list(each_passage(rows))
        _raise_own(choice, read.problems, rows)
        read.files.append(Path(choice.corpus_file))
    _raise_questions(choice, read.problems)
    questions, notes = _drawn(choice, read)
    return OwnData(questions, passages, (*read.notes, *notes), tuple(read.files), tuple(_sources(choice, read)))


def check_own(choice: Choice, max_corpus_bytes: int) -> tuple[int, float, tuple[str, ...]]:
    """Raise what ``load_own`` would raise; return (evaluation questions, share of them that a passage answers, notes).

    The passages are not kept: a large file needs little memory.  max_corpus_bytes: read no more of it.  Questions of
    a collection of the hub are not looked at (0 of them): see ``check_source``.
    """
    if choice.questions_source:
        if choice.corpus_file:
            check_size(Path(choice.corpus_file))
            rows = open_rows(Path(choice.corpus_file), "passages", max_corpus_bytes)
            raise_if(_corpus_problems(rows), choice.corpus_file)
        return 0, 1.0, ()
    read = _read(choice)
    if not choice.corpus_file:
        _raise_questions(choice, read.problems)
        return len(evaluation_questions(_drawn(choice, read)[0])), 1.0, tuple(read.notes)
    check_size(Path(choice.corpus_file))
    rows = open_rows(Path(choice.corpus_file), "passages", max_corpus_bytes)
    notes: list[str] = []
    try:
        questions, notes = ([], []) if read.problems else _drawn(choice, read)
    except BadInput as error:
        raise BadInput(str(error), [f"{p}; mend this too" for p in _corpus_problems(rows)]) from error
    evaluated = evaluation_questions(questions)
    share = answerable_share(evaluated, each_passage(rows))
    _raise_own(choice, read.problems, rows)
    return len(evaluated), share, (*read.notes, *notes)


def check_source(choice: Choice, offline: bool) -> str:
    """Return a note about what will be downloaded of a collection of the hub, "" if it is all there.

    offline: nothing may be downloaded; then what is not in the local cache is raised as MissingInput.
    """
    return hub.check_present(choice.questions_source, sampling.mixed_sets(choice.train_mix), offline)


def load_questions_dir(folder: Path | str, train_fraction: float = 0.2, seed: int = 0) -> list[Question]:
    """Return all questions of a folder, set by set in the order of the file names.

    Ids become ``<set>/<id>``, or ``<set>_train/<id>``, and so are unique over all sets.  train_fraction: share in
    [0, 1] of nq and of hotpotqa that trains when no file does, drawn by (seed, question text).
    """
    choice = Choice(str(folder), train_fraction=train_fraction, seed=seed)
    read = _read(choice)
    _raise_questions(choice, read.problems)
    return _drawn(choice, read)[0]


def _read(choice: Choice) -> Read:
    if choice.questions_format:
        formats.by_name(choice.questions_format)
    if choice.questions_source:
        return hub.read_collection(
            choice.questions_source, sampling.mixed_sets(choice.train_mix), choice.questions_format
        )
    return read_folder(Path(choice.questions_dir), choice.questions_format)


def _drawn(choice: Choice, read: Read) -> tuple[list[Question], list[str]]:
    """Return the questions of a run, and notes about those that were left out."""
    drop = choice.drop_overlap or bool(choice.questions_source)  # published sets share a handful of questions
    questions, n_left_out = split(read.questions, choice.where, choice.train_fraction, choice.seed, drop)
    questions = sampling.eval_sample(questions, choice.eval_per_set, choice.seed)
    if choice.train_mix or choice.train_size:
        questions = sampling.training_mix(questions, choice.train_mix, choice.train_size, choice.seed)
    check_both(questions, choice.where)
    note = f"{choice.where}: {n_left_out:,} training questions left out, since they are evaluated as well"
    return questions, [note] if n_left_out else []


def _corpus_problems(rows: Rows) -> list[str]:
    for _ in each_passage(rows):
        pass
    return problems_of(rows)


def _sources(choice: Choice, read: Read) -> list[dict[str, Any]]:
    """Return one record per file of questions, with what says that it is the same file."""
    records = [asdict(source) for source in read.sources]
    if choice.questions_source:
        lock = hub.locked(choice.questions_source)
        repository = hub.collection(choice.questions_source).repository
        for record in records:
            digest = lock["sha256"][record["place"].removeprefix(f"{repository}/")]
            record |= {"revision": lock["revision"], "sha256": digest}
        return records
    return [record | {"sha256": files.sha256(Path(record["place"]))} for record in records]


def _raise_own(choice: Choice, problems: Sequence[str], rows: Rows) -> None:
    """Raise the problems of questions and passages together."""
    found = problems_of(rows)
    if problems and found:
        raise BadInput(
            f"{choice.where} and passages in {choice.corpus_file}: expected lines like {_OWN_FORMAT} and "
            f"{PASSAGE_FORMAT}, found otherwise; mend these and start again", [*problems, *found],
        )
    _raise_questions(choice, problems)
    raise_if(found, choice.corpus_file)


def _raise_questions(choice: Choice, problems: Sequence[str]) -> None:
    if problems:
        raise BadInput(
            f"{choice.where}: expected lines like {_OWN_FORMAT}, or another published form, found otherwise; mend "
            "these and start again", problems,
        )
