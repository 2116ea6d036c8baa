"""Questions and passages in files: reading a reader's own, writing and reading those of a run.

A folder holds any number of ``<set>.jsonl``, one question a line (``id``, ``question``,
``golden_answers``, optional ``metadata``); a passages file holds ``id``, ``title``, ``text`` (optional
``metadata``).  Other keys are passed over.  A ``<set>_train.jsonl`` trains; in a folder without any, a
seeded share of ``nq`` and ``hotpotqa`` trains.  A question that trains is never evaluated, not even
under another id.

Files are checked to the end: all their problems are raised at once, each with file and line.
Called by the check before a run and by stage 00 (a reader's own files), and by every later stage (the run's).

Limits of a reader's own files: a longer question or answer fits into no prompt, and a passage is cut to a
few hundred tokens at most, so that what is longer is almost certainly a whole document in one line.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Iterable, Iterator, Sequence

from zerosearch import files, seeds
from zerosearch.errors import BadInput, MissingInput
from zerosearch.rows import MAX_LINE_BYTES, MAX_SHOWN, Lines
from zerosearch.schema import Passage, Question, Split
from zerosearch.scoring import normalize

TRAIN_SUFFIX = "_train"
SPLIT_SETS = ("nq", "hotpotqa")  # give a share of their questions to training when nothing else trains
_SPLITS: tuple[Split, ...] = ("train", "eval")
_OWN_FORMAT = '{"id": "1", "question": "...", "golden_answers": ["..."]}'
_RUN_FORMAT = '{"id": "nq/1", "dataset": "nq", "split": "eval", "question": "...", "golden_answers": ["..."]}'
MAX_ID, MAX_QUESTION, MAX_ANSWER, MAX_PASSAGE = 200, 10_000, 1_000, 100_000  # characters
_WORLD_KEYS = ("kind", "subject", "relation", "object")  # metadata that the micro-world's measurements read
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
    loaded, problems = _own_questions(folder)
    _raise_if(problems, f"questions in {folder}", _OWN_FORMAT)
    return _split(loaded, folder, train_fraction, seed)


def load_own(
    folder: Path | str, file: Path | str, train_fraction: float = 0.2, seed: int = 0
) -> tuple[list[Question], list[Passage]]:
    """Return (questions, passages) of a reader's own files, as ``load_questions_dir`` and ``load_corpus`` do.

    The problems of all files are raised together.
    """
    folder, file = Path(folder), Path(file)
    loaded, problems = _own_questions(folder)
    lines = Lines(file)
    passages = list(_each_passage(lines))
    _raise_own(folder, problems, file, lines)
    return _split(loaded, folder, train_fraction, seed), passages


def check_own(
    folder: Path | str, file: Path | str, train_fraction: float, seed: int, max_corpus_bytes: int
) -> tuple[int, float]:
    """Raise what ``load_own`` would raise; return (evaluation questions, share of them that a passage answers).

    The passages are not kept: a large file needs little memory.  max_corpus_bytes: read no more of it.
    """
    folder, file = Path(folder), Path(file)
    loaded, problems = _own_questions(folder)
    lines = Lines(file, max_corpus_bytes)
    try:
        evaluated = [] if problems else evaluation_questions(_split(loaded, folder, train_fraction, seed))
    except BadInput as error:
        for _ in _each_passage(lines):
            pass
        found = _problems_of(lines, "passage")
        raise BadInput(str(error), [f"{p}; mend this too" for p in found]) from error
    share = answerable_share(evaluated, _each_passage(lines))
    _raise_own(folder, problems, file, lines)
    return len(evaluated), share


def read_questions(path: Path | str) -> list[Question]:
    """Return the questions of a run's ``questions.jsonl``, in the order of the file."""
    lines = Lines(Path(path))
    questions = _questions(lines)
    _raise_if(lines.listing(), f"questions in {path}", _RUN_FORMAT)
    return questions


def load_corpus(file: Path | str) -> list[Passage]:
    """Return the passages of a file, in its order; at least one.  A title may be empty or missing."""
    lines = Lines(Path(file))
    made = list(_each_passage(lines))
    _raise_if(_problems_of(lines, "passage"), f"passages in {file}", _PASSAGE_FORMAT)
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
    times = Counter(_same_text(q.question) for q in questions)
    chosen: set[str] = set()
    for name in SPLIT_SETS:
        mine = [q for q in questions if q.dataset == name]
        single = [q for q in mine if times[_same_text(q.question)] == 1]
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


def answerable_share(questions: Sequence[Question], passages: Iterable[Passage]) -> float:
    """Return the share of questions of which a golden answer stands in the title or text of any passage.

    Compared as cover EM does: whole words after normalisation.  One pass over the passages: at each word
    only the answers that begin with it are looked at.  1.0 without questions.
    """
    wanted: dict[str, set[tuple[str, ...]]] = {}
    answers = {q.id: [tuple(normalize(a).split()) for a in q.golden_answers] for q in questions}
    for words in (words for own in answers.values() for words in own if words):
        wanted.setdefault(words[0], set()).add(words)
    found: set[tuple[str, ...]] = set()
    for passage in passages:
        text = normalize(f"{passage.title} {passage.text}").split()
        for at, word in enumerate(text):
            if word in wanted:
                found.update(words for words in wanted[word] if tuple(text[at : at + len(words)]) == words)
    return sum(not found.isdisjoint(own) for own in answers.values()) / len(answers) if answers else 1.0


