"""The catalogue of bad inputs: each case makes its damage, runs a real entry point, and says what must be told.

``CASES`` is read by test_bad_input.py.  A case is made of a name, ``act(place)`` that does the damage and
returns what a user would see, the thing its message must name, and words of the fix.  ``GOES_ON`` cases are
inputs that look bad and are not: the command does its work.  Generated cases are in ``bad_input_generated``.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pyarrow as pa
import pytest
import toy_run
from pyarrow import parquet

from zerosearch import artifacts, cli, compare_runs, files, profiles, report, verify
from zerosearch.errors import WorkbookError
from zerosearch.question_sets.own import Choice, load_own

FINISHED, BROKEN = "finished", "broken"  # runs that stand in every outputs folder; BROKEN only where asked for
MODEL = artifacts.MICRO_LM / "simulator-small"
QUESTIONS = [{"id": i, "question": f"who wrote book {i}", "golden_answers": [f"writer {i}"]} for i in range(4)]
TRAINING = [{"id": i, "question": f"who printed book {i}", "golden_answers": [f"printer {i}"]} for i in range(3)]
PASSAGES = [{"id": str(i), "title": f"Book {i}", "text": f"writer {i} wrote book {i}"} for i in range(4)]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user sees: the exit code and everything printed."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a case works: a temporary folder with good questions and passages, and an outputs folder."""

    folder: Path
    outputs: Path
    patch: pytest.MonkeyPatch

    @property
    def questions(self) -> Path:
        """A folder with good questions: nq.jsonl is evaluated, nq_train.jsonl trains."""
        return self.folder / "questions"

    @property
    def corpus(self) -> Path:
        """A good file of passages."""
        return self.folder / "passages.jsonl"

    @property
    def broken(self) -> Path:
        """A second finished run, to be damaged."""
        folder = self.outputs / BROKEN
        if not folder.exists():
            shutil.copytree(self.outputs / FINISHED, folder)
        return folder


@dataclass(frozen=True, slots=True)
class Case:
    """One bad input.  names: what the message must name.  words: of the fix.  goes_on: it is no error."""

    name: str
    act: Callable[[Place], Seen]
    names: str
    words: tuple[str, ...] = ()
    goes_on: bool = False


def prepare(folder: Path, outputs: Path, patch: pytest.MonkeyPatch) -> Place:
    """Write the good questions and passages that cases damage."""
    place = Place(folder, outputs, patch)
    place.questions.mkdir(parents=True)
    put(place.questions / "nq.jsonl", QUESTIONS)
    put(place.questions / "nq_train.jsonl", TRAINING)
    put(place.corpus, PASSAGES)
    return place


