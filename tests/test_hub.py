"""Collections of the hub: fetched by pinned revision from a hub on this machine, then read offline from the cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import datasets
import fake_hub
import huggingface_hub
import pyarrow as pa
import pytest
from pyarrow import parquet

from zerosearch import artifacts, cli
from zerosearch.errors import BadInput, ConfigError, MissingInput
from zerosearch.question_sets import hub
from zerosearch.question_sets.own import Choice, check_source, load_own
from zerosearch.questions import split_counts

SETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
KEY = "hf_a-key-that-nobody-may-see"
FLASHRAG = hub.SOURCES["flashrag"]


def flashrag_files() -> dict[str, bytes]:
    """Return a small FlashRAG collection: three questions a file, one of which trains and is evaluated in NQ."""
    named = [file for file, _ in hub.wanted_files("flashrag")]
    files = {file: _lines(file, [f"{file} asks {i}?" for i in range(3)]) for file in named}
    files["nq/train.jsonl"] = _lines("nq/train.jsonl", ["who wrote it?", "Nq/Test.jsonl asks  0?", "who read it?"])
    return files


def _lines(file: str, asked: list[str]) -> bytes:
    split = file.partition("/")[2].removesuffix(".jsonl")
    rows = [
        {"id": f"{split}_{i}", "question": text, "golden_answers": [f"answer {i}", "", f"alias {i}"],
         "metadata": {"type": "bridge", "context": {"title": ["a"], "content": [["b"]]}} if i else {"level": "hard"}}
        for i, text in enumerate(asked)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def verl_file(split: str, sets: tuple[str, ...], n: int = 2) -> bytes:
    """Return a Parquet file as Search-R1 and ZeroSearch publish it."""
    rows = [
        {"id": f"{split}_{i}", "question": f"{name} {split} {i}?", "golden_answers": [f"{name} {i}", "other"],
         "data_source": name, "prompt": [{"role": "user", "content": "Answer. Question: x"}], "ability": "reasoning",
         "reward_model": {"ground_truth": {"target": [f"{name} {i}"]}, "style": "rule"},
         "extra_info": {"index": i, "split": split}}
        for name in sets for i in range(n)
    ]
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


SCRIPT = """
import json, sys
from pathlib import Path
from zerosearch.errors import WorkbookError
from zerosearch.question_sets import hub
from zerosearch.question_sets.own import Choice, check_source, load_own
hub.LOCK = Path(sys.argv[1])
choice = Choice(questions_source=sys.argv[2])
try:
    note = check_source(choice, offline=False)
    data = load_own(choice)
    told = [note, *data.notes]
    questions = [[q.id, q.dataset, q.split] for q in data.questions]
    print(json.dumps({"told": told, "sources": data.sources, "questions": questions}))
except WorkbookError as error:
    print(json.dumps({"error": str(error)}))
"""


def online(served: fake_hub.FakeHub, home: Path, source: str, key: str = KEY) -> dict[str, Any]:
    """Load a collection in a process of its own that may reach the hub on this machine."""
    blocked = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in blocked}
    environment |= {"HF_ENDPOINT": served.url, "HF_HOME": str(home), "HF_TOKEN": key}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(artifacts.REPO / "lib")}
    command = [sys.executable, "-c", SCRIPT, str(home / "hub_lock.json"), source]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert KEY not in done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def reaching(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let this process reach a hub on this machine."""

    def reach(url: str) -> None:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")

    return reach


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of the hub for this process too, which stays offline, and a lock of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(hub, "LOCK", tmp_path / "hub_lock.json")
    return tmp_path


def cached(home: Path, repository: str, commit: str, files: dict[str, bytes], newest: bool = False) -> Path:
    """Write files into the hub's cache as ``hf download`` leaves them; return the folder of the revision."""
    root = home / "hub" / f"datasets--{repository.replace('/', '--')}"
    for name, content in files.items():
        path = root / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if newest:
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text(commit)
    return root / "snapshots" / commit


def test_first_load_fetches_the_pinned_revision_once_and_the_key_stays_secret(home: Path) -> None:
    files = flashrag_files()
    with fake_hub.running(fake_hub.FakeHub(files, COMMIT)) as served:
        first = online(served, home, "flashrag")
        prefix = f"/datasets/{FLASHRAG.repository}/resolve/{FLASHRAG.revision}/"
        assert sorted(served.fetched) == sorted(prefix + name for name in files)
        assert {key for _, path, key in served.requests if "/resolve/" in path} == {f"Bearer {KEY}"}
    assert "9 files of RUC-NLPIR/FlashRAG_datasets will be downloaded" in first["told"][0]
    assert "1 training questions left out, since they are evaluated as well" in first["told"][1]
    assert len(first["questions"]) == 9 * 3 - 1
    offline = load_own(Choice(questions_source="flashrag"))  # this process reaches nothing
    assert [[q.id, q.dataset, q.split] for q in offline.questions] == first["questions"]
    for source in offline.sources:
        assert source["sha256"] == hashlib.sha256(files[_file(source)]).hexdigest()
    assert {s["revision"] for s in offline.sources} == {FLASHRAG.revision}
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert KEY.encode() not in written


