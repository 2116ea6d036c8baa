"""``python -m zerosearch.verify RUN``: does a finished run say what the committed reference says?

Compares outputs/RUN with outputs/reference/<profile>: what the seed alone decides (hashes of corpus,
questions and base models, the parameters), every table row by row, and the claims a reader would check by
hand.  One line each, ``pass``, ``differs`` or ``missing``; every row stands in outputs/RUN/verify.csv.
Two levels of tolerance, chosen from what the reference recorded about its machine (``comparing.tolerances``).

It runs nothing and changes nothing but verify.csv.  Exit codes: 0 all pass, 1 something differs or is
missing, 2 wrong option or no finished run.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import pandas as pd

from zerosearch import artifacts, commands, files, profiles, reference
from zerosearch.comparing import claims, facts, tables, tolerances
from zerosearch.comparing.tables import DIFFERS, MISSING, PASS, Check
from zerosearch.comparing.tolerances import Level
from zerosearch.errors import BadInput, ConfigError, MissingInput, did_you_mean
from zerosearch.options import Parser
from zerosearch.plain_text import clean

VERIFY = "verify.csv"
_OF_THE_READER = {"questions.jsonl": "other questions", "corpus.jsonl": "another corpus"}  # files of stage 00
NOT_RECORDED = "the reference does not record it (older than this check); publish a new one"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report: a file, a table as a whole, or a claim."""

    status: str
    text: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify the named run and return the exit code; a user never sees a traceback."""

    def work() -> int:
        options = _parser().read(arguments)
        level = tolerances.SAME if options.strict else tolerances.OTHER if options.tolerant else None
        return verify(options.run, options.reference, level)

    return commands.ended(work)


def verify(run: str, profile: str | None = None, level: Level | None = None) -> int:
    """Compare a finished run with a reference, print the report, write verify.csv; return 0 or 1.

    profile: None for that of the run's manifest.  level: None for the one that the two machines call for.
    Raises a WorkbookError when there is no such run or reference, or the run has not finished.
    """
    made = facts.require_finished(run)
    folder = reference_folder(profile or str(next(reversed(made.values()))["parameters"].get("profile")))
    made_by = files.read_object(folder / reference.MADE_BY, {}, "restore it with `git checkout outputs/reference`")
    chosen, reason = tolerances.choose(made_by, made)
    if level is not None:
        chosen, reason = level, f"asked for; by itself: {chosen.name}, since {reason}"
    inputs = input_checks(made_by, made, chosen)
    wanted, found = _reference_tables(folder), _run_tables(run, folder)
    rows = [check for name in wanted for check in tables.compare(name, wanted[name], found.get(name), chosen)]
    spoken = claims.compare(wanted, found, chosen)
    if other := other_inputs(inputs):
        print(f"not comparable: this run has {other} than the reference, so its numbers are those of another experiment")
    _print_head(run, folder, chosen, reason)
    parts = {
        "inputs": [_line(check) for check in inputs],
        "tables": [_table_line(name, wanted[name], found.get(name), rows) for name in wanted],
        "claims": [_line(check) for check in spoken],
    }
    path = files.write_table(artifacts.run_dir(run) / VERIFY, pd.DataFrame(map(asdict, [*inputs, *rows, *spoken])))
    return _print_parts(parts, path)


def reference_folder(profile: str) -> Path:
    """Return outputs/reference/<profile>; ConfigError with the nearest name when there is none."""
    known = sorted(path.parent.name for path in reference.REFERENCE.glob(f"*/{reference.MADE_BY}"))
    if profile not in known:
        raise ConfigError(
            f"reference: expected one of {', '.join(known) or '(none)'} below outputs/reference, found {profile!r}"
            f"{did_you_mean(profile, known)}; compare with another one by `--reference NAME`, or publish a run of "
            f"this profile with `python -m zerosearch.reference RUN`"
        )
    return reference.REFERENCE / profile


def input_checks(made_by: Mapping[str, Any], made: Mapping[str, facts.Manifest], level: Level) -> list[Check]:
    """Return a check for the parameters and one for each hash that the reference recorded.

    Weights trained in the run are compared on the same machine only.
    """
    checks = [_parameters(made_by.get("parameters"), facts.parameters(made))]
    if "hashes" not in made_by:
        return [*checks, Check("input", "hashes", MISSING, note=NOT_RECORDED)]
    here = facts.hashes(made)
    wanted = {n: digest for n, digest in made_by["hashes"].items() if level.exact or not facts.is_trained(n)}
    return [*checks, *(_hash(name, digest, here.get(name)) for name, digest in wanted.items())]


def other_inputs(inputs: Sequence[Check]) -> str:
    """Return which of questions and passages are not the reference's, as part of a sentence; "" where all are."""
    differ = {check.name for check in inputs if check.status != PASS and check.reference}
    return " and ".join(words for name, words in _OF_THE_READER.items() if f"{artifacts.STAGES['00']}/{name}" in differ)


def _parameters(wanted: Mapping[str, Any] | None, here: Mapping[str, Any]) -> Check:
    """Compare the parameters.  One that is younger than the reference must have its default, which changes nothing."""
    if wanted is None:
        return Check("input", "parameters", MISSING, note=NOT_RECORDED)
    found = []
    for stage in dict.fromkeys([*wanted, *here]):
        own, young = here.get(stage, {}), profiles.defaults(stage)
        known = wanted.get(stage, {})
        then = {name: young[name] for name in own if name in young and name not in known} if known else {}
        found += facts.differing(then | known, own, f"{stage}.")
    if not found:
        return Check("input", "parameters", PASS, note="of all stages")
    return Check("input", "parameters", DIFFERS, note="reference / here: " + "; ".join(found))


