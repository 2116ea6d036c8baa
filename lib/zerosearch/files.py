"""Reading and writing files so that a reader never meets half of one.

Every write goes to a temporary name in the same folder and is renamed when it is complete; a process
that is killed leaves a ``.part`` behind, never a short file under the real name.  Hashes are SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator

from zerosearch.errors import BadInput, ConfigError

if TYPE_CHECKING:
    import pandas as pd

TABLE_TYPES = (".parquet", ".csv")


def write_via(path: Path, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary)`` and rename the file it made to path, whose folder is created.

    The temporary name keeps the suffix, so writers that look at it choose the same format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write bytes, or text as UTF-8 with plain newlines, in one step."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    return write_via(Path(path), lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, obj: object) -> Path:
    """Write obj as indented JSON; NumPy numbers and paths are turned into plain ones."""
    return write_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False, default=plain) + "\n")


def read_json(path: Path | str) -> Any:
    """Return the JSON document in a file; BadInput when it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}: expected a JSON document, found {error.msg}") from error


def through_json(obj: Any) -> Any:
    """Return obj as JSON gives it back (tuples become lists, NumPy numbers plain), for comparing."""
    return json.loads(json.dumps(obj, default=plain))


def write_jsonl(path: Path, rows: Iterable[object]) -> Path:
    """Write one JSON document per line."""
    lines = (json.dumps(row, ensure_ascii=False, default=plain) + "\n" for row in rows)
    return write_atomic(path, "".join(lines))


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Write a table without its index, as ``.parquet`` or ``.csv`` by the name."""
    _check_table_name(path)
    if path.suffix == ".parquet":
        return write_via(path, lambda temporary: table.to_parquet(temporary, index=False))
    return write_via(path, lambda temporary: table.to_csv(temporary, index=False, lineterminator="\n"))


def read_table(path: Path | str) -> pd.DataFrame:
    """Return the table in a ``.parquet`` or ``.csv`` file."""
    import pandas as pd

    path = Path(path)
    _check_table_name(path)
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def read_jsonl(path: Path | str) -> list[Any]:
    """Return the JSON documents of a file, one per line; empty lines are passed over.

    Raises BadInput that names every line that is not JSON.
    """
    rows, problems = [], []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                problems.append(f"{path}:{number}: {error.msg} at column {error.colno}")
    if problems:
        raise BadInput(
            f"{path}: expected one JSON document per line, found {len(problems)} broken lines", problems
        )
    return rows


def replace_folder(temporary: Path, folder: Path) -> Path:
    """Put a finished temporary folder in the place of folder (which may exist), by renaming."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def save_folder(folder: Path, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary folder)`` and put what it made in the place of folder."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        return replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the hash of a file, or of a folder: of its files' relative names and hashes, in order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    listing = [f"{inner.relative_to(path).as_posix()}\t{sha256(inner)}\n" for inner in files_below(path)]
    return hashlib.sha256("".join(listing).encode("utf-8")).hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder in sorted order, temporary ones left out."""
    yield from (p for p in sorted(folder.rglob("*")) if p.is_file() and ".part" not in p.name)


def plain(value: object) -> object:
    """Return a JSON-ready form of what ``json`` does not know: NumPy scalars and arrays, paths, sets."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"expected something JSON can hold, found {type(value).__name__}: {value!r}")


def _check_table_name(path: Path) -> None:
    if path.suffix not in TABLE_TYPES:
        raise ConfigError(f"table {path.name!r}: expected a name ending in {' or '.join(TABLE_TYPES)}")
