"""cluster.py: what jobs ask Slurm for, what a dry run shows, and a stage run by a scheduler that really runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import fake_slurm
import pytest
from fake_notebooks import write_all

from zerosearch import checks, cli, cluster, files, pipeline, profiles
from zerosearch.cluster import Resources, resources
from zerosearch.jobs import Board, Job
from zerosearch.pipeline import Selection

SMOKE = ("--profile", "smoke", "--run", "there", "--only", "00", "--executor", "slurm")


def test_resources_come_from_the_profile() -> None:
    """single_gpu: 48 GiB, 4 threads, one GPU; stage 03 takes 12,000 s, three times that is 600 minutes."""
    asked = {stage: resources(profiles.load("single_gpu"), stage) for stage in ("00", "02", "03", "05")}
    assert asked["03"] == Resources(gpu=1, mem_mb=49152, runtime=600, cpus_per_task=4)
    assert asked["02"].runtime == 180 and asked["00"] == asked["05"] == Resources(0, 49152, 15, 4)
    node = profiles.load("a100_node")
    assert [resources(node, stage).gpu for stage in ("00", "01", "02", "03", "04", "05")] == [0, 1, 8, 8, 1, 0]


def test_snakemake_takes_them_for_every_job(tmp_path: Path) -> None:
    """Its own dry run says what each job would ask for; without a cluster nothing of it is said."""
    settings = profiles.load("single_gpu")
    plain, made = (
        files.through_json(cli.run_settings(settings, where))
        for where in (None, cluster.described(settings, "gpu", "group.7"))
    )
    file = files.write_json(tmp_path / "settings.json", made)
    assert "cluster" not in plain and "--set-resources" not in pipeline.snakemake_command(tmp_path, file, Selection(), plain)
    command = pipeline.snakemake_command(tmp_path, file, Selection(), made, dry_run=True)
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    blocks = {rule: shown.split(f"rule {rule}:")[1].split("\n\n")[0] for rule in ("train", "cost")}
    assert all(word in blocks["train"] for word in (
        "gpu=1", "mem_mb=49152", "runtime=600", "cpus_per_task=4", "slurm_partition=gpu", "slurm_account=group.7",
    ))
    assert "gpu=" not in blocks["cost"] and "runtime=15" in blocks["cost"]


def test_a_dry_run_shows_jobs_and_needs_no_slurm(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "installed_version", lambda name: None)
    assert cli.main([*SMOKE, "--slurm-partition", "main", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "jobs of Slurm (partition main)" in shown and not outputs.exists()
    row = next(line.split() for line in shown.splitlines() if line.startswith("  00  "))
    assert row == ["00", "0", "2048", "15", "1"]
    assert cli.main(list(SMOKE)) == 3
    error = capsys.readouterr().err
    assert "pip install -c constraints.txt -e '.[slurm]'" in error and "found none; run this on the cluster's" in error


@pytest.mark.parametrize(("arguments", "message"), [
    (["--executor", "slrum"], "did you mean 'slurm'"),
    (["--slurm-account", "mine"], "expected --executor slurm with them"),
    (["--executor", "slurm", "--slurm-partition", "a; rm -rf b"], "found 'a; rm -rf b'; see `sinfo`"),
])
def test_wrong_options(
    outputs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main([*arguments, "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_the_login_node_need_not_have_what_the_nodes_have(monkeypatch: pytest.MonkeyPatch, outputs: Path) -> None:
    """A login node without a GPU and with 1 GiB of memory plans a run on a card; it itself could not run it."""
    monkeypatch.setattr(checks, "gpu_count", lambda: 0)
    monkeypatch.setattr(checks, "usable_memory_gib", lambda: 1.0)
    settings = profiles.load("single_gpu", {"layout.simulator_weights": "fp8"})
    there = [*sum(cli._machine(settings, ["03"], outputs, elsewhere=True), [])]
    assert not [problem for problem in there if "an NVIDIA GPU" in problem or problem.startswith("memory")]
    served = profiles.load("smoke", {"layout.simulator_weights": "int8", "03.simulator_url": "http://h/v1"})
    assert "its own server decides" in "\n".join(cli._machine(served, ["03"], outputs, elsewhere=True)[1])
    here = "\n".join(sum(cli._machine(settings, ["03"], outputs, elsewhere=False), []))
    assert "memory: expected 48 GiB" in here and "expected an NVIDIA GPU" in here


def test_a_stage_runs_as_a_job_and_keys_stay_out_of_its_script(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    slurm = tmp_path / "slurm"
    for name, value in fake_slurm.install(slurm).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ZEROSEARCH_NOTEBOOKS", str(write_all(tmp_path / "nb")))
    monkeypatch.setenv("SERPAPI_API_KEY", "a-secret")
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 1)
    assert cli.main([*SMOKE, "--slurm-account", "mine"]) == 0, capfd.readouterr()
    assert (outputs / "there/00_micro_world/manifest.json").is_file()
    (job,) = fake_slurm.jobs(slurm)
    words = " ".join(job["arguments"])
    assert all(word in words for word in ("-p main", "-A mine", "-t 15", "--mem 2048", "--cpus-per-task=1", "--export=ALL"))
    assert "--gpus" not in words and "a-secret" not in words and "SERPAPI_API_KEY" in job["environment"]
    assert "a-secret" not in "".join(p.read_text() for p in (outputs / "there").rglob("*") if p.suffix in (".json", ".log", ".sh"))
    assert "ZEROSEARCH_OWNER" not in job["environment"], "a node's runner would take its owner for dead"
    assert Board(outputs / "there").status(Job("00")).state == "done"


def test_a_job_of_another_machine_is_not_taken_for_dead(tmp_path: Path) -> None:
    board, job = Board(tmp_path), Job("00")
    board.started(job)
    file = tmp_path / "logs" / f"{job.name}.json"
    said = files.read_json(file)
    files.write_json(file, said | {"process": {"pid": 2**22 + 1, "created": 1.0}})
    assert board.status(job).gone and board.living() == []
    files.write_json(file, said | {"process": said["process"], "host": "node7"})  # even where its number lives here too
    assert not board.status(job).gone and board.living() == []
