"""Recorded Search-R1 runs of others, read as our own records and judged by our scorer, difference by difference.

A run file is a JSON list of rows: question, golden answers, and an ``output`` with the prompt (``query``), all
that was written after it (``final_response``: the policy's text and ``<information>`` blocks), the answer that
was taken from it (``pred``) and its scores (``metric_score``: em, acc, f1).  Here the policy's text and the
retrieved text are told apart, and only the former is parsed for an answer, message by message, as a rollout
does it (rule 3).  ``acc`` is a containment of letters; cover EM, beside it, one of words.

``explain_differences`` puts our score beside the recorded one and names the cause where they differ.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import pandas as pd

from zerosearch import scoring
from zerosearch.errors import BadInput, MissingInput
from zerosearch.prompts import parse_action
from zerosearch.schema import Passage, Question, Retrieval, SearchRequest, Turn
from zerosearch.scoring import normalize

SOURCE = "recorded"
UNKNOWN = "unknown"
RECORDED_NAMES = {"em": "em", "cover_em": "acc", "f1": "f1"}  # our metric -> the name in metric_score
REASONS = (
    "answer of the prompt",         # the example in the prompt was taken for the policy's answer
    "answer in retrieved text",     # so was a tag inside a passage
    "another answer tag",           # the policy wrote several; we take the first complete one of its messages
    "text without a tag",           # the policy wrote it, but in no complete answer tag
    "nothing after normalisation",  # answer or golden answers have no words: with us they match nothing
    "letters, not words",           # containment: 1935 holds 35 there, not here
    "yes and no apart",             # F1 there: yes, no and noanswer match nothing but themselves
    "first golden answer only",     # aliases were not looked at
    "no normalisation",             # the texts were compared as they stand
    UNKNOWN,
)
DIFFERENCE_COLUMNS = [
    "question_id", "metric", "recorded", "ours", "differs", "reason", "recorded_answer", "answer", "golden_answers",
]
_BLOCK = re.compile(r"<information>(.*?)</information>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_DOCUMENT = re.compile(r"(?:\A|\n)\s*Doc (\d+)\(Title: ")
_TITLE = re.compile(r'"(?P<quoted>.*?)"\)|(?P<plain>(?:[^()]|\([^()]*\))*)\)', re.DOTALL)
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One question of a recorded run.

    question: its id is ``<file>/<id>``.  prompt, response: as recorded.  turns: the policy's messages; the
    retrieval of one holds the recorded query and passages.  answer: ours, from the policy's text alone, None
    without one.  recorded_answer, recorded_scores: theirs, the scores under our names.
    """

    question: Question
    prompt: str
    response: str
    turns: tuple[Turn, ...]
    answer: str | None
    recorded_answer: str | None
    recorded_scores: Mapping[str, float]


def read_recorded_runs(path: Path | str) -> list[RecordedRun]:
    """Return all rows of a run file, or of every ``*.json`` in a folder, in the order of the names.

    Raises MissingInput without a file, BadInput for rows that are not as the module says, each named.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise MissingInput(f"recorded runs: expected a JSON file, or a folder with some, at {path}, found none")
    runs: list[RecordedRun] = []
    problems: list[str] = []
    for file in files:
        dataset = file.name.partition(".")[0]
        for number, row in enumerate(_rows(file)):
            try:
                runs.append(_run(row, dataset))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                problems.append(f"{file}: row {number}: {type(error).__name__}: {error}")
    if problems:
        raise BadInput("recorded runs: expected question, golden_answers and output, found otherwise", problems)
    return runs


def parse_response(response: str, question: Question) -> tuple[tuple[Turn, ...], str | None]:
    """Return (turns, answer) of a recorded response; text inside information blocks is never parsed for actions.

    The answer is that of the first message whose first complete action is an answer; later text does not
    count, as a rollout would have ended there.
    """
    parts = _BLOCK.split(response)  # policy, retrieved, policy, retrieved, ..., policy
    turns, answer = [], None
    for number, text in enumerate(parts[::2]):
        observation = parts[2 * number + 1] if 2 * number + 1 < len(parts) else None
        if not text.strip() and observation is None:
            continue  # nothing after the last block
        action, content = parse_action(text)
        if action == "answer" and answer is None:
            answer = content
        retrieval = _retrieval(question, content if action == "search" else "", observation, number)
        turns.append(Turn(text, action, content, retrieval, observation or ""))
    return tuple(turns), answer


def parse_documents(block: str, id_prefix: str = SOURCE) -> tuple[Passage, ...]:
    """Return the passages of an information block, ``Doc 1(Title: "X") ...``; they must be numbered from 1."""
    starts: list[re.Match[str]] = []
    for found in _DOCUMENT.finditer(block):
        if int(found[1]) == len(starts) + 1:  # the same words inside a passage have another number
            starts.append(found)
    ends = [*(found.start() for found in starts[1:]), len(block)][: len(starts)]
    made = []
    for number, (found, end) in enumerate(zip(starts, ends, strict=True), 1):
        rest = block[found.end() : end]
        title = _TITLE.match(rest)
        name = (title["quoted"] if title["quoted"] is not None else title["plain"]) if title else ""
        made.append(Passage(f"{id_prefix}-{number}", name.strip(), rest[title.end() if title else 0 :].strip()))
    return tuple(made)


def explain_differences(runs: Sequence[RecordedRun]) -> pd.DataFrame:
    """Return DIFFERENCE_COLUMNS: one row per run x metric; reason is one of REASONS where the scores differ, else
    empty."""
    rows = []
    for run in runs:
        golden = run.question.golden_answers
        ours = scoring.score(run.answer, golden)
        for metric, recorded in run.recorded_scores.items():
            value = getattr(ours, metric)
            differs = abs(recorded - value) > _ROUNDING
            reason = _reason(run, metric, recorded) if differs else ""
            rows.append((
                run.question.id, metric, recorded, value, differs, reason, run.recorded_answer, run.answer, list(golden)
            ))
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)


def difference_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many scores differ for each reason: reason, then one column per metric; all REASONS are listed."""
    differing = table[table["differs"]]
    counts = pd.crosstab(differing["reason"], differing["metric"])
    counts = counts.reindex(index=list(REASONS), columns=list(RECORDED_NAMES), fill_value=0)
    return counts.rename_axis("reason").rename_axis(columns=None).reset_index()