def put(path: Path, rows: list[Any]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# -- entry points ---------------------------------------------------------------------------------


def seen(work: Callable[[], object]) -> Seen:
    """Run work in this process; a WorkbookError is shown as a notebook shows it, any other as Python does."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            result = work()
            code = result if isinstance(result, int) else 0
        except WorkbookError as error:
            code = error.exit_code
            print("\n".join(error._render_traceback_()))
        except Exception:
            code = -1
            traceback.print_exc(file=shown)
    return Seen(code, shown.getvalue())


def call(*arguments: str) -> Seen:
    """Call the command line in this process."""
    return seen(lambda: cli.main(arguments))


def check(*arguments: str, profile: str = "smoke") -> Seen:
    """Let the command line check a run without starting it."""
    return call("--profile", profile, "--run", "new", "--dry-run", *arguments)


def check_data(place: Place) -> Seen:
    """Let the command line check a reader's own files."""
    return check("--questions", str(place.questions), "--corpus", str(place.corpus))


def load_data(place: Place) -> Seen:
    """Read a reader's own files as stage 00 does."""
    return seen(lambda: load_own(Choice(str(place.questions), str(place.corpus))) and 0)


def separate(*arguments: str) -> Seen:
    """Call the command line in a process of its own."""
    command = [sys.executable, "-m", "zerosearch.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    return Seen(done.returncode, done.stdout + done.stderr)


# -- a reader's own files -------------------------------------------------------------------------


def lines(*changes: Any, file: str = "nq.jsonl") -> Callable[[Place], Seen]:
    """Replace a question file by lines: bytes as they are, anything else as JSON."""

    def act(place: Place) -> Seen:
        path = place.corpus if file == "passages.jsonl" else place.questions / file
        pieces = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in changes]
        path.write_bytes(b"\n".join(pieces))
        return check_data(place)

    return act


def accepted(*changes: Any, file: str = "nq.jsonl") -> Callable[[Place], Seen]:
    """Like ``lines``, but read as stage 00 does: for files that are good."""

    def act(place: Place) -> Seen:
        with contextlib.redirect_stdout(io.StringIO()):
            put(place.corpus if file == "passages.jsonl" else place.questions / file, list(changes))
        return load_data(place)

    return act


def whole(content: bytes, file: str = "nq.jsonl") -> Callable[[Place], Seen]:
    """Replace a file by other bytes."""
    return lines(content, file=file)


def on_disk(change: Callable[[Place], object]) -> Callable[[Place], Seen]:
    """Do something to the files, then let the command line check them."""

    def act(place: Place) -> Seen:
        change(place)
        return check_data(place)

    return act


def _text(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _long_line(place: Place) -> None:
    """Write a line of 100 MB that takes no room on the disk."""
    with place.corpus.open("wb") as file:
        file.truncate(100_000_000)


def _dangling(place: Place) -> None:
    (place.questions / "popqa.jsonl").symlink_to(place.folder / "nowhere.jsonl")


def _loop(place: Place) -> None:
    (place.questions / "popqa.jsonl").symlink_to(place.questions / "popqa.jsonl")


def _both(place: Place) -> None:
    (place.questions / "nq.jsonl").write_text("damaged\n")
    place.corpus.write_text("damaged too\n")


def _parquet(place: Place, rows: list[dict[str, Any]]) -> tuple[bytes, Path]:
    """Write a Parquet file of questions; return its bytes and where it lies."""
    path = place.questions / "popqa.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path.read_bytes(), path


def _as(written: Callable[[list[dict[str, Any]]], bytes]) -> Callable[[Place], Seen]:
    """Write the good questions in another way, then read them as stage 00 does."""

    def act(place: Place) -> Seen:
        (place.questions / Q).write_bytes(written(QUESTIONS))
        return load_data(place)

    return act


GOOD = QUESTIONS[0]
Q = "nq.jsonl"
P = "passages.jsonl"
TSV = "popqa.tsv"
POPQA = (
    "id\tsubj\tprop\tquestion\tpossible_answers\n"
    '7\tHarp\tdirector\tWho directed Harp?\t"[""Ada"", ""A. Falk""]"\n'
)
VERL = [
    {"data_source": "popqa", "reward_model": {"ground_truth": ["Ada"]}, "extra_info": {"question": "who?", "index": 0}}
]
READ = tuple[str, Callable[[Place], Seen], str, tuple[str, ...]]
DATA: list[READ] = [
    ("array cut short", whole(json.dumps(QUESTIONS).encode()[:-1]), Q, ("cut short", "mend the file")),
    ("array cut within a row", whole(json.dumps(QUESTIONS, indent=1).encode()[:-30]), Q, ("bad JSON", "mend the file")),
    ("array with bad JSON", whole(json.dumps(QUESTIONS, indent=1).replace(": 2,", ": 2 2,").encode()), Q,
     ("nq.jsonl:17: expected a JSON object, found bad JSON", "mend the file")),
    ("array with a faulty row", whole(json.dumps([*QUESTIONS, {"id": 9, "question": ""}]).encode()), Q,
     (":1 (row 5): question: expected a text", "mend")),
    ("array with an id twice", whole(json.dumps([GOOD, GOOD], indent=1).encode()), Q,
     ("of line 2 (row 1) again", "mend")),
    ("array with a comma too many", whole(json.dumps(QUESTIONS).encode()[:-1] + b", ]"), Q, ("another row", "mend")),
    ("array without a comma", whole(json.dumps(QUESTIONS).replace("}, {", "} {").encode()), Q, ("a comma", "mend")),
    ("array twice", whole(json.dumps(QUESTIONS).encode() * 2), Q, ("more after its end", "mend")),
    ("array in latin-1", whole(json.dumps([{**GOOD, "question": "café"}], ensure_ascii=False).encode("latin-1")), Q,
     ("found byte 0xe9", "iconv -f WINDOWS-1252 -t UTF-8")),
    ("array in utf-16", whole(json.dumps(QUESTIONS).encode("utf-16")), Q, ("iconv -f UTF-16 -t UTF-8",)),
    ("array with a row of 2 MiB", whole(json.dumps([{**GOOD, "note": "x" * (3 << 20)}]).encode()), Q,
     ("rows of at most 1 MiB", "mend")),
    ("array of texts", whole(b'["who wrote it", "who else"]'), Q, ("expected a JSON object", "mend")),
    ("empty array", whole(b"[ ]\n"), Q, ("at least one question", "remove it")),
    ("array with a key twice", whole(b'[{"id": 1, "id": 2, "question": "q", "golden_answers": ["a"]}]'), Q,
     ('the key "id" twice', "remove one")),
    ("pretty-printed objects", whole(json.dumps(GOOD, indent=2).encode()), Q, ("several lines", "jq -c .")),
    ("csv", whole(b"id,question,golden_answers\n1,who,Ada\n"), Q, ("CSV", "pandas.read_csv")),
    ("csv with semicolons", whole(b"id;question;answer\n1;who;Ada\n"), Q, ("CSV", "sep=")),
    ("tsv with other columns", whole(b"query\tgold\nwho\tAda\n", TSV), TSV,
     (":2: expected the keys of a known format", "found query, gold", "rename the keys")),
    ("tsv without a head line", whole(b"1\twho\tAda\n2\twhat\tBob\n", TSV), TSV,
     ("found 1, who, Ada", "rename the keys")),
    ("tsv with a head line only", whole(POPQA.splitlines()[0].encode() + b"\n", TSV), TSV, ("at least one question",)),
    ("tsv with a cell too few", whole(POPQA.replace("\tdirector\t", "\t").encode(), TSV), TSV,
     (":2: expected 5 cells", "found 4", "mend this row")),
    ("tsv with a column twice", whole(POPQA.replace("prop", "subj").encode(), TSV), TSV, ("each column once", "mend")),
    ("tsv whose JSON is not quoted", whole(POPQA.replace('"[""Ada"", ""A. Falk""]"', "[Ada, Falk]").encode(), TSV), TSV,
     ("possible_answers: expected a JSON list", "quote the cell the csv way")),
    ("tsv whose JSON is cut", whole(POPQA.replace('""A. Falk""]"', '"').encode(), TSV), TSV,
     ("possible_answers: expected a JSON list", "quote the cell the csv way")),
    ("tsv whose JSON is an object", whole(POPQA.replace('[""Ada"", ""A. Falk""]', '{""a"": 1}').encode(), TSV), TSV,
     ("possible_answers: expected a JSON list", "quote the cell the csv way")),
    ("tsv with a quotation mark too many", whole(POPQA.replace("Falk\"\"]", "Falk\"]").encode(), TSV), TSV,
     ("quoted the csv way", "mend this row")),
    ("tsv in latin-1", whole(POPQA.replace("Harp", "Härp").encode("latin-1"), TSV), TSV, ("byte 0xe4", "iconv -f")),
    ("tsv as corpus with other columns", whole(b"id\tbody\ttitle\n1\twho\tAda\n", P), P, ("text: expected", "mend")),
    ("tsv as corpus with a text too few", whole(b"id\ttext\ttitle\n1\twho\tAda\n2\twhat\n", P), P,
     (":3: expected 3 cells", "mend")),
    ("gzip cut short", whole(gzip.compress(_text(PASSAGES).encode())[:-9], P), P,
     ("a whole gzip file", "download it again")),
    ("gzip without anything in it", whole(b"\x1f\x8b\x08\0\0\0\0\0", P), P, ("a whole gzip file", "copy or")),
    ("questions in a damaged gzip", whole(gzip.compress(_text(QUESTIONS).encode())[:40] + b"x" * 40, "popqa.jsonl.gz"),
     "popqa.jsonl.gz", ("a whole gzip file", "copy or")),
    ("zip", whole(b"PK\x03\x04rest"), Q, ("zip", "unzip -p")),
    ("zstd", whole(b"\x28\xb5\x2f\xfdrest", P), P, ("zstd", "zstd -dc")),
    ("bzip2", whole(b"BZh91AY", P), P, ("bzip2", "bunzip2 -c")),
    ("parquet cut short", on_disk(lambda p: _parquet(p, VERL)[1].write_bytes(_parquet(p, VERL)[0][:-20])),
     "popqa.parquet", ("a whole Parquet file", "download it again")),
    ("parquet with other columns", on_disk(lambda p: _parquet(p, [{"query": "who", "gold": ["Ada"]}])), "popqa.parquet",
     ("row 1: expected the keys of a known format", "found query, gold", "rename the keys")),
    ("parquet with empty answers",
     on_disk(lambda p: _parquet(p, [{**VERL[0], "reward_model": {"ground_truth": [" "]}}])),
     "popqa.parquet", ("row 1: answers: expected a text or a list", "mend")),
    ("parquet as corpus", whole(b"PAR1\x15\x04", P), P, ("a whole Parquet file", "copy or")),
    ("utf-16 with mark", whole(_text(QUESTIONS).encode("utf-16")), Q, ("iconv -f UTF-16 -t UTF-8",)),
    ("utf-16 big end first", whole(b"\xfe\xff" + _text(QUESTIONS).encode("utf-16-be")), Q, ("iconv -f UTF-16",)),
    ("utf-16 without mark", whole(_text(QUESTIONS).encode("utf-16-le")), Q, ("iconv -f UTF-16LE",)),
    ("utf-16be without mark", whole(_text(QUESTIONS).encode("utf-16-be")), Q, ("iconv -f UTF-16BE",)),
    ("utf-32", whole(_text(PASSAGES).encode("utf-32"), P), P, ("iconv -f UTF-32",)),
    ("latin-1", whole('{"id": 1, "question": "café", "golden_answers": ["x"]}'.encode("latin-1")), Q,
     ("iconv -f LATIN1 -t UTF-8", ":1: expected UTF-8, found byte 0xe9")),
    ("windows-1252", whole('{"id": 1, "question": "“café”", "golden_answers": ["x"]}'.encode("cp1252")), Q,
     ("iconv -f WINDOWS-1252",)),
    ("one damaged byte", whole('{"id": 1, "text": "café"}\n'.encode() + b'{"id": 2, "text": "caf\xe9"}', P), P,
     (":2: expected UTF-8", "mend")),
    ("empty file", whole(b""), Q, ("at least one question", "remove it")),
    ("blank lines only", whole(b"\n \n\n"), Q, ("at least one question",)),
    ("empty corpus", whole(b"", P), P, ("at least one passage", "fill the file")),
    ("same id twice", lines(GOOD, GOOD), Q, (":2: id", "of line 1 again", "mend")),
    ("number and text as the same id", lines(GOOD, {**QUESTIONS[1], "id": "0"}), Q, ("of line 1 again",)),
    ("no id", lines({"question": "q", "golden_answers": ["a"]}), Q, (":1: id", "mend")),
    ("misspelt key", lines({"id": 1, "qestion": "q", "golden_answers": ["a"]}), Q, ("did you mean 'qestion'",)),
    ("answers under another key", lines({"id": 1, "question": "q", "golden_answer": ["a"]}), Q,
     ("did you mean 'golden_answer'",)),
    ("no answers", lines({**GOOD, "golden_answers": []}), Q, ("found []", "mend")),
    ("answer is a text", lines({**GOOD, "golden_answers": "Ada"}), Q, ('found "Ada"', 'write ["Ada"]')),
    ("blank answer", lines({**GOOD, "golden_answers": ["Ada", " "]}), Q, ("golden_answers: expected a list",)),
    ("answers are null", lines({**GOOD, "golden_answers": None}), Q, ("found null", "mend")),
    ("answers are numbers", lines({**GOOD, "golden_answers": [1935]}), Q, ("found [1935]", "mend")),
    ("answers in a list in a list", lines({**GOOD, "golden_answers": [["a"]]}), Q, ('found [["a"]]', "mend")),
    ("answers are an object", lines({**GOOD, "golden_answers": {"a": 1}}), Q, ('found {"a": 1}', "mend")),
    ("question is null", lines({**GOOD, "question": None}), Q, ("question: expected a text", "mend")),
    ("question is a number", lines({**GOOD, "question": 7}), Q, ("found 7", "mend")),
    ("question is blank", lines({**GOOD, "question": "\t \n"}), Q, ("question: expected a text", "mend")),
    ("question is a list", lines({**GOOD, "question": ["q"]}), Q, ('found ["q"]', "mend")),
    ("id is true", lines({**GOOD, "id": True}), Q, ("id: expected a text", "found true")),
    ("id is a fraction", lines({**GOOD, "id": 1.5}), Q, ("found 1.5",)),
    ("not a number", lines(b'{"id": 1, "question": "q", "golden_answers": ["a"], "score": NaN}'), Q,
     ("found NaN", "write null")),
    ("infinity", lines(b'{"id": 1, "text": "q", "score": -Infinity}', file=P), P, ("found -Infinity", "write null")),
    ("a key twice", lines(b'{"id": 1, "id": 2, "question": "q", "golden_answers": ["a"]}'), Q,
     ('the key "id" twice', "remove one")),
    ("deep nesting", lines(b'{"id": 1, "text": "q", "metadata": {"x": ' + b"[" * 60 + b"]" * 60 + b"}}", file=P), P,
     ("nested too deeply", "mend")),
    ("very deep nesting", lines(b"[" * 200_000), Q, ("nested too deeply", "mend")),
    ("a number of 5000 digits", lines(b'{"id": ' + b"9" * 5000 + b"}"), Q, ("write it as a text",)),
    ("half of a surrogate pair", lines(rb'{"id": 1, "text": "\ud83d"}', file=P), P, ("surrogate pair", "mend")),
    ("surrogates as bytes", lines(b'{"id": 1, "text": "\xed\xa0\xbd"}', file=P), P, ("expected UTF-8", "0xed")),
    ("single quotes", lines(b"{'id': 1}"), Q, ("bad JSON", "mend")),
    ("cut line", lines(json.dumps(GOOD).encode()[:20]), Q, ("bad JSON", "mend")),
    ("text after the object", lines(json.dumps(GOOD).encode() + b" // note"), Q, ("bad JSON", "mend")),
    ("two objects on a line", lines(json.dumps(GOOD).encode() * 2), Q, ("bad JSON", "mend")),
    ("a line that is a text", lines("who wrote it"), Q, ("expected a JSON object", 'found "who wrote it"')),
    ("a line that is a number", lines(GOOD, 12), Q, (":2: expected a JSON object", "found 12")),
    ("question of 50,000 characters", lines({**GOOD, "question": "who " * 12_500}), Q,
     ("at most 10,000 characters", "shorten")),
    ("answer of 5,000 characters", lines({**GOOD, "golden_answers": ["x" * 5_000]}), Q, ("at most 1,000", "shorten")),
    ("id of 300 characters", lines({**GOOD, "id": "x" * 300}), Q, ("at most 200 characters", "shorten")),
    ("passage of 200,000 characters", lines({"id": 1, "text": "x" * 200_000}, file=P), P, ("at most 100,000", "split")),
    ("line of 2 MiB", lines({"id": 1, "text": "x" * (2 << 20)}, file=P), P, (":1: expected lines of at most 1 MiB",
     "found one of 2.0 MiB", "split")),
    ("line of 100 MB", on_disk(_long_line), P, (":1: ", "found one of 95.4 MiB", "split")),
    ("passage without text", lines({"id": 1, "title": "t"}, file=P), P, ("text: expected", "mend")),
    ("passage under another key", lines({"id": 1, "body": "t"}, file=P), P, ("text: expected", "mend")),
    ("titles whose sentences are a text", whole(b'{"A": ["x"], "B": "y"}', P), P,
     ("row 2", "sentences: expected a list")),
    ("titles cut short", whole(b'{"A": ["x"], "B": ["y', P), P, ("bad JSON", "mend")),
    ("a corpus of over 2 GiB", on_disk(lambda p: os.truncate(p.corpus, 2 * 2**30 + 1)), P, ("at most 2 GiB", "server")),
    ("keys of no known format", lines({"query": "who", "gold": "Ada"}), Q,
     (":1: expected the keys of a known format", "found query, gold", "00.questions_format=NAME")),
    ("two files of one set", on_disk(lambda p: put(p.questions / "nq_test.jsonl", QUESTIONS)), "nq_test.jsonl",
     ("one file of evaluation questions of nq", "remove or rename")),
    ("one set under two names", on_disk(lambda p: put(p.questions / "natural_questions.jsonl", QUESTIONS)),
     "natural_questions.jsonl", ("one file of evaluation questions of nq", "remove or rename")),
    ("a file that names no set", on_disk(lambda p: put(p.questions / "test.jsonl", QUESTIONS)), "test.jsonl:1",
     ("the name of the set", "rename the file")),
    ("a question that has no answer", lines({"id": "2hop__1_2", "question": "q", "answer": "a", "answerable": False,
     "question_decomposition": []}), Q, ("answerable: expected", "musique_ans")),
    ("a context for supporting facts",
     lines({"_id": "1", "question": "q", "answer": "a", "supporting_facts": ["A"]}), Q,
     ("supporting_facts: expected pairs", "mend")),
    ("format that is none", lambda p: check("--questions", str(p.questions), "--corpus", str(p.corpus), "--set",
     "00.questions_format=hotpot"), "00.questions_format", ("did you mean 'hotpotqa'",)),
    ("format that is another", lambda p: check("--questions", str(p.questions), "--corpus", str(p.corpus), "--set",
     "00.questions_format=popqa"), "nq.jsonl:1", ("possible_answers: expected", "mend")),
    ("shares without a size", lambda p: check("--questions", str(p.questions), "--corpus", str(p.corpus), "--set",
     "00.train_mix=nq:1"), "00.train_mix", ("--set 00.train_size=N",)),
    ("a mix of a set that does not train", lambda p: check("--questions", str(p.questions), "--corpus", str(p.corpus),
     "--set", "00.train_mix=nq,hotpotqa"), "00.train_mix", ("expected sets that train (nq)", "'hotpotqa'")),
    ("nearly a collection", lambda p: check("--questions", "flashrg", "--corpus", str(p.corpus)), "--questions",
     ("did you mean 'flashrag'",)),
    ("a collection that is not in the cache", lambda p: call("--profile", "smoke", "--run", "new", "--questions",
     "flashrag", "--corpus", str(p.corpus)), "RUC-NLPIR/FlashRAG_datasets",
     ("nothing may be downloaded", "`hf download --repo-type dataset", "--questions DIR")),
    ("a collection without a corpus", lambda p: check("--questions", "zerosearch"), "--corpus",
     ("add --corpus FILE", "01.retriever=NAME")),
    ("title is a number", lines({"id": 1, "title": 3, "text": "t"}, file=P), P, ("title: expected a text",)),
    ("metadata is a list", lines({"id": 1, "text": "t", "metadata": [1]}, file=P), P,
     ("metadata: expected an object",)),
    ("kind is a list", lines({"id": 1, "text": "t", "metadata": {"kind": []}}, file=P), P, ("metadata.kind", "rename")),
    ("kind of the world without hops", lines({**GOOD, "metadata": {"kind": "chain"}}), Q, ("hops", "rename")),
    ("both damaged", on_disk(_both), "nq.jsonl:1", ("passages.jsonl:1", "mend these")),
    ("trained and evaluated", on_disk(lambda p: put(p.questions / "nq_train.jsonl", QUESTIONS)), "nq_train/0",
     ("asks the same as nq/0", "remove them")),
    ("nothing trains", on_disk(lambda p: (p.questions / "nq_train.jsonl").rename(p.questions / "popqa.jsonl")
                               and (p.questions / "nq.jsonl").unlink()), "questions", ("some that train", "add a")),
    ("nothing is evaluated", on_disk(lambda p: (p.questions / "nq.jsonl").unlink()), "questions",
     ("some that are evaluated", "add a")),
    ("no question file", on_disk(lambda p: [path.unlink() for path in p.questions.iterdir()]), "questions",
     ("found no such file", "give the folder")),
    ("other suffix",
     on_disk(lambda p: [path.rename(path.with_suffix(".txt")) for path in list(p.questions.iterdir())]),
     "<set>.jsonl", ("give the folder",)),
    ("no folder", on_disk(lambda p: shutil.rmtree(p.questions)), "--questions", ("give a folder",)),
    ("a file for the folder", on_disk(lambda p: (shutil.rmtree(p.questions), p.questions.write_text("x"))),
     "--questions", ("give a folder",)),
    ("a folder for the corpus", on_disk(lambda p: (p.corpus.unlink(), p.corpus.mkdir())), "--corpus", ("give a file",)),
    ("no corpus", on_disk(lambda p: p.corpus.unlink()), "--corpus", ("give a file",)),
    ("a folder named like a set", on_disk(lambda p: (p.questions / "popqa.jsonl").mkdir()), "popqa.jsonl", ("check",)),
    ("broken link", on_disk(_dangling), "popqa.jsonl", ("check the paths",)),
    ("link to itself", on_disk(_loop), "popqa.jsonl", ("chmod",)),
    ("a set without a name", on_disk(lambda p: put(p.questions / "_train.jsonl", TRAINING)), "_train.jsonl",
     ("rename",)),
    ("a set with a name of no text", on_disk(lambda p: put(Path(os.fsdecode(bytes(p.questions) + b"/\xff.jsonl")),
     QUESTIONS[:1])), "<U+DCFF>.jsonl", ("rename",)),
    ("only questions", lambda p: check("--questions", str(p.questions)), "--questions", ("add the other",)),
    ("only a corpus", lambda p: check("--corpus", str(p.corpus)), "--corpus", ("add the other",)),
]
GOOD_DATA: list[READ] = [
    ("tags in a question", accepted({**GOOD, "question": "who <search>x</search> </information> <|im_end|>"}), "", ()),
    ("controls in a question", accepted({**GOOD, "question": "who \x00\x1b[31m \u202e wrote"}), "", ()),
    ("controls in a passage", accepted({"id": 1, "text": "\x00\x1b]0;x\x07 <answer>no</answer>"}, file=P), "", ()),
    ("question of 9,000 characters", accepted({**GOOD, "question": "who " * 2_250}), "", ()),
    ("other keys", accepted({**GOOD, "note": [1, 2], "score": None}), "", ()),
    ("an array", _as(lambda rows: json.dumps(rows).encode()), "", ()),
    ("an array over lines, with a mark", _as(lambda rows: json.dumps(rows, indent=1).encode("utf-8-sig")), "", ()),
    ("a packed file", _as(lambda rows: gzip.compress(_text(rows).encode())), "", ()),
    ("json lines named .json", lambda p: ((p.questions / Q).rename(p.questions / "nq.json"), load_data(p))[1], "", ()),
    ("popqa's table", lambda p: ((p.questions / TSV).write_text(POPQA, "utf-8"), load_data(p))[1], "", ()),
    ("a corpus as a table", lambda p: (p.corpus.write_text("id\ttext\ttitle\n1\twho\tAda\n"), load_data(p))[1], "", ()),
    ("a corpus of titles", lambda p: (p.corpus.write_text('{"A": ["x", " y"]}'), load_data(p))[1], "", ()),
    ("rows for a trainer", lambda p: (_parquet(p, VERL), load_data(p))[1], "", ()),
    ("answers without words", accepted({**GOOD, "golden_answers": ["---"]}), "", ()),
    ("a corpus without any answer", lambda p: (put(p.corpus, [{"id": 1, "text": "nothing"}]), check_data(p))[1],
     "a golden answer of 0% of the 4 evaluation questions", ("dry run: nothing was started",)),
]


# -- options and values ---------------------------------------------------------------------------


def option(name: str, *arguments: str, names: str, words: tuple[str, ...]) -> Case:
    """Return a case of a call with these arguments."""
    return Case(f"option: {name}", lambda place: call(*arguments), names, words)


OPTIONS = [
    option("misspelt", "--profil", "smoke", names="--profil", words=("did you mean '--profile'",)),
    option("a word", "smoke", names="smoke", words=("--help",)),
    option("unknown profile", "--profile", "labtop", "--dry-run", names="labtop", words=("did you mean 'laptop'",)),
    option("empty profile", "--profile", "", "--dry-run", names="--profile", words=("expected a name", "see ")),
    option("blank run", "--run", " ", "--dry-run", names="--run", words=("expected a name", "see ")),
    option("empty clean", "--clean", "", names="--clean", words=("expected a name", "see ")),
    option("empty questions", "--questions", "", names="--questions", words=("expected a name", "see ")),
    option("profile with a path", "--profile", "../x", "--dry-run", names="../x", words=("expected one of",)),
    option("unknown arm", "--arms", "search_r1", "--dry-run", names="search_r1", words=("did you mean 'search-r1'",)),
    option("arm twice", "--arms", "zerosearch,zerosearch", names="--arms", words=("each once", "see ")),
    option("empty arms", "--arms", "", names="--arms", words=("see ",)),
    option("seeds of letters", "--seeds", "one", names="--seeds", words=("such as 0,1,2",)),
    option("negative seed", "--seeds=-1", names="--seeds", words=("such as 0,1,2",)),
    option("fraction as a seed", "--seeds", "1.5", names="--seeds", words=("such as 0,1,2",)),
    option("superscript seed", "--seeds", "²", names="--seeds", words=("such as 0,1,2",)),
    option("run with a slash", "--run", "a/b", "--dry-run", names="a/b", words=("choose another with `--run NAME`",)),
    option("run that climbs", "--run", "..", "--dry-run", names="'..'", words=("choose another",)),
    option("run called latest", "--run", "latest", "--dry-run", names="latest", words=("choose another",)),
    option("run of controls", "--run", "a\x1b[31mb", "--dry-run", names="run: expected", words=("choose another",)),
    option("run of 300 letters", "--run", "x" * 300, "--profile", "smoke", names="xxx", words=("--run NAME",)),
    option("stage without a zero", "--only", "3", names="--only", words=("did you mean '03'",)),
    option("from and only", "--from", "01", "--only", "02", names="--only", words=("not allowed with",)),
    option("only without what it needs", "--profile", "smoke", "--run", "n", "--only", "02", "--dry-run",
           names="--only 02", words=("run `./run_all.sh --run n",)),
    option("set without a value", "--set", "03.steps", names="--set", words=("expected STAGE.NAME=VALUE",)),
    option("set without a stage", "--set", "steps=3", "--dry-run", names="steps", words=("STAGE.NAME=VALUE such as",)),
    option("set of an unknown stage", "--set", "9.steps=3", "--dry-run", names="--set", words=("expected one of 00",)),
    option("set misspelt", "--set", "03.step=3", "--dry-run", names="step", words=("did you mean 'steps'",)),
    option("set of a wrong type", "--set", "03.steps=many", "--dry-run", names="03.steps", words=("expected int",)),
    option("set out of range", "--set", "00.train_fraction=20", "--dry-run", names="00.train_fraction",
           words=("less than",)),
    option("set not a number", "--set", "03.clip=nan", "--dry-run", names="03.clip", words=("expected float",)),
    option("set with its own option", "--set", "03.seed=1", "--dry-run", names="03.seed", words=("use --seeds",)),
    option("two wrong sets at once", "--set", "03.step=3", "--set", "02.stepz=1", "--dry-run", names="'step'",
           words=("'stepz'", "did you mean 'steps'")),
    option("clean nothing", "--clean", "finishd", names="finishd", words=("did you mean 'finished'",)),
    option("clean a path", "--clean", "../finished", names="../finished", words=("choose another",)),
    option("verify an unknown reference", "--profile", "single_gpu", "--verify", names="single_gpu",
           words=("publish a run",)),
]


# -- profiles and prices --------------------------------------------------------------------------


def profile(change: Callable[[str], str | bytes]) -> Callable[[Place], Seen]:
    """Change the text of profiles/smoke.yaml in a copy of the folder, then check a run with it."""

    def act(place: Place) -> Seen:
        folder = Path(shutil.copytree(artifacts.REPO / "profiles", place.folder / "profiles"))
        place.patch.setattr(profiles, "FOLDER", folder)
        made = change((folder / "smoke.yaml").read_text(encoding="utf-8"))
        (folder / "smoke.yaml").write_bytes(made if isinstance(made, bytes) else made.encode())
        return check()

    return act


def swap(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """Return a change that replaces texts, each of which must be there."""

    def change(text: str) -> str:
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new, 1)
        return text

    return change


PROFILES: list[READ] = [
    ("empty", profile(lambda text: ""), "smoke.yaml", ("edit the file",)),
    ("a list", profile(lambda text: "- a\n- b\n"), "smoke.yaml", ("restore it with `git checkout profiles`",)),
    ("not yaml", profile(lambda text: text + "\n  : : ["), "smoke.yaml", ("expected YAML", "edit the file")),
    ("tabs", profile(lambda text: text.replace("  ", "\t")), "smoke.yaml", ("expected YAML",)),
    ("latin-1", profile(lambda text: (text + "# café").encode("latin-1")), "smoke.yaml", ("UTF-8",)),
    ("zero bytes", profile(lambda text: b"\0" * 100), "smoke.yaml", ("expected YAML",)),
    ("a key twice", profile(lambda text: text + "\ncores: 3\n"), "smoke.yaml", ("'cores' twice",)),
    ("misspelt key", profile(swap(("cores: 2", "coers: 2"))), "smoke.yaml", ("did you mean 'cores'", "add it")),
    ("missing key", profile(swap(("offline: true", "")),), "smoke.yaml", ("'offline'", "add it")),
    ("several at once",
     profile(swap(("cores: 2", "cores: two"), ("steps: 120", "stepz: 120"), ("clip: 0.2", "clip: x"))),
     "smoke.yaml", ("cores", "did you mean 'steps'", "03.clip")),
    ("a stage too many", profile(swap(('  "05":', '  "06":'))), "smoke.yaml", ("stage 05", "add them")),
    ("a stage that is a list", profile(lambda text: text[: text.index('  "05":')] + '  "05": [1]\n'), "smoke.yaml",
     ("stage 05", "add them")),
    ("stages are null", profile(lambda text: text[: text.index("stages:")] + "stages:\n"), "smoke.yaml", ("stages",)),
    ("no cores", profile(swap(("cores: 2", "cores: 0"))), "smoke.yaml", ("cores: expected 1 or more",)),
    ("no arms", profile(swap(("arms: [zerosearch]", "arms: []"))), "smoke.yaml", ("arms: expected one or more",)),
    ("unknown arm", profile(swap(("arms: [zerosearch]", "arms: [zerosaerch]"))), "zerosaerch",
     ("did you mean 'zerosearch'",)),
    ("negative seed", profile(swap(("seeds: [0]", "seeds: [-1]"))), "smoke.yaml", ("seeds: expected 0 or more",)),
    ("seconds of no stage", profile(swap(('"05": 8}', '"06": 8}'))), "smoke.yaml", ("expected_seconds", "add it")),
    ("exponent without a point", profile(swap(("1.5e-3", "15e-4"))), "smoke.yaml", ("in YAML write 1.0e-6",)),
    ("a model that is not there", profile(swap(("policy_model: micro/llama-base", "policy_model: micro/lama-base"))),
     "01.policy_model", ("did you mean 'micro/llama-base'",)),
]


def prices(content: str | bytes | None) -> Callable[[Place], Seen]:
    """Check a run with another price book; None for one that is not there."""

    def act(place: Place) -> Seen:
        path = place.folder / "mine.yaml"
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return check("--set", f"05.price_book={path}")

    return act


ENTRY = "{value: 1.0, unit: USD/search, date: 2026-01-01, source: x}"
PRICES: list[READ] = [
    ("absent", prices(None), "mine.yaml", ("--set 05.price_book=FILE",)),
    ("empty", prices(""), "mine.yaml", ("expected entries", "edit")),
    ("not yaml", prices("a: [1"), "mine.yaml", ("expected YAML", "edit")),
    ("latin-1", prices("# café\n".encode("latin-1")), "mine.yaml", ("UTF-8", "edit")),
    ("month 13", prices("a: {value: 1.0, unit: USD/search, date: 2026-13-01, source: x}"), "mine.yaml", ("edit",)),
    ("a list", prices("- 1\n"), "mine.yaml", ("expected entries", "edit")),
    ("a number for an entry", prices("a: 3\n"), "mine.yaml", ("expected the fields", "edit")),
    ("no date", prices("a: {value: 1.0, unit: USD/search, source: x}"), "mine.yaml", ("date is missing", "edit")),
    ("wrong unit", prices(f"a: {ENTRY.replace('USD/search', 'EUR')}"), "mine.yaml", ("unit must be one of", "edit")),
    ("price is a text", prices(f"a: {ENTRY.replace('1.0', 'free')}"), "mine.yaml", ("must be a number", "edit")),
    ("price not a number", prices(f"a: {ENTRY.replace('1.0', '.nan')}"), "mine.yaml", ("must be finite", "edit")),
    ("two bad entries", prices(f"a: 1\nb: {ENTRY.replace('1.0', '-1')}"), "mine.yaml", ("a: expected", "b: value")),
    ("the prices that are needed are missing", prices(f"mine: {ENTRY}"), "mine.yaml", ("serpapi_big_data", "add")),
]


# -- models ---------------------------------------------------------------------------------------


def model(change: Callable[[Path], object], load: bool = False, source: Path = MODEL) -> Callable[[Place], Seen]:
    """Damage a copy of a shipped model, then check a run that names it; load: load it as a notebook does."""

    def act(place: Place) -> Seen:
        folder = Path(shutil.copytree(source, place.folder / "model"))
        change(folder)
        if load:
            from zerosearch.microworld import models

            return seen(lambda: models.load(str(folder)))
        return check("--set", f"01.policy_model={folder}")

    return act


def cut(name: str, size: int) -> Callable[[Path], object]:
    """Return a change that leaves the first bytes of a file of the model."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def write(name: str, content: str) -> Callable[[Path], object]:
    """Return a change that writes a file of the model."""
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def gone(name: str) -> Callable[[Path], object]:
    """Return a change that removes a file of the model."""
    return lambda folder: (folder / name).unlink()


def _sharded(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _other_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 2 * config["hidden_size"]}))


def _one_layer_more(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] + 1}))


W = "model.safetensors"
AGAIN = ("copy",)
MODELS: list[READ] = [
    ("weights cut", model(cut(W, 5_000)), W, AGAIN),
    ("weights cut by one byte", model(lambda f: cut(W, (f / W).stat().st_size - 1)(f)), W, AGAIN),
    ("weights empty", model(cut(W, 0)), W, AGAIN),
    ("weights are text", model(write(W, "version https://git-lfs.github.com/spec/v1\n")), W, AGAIN),
    ("weights absent", model(gone(W)), W, AGAIN),
    ("weights are a folder", model(lambda f: ((f / W).unlink(), (f / W).mkdir())), W, AGAIN),
    ("a shard is absent", model(_sharded), "model-00002-of-00002.safetensors", AGAIN),
    ("the index is damaged", model(write("model.safetensors.index.json", "{")), "model.safetensors.index.json", AGAIN),
    ("the index is empty", model(write("model.safetensors.index.json", '{"weight_map": {}}')), "index.json", AGAIN),
    ("config absent", model(gone("config.json")), "config.json", AGAIN),
    ("config not json", model(write("config.json", "{model_type: llama}")), "config.json", AGAIN),
    ("config is a list", model(write("config.json", "[]")), "config.json", AGAIN),
    ("config without a type", model(write("config.json", "{}")), "config.json", ("model_type", "copy")),
    ("tokenizer absent", model(gone("tokenizer/tokenizer.json")), "tokenizer.json", AGAIN),
    ("tokenizer cut", model(cut("tokenizer/tokenizer.json", 2_000)), "tokenizer.json", AGAIN),
    ("tokenizer of another kind", model(write("tokenizer/tokenizer.json", "{}")), "tokenizer.json", AGAIN),
    ("tokenizer settings cut", model(cut("tokenizer/tokenizer_config.json", 9)), "tokenizer_config.json", AGAIN),
    ("an empty folder", lambda p: check("--set", f"01.policy_model={p.questions}"), "config.json", AGAIN),
    ("no such folder", lambda p: check("--set", "01.policy_model=./nowhere"), "nowhere", ("give the folder",)),
    ("a shipped name misspelt", lambda p: check("--set", "01.policy_model=micro/llama-bse"), "01.policy_model",
     ("did you mean 'micro/llama-base'",)),
    ("a hub model that is not cached", lambda p: call("--profile", "smoke", "--run", "new", "--set",
     "01.policy_model=Nobody/Nothing"), "Nobody/Nothing", ("`hf download Nobody/Nothing`",)),
    ("no name at all", lambda p: call("--profile", "smoke", "--run", "new", "--set", "01.policy_model=two words"),
     "two words", ("choose one of micro/llama-base",)),
    ("loaded: weights cut", model(cut(W, 5_000), load=True), W, AGAIN),
    ("loaded: config not json", model(write("config.json", "{"), load=True), "config.json", AGAIN),
    ("loaded: tokenizer absent", model(gone("tokenizer/tokenizer.json"), load=True), "tokenizer.json", AGAIN),
    ("loaded: unknown type", model(write("config.json", '{"model_type": "lama"}'), load=True), "model", AGAIN),
    ("loaded: other sizes", model(_other_size, load=True), "model", AGAIN),
    ("loaded: a layer without weights", model(_one_layer_more, load=True, source=artifacts.MICRO_LM / "llama-base"),
     "model.layers", AGAIN),
    ("loaded: tokenizer of other fields", model(write("tokenizer/tokenizer.json", '{"model": {}}'), load=True),
     "model", AGAIN),
]


# -- files of a run -------------------------------------------------------------------------------

STAGE = "04_evaluate"
MANIFEST = f"{STAGE}/manifest.json"
DAMAGES: dict[str, bytes] = {
    "empty": b"", "cut": b'{"stage": "04_eva', "not json": b"\xff\xfe\0", "a list": b"[]", "of an older version": b"{}",
}


def spoilt(name: str, content: bytes, entry: Callable[[], Seen]) -> Callable[[Place], Seen]:
    """Overwrite a file of the run ``broken``, then look at it with ``entry``."""

    def act(place: Place) -> Seen:
        (place.broken / name).parent.mkdir(parents=True, exist_ok=True)
        (place.broken / name).write_bytes(content)
        files._told.clear()
        return entry()

    return act


def _edited(edit: Callable[[dict[str, Any]], object], entry: Callable[[], Seen]) -> Callable[[Place], Seen]:
    def act(place: Place) -> Seen:
        path = place.broken / MANIFEST
        manifest = json.loads(path.read_text())
        edit(manifest)
        path.write_text(json.dumps(manifest))
        return entry()

    return act


def _open(state: str = "") -> Seen:
    """Open a stage of the run as a notebook does: it starts afresh and finishes."""
    return seen(lambda: artifacts.open_stage(BROKEN, "05", {"profile": "smoke"}).finish() and 0)


ENTRIES: dict[str, tuple[Callable[[], Seen], tuple[str, ...]]] = {
    "verify": (lambda: seen(lambda: verify.main([BROKEN])), ("--from 04",)),
    "compare": (lambda: seen(lambda: compare_runs.main([FINISHED, BROKEN])), ("--from 04",)),
    "read": (lambda: seen(lambda: artifacts.read_manifest(BROKEN, "04") and 0), ("--from 04",)),
}
RUN_FILES = [
    Case(f"manifest {damage}: {entry}", spoilt(MANIFEST, content, act), MANIFEST, words)
    for damage, content in DAMAGES.items() for entry, (act, words) in ENTRIES.items()
]
RUN_FILES += [
    Case(f"settings {damage}: list", spoilt("settings.json", content, lambda: call("--list")), "broken/settings.json",
         ("(damaged)", "treated as not there"), goes_on=True)
    for damage, content in DAMAGES.items()
]
RUN_FILES += [
    Case(f"attempt {damage}: open_stage", spoilt("05_cost/attempt.json", content, _open), "05_cost/attempt.json",
         ("treated as not there",), goes_on=True)
    for damage, content in DAMAGES.items()
]
RUN_FILES += [
    Case(f"owner {damage}: clean", spoilt("owner.json", content, lambda: call("--clean", BROKEN)), "deleted",
         goes_on=True)
    for damage, content in DAMAGES.items()
]
RUN_FILES += [
    Case(f"status {damage}: clean", spoilt("logs/04_evaluate.json", content, lambda: call("--clean", BROKEN)),
         "logs/04_evaluate.json", ("treated as not there", "deleted"), goes_on=True)
    for damage, content in DAMAGES.items()
]
RUN_FILES += [
    Case("settings damaged: the profile is known from the manifests",
         spoilt("settings.json", b"{", lambda: call("--run", BROKEN, "--dry-run")), "broken", ("add --profile smoke",)),
    Case("settings damaged: compare", spoilt("settings.json", b"{", ENTRIES["compare"][0]), "the runs are the same",
         ("treated as not there",), goes_on=True),
    Case("manifest without outputs: compare", _edited(lambda m: m.pop("outputs"), ENTRIES["compare"][0]), MANIFEST,
         ("no outputs", "--from 04")),
    Case("manifest without models: compare", _edited(lambda m: m.pop("models"), ENTRIES["compare"][0]),
         "the runs are the same", goes_on=True),
    Case("manifest with a list of versions: compare", _edited(lambda m: m.update(versions=[]), ENTRIES["compare"][0]),
         MANIFEST, ("versions is a list", "--from 04")),
    Case("manifest with numbers for hashes: compare",
         _edited(lambda m: m["outputs"].update({"x.csv": 3}), ENTRIES["compare"][0]), MANIFEST, ("--from 04",)),
    Case("manifest without parameters: verify", _edited(lambda m: m.pop("parameters"), ENTRIES["verify"][0]), MANIFEST,
         ("no parameters", "--from 04")),
    Case("a stage is missing: verify", lambda p: (shutil.rmtree(p.broken / STAGE), ENTRIES["verify"][0]())[1], STAGE,
         ("make it with", "--only 04")),
    Case("a run that is not there: verify", lambda p: seen(lambda: verify.main(["finishd"])), "finishd",
         ("did you mean 'finished'",)),
    Case("a run that is not there: compare", lambda p: seen(lambda: compare_runs.main([FINISHED, "other"])), "other",
         ("make it with",)),
    Case("metrics cut: compare",
         spoilt(f"{toy_run.TRAINING}/metrics.jsonl", b'{"step": 1', lambda: _rehashed("metrics.jsonl")),
         "metrics.jsonl", ("--from",)),
    Case("trajectories cut: compare", spoilt(f"{toy_run.TRAINING}/trajectories.parquet", b"PAR1", lambda:
         _rehashed("trajectories.parquet")), "trajectories.parquet", ("--from",)),
    Case("an input that is not there: require",
         lambda p: seen(lambda: artifacts.require(FINISHED, "01", "nothing.parquet")),
         "nothing.parquet", ("make it with", "--only 01")),
    Case("a stage that does not exist", lambda p: seen(lambda: artifacts.stage_dir(FINISHED, "9")), "'9'",
         ("expected one of 00",)),
    Case("manifest of an older version: report",
         _edited(lambda m: m.pop("versions"), lambda: seen(lambda: report.write(BROKEN) and 0)), MANIFEST,
         ("no versions", "--from 04")),
    Case("manifest cut: report", spoilt(MANIFEST, b"{", lambda: seen(lambda: report.write(BROKEN) and 0)), MANIFEST,
         ("--from 04",)),
    Case("predictions cut: report", spoilt(f"{STAGE}/predictions.parquet", b"PAR1", lambda: seen(lambda:
         report.write(BROKEN) and 0)), "predictions.parquet", ("--from",)),
    Case("table empty: report", spoilt(f"{STAGE}/averages.csv", b"", lambda: seen(lambda: report.write(BROKEN) and 0)),
         "averages.csv", ("--from",)),
    Case("table cut: verify", spoilt(f"{STAGE}/averages.csv", b'a,b\n"1,2\n', lambda: ENTRIES["verify"][0]()),
         "averages.csv", ("--from",)),
    Case("scores cut: verify", spoilt(f"{STAGE}/scores.parquet", b"PAR1xxPAR1", lambda: ENTRIES["verify"][0]()),
         "scores.parquet", ("--from",)),
    Case("json with a huge number", spoilt(MANIFEST, b'{"stage": ' + b"9" * 5000 + b"}", ENTRIES["read"][0]), MANIFEST,
         ("--from 04",)),
    Case("json nested without end", spoilt(MANIFEST, b"[" * 100_000, ENTRIES["read"][0]), MANIFEST, ("--from 04",)),
]


def _rehashed(name: str) -> Seen:
    """Compare the runs after the manifest of the training took the damaged file's hash."""
    toy_run.record_hash(BROKEN, toy_run.TRAINING, name)
    return ENTRIES["compare"][0]()


def notebook(content: str) -> Callable[[Place], Seen]:
    """Check a run whose fifth notebook holds something else."""

    def act(place: Place) -> Seen:
        folder = Path(shutil.copytree(artifacts.REPO / "notebooks", place.folder / "notebooks"))
        place.patch.setenv("ZEROSEARCH_NOTEBOOKS", str(folder))
        (folder / "04_evaluate.ipynb").write_text(content, encoding="utf-8")
        return check()

    return act


NOTEBOOKS = [
    Case(f"notebook {name}", notebook(content), "04_evaluate.ipynb", ("`git checkout notebooks`",))
    for name, content in {
        "empty": "", "cut": '{"cells": [', "a list": "[]", "of no cells": '{"cells": [1], "metadata": {}}',
        "of merge marks": "<<<<<<< HEAD\n{}",
    }.items()
]
SEPARATE = [
    Case("process: misspelt option", lambda p: separate("--sed", "1"), "--sed", ("did you mean",)),
    Case("process: damaged questions", lambda p: ((p.questions / Q).write_bytes(b"\xff\xfe{\0"), separate(
        "--profile", "smoke", "--run", "new", "--questions", str(p.questions), "--corpus", str(p.corpus)))[1], Q,
        ("iconv",)),
    Case("process: a file for the outputs", lambda p: (p.patch.setenv("ZEROSEARCH_OUTPUTS", str(p.corpus)), separate(
        "--profile", "smoke", "--run", "new"))[1], "passages.jsonl", ("remove or rename",)),
]
GROUPS: dict[str, list[READ]] = {"data": DATA, "profile": PROFILES, "prices": PRICES, "model": MODELS}
HAND_WRITTEN = [
    *(Case(f"{group}: {name}", act, names, words)
      for group, rows in GROUPS.items() for name, act, names, words in rows),
    *(Case(f"good data: {name}", act, names, words, goes_on=True) for name, act, names, words in GOOD_DATA),
    *OPTIONS, *RUN_FILES, *NOTEBOOKS, *SEPARATE,
]
