"""``python -m zerosearch.compare_runs RUN_A RUN_B``: are two runs the same, and if not, where do they part, and why?

Two runs are the same when their parameters are and everything they wrote is, apart from times, money and
figures.  Otherwise the first difference is looked for in the order in which a run is made: parameters,
then the first stage whose outputs differ, then inside it the first trajectory, turn and token.  Versions, the
machine, the shipped models and the code are reasons, not results: they are named, but alone they make no
difference.

It reads both runs and writes nothing.  Exit codes: 0 same, 1 different, 2 wrong option or no such run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Mapping, Sequence

from tokenizers import Tokenizer

from zerosearch import artifacts, commands, files
from zerosearch.comparing import facts, outputs
from zerosearch.comparing.facts import Manifest
from zerosearch.comparing.trajectories import Decode, Difference
from zerosearch.errors import MissingInput
from zerosearch.options import Parser
from zerosearch.plain_text import clean

Found = list[tuple[str, Difference]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the two named runs and return the exit code; a user never sees a traceback."""

    def work() -> int:
        options = _parser().read(arguments)
        return compare(options.run_a, options.run_b)

    return commands.ended(work)


def compare(run_a: str, run_b: str) -> int:
    """Print whether two runs are the same, and the first difference; return 0 or 1.

    Raises a WorkbookError when one of them does not exist or has not finished a single stage.
    """
    made = _made(run_a), _made(run_b)
    print(f"A = outputs/{run_a}, B = outputs/{run_b}; values are shown as A / B")
    parameters = _parameters(*made)
    _print_reasons("parameters and seeds", parameters)
    _print_reasons("versions and machine", _machine(*made))
    _print_reasons("shipped models", _models(*made))
    _print_reasons("code", [*_commits(*made), *_notebooks(run_a, run_b)])
    print("results (times, money, figures and stage 05, which prices seconds, are not compared):")
    first: tuple[str, Found] | None = None
    for stage in sorted({*made[0], *made[1]}):
        found = _stage(stage, run_a, run_b, made)
        state = "differs" if found else "finished" if stage.startswith("05") else "same"
        print(clean(f"  {state:<8}  {stage}{_names(found)}"), flush=True)
        first = first or ((stage, found) if found else None)
    if first:
        _print_first(*first)
    if not first and parameters:
        print("the runs are different in their parameters, not in what they wrote")
    else:
        print("the runs are different" if first else "the runs are the same")
    return 1 if first or parameters else 0


def _made(run: str) -> dict[str, Manifest]:
    facts.run_folder(run)
    made = facts.manifests(run)
    if not made:
        raise MissingInput(
            f"run {run!r}: expected at least one finished stage, found none; finish it with `./run_all.sh --run {run} "
            f"--profile NAME`"
        )
    return made


def _parameters(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> list[str]:
    """Return the parameters that differ, of the stages that both have; seeds are among them."""
    ours, theirs = facts.parameters(a), facts.parameters(b)
    both = [stage for stage in ours if stage in theirs]
    return [difference for stage in both for difference in facts.differing(ours[stage], theirs[stage], f"{stage}.")]


def _machine(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> list[str]:
    return [text for text in facts.machine_differences(facts.machine(a), facts.machine(b)) if "at all" not in text]


def _models(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> list[str]:
    """Return the shipped models whose weights were not the same, as far as both runs recorded them."""
    ours, theirs = facts.shipped_models(a), facts.shipped_models(b)
    return [f"{name} {ours[name][:12]}… / {theirs[name][:12]}…" for name in ours if ours[name] != theirs.get(name, ours[name])]


def _commits(a: Mapping[str, Manifest], b: Mapping[str, Manifest]) -> list[str]:
    """Return the commits where they differ, and who ran with changes that no commit holds."""
    found = [sorted({str(m.get("commit")) for m in made.values()}) for made in (a, b)]
    told = [] if found[0] == found[1] else [f"commit {' and '.join(found[0])} / {' and '.join(found[1])}"]
    dirty = [name for name, made in (("A", a), ("B", b)) if any(m.get("dirty") for m in made.values())]
    return [*told, *(f"{name} ran with changes that no commit holds" for name in dirty)]


def _notebooks(run_a: str, run_b: str) -> list[str]:
    """Return the stages whose notebooks held other code, as far as both runs recorded it."""
    paths = [artifacts.run_dir(run) / "settings.json" for run in (run_a, run_b)]
    a, b = ((files.find_object(path, {"code": dict}) or {"code": {}})["code"] for path in paths)
    other = [stage for stage in a if stage in b and a[stage] != b[stage]]
    return [f"notebook {artifacts.NOTEBOOKS[stage]} was changed" for stage in other if stage in artifacts.NOTEBOOKS]


def _print_reasons(name: str, differences: Sequence[str]) -> None:
    print(clean(f"{name}: {'; '.join(differences) if differences else 'the same, as far as recorded'}"))


def _stage(stage: str, run_a: str, run_b: str, made: tuple[dict[str, Manifest], dict[str, Manifest]]) -> Found:
    """Return the files of one stage that differ, each with its first difference, the earliest at the front."""
    a, b = (one.get(stage) for one in made)
    if a is None or b is None:
        return [("", Difference(0, "", (f"only {'B' if a is None else 'A'} has finished this stage",)))]
    if stage[:2] == "05":
        return []
    folders = [artifacts.run_dir(run) / stage for run in (run_a, run_b)]
    return outputs.compare(*folders, (a, b), _decoder(run_a, a["parameters"].get("policy_model"), made[0]))


def _decoder(run: str, policy_model: str | None, made: Mapping[str, Manifest]) -> Decode | None:
    """Return the tokenizer of a stage's token ids, None where it is not on disk.

    Every training keeps that of its base model beside the policy; without one, the model's own folder has it.
    """
    if policy_model is None:
        return None
    trained = [stage for stage, m in made.items() if m["parameters"].get("policy_model") == policy_model]
    places = [artifacts.run_dir(run) / stage / "policy" for stage in trained]
    found = _tokenizer_file(places) or _tokenizer_file([_base_folder(policy_model)])
    if found is None:
        return None
    tokenizer = Tokenizer.from_file(str(found))
    return lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False)


def _base_folder(model: str) -> Path:
    from zerosearch.microworld.models import resolve  # brings torch: only where no training left a tokenizer

    return Path(resolve(model))


def _tokenizer_file(places: Sequence[Path]) -> Path | None:
    candidates = (place / name for place in places for name in ("tokenizer/tokenizer.json", "tokenizer.json"))
    return next((file for file in candidates if file.is_file()), None)


def _names(found: Found) -> str:
    names = [name for name, _ in found if name]
    return f": {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}" if names else ""


def _print_first(stage: str, found: Found) -> None:
    name, difference = found[0]
    print(clean(f"first difference: {', '.join(filter(None, (stage, name, difference.where)))}"))
    print(clean("".join(f"  {sentence}\n" for sentence in difference.what)), end="")
    names = [name for name, _ in found]
    if name == outputs.METRICS and stage.startswith(artifacts.STAGES["03"]) and outputs.TRAJECTORIES not in names:
        print("  the stored trajectories all agree: it arose in one that was not stored, or in the update")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m zerosearch.compare_runs", allow_abbrev=False,
        description="Say whether two runs are the same; if not, the first difference, down to the token, and why.",
        epilog="exit codes: 0 same, 1 different, 2 wrong option or no such run",
    )
    parser.add_argument("run_a", metavar="RUN_A", help="name of a run below outputs/")
    parser.add_argument("run_b", metavar="RUN_B", help="name of another")
    return parser


if __name__ == "__main__":
    sys.exit(main())