# -- reading --------------------------------------------------------------------------------------


def _rows(file: Path) -> list[Any]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{file}: expected a JSON list of runs, found bad JSON ({error})") from error
    if not isinstance(rows, list):
        raise BadInput(f"{file}: expected a JSON list of runs, found {type(rows).__name__}")
    return rows


def _run(row: Mapping[str, Any], dataset: str) -> RecordedRun:
    output, scores = row["output"], row["output"]["metric_score"]
    question = Question(f"{dataset}/{row['id']}", dataset, row["question"], tuple(row["golden_answers"]))
    turns, answer = parse_response(output["final_response"], question)
    recorded = {ours: float(scores[theirs]) for ours, theirs in RECORDED_NAMES.items()}
    return RecordedRun(question, output["query"], output["final_response"], turns, answer, output.get("pred"), recorded)


def _retrieval(question: Question, query: str, observation: str | None, turn: int) -> Retrieval | None:
    if observation is None:
        return None
    passages = parse_documents(observation, f"{question.id}-{turn}")
    return Retrieval(SearchRequest(query, question, turn=turn), passages, SOURCE)


# -- reasons --------------------------------------------------------------------------------------


def _reason(run: RecordedRun, metric: str, recorded: float) -> str:
    """Return the first cause that fits a difference."""
    if _plain(run.recorded_answer) != _plain(run.answer):
        return _other_text(run)
    golden, answer = run.question.golden_answers, run.answer or ""
    words, golden_words = normalize(answer), [normalize(g) for g in golden]
    if not words or not all(golden_words):
        return "nothing after normalisation"
    if metric == "cover_em" and recorded == 1.0 and any(g in words for g in golden_words):
        return "letters, not words"
    if metric == "f1" and recorded == 0.0 and {"yes", "no", "noanswer"} & {words, *golden_words}:
        return "yes and no apart"
    if abs(getattr(scoring.score(answer, golden[:1]), metric) - recorded) <= _ROUNDING:
        return "first golden answer only"
    if metric != "f1" and recorded == float(any(answer == g if metric == "em" else g in answer for g in golden)):
        return "no normalisation"
    return UNKNOWN


def _other_text(run: RecordedRun) -> str:
    """Return where the recorded answer came from, if not from where ours did."""
    taken = _plain(run.recorded_answer)
    own = "".join(_BLOCK.split(run.response)[::2])
    places = {
        "another answer tag": _answers(own),
        "answer in retrieved text": [a for block in _BLOCK.findall(run.response) for a in _answers(block)],
        "answer of the prompt": _answers(run.prompt),
    }
    for reason, answers in places.items():
        if taken in answers:
            return reason
    return "text without a tag" if taken and taken in _plain(own) else UNKNOWN


def _answers(text: str) -> list[str]:
    return [_plain(found) for found in _ANSWER.findall(text)]


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())
