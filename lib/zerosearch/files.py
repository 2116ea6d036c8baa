"""Reading and writing files so that a reader never meets half of one.

Every write goes to a temporary name in the same folder and is renamed when it is complete; a process
that is killed leaves a ``.part`` behind, never a short file under the real name.  What the system refuses
(a full disk, a missing right) is raised as DiskProblem, and no temporary file stays.  Hashes are SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping

from zerosearch.errors import BadInput, ConfigError, DiskProblem, WorkbookError

if TYPE_CHECKING:
    import pandas as pd

Kinds = Mapping[str, type | tuple[type, ...]]  # names of keys and the types of their values
TABLE_TYPES = (".parquet", ".csv")


def write_via(path: Path, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary)`` and rename the file it made to path, whose folder is created.

    The temporary name keeps the suffix, so writers that look at it choose the same format.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with disk_problems(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def disk_problems(path: Path) -> Iterator[None]:
    """Raise what the system refuses while path is written as DiskProblem, with the way out.

    Libraries in Rust (safetensors) raise errors of their own; the system's number stands in their text.
    """
    try:
        yield
    except WorkbookError:
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        told = OSError(int(number[1]), os.strerror(int(number[1]))) if number else error
        if isinstance(told, OSError) and DiskProblem.explains(told):
            raise DiskProblem(path, told) from error
        raise


def append_text(path: Path, text: str) -> Path:
    """Append whole lines as UTF-8 with plain newlines; DiskProblem where the disk does not take them."""
    with disk_problems(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)
    return path


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write bytes, or text as UTF-8 with plain newlines, in one step."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    return write_via(Path(path), lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, obj: object) -> Path:
    """Write obj as indented JSON; NumPy numbers and paths are turned into plain ones."""
    return write_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False, default=plain) + "\n")


def read_json(path: Path | str, fix: str = "delete it or restore it from a copy") -> Any:
    """Return the JSON document in a file; BadInput with the fix when it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        problem, place = error.msg, f":{error.lineno}"
    except (ValueError, RecursionError) as error:  # bytes that are no text, a number of thousands of digits
        problem, place = str(error)[:200], ""
    except OSError as error:
        if DiskProblem.explains(error):
            raise DiskProblem(path, error) from error
        raise
    raise BadInput(f"{path}{place}: expected a JSON document, found {problem}; {fix}")


def read_object(path: Path, keys: Kinds, fix: str, optional: Kinds | None = None) -> dict[str, Any]:
    """Return the JSON object in a file that has these keys with values of these types.

    fix: what mends it, e.g. a command.  optional: types of keys that may be absent.  BadInput names the
    file and every key that is absent or of another type, which is what an older version or another
    program leaves.
    """
    found = read_json(path, fix)
    wanted = f"{path}: expected a JSON object{' with ' if keys else ''}{', '.join(keys)}"
    if not isinstance(found, dict):
        raise BadInput(f"{wanted}, found {_kind(found)}; {fix}")
    absent = [name for name in keys if name not in found]
    wrong = [f"{name} is {_kind(found[name])}" for name, kinds in {**keys, **(optional or {})}.items()
             if name in found and not isinstance(found[name], kinds)]
    if absent or wrong:
        told = [*([f"no {', '.join(absent)}"] if absent else []), *wrong]
        raise BadInput(f"{wanted}, found {'; '.join(told)}; {fix}")
    return found


_told: set[Path] = set()


def find_object(path: Path, keys: Kinds) -> dict[str, Any] | None:
    """Return what ``read_object`` does, or None when there is no such file or it is damaged.

    For records that a run can do without.  A damaged one is told on stderr, once in a process.
    """
    if not path.is_file():
        return None
    try:
        return read_object(path, keys, "it is treated as not there; delete it to be rid of this note")
    except (BadInput, DiskProblem) as error:
        if path not in _told:
            _told.add(path)
            print(f"note: {error}", file=sys.stderr, flush=True)
        return None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


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
    """Return the table in a ``.parquet`` or ``.csv`` file; BadInput when it is damaged."""
    import pandas as pd

    path = Path(path)
    _check_table_name(path)
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:  # those of pandas and pyarrow are of these kinds
        found = str(error).partition("\n")[0][:200]
        raise BadInput(f"{path}: expected a table, found {found}; run its stage again with --from") from error


def read_jsonl(path: Path | str) -> list[Any]:
    """Return the JSON documents of a file, one per line; empty lines are passed over.

    Raises BadInput that names every line that is not JSON.
    """
    rows, problems = [], []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line.decode("utf-8")))
            except json.JSONDecodeError as error:
                problems.append(f"{path}:{number}: {error.msg} at column {error.colno}")
            except (ValueError, RecursionError) as error:
                problems.append(f"{path}:{number}: {str(error)[:200]}")
    if problems:
        raise BadInput(
            f"{path}: expected one JSON document per line, found {len(problems)} broken lines; restore it from a "
            "copy, or run the stage that writes it again with --from",
            problems,
        )
    return rows


def replace_folder(temporary: Path, folder: Path) -> Path:
    """Put a finished temporary folder in the place of folder (which may exist), by renaming."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    with disk_problems(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def save_folder(folder: Path, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary folder)`` and put what it made in the place of folder."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_problems(folder):
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