def _same_text(question: str) -> str:
    """Return what two questions must share to be one and the same: words in lower case."""
    return " ".join(question.lower().split())


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"


def _check_overlap(questions: Sequence[Question], folder: Path) -> None:
    evaluated = {_same_text(q.question): q.id for q in questions if q.split == "eval"}
    shared = [q for q in questions if q.split == "train" and _same_text(q.question) in evaluated]
    problems = [f"{q.id} asks the same as {evaluated[_same_text(q.question)]}: {_short(q.question)!r}" for q in shared]
    if problems:
        raise BadInput(
            f"questions in {folder}: expected training questions that are not evaluated, found {len(problems)} that "
            f"are; remove them from the *{TRAIN_SUFFIX}.jsonl files", problems[:MAX_SHOWN],
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


# -- one file -------------------------------------------------------------------------------------


def _own_questions(folder: Path) -> tuple[list[Question], list[str]]:
    """Return the faultless questions of a folder and the problems of all its files."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        found = "no such file" if folder.is_dir() else "no such folder"
        raise MissingInput(
            f"questions: expected files named <set>.jsonl in {folder}, found {found}; give the folder with "
            "`./run_all.sh --questions DIR --corpus FILE`"
        )
    loaded: list[Question] = []
    problems: list[str] = []
    for path in paths:
        trains, dataset = path.stem.endswith(TRAIN_SUFFIX), path.stem.removesuffix(TRAIN_SUFFIX)
        if not dataset or not dataset.isprintable():
            problems.append(f"{path}: expected a file named <set>.jsonl, found no readable name; rename the file")
            continue
        lines = Lines(path)
        try:
            loaded += _questions(lines, f"{path.stem}/", dataset, "train" if trains else "eval")
        except MissingInput as error:  # a folder of that name, a broken link: told beside the others' problems
            problems.append(str(error))
            continue
        problems += _problems_of(lines, "question")
    return loaded, problems


def _each_passage(lines: Lines) -> Iterator[Passage]:
    """Yield the faultless passages of a file."""
    for row in lines:
        values = (
            row.key("id", max_length=MAX_ID), row.text("title", default="", max_length=MAX_QUESTION),
            row.text("text", max_length=MAX_PASSAGE), row.mapping("metadata", texts=_WORLD_KEYS),
        )
        if not row.faults:
            yield Passage(*values)


def _problems_of(lines: Lines, what: str) -> list[str]:
    """Return the problems of a file that was read, or that it has not a single line."""
    empty = f"{lines.path}: expected at least one {what}, found none; fill the file or remove it"
    return lines.listing() or ([] if lines.n_rows else [empty])


def _questions(
    lines: Lines, prefix: str = "", dataset: str | None = None, split: Split | None = None
) -> list[Question]:
    """Return the faultless questions of a file; dataset, split: None when each line names its own."""
    made = []
    for row in lines:
        key = row.key("id", max_length=MAX_ID if prefix else MAX_LINE_BYTES)  # a run's own ids hold the set's name too
        text = row.text("question", max_length=MAX_QUESTION)
        answers = row.answers("golden_answers", max_length=MAX_ANSWER)
        own_set, own_split = dataset or row.text("dataset"), split or row.choice("split", _SPLITS)
        metadata = row.mapping("metadata", texts=_WORLD_KEYS[:1])
        if metadata.get("kind") == "chain" and not isinstance(metadata.get("hops"), list):
            row.fault("metadata.kind: expected a list of hops beside the kind 'chain', found none; rename this key")
        if not row.faults:
            made.append(Question(prefix + key, own_set, text, answers, own_split, metadata))  # type: ignore[arg-type]
    return made


def _split(loaded: list[Question], folder: Path, train_fraction: float, seed: int) -> list[Question]:
    """Return the questions with their final split; BadInput when the two overlap or one is empty."""
    if any(q.split == "train" for q in loaded):
        _check_overlap(loaded, folder)
    else:
        loaded = draw_training_share(loaded, train_fraction, seed)
    _check_both_splits(loaded, folder)
    return loaded


def _raise_own(folder: Path, problems: list[str], file: Path, lines: Lines) -> None:
    """Raise the problems of questions and passages together."""
    found = _problems_of(lines, "passage")
    if problems and found:
        raise BadInput(
            f"questions in {folder} and passages in {file}: expected lines like {_OWN_FORMAT} and {_PASSAGE_FORMAT}, "
            "found otherwise; mend these and start again", problems + found,
        )
    _raise_if(problems, f"questions in {folder}", _OWN_FORMAT)
    _raise_if(found, f"passages in {file}", _PASSAGE_FORMAT)


def _raise_if(problems: Sequence[str], what: str, example: str) -> None:
    if problems:
        raise BadInput(f"{what}: expected lines like {example}, found otherwise; mend these and start again", problems)
