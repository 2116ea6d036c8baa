"""compare_runs.py and what it stands on: the first difference between two runs, down to the token."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import toy_run
from tokenizers import Tokenizer

from zerosearch import artifacts, compare_runs, files
from zerosearch.comparing import trajectories
from zerosearch.schema import Passage

DECODE = Tokenizer.from_file(str(toy_run.TOKENIZER))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of the same numbers, of which the second took other times."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZEROSEARCH_OUTPUTS", str(folder))
        toy_run.write("one", seconds=0.5)
        toy_run.write("two", seconds=2.5)
    return folder


@pytest.fixture
def runs(made: Path, outputs: Path) -> Path:
    """Copies of them, to be changed."""
    return Path(shutil.copytree(made, outputs))


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = compare_runs.main(["one", "two"])
    return code, capsys.readouterr().out


def shown_token(token: int) -> str:
    return f"{token} {DECODE.decode([token])!r}"


# --- runs as a whole ---------------------------------------------------------------------------------


def test_runs_that_differ_in_times_only_are_the_same(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hashes = [files.sha256(runs / run / toy_run.TRAINING / "trajectories.parquet") for run in ("one", "two")]
    assert hashes[0] != hashes[1], "the times of searches stand in the trajectories"
    code, shown = report(capsys)
    assert code == 0 and shown.endswith("the runs are the same\n") and "differs" not in shown


def test_other_parameters_come_first(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_run.edit_manifest("two", toy_run.TRAINING, lambda m: m["parameters"].update(steps=9))
    toy_run.edit_manifest("two", "04_evaluate", lambda m: m["parameters"].update(seeds="0,1"))
    code, shown = report(capsys)
    assert code == 1 and "parameters and seeds: 03.steps 5 / 9; 04.seeds 0 / 0,1\n" in shown
    assert shown.endswith("the runs are different in their parameters, not in what they wrote\n")


def test_another_layout_is_another_parameter(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_run.edit_manifest("two", "01_collect", lambda m: m.update(layout={"precision": "bf16"}))
    code, shown = report(capsys)
    assert code == 1 and "01.layout.precision (none) / bf16" in shown


def test_versions_and_code_are_reasons_not_differences(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in ("00_micro_world", "05_cost"):
        toy_run.edit_manifest("two", stage, lambda m: m.update(commit="abc", dirty=True, cpu="another"))
        toy_run.edit_manifest("two", stage, lambda m: m["versions"].update(torch="9.9"))
    for run, digest in (("one", "x"), ("two", "y")):
        files.write_json(runs / run / "settings.json", {"profile": "smoke", "code": {"03": digest, "04": "same"}})
    code, shown = report(capsys)
    assert code == 0 and "/ 9.9" in shown and "/ another" in shown and "abc" in shown
    assert "B ran with changes that no commit holds" in shown
    assert "notebook 03_curriculum_rl was changed" in shown and "04_evaluate was" not in shown


def test_other_shipped_models_are_a_reason(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, digest in (("one", "aaaa"), ("two", "bbbb")):
        toy_run.edit_manifest(run, "01_collect", lambda m, d=digest: m.update(models={"micro/x": d * 16, "micro/y": "c"}))
    code, shown = report(capsys)
    assert code == 0 and "shipped models: micro/x aaaaaaaaaaaa… / bbbbbbbbbbbb…\n" in shown and "micro/y" not in shown


def test_the_first_stage_is_the_one_that_is_shown(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_jsonl(runs / "two" / "00_micro_world" / "corpus.jsonl", [{"id": "1", "text": "Another fact."}])
    toy_run.record_hash("two", "00_micro_world", "corpus.jsonl")
    toy_run.put_trajectories("two", toy_run.trajectories()[:-1])
    code, shown = report(capsys)
    assert code == 1 and "first difference: 00_micro_world, corpus.jsonl, row 1 (id 1)\n" in shown
    assert 'text: "A fact." / "Another fact."' in shown
    assert f"differs   {toy_run.TRAINING}: trajectories.parquet" in shown and "same      01_collect" in shown


def test_weights_that_differ_are_named_by_their_hash(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "two" / toy_run.TRAINING / "policy" / "model.safetensors").write_bytes(b"other")
    toy_run.record_hash("two", toy_run.TRAINING, "policy/model.safetensors")
    code, shown = report(capsys)
    assert code == 1 and f"first difference: {toy_run.TRAINING}, policy/model.safetensors\n" in shown


def test_a_stage_that_only_one_has_finished(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "two" / "04_evaluate" / artifacts.MANIFEST).unlink()
    code, shown = report(capsys)
    assert code == 1 and "first difference: 04_evaluate\n  only A has finished this stage" in shown


# --- inside a training -------------------------------------------------------------------------------


def test_the_first_differing_token_of_the_policy(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps 2 and 4 differ: step 2 is named; its token 5 is the first of the answer, in turn 1."""
    records = toy_run.trajectories()
    records[3] = toy_run.trajectory(2, 1, own=(426, 868), logprob=-0.75)
    records[7] = toy_run.trajectory(4, 1, own=(427, 868))
    toy_run.put_trajectories("two", records)
    code, shown = report(capsys)
    place = "step 2, question nq/1, sample 1, turn 1"
    assert code == 1 and f"first difference: {toy_run.TRAINING}, trajectories.parquet, {place}\n" in shown
    assert "the policy's own token; the prompt and every observation before it agree" in shown
    assert "log-probability -0.25 / -0.75; those of its 2 tokens before differ by 5.0e-01 at most" in shown
    assert f"token 5: {shown_token(425)} / {shown_token(426)}\n" in shown
    assert f"after {DECODE.decode([861, 481, 267, 268, 269], skip_special_tokens=False)!r}" in shown


