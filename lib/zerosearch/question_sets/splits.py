"""Which questions train and which are evaluated: never both, not even under another id."""

from __future__ import annotations

from typing import Sequence

from zerosearch.errors import BadInput
from zerosearch.question_sets.names import TRAIN_SUFFIX
from zerosearch.questions import draw_training_share, same_text
from zerosearch.rows import MAX_SHOWN
from zerosearch.schema import Question


def split(
    loaded: Sequence[Question], where: str, train_fraction: float, seed: int, drop_overlap: bool = False
) -> tuple[list[Question], int]:
    """Return (questions with their final split, training questions left out because they are evaluated).

    where: what messages name, such as ``questions in FOLDER``.  Where nothing trains, a share of nq and hotpotqa
    does.  Raises BadInput when the two overlap and drop_overlap is False.
    """
    if not any(q.split == "train" for q in loaded):
        return draw_training_share(loaded, train_fraction, seed), 0
    shared = _shared(loaded)
    if shared and not drop_overlap:
        problems = [f"{key} asks the same as {other}: {_short(text)!r}" for key, (other, text) in shared.items()]
        raise BadInput(
            f"{where}: expected training questions that are not evaluated, found {len(problems)} that are; remove them "
            f"from the *{TRAIN_SUFFIX} files, or leave them out with --set 00.drop_overlap=true", problems[:MAX_SHOWN],
        )
    return [q for q in loaded if q.id not in shared], len(shared)


def check_both(questions: Sequence[Question], where: str) -> None:
    """Raise BadInput when no question trains, or none is evaluated."""
    if not any(q.split == "train" for q in questions):
        raise BadInput(
            f"{where}: expected some that train, found none; add a <set>{TRAIN_SUFFIX}.jsonl, or "
            "nq.jsonl or hotpotqa.jsonl with --set 00.train_fraction above 0"
        )
    if not any(q.split == "eval" for q in questions):
        raise BadInput(
            f"{where}: expected some that are evaluated, found only training questions; add a "
            f"<set>.jsonl without {TRAIN_SUFFIX} in its name, or lower --set 00.train_fraction"
        )


def _shared(questions: Sequence[Question]) -> dict[str, tuple[str, str]]:
    """Return the training questions that are also evaluated: their id -> (id of the evaluated one, text)."""
    evaluated = {same_text(q.question): q.id for q in questions if q.split == "eval"}
    training = [(q, same_text(q.question)) for q in questions if q.split == "train"]
    return {q.id: (evaluated[text], q.question) for q, text in training if text in evaluated}


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"