def _file(source: dict[str, Any]) -> str:
    return source["place"].removeprefix(f"{FLASHRAG.repository}/")


def test_what_a_collection_gives(home: Path) -> None:
    cached(home, FLASHRAG.repository, FLASHRAG.revision, flashrag_files())
    data = load_own(Choice(questions_source="flashrag"))
    counts = split_counts(data.questions)
    assert {name: c["eval"] for name, c in counts.items()} == dict.fromkeys(SETS, 3)
    assert {name: c["train"] for name, c in counts.items() if c["train"]} == {"nq": 2, "hotpotqa": 3}
    first = next(q for q in data.questions if q.id == "hotpotqa/dev_1")
    assert first.golden_answers == ("answer 1", "alias 1") and dict(first.metadata) == {"type": "bridge"}
    assert data.files == () and {s["format"] for s in data.sources} == {"flashrag"}
    mixed = load_own(Choice(questions_source="flashrag", train_mix="nq:1,hotpotqa:1", train_size=2, eval_per_set=1))
    assert split_counts(mixed.questions)["nq"] == {"train": 1, "eval": 1} and len(mixed.questions) == 7 + 2


def test_other_sets_train_when_the_mix_names_them(home: Path) -> None:
    wanted = hub.wanted_files("flashrag", ("musique",))
    assert ("musique/train.jsonl", "musique", "train") in [(file, n.dataset, n.split) for file, n in wanted]
    assert not any(file.startswith(("nq/train", "hotpotqa/train")) for file, _ in wanted)
    with pytest.raises(ConfigError, match="found bamboogle"):
        hub.wanted_files("flashrag", ("bamboogle",))
    with pytest.raises(ConfigError, match="did you mean 'search-r1'"):
        hub.collection("searchr1")


def test_a_collection_without_a_published_hash_is_locked_at_its_first_load(home: Path) -> None:
    zerosearch = hub.SOURCES["zerosearch"]
    files = {"train.parquet": verl_file("train", ("nq", "hotpotqa")), "test.parquet": verl_file("test", SETS)}
    cached(home, zerosearch.repository, COMMIT, files, newest=True)
    assert hub.revision_of("zerosearch") == "main"
    data = load_own(Choice(questions_source="zerosearch"))
    counts = split_counts(data.questions)
    assert {name: c["eval"] for name, c in counts.items()} == dict.fromkeys(SETS, 2)
    assert {name: c["train"] for name, c in counts.items() if c["train"]} == {"nq": 2, "hotpotqa": 2}
    assert next(q for q in data.questions if q.id == "popqa/test_1").golden_answers == ("popqa 1", "other")
    lock = json.loads(hub.LOCK.read_text())[zerosearch.repository]
    assert lock["revision"] == COMMIT == hub.revision_of("zerosearch") and set(lock["sha256"]) == set(files)
    later = {name: content + b" " for name, content in files.items()}
    cached(home, zerosearch.repository, "f" * 40, later, newest=True)  # the collection moved on: the lock holds
    assert load_own(Choice(questions_source="zerosearch")).questions == data.questions


def test_the_newest_revision_is_asked_for_once(home: Path, reaching: Callable[[str], None]) -> None:
    files = {"train.parquet": verl_file("train", ("nq",)), "test.parquet": verl_file("test", ("nq",))}
    with fake_hub.running(fake_hub.FakeHub(files, COMMIT)) as served:
        reaching(served.url)
        first = load_own(Choice(questions_source="zerosearch"))
        served.commit = "f" * 40
        served.requests.clear()
        assert load_own(Choice(questions_source="zerosearch")).questions == first.questions and served.requests == []
    assert {source["revision"] for source in first.sources} == {COMMIT}


def test_other_contents_than_the_lock_records_are_refused(home: Path) -> None:
    folder = cached(home, FLASHRAG.repository, FLASHRAG.revision, flashrag_files())
    load_own(Choice(questions_source="flashrag"))
    (folder / "popqa/test.jsonl").write_bytes(_lines("popqa/test.jsonl", ["another question?"]))
    with pytest.raises(BadInput, match="expected the contents of popqa/test.jsonl") as caught:
        load_own(Choice(questions_source="flashrag"))
    assert "delete these files to fetch them again" in str(caught.value)


def test_a_new_pin_replaces_what_the_lock_knew_of_the_old_one(home: Path) -> None:
    old = {"revision": "e" * 40, "sha256": {"nq/test.jsonl": "0" * 64}}
    hub.LOCK.write_text(json.dumps({FLASHRAG.repository: old, "another/one": {"revision": "x", "sha256": {}}}))
    cached(home, FLASHRAG.repository, FLASHRAG.revision, flashrag_files())
    load_own(Choice(questions_source="flashrag"))
    lock = json.loads(hub.LOCK.read_text())
    assert lock[FLASHRAG.repository]["revision"] == FLASHRAG.revision and lock["another/one"]["revision"] == "x"


