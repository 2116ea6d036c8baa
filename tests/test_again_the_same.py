"""A small chain, and again with the same seed while it is killed twice: the same numbers, weights included.

These are slow tests (minutes).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Iterator

import disturbing
import pandas as pd
import pytest
from disturbing import Commands, Kill
from test_chain import SMALL, chain, overrides
from test_judge import SECRET, Server

from zerosearch import files
from zerosearch.pipeline import all_jobs

SEED, UNDISTURBED = 0, "undisturbed"
SETTINGS = (*SMALL, "03.save_every=1", "04.methods=direct,search", "04.conditions=corrupt-0.5")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The command, with one run of it that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("again")
        patch.setenv("ZEROSEARCH_OUTPUTS", str(folder))
        commands = Commands(("--profile", "smoke", *overrides(SETTINGS)), folder)
        assert commands.start(UNDISTURBED).wait() == 0, commands.log(UNDISTURBED).read_text()[-4000:]
    return commands


def test_killed_twice_and_still_the_same(undisturbed: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is killed in the middle of the training, then the command alone in the middle of the evaluation."""
    commands = undisturbed
    monkeypatch.setenv("ZEROSEARCH_OUTPUTS", str(commands.outputs))
    settings = files.read_json(commands.outputs / UNDISTURBED / "settings.json")
    seconds = disturbing.durations(commands.outputs / UNDISTURBED, all_jobs(settings))
    codes = []
    for stage, victim in (("03", "all"), ("04", "cli")):
        job = next(job for job in seconds if job.stage == stage)
        kill = Kill(SEED, 0, job, 0.4, victim)
        moment, killed, code = disturbing.interrupt(commands, kill, seconds[job])
        print(f"seed {SEED}: {job.name} after {moment:.1f} s of {seconds[job]:.1f}, victim {killed}, exit code {code}")
        assert killed == victim
        codes.append(code)
    codes += disturbing.finish(commands, kill.run, codes.pop())
    assert codes == [-9, -9, 0], commands.log(kill.run).read_text()[-4000:]
    assert disturbing.found_problems(commands, kill.run, codes[1:], UNDISTURBED) == []


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("JUDGE_API_KEY", SECRET)
    server = Server()
    yield server
    server.close()


def test_what_is_asked_for_besides_changes_no_score(undisturbed: Commands, judge: Server) -> None:
    """The evaluation again, of the same training: that it also samples answers and asks a judge changes none of its scores."""
    run = undisturbed.outputs / UNDISTURBED
    folder, trained = run / "04_evaluate", (run / "03_rl/zerosearch/seed0/metrics.jsonl").read_bytes()
    before = tables_of(folder)
    assert not (folder / "samples.parquet").exists()
    more = ("04.samples_per_question=2", f"04.judge_url={judge.url}", "04.judge_model=toy")
    chain(undisturbed.outputs, *overrides((*SETTINGS, *more)), "--run", UNDISTURBED)
    for first, second in zip(before, tables_of(folder), strict=True):
        pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert (run / "03_rl/zerosearch/seed0/metrics.jsonl").read_bytes() == trained, "was trained again"
    check_what_was_asked_for(folder, judge)
    written = [path for path in run.rglob("*") if path.is_file()]
    assert len(written) > 50 and not [path for path in written if SECRET.encode() in path.read_bytes()]


def tables_of(folder: Path) -> list[pd.DataFrame]:
    """Return what an evaluation found: scores, scores by condition, answers."""
    answers = pd.read_parquet(folder / "predictions.parquet")[["method", "question_id", "prediction"]]
    return [pd.read_parquet(folder / "scores.parquet"), pd.read_csv(folder / "condition_scores.csv"), answers]


def check_what_was_asked_for(folder: Path, judge: Server) -> None:
    """Samples: two of each drawn question and method, pass@1 between the rows.  Verdicts: one for each prediction."""
    rows = pd.read_parquet(folder / "predictions.parquet")
    samples = pd.read_parquet(folder / "samples.parquet")
    assert (samples.groupby(["method", "question_id"]).size() == 2).all()
    assert set(samples["method"]) == set(rows["method"]) and (samples["temperature"] == 1.0).all()
    tries = pd.read_csv(folder / "pass_at_k.csv").set_index(["method", "dataset", "k"])["value"]
    by_hand = samples.groupby(["method", "dataset"])["em"].mean()
    assert all(tries[(*key, 1)] == pytest.approx(value) for key, value in by_hand.items())
    judged = pd.read_parquet(folder / "judged.parquet")
    assert len(judged) == len(rows) and judged["judge"].notna().all() and (judged["judge_error"] == "").all()
    assert (judged["judge"] == (rows["cover_em"] == 1.0)).mean() > 0.95, "this judge looks for the golden answer"
    assert len({json.dumps(body) for body in judge.asked}) == len(judge.asked) <= rows["prediction"].notna().sum()
    assert {header["authorization"] for header in judge.headers} == {f"Bearer {SECRET}"}
