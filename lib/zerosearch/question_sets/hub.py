"""Named collections of the hub, with their pinned revisions, read through ``datasets``.

A revision is the hash of a commit.  Those that are published stand in SOURCES, and nowhere else; of a collection
whose hash is not known here the newest commit is taken once, written to ``data/hub_lock.json`` and kept to from then
on.  The lock also holds the SHA-256 of every file that was loaded: other contents are refused.

A file is fetched into the hub's local cache by its revision and read from there: offline, ``datasets`` itself takes
whatever version it cached last.  A key for the hub comes from HF_TOKEN alone and is shown nowhere.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Iterator, Mapping, Sequence

from zerosearch import artifacts, files
from zerosearch.checked_json import shown
from zerosearch.errors import BadInput, ConfigError, DiskProblem, MissingInput, unknown_name
from zerosearch.question_sets.folder import Read
from zerosearch.question_sets.names import Name
from zerosearch.question_sets.reading import read_rows
from zerosearch.row_files import open_rows, plain_values
from zerosearch.rows import Row, Rows

LOCK = artifacts.REPO / "data" / "hub_lock.json"
_TEXTS = ("id", "question", "golden_answers")  # columns whose spelling counts
NEWEST = "main"  # what is asked for where no hash is known yet


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of question sets on the hub.

    revision: hash of a commit, "" where none is published.  evaluated, training: files by set; the set "" where
    every row names its own.  trains: sets that train unless a mix names others.
    """

    repository: str
    revision: str
    format: str
    evaluated: Mapping[str, str]
    training: Mapping[str, str]
    trains: tuple[str, ...]
    about: str


SOURCES: Mapping[str, Collection] = {
    "flashrag": Collection(
        "RUC-NLPIR/FlashRAG_datasets", "bcafb8dd07d453be3cbeeeb3f78be1841bddf92c", "flashrag",
        {"nq": "nq/test.jsonl", "triviaqa": "triviaqa/test.jsonl", "popqa": "popqa/test.jsonl",
         "hotpotqa": "hotpotqa/dev.jsonl", "2wikimultihopqa": "2wikimultihopqa/dev.jsonl",
         "musique": "musique/dev.jsonl", "bamboogle": "bamboogle/test.jsonl"},
        {"nq": "nq/train.jsonl", "hotpotqa": "hotpotqa/train.jsonl", "triviaqa": "triviaqa/train.jsonl",
         "2wikimultihopqa": "2wikimultihopqa/train.jsonl", "musique": "musique/train.jsonl"},
        ("nq", "hotpotqa"), "the seven sets whole, training questions of NQ and HotpotQA",
    ),
    "zerosearch": Collection(
        "sunhaonlp/ZeroSearch_dataset", "", "verl", {"": "test.parquet"}, {"": "train.parquet"}, (),
        "the reference's own: 500 questions of each set (Bamboogle 125), NQ + HotpotQA for training",
    ),
    "search-r1": Collection(
        "PeterJinGo/nq_hotpotqa_train", "b7d80abfee334a7a91cb377544f09180d58b34f6", "verl", {"": "test.parquet"},
        {"": "train.parquet"}, (), "Search-R1's: the seven sets whole, NQ + HotpotQA for training",
    ),
}


def collection(name: str) -> Collection:
    """Return a collection by its name; ConfigError with the nearest name for one that does not exist."""
    if name not in SOURCES:
        raise unknown_name("00.questions_source", name, tuple(SOURCES))
    return SOURCES[name]


def wanted_files(name: str, trains: Sequence[str] = ()) -> list[tuple[str, Name]]:
    """Return the files of a collection that a run needs, each with its set and split.

    trains: sets whose training questions are wanted, () for the usual ones.
    """
    found = collection(name)
    wanted = found.training if "" in found.training else {s: "" for s in trains or found.trains}
    unknown = [s for s in wanted if s not in found.training]
    if unknown:
        raise ConfigError(
            f"--set 00.train_mix: expected sets that {name} has training questions of ({', '.join(found.training)}), "
            f"found {', '.join(unknown)}"
        )
    training = [(found.training[s], Name(s, "train")) for s in wanted]
    return training + [(file, Name(s, _split(file))) for s, file in found.evaluated.items()]


