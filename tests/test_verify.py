"""verify.py and what it stands on: a run beside the reference, row by row, claim by claim, hash by hash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from math import sqrt
from pathlib import Path
from typing import Callable

import pandas as pd
import pytest
import toy_run

from zerosearch import artifacts, cli, files, profiles, reference, verify
from zerosearch.comparing import facts, tables, tolerances
from zerosearch.comparing.tolerances import OTHER, SAME

AVERAGES = "averages.csv"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two toy runs that took different times, and the reference made from the first."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROSEARCH_OUTPUTS", str(folder / "outputs"))
        patch.setattr(reference, "REFERENCE", folder / "reference")
        toy_run.write("first", seconds=0.5)
        toy_run.write("mine", seconds=2.5)
        reference.publish("first")
    return folder


@pytest.fixture
def published(made: Path, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the reference, in copies of what ``made`` holds."""
    monkeypatch.setattr(reference, "REFERENCE", tmp_path / "reference")
    for name in ("outputs", "reference"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "reference" / "smoke"


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code and what was printed for the run ``mine``."""
    capsys.readouterr()
    code = verify.main(["mine", *arguments])
    return code, capsys.readouterr().out


def failed(shown: str) -> list[str]:
    """Return the lines that do not pass, without their status."""
    return [line.strip() for line in shown.splitlines() if line.startswith(("  differs", "  missing"))]


def set_cell(table: pd.DataFrame, method: str, dataset: str, value: float) -> None:
    table.loc[(table["method"] == method) & (table["dataset"] == dataset), "value"] = value


# --- the whole command -------------------------------------------------------------------------------


def test_the_same_numbers_pass_whatever_they_took(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = report(capsys)
    assert code == 0 and not failed(shown), shown
    assert "level: same machine" in shown and "the run agrees with the reference" in shown
    assert "pass     average EM of zerosearch: 0.7, reference 0.7\n" in shown
    assert "pass     zerosearch above forced, interval excludes 0" in shown
    assert "pass     sentinel gap, corrupt-0.5: 0.500, reference 0.500" in shown
    for name in ("00_micro_world/corpus.jsonl", f"{toy_run.TRAINING}/policy/model.safetensors", "micro/llama-base"):
        assert f"  pass     {name}\n" in shown
    written = pd.read_csv(artifacts.run_dir("mine") / "verify.csv")
    assert set(written["status"]) == {"pass"} and set(written["part"]) == {"input", "table", "claim"}
    assert (written["name"] == "04_evaluate-averages.csv").sum() == 4, "every row stands there"
    assert not list(artifacts.run_dir("mine").glob(".*part*"))


def test_times_memory_and_money_are_no_results(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run took five times as long and cost five times as much, and both tables are compared."""
    code, shown = report(capsys, "--strict")
    assert code == 0 and "pass     stages.csv: 7 rows" in shown and "pass     05_cost-options.csv: 1 rows" in shown
    ours = pd.read_csv(published / "05_cost-options.csv")["usd"]
    assert ours.iloc[0] != files.read_table(artifacts.run_dir("mine") / "05_cost" / "options.csv")["usd"].iloc[0]
    toy_run.change_table("mine", "05_cost", "options.csv", lambda t: t.__setitem__("basis", "y"))
    code, shown = report(capsys, "--strict")
    assert code == 1 and failed(shown) == ["differs  05_cost-options.csv: 1 of 1 rows, first: ZeroSearch training: "
                                           "basis y, reference x"]


def test_one_changed_score_differs_and_is_named(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_run.change_table("mine", "04_evaluate", AVERAGES, lambda t: set_cell(t, "zerosearch", "nq", 0.700001))
    code, shown = report(capsys)
    assert code == 1 and failed(shown) == [
        "differs  04_evaluate-averages.csv: 1 of 4 rows, first: zerosearch nq em: value 0.7000, reference 0.7"
    ]
    written = pd.read_csv(artifacts.run_dir("mine") / "verify.csv")
    row = written[written["status"] == "differs"].iloc[0]
    assert (row["row"], row["column"], row["found"]) == ("zerosearch nq em", "value", "0.700001")


@pytest.mark.parametrize(("value", "passes"), [(0.70 - sqrt(2) * 0.1, True), (0.70 - sqrt(2) * 0.1 - 1e-6, False)])
def test_a_claim_at_the_edge_of_its_tolerance(
    published: Path, capsys: pytest.CaptureFixture[str], value: float, passes: bool
) -> None:
    """Half-width 0.10: the claim may move by 0.1414, its row by 0.20."""
    toy_run.change_table("mine", "04_evaluate", AVERAGES, lambda t: set_cell(t, "zerosearch", "average", value))
    code, shown = report(capsys, "--tolerant")
    assert (code == 0) == passes
    assert ("  differs  average EM of zerosearch: 0.5586, reference 0.7 ± 0.141" in shown) != passes
    assert "pass     04_evaluate-averages.csv" in shown


def test_a_missing_table_and_a_missing_row(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (artifacts.run_dir("mine") / "00_micro_world" / "sentinels.csv").unlink()
    toy_run.change_table("mine", "04_evaluate", AVERAGES, lambda t: t.drop(index=[1], inplace=True))
    code, shown = report(capsys)
    assert code == 1 and failed(shown) == [
        "missing  00_micro_world-sentinels.csv: the run has no such table",
        "missing  04_evaluate-averages.csv: 1 of 4 rows, first: forced average em: the run has no such row",
        "missing  average EM of forced: (none), reference 0.04",
    ]
    assert "sentinel gap" not in shown, "a claim needs its table in both"
    assert "nothing differs, but not all is there" in shown


def test_a_row_that_only_the_run_has_is_counted(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def add(table: pd.DataFrame) -> None:
        table.loc[len(table)] = ["new", "nq", 1, "em", 0.5, 100, 0.4, 0.6]

    toy_run.change_table("mine", "04_evaluate", AVERAGES, add)
    code, shown = report(capsys)
    assert code == 0 and "1 more rows in the run, not judged" in shown


def test_a_missing_scores_table_does_not_stop_the_others(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (artifacts.run_dir("mine") / "04_evaluate" / "scores.parquet").unlink()
    code, shown = report(capsys)
    assert code == 1 and failed(shown) == ["missing  scores.csv: the run has no such table"]


# --- claims ------------------------------------------------------------------------------------------


def test_an_arm_that_is_no_longer_above_the_baseline(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def lower(table: pd.DataFrame) -> None:
        table[["difference", "low", "winner"]] = [0.66, -0.001, ""]

    toy_run.change_table("mine", "04_evaluate", "comparisons.csv", lower)
    code, shown = report(capsys, "--tolerant")
    wrong = [line for line in failed(shown) if "comparisons.csv" not in line]
    assert code == 1 and wrong == [
        "differs  zerosearch above forced, interval excludes 0: +0.660 [-0.001, +0.770], "
        "reference +0.660 [+0.550, +0.770]",
        "differs  winner of zerosearch against forced: none, reference zerosearch",
    ]


def test_the_room_and_the_simulator_are_claims(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The gap's half-width is sqrt(0.1² + 0.1²), so it may move by 0.2; a simulator's share by 0.1414."""
    def set_em(value: float) -> Callable[[pd.DataFrame], None]:
        return lambda table: table.__setitem__("em", [value, 0.3])

    toy_run.change_table("mine", "00_micro_world", "sentinels.csv", set_em(0.6))
    assert report(capsys, "--tolerant")[0] == 0
    toy_run.change_table("mine", "00_micro_world", "sentinels.csv", set_em(0.599))
    toy_run.change_table("mine", "02_simulator", "quality.csv", lambda t: t.__setitem__("value", 0.65))
    code, shown = report(capsys, "--tolerant")
    claims = [line.split(":")[0] for line in failed(shown) if ".csv" not in line]
    assert code == 1 and claims == ["differs  tuned simulator, useful", "differs  sentinel gap, corrupt-0.5"]


def test_the_ability_card_names_the_ability(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_run.change_table("mine", "00_micro_world", "ability_card.csv", lambda t: t.__setitem__("value", 0.7))
    code, shown = report(capsys, "--tolerant")  # sqrt(2) * 1.96 * 0.5 / 10 = 0.139
    assert code == 1 and "differs  ability card of llama-base (valid_query): 0.7, reference 0.9 ± 0.139" in shown


# --- inputs and levels -------------------------------------------------------------------------------


def test_another_corpus_and_another_parameter(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_run.edit_manifest("mine", "00_micro_world", lambda m: m["outputs"].update({"corpus.jsonl": "f" * 64}))
    toy_run.edit_manifest("mine", toy_run.TRAINING, lambda m: m["parameters"].update(steps=6))
    toy_run.edit_manifest("mine", "00_micro_world", lambda m: m["outputs"].pop("questions.jsonl"))
    code, shown = report(capsys, "--tolerant")
    assert code == 1 and [line.split(",")[0] for line in failed(shown)] == [
        "differs  parameters: reference / here: 03.steps 5 / 6",
        "differs  00_micro_world/corpus.jsonl ffffffffffff…",
        "missing  00_micro_world/questions.jsonl: the run has no such file",
    ]
    said = "not comparable: this run has other questions and another corpus than the reference, so its numbers are"
    assert said in shown and shown.index(said) < shown.index("differs")


def test_only_other_inputs_make_a_run_incomparable(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_run.edit_manifest("mine", toy_run.TRAINING, lambda m: m["parameters"].update(steps=6))
    assert "not comparable" not in report(capsys, "--tolerant")[1]
    toy_run.edit_manifest("mine", "00_micro_world", lambda m: m["outputs"].update({"corpus.jsonl": "f" * 64}))
    assert "this run has another corpus than the reference" in report(capsys, "--tolerant")[1]


def test_a_parameter_that_is_younger_than_the_reference_must_have_its_default(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new option at its default changes nothing; at another value the run is another one."""
    default = profiles.defaults("04")["samples_per_question"]
    toy_run.edit_manifest("mine", "04_evaluate", lambda m: m["parameters"].update(samples_per_question=default))
    assert report(capsys, "--tolerant")[0] == 0
    toy_run.edit_manifest("mine", "04_evaluate", lambda m: m["parameters"].update(samples_per_question=default + 3))
    code, shown = report(capsys, "--tolerant")
    assert code == 1 and failed(shown) == ["differs  parameters: reference / here: 04.samples_per_question 0 / 3"]


def test_trained_weights_count_on_the_same_machine_only(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "policy/model.safetensors"
    toy_run.edit_manifest("mine", toy_run.TRAINING, lambda m: m["outputs"].update({name: "0" * 64}))
    code, shown = report(capsys, "--tolerant")
    assert code == 0 and name not in shown
    code, shown = report(capsys, "--strict")
    assert code == 1 and name in failed(shown)[0]


def test_a_reference_without_hashes_says_missing(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_by = files.read_json(published / "made_by.json")
    older = {name: made_by[name] for name in ("versions", "python", "device")}
    files.write_json(published / "made_by.json", older)
    code, shown = report(capsys)
    assert code == 1 and [line.split(":")[0] for line in failed(shown)] == ["missing  parameters", "missing  hashes"]
    assert "level: other machine" in shown and "platform is not recorded there" in shown


def test_the_level_follows_from_the_two_machines() -> None:
    here = {"versions": {"torch": "2.13.0"}, "python": "3.11.7", "cpu": "X", "device": "cpu",
            "platform": "Linux-6.18.44-a-x86_64-with-glibc2.36"}
    made = {"05_cost": {**here, "platform": "Linux-5.10.1-x86_64-with-glibc2.36"}}
    assert tolerances.choose(here, made)[0] is SAME, "a kernel changes no number"
    for name, value in (("cpu", "Y"), ("python", "3.12.1"), ("versions", {"torch": "2.13.1"}), ("device", "H200")):
        level, reason = tolerances.choose({**here, name: value}, made)
        assert level is OTHER and (name if name != "versions" else "torch 2.13.1 / 2.13.0") in reason
    two = {"04_evaluate": {**here, "cpu": "Y"}, **made}
    assert tolerances.choose(here, two) == (OTHER, "the stages of this run were made on 2 machines or installations")
    gpu = {"03_rl/a/seed0": {**here, "device": "H200"}, **made}
    assert facts.machine(gpu)["device"] == "H200" and tolerances.choose(here, gpu)[0] is OTHER


# --- tolerances and rows, computed by hand -----------------------------------------------------------


def test_tolerances_by_hand() -> None:
    interval = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 100.0}
    assert tolerances.of_row(SAME, "scores.csv", "value", interval) == 0.0
    assert tolerances.of_row(OTHER, "scores.csv", "value", interval) == pytest.approx(0.2)  # 2 * 0.1
    assert tolerances.of_row(OTHER, "scores.csv", "value", {**interval, "low": 0.69, "high": 0.71}) == 0.05
    assert tolerances.of_row(OTHER, "x.csv", "recall", {"n": 49.0}) == pytest.approx(0.28)  # 2 * 1.96 * 0.5 / 7
    assert tolerances.of_row(OTHER, "x.csv", "searches", {"n": 49.0}) == pytest.approx(0.56)
    assert tolerances.of_row(OTHER, "x.csv", "value", {"value": 1.0}) == 0.05
    assert tolerances.of_row(OTHER, "01_collect-label_stats.csv", "n", {"n": 9.0}) == 12.0  # 4 * sqrt(9)
    assert tolerances.of_row(OTHER, "scores.csv", "n", {"n": 9.0}) == 0.0
    assert tolerances.of_claim(OTHER, 0.1) == pytest.approx(0.141421356) and tolerances.of_claim(SAME, 0.1) == 0.0
    assert tolerances.of_claim(OTHER, 0.01) == 0.05 and tolerances.of_claim(OTHER, 0.01, small=True) < 0.015


def test_within() -> None:
    nan = float("nan")
    assert tolerances.within(0.1, 0.15, 0.05) and not tolerances.within(0.1, 0.1500001, 0.05)
    assert tolerances.within(0.1, 0.1, 0.0) and not tolerances.within(0.1, 0.1 + 1e-12, 0.0)
    assert tolerances.within(nan, nan, 0.0) and not tolerances.within(nan, 0.0, 9.0)


def curve(rewards: list[float], noise: float = 0.1) -> pd.DataFrame:
    rows = [f"zerosearch,0,{step},{reward},{noise},{reward * 9}" for step, reward in enumerate(rewards, 1)]
    text = "\n".join(["arm,seed,step,reward_mean,noise_planned,kl", *rows])
    return tables.read(text.encode(), "x")


def test_elsewhere_a_training_is_judged_by_the_level_it_reached() -> None:
    wanted = curve([0.1] * 8 + [0.4, 0.6])  # the last fifth: 0.5
    level_kept, too_low = curve([0.9] * 8 + [0.3, 0.5]), curve([0.1] * 8 + [0.3, 0.4999])
    assert {check.status for check in tables.compare(tables.CURVES, wanted, level_kept, OTHER)} == {"pass"}
    wrong = [check for check in tables.compare(tables.CURVES, wanted, too_low, OTHER) if check.status != "pass"]
    assert [(check.row, check.column) for check in wrong] == [("zerosearch 0 last fifth", "reward_mean")]
    planned = tables.compare(tables.CURVES, wanted, curve([0.1] * 8 + [0.4, 0.6], noise=0.1001), OTHER)
    assert sum(check.status == "differs" for check in planned) == 10
    assert sum(check.status == "differs" for check in tables.compare(tables.CURVES, wanted, level_kept, SAME)) == 10


def test_winners_elsewhere_may_be_unnamed_but_not_swapped() -> None:
    def one(winner: str) -> pd.DataFrame:
        return tables.read(f"method_a,method_b,winner\na,b,{winner}\n".encode(), "x")

    for winner, status in (("a", "pass"), ("", "pass"), ("b", "differs")):
        assert tables.compare("x.csv", one("a"), one(winner), OTHER)[0].status == status
    assert tables.compare("x.csv", one("a"), one(""), SAME)[0].status == "differs"


def test_a_missing_column_and_an_empty_cell() -> None:
    wanted = tables.read(b"method,value\na,0.5\nb,\n", "x")
    found = tables.compare("x.csv", wanted, tables.read(b"method,other\na,1\nb,2\n", "x"), SAME)
    assert [check.status for check in found] == ["missing", "missing"] and found[0].column == "value"
    found = tables.compare("x.csv", wanted, tables.read(b"method,value\na,0.5\nb,0.1\n", "x"), OTHER)
    assert [check.status for check in found] == ["pass", "differs"]


@pytest.mark.parametrize("path", sorted(reference.REFERENCE.glob("*/*.csv")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_rows_of_the_committed_tables_have_names_of_their_own(path: Path) -> None:
    """A new table needs its identifying columns in IDENTIFYING, or rows would be matched by their position."""
    table = tables.read(path, path.name)
    columns = tables.key_columns(table)
    assert columns and not table.duplicated(columns).any(), f"{path.name}: rows repeat under {columns}"
    assert {check.status for check in tables.compare(path.name, table, table, SAME)} == {"pass"}


# --- what cannot be verified -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "run: expected one of first, mine, found 'nobody'"),
        (["mien"], "did you mean 'mine'"),
        (["../mine"], "expected a name of letters"),
        (["mine", "--reference", "smoek"], "reference: expected one of smoke below outputs/reference, found 'smoek'"),
        (["mine", "--strickt"], "did you mean '--strict'"),
        (["mine", "--strict", "--tolerant"], "not allowed with"),
        (["mine", "yours"], "expected only RUN and named options, found the word 'yours'"),
        ([], "required: RUN"),
    ],
)
def test_bad_input(published: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert verify.main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["05_cost", toy_run.TRAINING, "00_micro_world"])
def test_an_unfinished_run(published: Path, capsys: pytest.CaptureFixture[str], stage: str) -> None:
    (artifacts.run_dir("mine") / stage / artifacts.MANIFEST).unlink()
    assert verify.main(["mine"]) == 2
    error = capsys.readouterr().err
    assert "expected " in error and f"{stage}/manifest.json" in error and "found nothing there" in error
    assert "./run_all.sh --run mine" in error and not (artifacts.run_dir("mine") / "verify.csv").exists()


def test_a_damaged_table_is_named(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (artifacts.run_dir("mine") / "04_evaluate" / "scores.parquet").write_bytes(b"PAR1 no table")
    assert verify.main(["mine"]) == 2
    assert "scores.parquet: expected a table, found " in capsys.readouterr().err


def test_the_command_itself_shows_no_traceback(outputs: Path) -> None:
    command = [sys.executable, "-m", "zerosearch.verify", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=120, check=False)
    assert done.returncode == 2 and "expected one of (none yet), found 'nobody'" in done.stderr
    assert "Traceback" not in done.stderr


# --- beside it: the reference and the main command -----------------------------------------------------


def test_the_reference_records_what_verify_needs_and_no_report(published: Path) -> None:
    made_by = json.loads((published / "made_by.json").read_text())
    assert {"versions", "python", "platform", "cpu", "device", "started"} <= set(made_by)
    expected = {name: value for name, value in toy_run.PARAMETERS.items() if name != "seed"}
    assert made_by["parameters"]["03"] == expected, "the seed of a training names it; stage 04 lists them all"
    assert made_by["parameters"]["04"]["seeds"] == "0" and "run" not in made_by["parameters"]["00"]
    corpus = artifacts.run_dir("first") / "00_micro_world" / "corpus.jsonl"
    assert made_by["hashes"]["00_micro_world/corpus.jsonl"] == files.sha256(corpus)
    assert verify.main(["first"]) == 0
    assert "verify.csv" not in {path.name for path in reference.publish("first").iterdir()}


def test_the_main_command_refuses_early_without_a_reference(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.parse(["--verify"]).verify and not cli.parse([]).verify
    assert cli.main(["--profile", "a100_node", "--verify"]) == 2
    error = capsys.readouterr().err
    assert "smoke below outputs/reference, found 'a100_node'" in error and "laptop" in error
    assert not outputs.exists()


def test_the_name_of_a_run_is_enough_to_verify_it(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_json(outputs / "mine" / "settings.json", {"profile": "smoke"})
    assert cli.main(["--run", "mine", "--verify", "--dry-run"]) == 0
    assert "run mine · profile smoke" in capsys.readouterr().out