@pytest.mark.parametrize("content", ["damaged", "[]", '{"%s": 3}', '{"%s": {"revision": 1, "sha256": {}}}'])
def test_a_damaged_lock(home: Path, content: str) -> None:
    hub.LOCK.write_text(content.replace("%s", FLASHRAG.repository))
    cached(home, FLASHRAG.repository, FLASHRAG.revision, flashrag_files())
    with pytest.raises(BadInput, match="hub_lock.json.*restore it with `git checkout"):
        load_own(Choice(questions_source="flashrag"))


def test_offline_and_not_in_the_cache(home: Path) -> None:
    files = flashrag_files()
    absent = ("nq/test.jsonl", "musique/dev.jsonl")
    cached(home, FLASHRAG.repository, FLASHRAG.revision, {n: c for n, c in files.items() if n not in absent})
    for work in (lambda c: load_own(c), lambda c: check_source(c, offline=False)):
        with pytest.raises(MissingInput) as caught:
            work(Choice(questions_source="flashrag"))
        told = str(caught.value)
        assert "expected nq/test.jsonl, musique/dev.jsonl of RUC-NLPIR/FlashRAG_datasets" in told and "\n" not in told
        command = f"hf download --repo-type dataset {FLASHRAG.repository} {' '.join(absent)}"
        command += f" --revision {FLASHRAG.revision}"
        assert f"`{command}`" in told and "./run_all.sh --questions DIR" in told
    assert not hub.LOCK.exists()


def test_the_command_line_says_the_same_sentence(
    home: Path, outputs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": 1, "text": "x"}\n')
    options = ["--profile", "smoke", "--run", "new", "--questions", "search-r1", "--corpus", str(corpus)]
    assert cli.main(options) == 3
    told = capsys.readouterr().err
    assert "since nothing may be downloaded" in told and f"--revision {hub.SOURCES['search-r1'].revision}`" in told
    assert cli.main([*options, "--dry-run"]) == 0  # another machine may have it
    assert "note: questions 'search-r1': expected train.parquet, test.parquet" in capsys.readouterr().out
    files = {"train.parquet": verl_file("train", ("nq",)), "test.parquet": verl_file("test", ("nq",))}
    cached(home, hub.SOURCES["search-r1"].repository, hub.SOURCES["search-r1"].revision, files)
    assert cli.main([*options, "--dry-run"]) == 0 and "note:" not in capsys.readouterr().out


@pytest.mark.parametrize(("status", "words"), [(200, "the hub refuses it (404"), (403, "the hub refuses it (403")])
def test_a_hub_that_refuses(home: Path, reaching: Callable[[str], None], status: int, words: str) -> None:
    with fake_hub.running(fake_hub.FakeHub({}, COMMIT, status)) as served:
        reaching(served.url)
        with pytest.raises(MissingInput, match="hf download") as caught:
            load_own(Choice(questions_source="zerosearch"))
    assert words in str(caught.value) and "HF_TOKEN" in str(caught.value)


def test_a_hub_that_cannot_be_reached(
    home: Path, reaching: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    reaching("http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library waits between its attempts
    with pytest.raises(MissingInput, match="since the hub cannot be reached.*hf download"):
        load_own(Choice(questions_source="zerosearch"))


def test_a_damaged_file_of_the_cache(home: Path) -> None:
    source = hub.SOURCES["search-r1"]
    files = {"train.parquet": verl_file("train", ("nq",))[:-30], "test.parquet": verl_file("test", ("nq",))}
    cached(home, source.repository, source.revision, files)
    with pytest.raises(BadInput, match=r"nq_hotpotqa_train/train.parquet: expected a whole file") as caught:
        load_own(Choice(questions_source="search-r1"))
    assert "to fetch it again" in str(caught.value)


def test_answers_that_look_like_dates_keep_their_spelling(home: Path) -> None:
    files = flashrag_files()
    rows = [{"id": f"test_{i}", "question": f"when {i}?", "golden_answers": [f"2011-01-0{i + 1}"]} for i in range(3)]
    files["bamboogle/test.jsonl"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    cached(home, FLASHRAG.repository, FLASHRAG.revision, files)
    found = [q for q in load_own(Choice(questions_source="flashrag")).questions if q.dataset == "bamboogle"]
    assert [q.golden_answers for q in found] == [("2011-01-01",), ("2011-01-02",), ("2011-01-03",)]


def test_pins_are_whole_hashes() -> None:
    pins = {name: source.revision for name, source in hub.SOURCES.items()}
    assert all(len(pin) == 40 and int(pin, 16) for pin in pins.values() if pin) and pins["zerosearch"] == ""
    assert set(FLASHRAG.evaluated) == set(SETS)