def read_collection(name: str, trains: Sequence[str] = (), format_name: str = "") -> Read:
    """Return the questions of a collection, downloaded when they are not in the local cache yet.

    Raises MissingInput with the command that fetches it when it is neither there nor can be downloaded, and
    BadInput when a file is not what the lock says.
    """
    wanted = wanted_files(name, trains)
    found = collection(name)
    local = fetch(name, [file for file, _ in wanted])
    made = Read()
    for file, set_and_split in wanted:
        rows = HubRows(found.repository, file, local[file])
        read = read_rows(rows, set_and_split, format_name or found.format)
        made.add(read, f"{found.repository}/{file}", set_and_split)
    return made


# -- files ----------------------------------------------------------------------------------------


def fetch(name: str, wanted: Sequence[str]) -> dict[str, Path]:
    """Return where files of a collection lie in the local cache; absent ones are downloaded first.

    After the first that cannot be had the others are only looked for, and all absent ones are told together.
    """
    found = collection(name)
    revision = revision_of(name)
    local: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for file in wanted:
        path, reason = _fetched(found.repository, file, revision, may_download=not reasons)
        if path is None:
            reasons[file] = reason
        else:
            local[file] = path
            revision = _commit(path)  # all files of one load belong to one commit
    if reasons:
        raise _absent(name, revision, list(reasons), next(iter(reasons.values())))
    _keep_to_lock(found, local)
    return local


def absent_files(name: str, trains: Sequence[str] = ()) -> list[str]:
    """Return the files of a collection that are not in the local cache yet; nothing is downloaded."""
    repository, revision = collection(name).repository, revision_of(name)
    wanted = (file for file, _ in wanted_files(name, trains))
    return [file for file in wanted if _fetched(repository, file, revision, may_download=False)[0] is None]


def revision_of(name: str) -> str:
    """Return the revision of a collection: pinned here, locked at its first download, or the newest."""
    found = collection(name)
    return found.revision or _of_lock(found)["revision"] or NEWEST


def check_present(name: str, trains: Sequence[str], offline: bool) -> str:
    """Return a note about files that will be downloaded, "" when there are none.

    offline: nothing may be downloaded; then absent files are raised as MissingInput.
    """
    absent = absent_files(name, trains)
    if absent and (offline or _offline()):
        raise _absent(name, revision_of(name), absent, "nothing may be downloaded")
    repository = collection(name).repository
    return f"questions {name!r}: {len(absent)} files of {repository} will be downloaded" if absent else ""