def _hash(name: str, wanted: str, here: str | None) -> Check:
    if here is None:
        return Check("input", name, MISSING, reference=wanted, note="the run has no such file")
    return Check("input", name, PASS if wanted == here else DIFFERS, reference=wanted, found=here)


def _reference_tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.name: tables.read(path, path.name) for path in sorted(folder.glob("*.csv"))}


def _run_tables(run: str, folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a run that the reference has too, made and named as publishing would."""
    found = {}
    for name, make in reference.tables(run).items():
        if not (folder / name).is_file():
            continue
        try:
            found[name] = tables.read(make(), name)
        except MissingInput:
            continue  # a table that is not there is `missing`, the others are still compared
        except (KeyError, ValueError, TypeError, OSError) as error:
            problem = f"{name}: expected the table of a finished run, found {error!r}; run its stage again with --from"
            raise BadInput(problem) from error
    return found


def _print_head(run: str, folder: Path, level: Level, reason: str) -> None:
    print(f"outputs/{run} against outputs/reference/{folder.name}")
    print(f"level: {level.name} ({reason})")
    print(f"tolerances: {level.describe()}")
    print("not compared: time, memory and money, which belong to the machine (columns "
          f"{', '.join(facts.MACHINE_COLUMNS)}, seconds_...)")
    if not level.exact:
        print("              single steps of a training, of which only what was planned must agree")


def _line(check: Check) -> Line:
    """Return the line of an input or a claim."""
    if check.part == "input":
        differs = check.status == DIFFERS and check.found
        digests = f" {check.found[:12]}…, reference {check.reference[:12]}…" if differs else ""
        return Line(check.status, f"{check.name}{digests}{f': {check.note}' if check.note else ''}")
    name = f"{check.name} ({check.note})" if check.note else check.name
    if not check.found and not check.reference:
        return Line(check.status, name)
    limit = f" ± {check.tolerance:.3f}" if check.tolerance else ""
    return Line(check.status, f"{name}: {_short(check.found)}, reference {_short(check.reference)}{limit}")


def _table_line(name: str, wanted: pd.DataFrame, found: pd.DataFrame | None, rows: Sequence[Check]) -> Line:
    """Return one line about a table: how many rows agree, the first that does not, the largest deviation."""
    own = [check for check in rows if check.name == name]
    failed = [check for check in own if check.status != PASS]
    n_more = tables.more_rows(wanted, found) if found is not None else 0
    more = f"; {n_more} more rows in the run, not judged" if n_more else ""
    if not failed:
        largest = max(map(tables.deviation, own), default=0.0)
        return Line(PASS, f"{name}: {len(own)} rows, largest deviation {largest:.3g}{more}")
    status = DIFFERS if any(check.status == DIFFERS for check in failed) else MISSING
    first = next(check for check in failed if check.status == status)
    count = f"{len(failed)} of {len(own)} rows, first: " if first.row else ""
    return Line(status, f"{name}: {count}{_row_text(first)}{more}")


def _row_text(check: Check) -> str:
    where = f"{check.row}: " if check.row else ""
    if check.status == MISSING:
        return f"{where}{check.column + ', ' if check.column else ''}{check.note}"
    limit = f" ± {check.tolerance:.3g}" if check.tolerance else ""
    return f"{where}{check.column} {_short(check.found)}, reference {_short(check.reference)}{limit}"


def _short(text: str) -> str:
    """Return a number with four digits after the point at most, an empty cell by name, other texts as they are."""
    value = tables.number(text)
    if not text or value is None:
        return text or "(none)"
    return text if len(text) <= 6 else f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"


def _print_parts(parts: Mapping[str, Sequence[Line]], path: Path) -> int:
    """Print the lines and the summary; return the exit code."""
    for part, lines in parts.items():
        print(f"{part}:" if lines else f"{part}: none in both")
        print(clean("".join(f"  {line.status:<7}  {line.text}\n" for line in lines)), end="")
    counts = Counter(line.status for lines in parts.values() for line in lines)
    if counts[DIFFERS]:
        verdict = "the run does not agree with the reference"
    else:
        verdict = "nothing differs, but not all is there" if counts[MISSING] else "the run agrees with the reference"
    print(", ".join(f"{counts[status]} {status}" for status in (PASS, DIFFERS, MISSING)), end="; ")
    print(verdict)
    run = path.parent.name
    print(f"look closer: every row with its tolerance in {artifacts.shown(path)}; the first difference between two "
          f"runs, down to the token: `python -m zerosearch.compare_runs {run} OTHER`", flush=True)
    return 0 if counts[PASS] == counts.total() else 1


def _parser() -> Parser:
    parser = Parser(
        prog="python -m zerosearch.verify", allow_abbrev=False,
        description="Compare a finished run with the committed reference: pass, differs or missing, line by line.",
        epilog="exit codes: 0 all pass, 1 something differs or is missing, 2 wrong option or no finished run",
    )
    parser.add_argument("run", metavar="RUN", help="name of a finished run below outputs/")
    parser.add_argument(
        "--reference", metavar="PROFILE", help="folder below outputs/reference (default: the run's own profile)"
    )
    levels = parser.add_mutually_exclusive_group()
    levels.add_argument("--strict", action="store_true", help="every number must be equal, whatever the machine")
    levels.add_argument("--tolerant", action="store_true", help="the tolerances of another machine, wherever it was")
    return parser


if __name__ == "__main__":
    sys.exit(main())
