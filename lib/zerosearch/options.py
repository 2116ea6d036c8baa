"""The options of ``./run_all.sh``: named and typed, unknown ones refused with the nearest match."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Sequence

from zerosearch import artifacts
from zerosearch.errors import ConfigError, did_you_mean, unknown_name

EPILOG = """examples:
  ./run_all.sh                                        both arms on two CPU cores
  ./run_all.sh --profile smoke                        every notebook once, in minutes
  ./run_all.sh --profile smoke --run mine --set 03.steps=30
  ./run_all.sh --seeds 0,1,2 --arms zerosearch
  ./run_all.sh --profile smoke --run own --questions DIR --corpus FILE

A finished stage is not run again unless its parameters, its notebook's code or its inputs changed; a
stage that was cut off goes on from its last checkpoint.  --from and --only run their stages anew.
exit codes: 0 finished, 1 a stage failed, 2 wrong option, 3 something is missing here, 130 interrupted
"""


@dataclass(frozen=True)
class Options:
    """The options as typed, with their types."""

    profile: str | None
    run: str | None
    seeds: list[int] | None
    arms: list[str] | None
    from_stage: str | None
    only: str | None
    overrides: dict[str, str]
    questions: Path | None
    corpus: Path | None
    dry_run: bool
    list: bool
    clean: str | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Return the options; ConfigError with the nearest name for one that does not exist."""
    parser = _parser()
    values, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [name for name in parser._option_string_actions if name.startswith("--")]
        found = unknown[0].partition("=")[0]
        if not found.startswith("-"):
            raise ConfigError(
                f"options: expected named options only, found the word {found!r}; see ./run_all.sh --help"
            )
        raise ConfigError(f"options: unknown {found!r}{did_you_mean(found, known)}; see ./run_all.sh --help")
    return Options(**{**vars(values), "overrides": dict(values.overrides)})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"options: {message}; see ./run_all.sh --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run_all.sh",
        allow_abbrev=False,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run the six notebooks, from questions to a priced report.",
    )
    add = parser.add_argument
    add("--profile", metavar="NAME", help="smoke, laptop (default), single_gpu or a100_node")
    add("--run", metavar="NAME", help="folder below outputs/ (default: the profile's name)")
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
        help="change one parameter, e.g. 03.learning_rate=1.0e-3 (repeatable; names: --list)",
    )
    add(
        "--questions",
        type=_path,
        metavar="DIR",
        help="your questions: <set>.jsonl with id, question, golden_answers",
    )
    add("--corpus", type=_path, metavar="FILE", help="your passages: id, title, text per line")
    add("--dry-run", action="store_true", help="check everything and show what would run")
    add("--list", action="store_true", help="show profiles, arms, stages with their parameters, and runs")
    add("--clean", metavar="NAME", help="delete one run's folder")
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


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise argparse.ArgumentTypeError(
            f"expected STAGE.NAME=VALUE such as 03.learning_rate=1.0e-3, found {text!r}"
        )
    return key.strip(), value.strip()


def _path(text: str) -> Path:
    return Path(text).expanduser().resolve()
