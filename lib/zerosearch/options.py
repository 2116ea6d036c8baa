"""The options of ``./run_all.sh``: named and typed, unknown ones refused with the nearest match."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Sequence

from zerosearch import artifacts
from zerosearch.errors import ConfigError, did_you_mean, unknown_name
from zerosearch.question_sets.hub import SOURCES

EXECUTORS = ("local", "slurm")
EPILOG = """examples:
  ./run_all.sh                                        both arms on two CPU cores
  ./run_all.sh --profile smoke                        every notebook once, in minutes
  ./run_all.sh --profile smoke --run mine --set 03.steps=30
  ./run_all.sh --seeds 0,1,2 --arms zerosearch
  ./run_all.sh --profile smoke --run own --questions DIR --corpus FILE
  ./run_all.sh --run real --questions flashrag --corpus FILE --set 00.eval_per_set=500
  ./run_all.sh --profile a100_node --row llama-3.2-3b --dry-run
  ./run_all.sh --profile single_gpu --corpus FILE --executor slurm --slurm-partition gpu --dry-run
  ./run_all.sh --verify                               run, then compare with the committed numbers

A finished stage is not run again unless its parameters, its notebook's code or its inputs changed; a
stage that was cut off goes on from its last checkpoint.  --from and --only run their stages anew.
exit codes: 0 finished, 1 a stage failed, 2 wrong option, 3 something is missing here (disk space too), 130 interrupted;
with --verify also 1 when something differs from outputs/reference or is missing there
"""


@dataclass(frozen=True)
class Options:
    """The options as typed, with their types.  command: all of them as one line, for the run's log."""

    profile: str | None
    run: str | None
    seeds: list[int] | None
    arms: list[str] | None
    from_stage: str | None
    only: str | None
    overrides: dict[str, str]
    row: str | None
    questions: Path | str | None  # a folder, or the name of a collection on the hub
    corpus: Path | None
    dry_run: bool
    verify: bool
    list: bool
    clean: str | None
    executor: str
    slurm_partition: str | None
    slurm_account: str | None
    command: str


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Return the options; ConfigError with the nearest name for one that does not exist."""
    values = _parser().read(arguments)
    command = shlex.join(["./run_all.sh", *(sys.argv[1:] if arguments is None else arguments)])
    return Options(**{**vars(values), "overrides": dict(values.overrides), "command": command})


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are ConfigErrors that name the nearest option."""

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Return the values; ConfigError for an option that does not exist, or a word too many."""
        values, unknown = self.parse_known_args(arguments)
        if unknown:
            known = [name for name in self._option_string_actions if name.startswith("--")]
            found = unknown[0].partition("=")[0]
            if not found.startswith("-"):
                self.error(f"expected {self._wanted()}, found the word {found!r}")
            self.error(f"unknown {found!r}{did_you_mean(found, known)}")
        return values

    def error(self, message: str) -> NoReturn:
        """Raise what ``argparse`` would print before it ends the process."""
        command = f"./{self.prog}" if self.prog.endswith(".sh") else self.prog
        raise ConfigError(f"options: {message}; see {command} --help")

    def _wanted(self) -> str:
        words = [action.metavar for action in self._actions if not action.option_strings]
        return f"only {' and '.join(map(str, words))} and named options" if words else "named options only"


def _parser() -> Parser:
    parser = Parser(
        prog="run_all.sh",
        allow_abbrev=False,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run the six notebooks, from questions to a priced report.",
    )
    add = parser.add_argument
    add("--profile", type=_name, metavar="NAME", help="smoke, laptop (default), full_table, single_gpu or a100_node")
    add("--run", type=_name, metavar="NAME", help="folder below outputs/ (default: the profile's name)")
    add(
        "--seeds", type=_seeds, metavar="0,1,2", help="seeds of the trained policies (default: the profile's)"
    )
    add("--arms", type=_words, metavar="A,B", help="arms to train and compare (default: the profile's)")
    stages = parser.add_mutually_exclusive_group()
    stages.add_argument(
        "--from", dest="from_stage", type=_stage, metavar="03", help="run this stage and later ones anew"
    )
    stages.add_argument("--only", type=_stage, metavar="04", help="run this stage alone anew")
    add(
        "--set",
        dest="overrides",
        type=_override,
        action="append",
        default=[],
        metavar="STAGE.NAME=VALUE",
        help="change one parameter, e.g. 03.learning_rate=1.0e-3 or layout.lora_rank=16 (repeatable; names: --list)",
    )
    add("--row", type=_name, metavar="NAME", help="a published row's settings, e.g. qwen2.5-7b-instruct (names: --list)")
    add(
        "--questions",
        type=_questions,
        metavar="DIR",
        help=f"your questions: a folder with <set>.jsonl or the like, or a collection of the hub: {', '.join(SOURCES)}",
    )
    add("--corpus", type=_path, metavar="FILE", help="your passages: id, title, text per line, or another known form")
    add("--dry-run", action="store_true", help="check everything; show what would run and what it needs")
    add(
        "--verify",
        action="store_true",
        help="after the run, compare it with outputs/reference/<profile>: pass, differs or missing, line by line",
    )
    add(
        "--executor", type=_executor, default="local", metavar="NAME",
        help="where notebooks run: local (default), or slurm, as jobs of a cluster",
    )
    add("--slurm-partition", type=_name, metavar="P", help="with --executor slurm (default: the cluster's)")
    add("--slurm-account", type=_name, metavar="A", help="with --executor slurm (default: yours)")
    add("--list", action="store_true", help="show profiles, arms, stages with their parameters, and runs")
    add("--clean", type=_name, metavar="NAME", help="delete one run's folder")
    return parser


def _seeds(text: str) -> list[int]:
    words = _words(text)
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(
            f"expected whole numbers separated by commas such as 0,1,2, found {text!r}"
        )
    return [int(word) for word in words]


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if "" in words or len(set(words)) != len(words):
        raise argparse.ArgumentTypeError(f"expected values separated by commas, each once, found {text!r}")
    return words


def _stage(text: str) -> str:
    if text not in artifacts.STAGES:
        raise argparse.ArgumentTypeError(str(unknown_name("stage", text, tuple(artifacts.STAGES))))
    return text


def _executor(text: str) -> str:
    if text not in EXECUTORS:
        raise argparse.ArgumentTypeError(str(unknown_name("executor", text, EXECUTORS)))
    return text


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise argparse.ArgumentTypeError(
            f"expected STAGE.NAME=VALUE such as 03.learning_rate=1.0e-3, found {text!r}"
        )
    return key.strip(), value.strip()


def _name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a name, found {text!r}")
    return text


def _questions(text: str) -> Path | str:
    """Return the name of a collection as it is; ``./flashrag`` means a folder of that name."""
    return text if text in SOURCES else _path(text)


def _path(text: str) -> Path:
    try:
        return Path(_name(text)).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link that leads back to itself, ~nobody, a zero byte
        raise argparse.ArgumentTypeError(f"expected a path, found {text!r} ({error})") from error