def test_an_observation_that_differs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Token 4 is the third of the observation; the policy wrote the same query before it."""
    records = toy_run.trajectories()
    records[0] = toy_run.trajectory(1, 0, observed=(267, 268, 270), passage="Wrong.", noisy=True)
    toy_run.put_trajectories("two", records)
    code, shown = report(capsys)
    assert code == 1 and "step 1, question nq/1, sample 0, turn 0\n" in shown
    assert "the observation differs: all tokens of the policy before it agree, so the retrieval differed" in shown
    assert "misleading False / True" in shown and "passage 1: 'A fact.' / 'Wrong.'" in shown
    assert f"token 4: {shown_token(269)} / {shown_token(270)}\n" in shown


def test_metrics_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = toy_run.metrics()
    rows[2]["kl"] += 1e-12
    toy_run.put_metrics("two", rows)
    code, shown = report(capsys)
    assert code == 1 and f"first difference: {toy_run.TRAINING}, metrics.jsonl, row 3 (step 3)\n" in shown
    assert "1 of 5 columns differ: kl" in shown and "the stored trajectories all agree" in shown


@pytest.mark.parametrize(("step", "first"), [(2, "metrics.jsonl, row 2 (step 2)"), (3, "trajectories.parquet, step 3")])
def test_the_earlier_step_wins(runs: Path, capsys: pytest.CaptureFixture[str], step: int, first: str) -> None:
    """Trajectories differ from step 3 on; metrics from step 2 or 3: of one step the trajectory is the cause."""
    rows, records = toy_run.metrics(), toy_run.trajectories()
    rows[step - 1]["em"] = 0.99
    records[4] = toy_run.trajectory(3, 0, own=(426, 868))
    toy_run.put_metrics("two", rows)
    toy_run.put_trajectories("two", records)
    code, shown = report(capsys)
    assert code == 1 and f"first difference: {toy_run.TRAINING}, {first}" in shown


def test_a_stored_column_beside_the_trajectories(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, reward in (("one", 0.0), ("two", 1.0)):
        insert = partial(pd.DataFrame.insert, loc=0, column="reward", value=reward)
        toy_run.change_table(run, toy_run.TRAINING, "trajectories.parquet", insert)
    code, shown = report(capsys)
    assert code == 1 and "1 of 18 columns differ: reward" in shown


def test_a_difference_in_collecting(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "two" / "01_collect" / "trajectories.parquet"
    files.write_table(path, toy_run.trajectories_to_table([toy_run.trajectory(0, 0, own=(425, 869))]))
    toy_run.record_hash("two", "01_collect", "trajectories.parquet")
    code, shown = report(capsys)
    assert code == 1 and "first difference: 01_collect, trajectories.parquet, step 0, question nq/1" in shown
    assert f"token 6: {shown_token(868)} / {shown_token(869)}\n" in shown, "the tokenizer of its base is found"


# --- two trajectories, by hand -----------------------------------------------------------------------


def difference(a: trajectories.Trajectory, b: trajectories.Trajectory) -> trajectories.Difference:
    found = trajectories.first_difference([a], [b], None)
    assert found is not None
    return found


def test_turns_are_counted_by_what_the_policy_wrote() -> None:
    t = toy_run.trajectory(1, 0)  # mask: own own | seen seen seen | own own
    assert [trajectories.turn_of(t, i) for i in range(7)] == [0, 0, 0, 0, 0, 1, 1]
    forced = replace(t, loss_mask=(False, True, False, False, False, True, True))
    assert [trajectories.turn_of(forced, i) for i in range(7)] == [0, 0, 0, 0, 0, 1, 1]


def test_nothing_differs_when_only_times_and_the_cache_do() -> None:
    a = toy_run.trajectory(1, 0)
    cached = replace(a.turns[0].retrieval, wall_seconds=9.0, cached=True)
    b = replace(a, turns=(replace(a.turns[0], retrieval=cached), a.turns[1]))
    assert trajectories.first_difference([a], [b], None) is None


def test_the_prompt_was_already_different() -> None:
    found = difference(toy_run.trajectory(1, 0), replace(toy_run.trajectory(1, 0, own=(1, 2)), prompt_ids=(857, 845)))
    assert found.what[0].startswith("the prompt was already different")
    assert found.what[1] == "prompt token 1: 844 / 845 (no tokenizer at hand, so no text)"


def test_one_ends_where_the_other_goes_on() -> None:
    a = toy_run.trajectory(1, 0, own=(425, 868, 5))
    b = replace(toy_run.trajectory(1, 0), stop_reason="length")
    found = difference(a, b)
    assert "B ends here (length), the other goes on" in found.what[0] and found.where.endswith("turn 1")
    assert found.what[1].startswith("token 7: 5 / (end)")


def test_the_end_and_what_was_cut_away() -> None:
    a = toy_run.trajectory(1, 0)
    assert "stop_reason 'answer' / 'no_action'" in difference(a, replace(a, stop_reason="no_action")).what[0]
    retrieval = a.turns[0].retrieval
    more = replace(retrieval, passages=(*retrieval.passages, Passage("2", "it", "More.")))
    found = difference(a, replace(a, turns=(replace(a.turns[0], retrieval=more), a.turns[1])))
    assert found.where.endswith("turn 0") and found.what[1:] == ("passage 2: (none) / 'More.'",)


def test_a_token_that_only_one_policy_wrote() -> None:
    a = toy_run.trajectory(1, 0)
    ids, mask = (*a.token_ids[:2], 9, *a.token_ids[3:]), (True, True, True, False, False, True, True)
    b = replace(a, token_ids=ids, loss_mask=mask)
    assert difference(a, b).what[0] == "written by the policy in B only, inserted in the other"


def test_log_probabilities_count_when_no_token_differs() -> None:
    a, b = toy_run.trajectory(1, 0), toy_run.trajectory(1, 0, logprob=-0.250001)
    found = difference(a, b)
    assert "first at token 0, -0.25 / -0.250001, by 1.0e-06 at most" in found.what[0]
    later = trajectories.first_difference(
        [a, toy_run.trajectory(2, 0)], [b, toy_run.trajectory(2, 0, own=(1, 2))], None
    )
    assert later.step == 2 and later.what[-1].startswith("log-probabilities differ earlier: step 1")


def test_other_questions() -> None:
    a, b = toy_run.trajectory(1, 0), toy_run.trajectory(1, 1)
    assert "only A has this trajectory" in difference(a, b).what[0]
    found = trajectories.first_difference([a], [a, b], None)
    assert found.where == "step 1, question nq/1, sample 1" and "only B" in found.what[0]


@pytest.mark.parametrize(
    ("b", "words"),
    [
        ("<search> a</search><information> y</information>z", "inside an observation, so the retrieval differed"),
        ("<search> b</search><information> x</information>z", "in the policy's own text"),
        ("<search> a</search><information> x</information>w", "in the policy's own text"),
        ("<search> a</search><information> x</information>z", "the transcripts agree"),
    ],
)
def test_transcripts(b: str, words: str) -> None:
    assert words in trajectories.transcript_difference("<search> a</search><information> x</information>z", b)


# --- bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["one", "tow"], "run: expected one of one, two, found 'tow'; did you mean 'two'"),
        (["one"], "required: RUN_B"),
        (["one", "two", "three"], "expected only RUN_A and RUN_B and named options, found the word 'three'"),
        (["one", "two", "--fast"], "unknown '--fast'"),
    ],
)
def test_bad_input(runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert compare_runs.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_run_without_a_finished_stage(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "begun" / "00_micro_world").mkdir(parents=True)
    assert compare_runs.main(["one", "begun"]) == 2
    assert "expected at least one finished stage, found none" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")])
def test_a_table_that_is_gone_or_damaged(runs: Path, capsys: pytest.CaptureFixture[str], damage: object) -> None:
    damage(runs / "two" / toy_run.TRAINING / "trajectories.parquet")
    assert compare_runs.main(["one", "two"]) == 2
    error = capsys.readouterr().err
    assert "trajectories.parquet" in error and "expected" in error and "found" in error


def test_the_command_itself(runs: Path) -> None:
    command = [sys.executable, "-m", "zerosearch.compare_runs", "one", "two"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=120, check=False)
    assert done.returncode == 0 and "the runs are the same" in done.stdout and not done.stderr
