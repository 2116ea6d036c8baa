"""Names of sets and splits as files, folders and rows spell them: ``hotpot_qa``, ``NQ-open.dev``, ``popQA``.

A name that belongs to none of the seven sets stays as it is; only words that published file names are
known to hold are passed over, so that a set of one's own called ``nq_hard`` is no NQ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
_SPELLINGS = {
    "nq": ("nq", "nqopen", "naturalquestions", "naturalquestionsopen"),
    "triviaqa": ("triviaqa", "trivia", "tqa"),
    "popqa": ("popqa",),
    "hotpotqa": ("hotpotqa", "hotpot"),
    "2wikimultihopqa": ("2wikimultihopqa", "2wikimultihop", "2wikimqa", "2wikiqa", "2wiki"),
    "musique": ("musique", "musiqueans", "musiquefull"),
    "bamboogle": ("bamboogle",),
}
_KNOWN = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_SPLITS = {
    "train": "train", "training": "train", "dev": "dev", "validation": "dev", "val": "dev", "valid": "dev",
    "test": "test", "eval": "eval",
}
_PASSED_OVER = frozenset((
    "open", "ans", "full", "distractor", "fullwiki", "simplified", "sample", "subsampled", "unfiltered", "web",
    "wikipedia", "rc", "with", "aliases", "paragraphs", "questions", "and", "answers", "flashrag", "verl", "hf",
    "simpledeepsearcher",
))
_VERSION = re.compile(r"v?\d+")
TRAIN_SUFFIX = "_train"


@dataclass(frozen=True, slots=True)
class Name:
    """What a name says.  dataset: the set, "" where it names none.  split: train, dev, test, eval, or ""."""

    dataset: str
    split: str

    @property
    def trains(self) -> bool:
        """Whether the questions train."""
        return self.split == "train"


def known_set(text: str) -> str:
    """Return the one of the seven sets that a text spells, "" if it is none; an owner before a slash is left out."""
    last = text.rpartition("/")[2].lower().removeprefix("searchr1_")
    return _KNOWN.get(re.sub(r"[^a-z0-9]", "", last), "")


def of_folder(name: str) -> str:
    """Return the set that a folder holds: one of the seven, or one named as the folder is."""
    return known_set(name) or name


def of_file(stem: str, folder: str = "") -> Name:
    """Return what a file's name without its ending says; folder: of the sub-folder it lies in, "" for none.

    In a sub-folder the file need say the split alone.
    """
    words = [word for word in re.split(r"[\s_.\-]+", stem) if word]
    splits = [_SPLITS[word.lower()] for word in words if word.lower() in _SPLITS]
    split = splits[0] if len(set(splits)) == 1 else ""
    if folder:
        return Name(of_folder(folder), split)
    rest = [word for word in words if word.lower() not in _SPLITS]
    if not rest and len(words) == 1:
        return Name("", split)  # train.parquet: the rows must say
    if found := _leading_set(rest):
        return Name(found, split)
    return _own_name(stem)


def _leading_set(words: list[str]) -> str:
    """Return the known set that the first words spell, if the others are such as published names hold."""
    for length in range(len(words), 0, -1):
        found = known_set("".join(words[:length]))
        others = (word.lower() for word in words[length:])
        if found and all(word in _PASSED_OVER or _VERSION.fullmatch(word) for word in others):
            return found
    return ""


def _own_name(stem: str) -> Name:
    """Return the name of a set of one's own, of which only a suffix such as ``_train`` says the split."""
    for suffix in ("train", "dev", "test"):
        if stem.endswith(f"_{suffix}"):
            return Name(stem.removesuffix(f"_{suffix}"), suffix)
    return Name(stem, "")