def _fetched(repository: str, file: str, revision: str, may_download: bool) -> tuple[Path | None, str]:
    """Return (where a file lies, ""), or (None, why it is not there)."""
    import httpx
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    token: str | bool = os.environ.get("HF_TOKEN") or False
    try:
        found = hf_hub_download(
            repository, file, repo_type="dataset", revision=revision, token=token, local_files_only=not may_download
        )
    except LocalEntryNotFoundError:
        return None, "the hub cannot be reached" if may_download and not _offline() else "nothing may be downloaded"
    except (EntryNotFoundError, HfHubHTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", "no answer")
        return None, f"the hub refuses it ({status}; a key is taken from HF_TOKEN)"
    except (OSError, httpx.HTTPError) as error:
        if isinstance(error, OSError) and DiskProblem.explains(error):
            raise DiskProblem(file, error) from error
        return None, f"the hub cannot be reached ({type(error).__name__})"
    return Path(found), ""


def _offline() -> bool:
    from huggingface_hub import is_offline_mode

    return is_offline_mode()


def _absent(name: str, revision: str, wanted: Sequence[str], reason: str) -> MissingInput:
    repository = collection(name).repository
    listed = " ".join(wanted)
    return MissingInput(
        f"questions {name!r}: expected {', '.join(wanted)} of {repository} in the local cache of the hub, since "
        f"{reason}, found none; fetch them once on a machine with network with `hf download --repo-type dataset "
        f"{repository} {listed} --revision {revision}`, or give files of your own with `./run_all.sh --questions DIR "
        "--corpus FILE`"
    )


# -- the lock -------------------------------------------------------------------------------------


def locked(name: str) -> Mapping[str, Any]:
    """Return what the lock says of a collection: revision, and sha256 by file."""
    return _of_lock(collection(name))


def _of_lock(found: Collection) -> Mapping[str, Any]:
    """Return the entry of a collection; an empty one where there is none, or one of another revision than the pin."""
    empty = {"revision": "", "sha256": {}}
    if not LOCK.is_file():
        return empty
    fix = f"restore it with `git checkout {artifacts.shown(LOCK)}`, or delete it"
    entry = files.read_object(LOCK, {}, fix, optional={found.repository: dict}).get(found.repository, empty)
    if not (isinstance(entry.get("revision"), str) and isinstance(entry.get("sha256"), dict)):
        raise BadInput(f"{LOCK}: expected revision and sha256 of {found.repository}, found {shown(entry)}; {fix}")
    return entry if found.revision in ("", entry["revision"]) else empty


def _keep_to_lock(found: Collection, local: Mapping[str, Path]) -> None:
    """Compare files with the lock, and write into it what it does not know yet."""
    known = _of_lock(found)
    digests = {file: files.sha256(path) for file, path in local.items()}
    changed = [file for file, digest in digests.items() if known["sha256"].get(file, digest) != digest]
    if changed:
        places = "; ".join(str(local[file]) for file in changed)
        raise BadInput(
            f"{found.repository}: expected the contents of {', '.join(changed)} that {LOCK} records, found others in "
            f"{places}; delete these files to fetch them again, or the lock to accept them"
        )
    revision = known["revision"] or next(iter(map(_commit, local.values())))
    wanted = {"revision": revision, "sha256": {**known["sha256"], **digests}}
    if wanted != known:
        others = files.read_json(LOCK) if LOCK.is_file() else {}
        files.write_json(LOCK, {**others, found.repository: wanted})


def _commit(path: Path) -> str:
    """Return the commit that a file of the cache belongs to: ``.../snapshots/<commit>/<file>``."""
    return path.parts[len(path.parts) - 1 - path.parts[::-1].index("snapshots") + 1]


# -- rows -----------------------------------------------------------------------------------------


class HubRows(Rows):
    """The rows of one file of a collection, told apart by their numbers; read through ``datasets``.

    ``datasets`` guesses types where JSON has none: answers that are all dates would come as other texts.  Such a
    file is read as a reader's own is.
    """

    def __init__(self, repository: str, file: str, local: Path):
        super().__init__(local)
        self._shown = PurePosixPath(repository, file)

    def _read(self, file: IO[bytes]) -> Iterator[Row]:
        import datasets

        kind = "parquet" if self.path.suffix == ".parquet" else "json"
        try:
            table = datasets.load_dataset(kind, data_files={"rows": str(self.path)}, split="rows")
        except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
            found = str(error.__cause__ or error).partition("\n")[0][:200]
            self.problems.append(
                f"{self._shown}: expected a whole file of rows, found {found}; delete {self.path} to fetch it again"
            )
            return
        as_text = all(_is_text(table.features[name]) for name in _TEXTS if name in table.features)
        own = open_rows(self.path, "questions")
        for number, fields in enumerate(table if as_text else (row.fields for row in own), 1):
            yield Row(plain_values(fields), f"{self._shown}: row {number}", f"row {number}", self._ids)
        self.problems += own.problems


def _is_text(feature: Any) -> bool:
    """Say whether a column holds texts, or lists of them."""
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "dtype", "") in ("string", "large_string")


def _split(file: str) -> str:
    return PurePosixPath(file).stem
