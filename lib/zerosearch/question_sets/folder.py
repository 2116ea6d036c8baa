"""The question files of a folder: which one is which set and split, and what all of them hold.

A set is a file (``nq.jsonl``, ``hotpot_dev_distractor_v1.json``, ``popQA.tsv``) or a sub-folder with files that name
their split (``nq/train.jsonl``).  Where a set has files for dev and test, test is evaluated.  Other files and hidden
ones are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Iterable, Iterator

from zerosearch.errors import MissingInput
from zerosearch.question_sets import names
from zerosearch.question_sets.names import Name
from zerosearch.question_sets.reading import ReadFile, read_rows
from zerosearch.row_files import open_rows
from zerosearch.rows import MAX_SHOWN
from zerosearch.schema import Question

ENDINGS = (".jsonl", ".json", ".tsv", ".parquet")
PACKED = ".gz"
_ALIASES = "id_aliases"  # the file of 2WikiMultiHopQA that holds the aliases of all its answers


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """One file of a folder.  name: the set and split that file and sub-folder say."""

    path: Path
    name: Name


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions came from: a file, its format, its set ("" where rows say) and split, and how many it gave."""

    place: str
    format: str
    dataset: str
    split: str
    n_questions: int


@dataclass(slots=True)
class Read:
    """What a folder, or a collection of the hub, gave; ``problems`` and ``notes`` are for the reader."""

    questions: list[Question] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def add(self, read: ReadFile, place: str, name: Name) -> None:
        """Add what one file gave."""
        self.questions += read.questions
        self.problems += read.problems
        self.notes += read.notes
        self.sources.append(Source(place, read.format, name.dataset, name.split, len(read.questions)))


def read_folder(folder: Path, format_name: str = "") -> Read:
    """Return the faultless questions of a folder and everything that is wrong with its files.

    format_name: of all its files; "" to tell each file's from its rows.  MissingInput without a question file.
    """
    found = list(_question_files(folder))
    if not found:
        there = "no such file" if folder.is_dir() else "no such folder"
        raise MissingInput(
            f"questions: expected files named <set>.jsonl (or {', '.join(ENDINGS[1:])}) in {folder}, found {there}; "
            "give the folder with `./run_all.sh --questions DIR --corpus FILE`"
        )
    made = Read()
    for file in _chosen(found, made):
        made.files.append(file.path)
        if problem := _name_problem(file):
            made.problems.append(problem)
            continue
        try:
            read = read_rows(open_rows(file.path, "questions"), file.name, format_name)
        except MissingInput as error:  # a folder of that name, a broken link: told beside the others' problems
            made.problems.append(str(error))
            continue
        made.add(read, str(file.path), file.name)
    made.questions = _with_aliases(made, folder)
    made.problems += _repeated_ids(made.questions)
    return made


def _question_files(folder: Path) -> Iterator[QuestionFile]:
    """Yield the question files of a folder and its sub-folders, in the order of their names."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if (stem := _stem(path)) is not None:
            yield QuestionFile(path, names.of_file(stem))
        elif path.is_dir():
            inner = sorted(p for p in path.iterdir() if not p.name.startswith("."))
            yield from (QuestionFile(p, names.of_file(s, path.name)) for p in inner if (s := _stem(p)) is not None)


def _stem(path: Path) -> str | None:
    """Return a file's name without its ending, None for a name that no question file has."""
    name = path.name.removesuffix(PACKED)
    ending = next((e for e in ENDINGS if name.lower().endswith(e)), None)
    stem = name[: -len(ending)] if ending else None
    return None if stem == _ALIASES else stem


def _chosen(found: Iterable[QuestionFile], made: Read) -> Iterator[QuestionFile]:
    """Yield one file per set that trains and one that is evaluated; notes and problems tell of the others."""
    groups: defaultdict[tuple[str, bool], list[QuestionFile]] = defaultdict(list)
    for file in found:
        groups[file.name.dataset, file.name.trains].append(file)
    for (dataset, trains), group in groups.items():
        of_split = {file.name.split: file for file in group}
        if len(group) == 2 and set(of_split) == {"dev", "test"}:
            passed, group = of_split["dev"], [of_split["test"]]
            made.notes.append(f"{passed.path}: passed over, since {group[0].path.name} of the same set is evaluated")
        if len(group) > 1:
            wanted = f"one file of {'training' if trains else 'evaluation'} questions of {dataset or 'each set'}"
            listed = ", ".join(str(file.path) for file in group)
            made.problems.append(
                f"{group[0].path.parent}: expected {wanted}, found {listed}; remove or rename the others"
            )
        yield from group[:1]


def _name_problem(file: QuestionFile) -> str:
    """Return the complaint about a file whose name says no set that can be written, "" for any other."""
    stem = _stem(file.path) or ""
    named = bool(file.name.dataset) or stem.isalpha()  # train.parquet: its rows name their sets
    if named and stem.isprintable() and file.name.dataset.isprintable():
        return ""
    return f"{file.path}: expected a file named <set>.jsonl, found no readable name; rename the file"


def _repeated_ids(questions: Iterable[Question]) -> list[str]:
    """Return the ids that two files give; within one file they are told with their lines."""
    seen: set[str] = set()
    twice = [q.id for q in questions if q.id in seen or seen.add(q.id)]  # type: ignore[func-returns-value]
    return [f"{key}: expected an id of its own, found it in two files; rename one of them" for key in twice[:MAX_SHOWN]]


def _with_aliases(made: Read, folder: Path) -> list[Question]:
    """Return the questions with the aliases that 2WikiMultiHopQA keeps in a file of its own, where there is one."""
    aliases: dict[str, tuple[str, ...]] = {}
    for path in (p for pattern in (f"{_ALIASES}.json*", f"*/{_ALIASES}.json*") for p in sorted(folder.glob(pattern))):
        rows = open_rows(path, "questions")
        for row in rows:
            key = row.id_text("Q_id")
            more = row.texts("aliases", (row.fields or {})["aliases"]) if (row.fields or {}).get("aliases") else ()
            aliases[key] = tuple(more)
        made.problems += rows.listing()
        made.files.append(path)
    if not aliases:
        return made.questions
    return [_extended(q, aliases.get(str(q.metadata.get("answer_id")), ())) for q in made.questions]


def _extended(question: Question, aliases: tuple[str, ...]) -> Question:
    answers = tuple(dict.fromkeys((*question.golden_answers, *aliases)))
    return replace(question, golden_answers=answers) if aliases else question
