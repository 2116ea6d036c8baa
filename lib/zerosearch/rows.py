"""Checked lines of a reader's JSON-lines file: every complaint with file and line, none of them fatal.

``Lines(path)`` yields one ``Row`` per JSON object; a row's readers (``text``, ``answers`` ...) return
the value or note what is wrong with it.  The caller goes through the whole file and then looks at
``Lines.problems``.  Nothing is repaired and nothing guessed.  Called by ``questions``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator, Sequence

from zerosearch.errors import MissingInput, did_you_mean

MAX_SHOWN = 100  # problems of one file that are listed one by one
_BOM = b"\xef\xbb\xbf"


class Lines:
    """The JSON objects of a file, in order.  Empty lines are passed over, a byte order mark too.

    problems: all complaints so far, each beginning with ``file:line:``.
    """

    def __init__(self, path: Path):
        self.path, self.problems = path, list[str]()

    def __iter__(self) -> Iterator[Row]:
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise MissingInput(
                f"expected a file of JSON lines at {self.path}, found none; check the paths given to "
                "`./run_all.sh --questions DIR --corpus FILE`"
            ) from error
        ids: dict[str, int] = {}
        for number, line in enumerate(content.removeprefix(_BOM).split(b"\n"), 1):
            if line.strip():
                row = Row(line, f"{self.path}:{number}", ids, number)
                if row.fields is not None:
                    yield row
                self.problems += row.faults

    def listing(self) -> list[str]:
        """Return the problems for showing: the first hundred, and how many more there are."""
        more = len(self.problems) - MAX_SHOWN
        return self.problems[:MAX_SHOWN] + ([f"{self.path}: and {more} more"] if more > 0 else [])


class Row:
    """One line.  fields: its JSON object, None if it is none.  faults: what is wrong with it.

    ids: ids of the lines before and their line numbers, shared by all rows of a file.
    """

    def __init__(self, line: bytes, place: str, ids: dict[str, int], number: int):
        self.place, self.number, self._ids = place, number, ids
        self.faults: list[str] = []
        self.fields = self._parse(line)

    def key(self, name: str) -> str:
        """Return the row's id (a text, or a whole number as text) after checking that it is new."""
        value = self._get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not _is_text(value):
            return self._wrong(name, "a text that is not empty") or ""
        if value in self._ids:
            self._fault(f"{name}: expected an id of its own, found {value!r} of line {self._ids[value]} again")
        self._ids.setdefault(value, self.number)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; without a default it may be neither missing nor blank."""
        value = self._get(name)
        if default is not None and value in (None, ""):
            return default
        return value if _is_text(value) else self._wrong(name, "a text that is not empty") or ""

    def answers(self, name: str) -> tuple[str, ...]:
        """Return a list of texts with at least one text in it, none of them blank."""
        value = self._get(name)
        if isinstance(value, list) and value and all(_is_text(v) for v in value):
            return tuple(value)
        return self._wrong(name, "a list of one or more texts that are not empty") or ()

    def mapping(self, name: str) -> dict[str, Any]:
        """Return a JSON object, empty when it is missing."""
        value = self._get(name)
        return value if isinstance(value, dict) else {} if value is None else self._wrong(name, "an object") or {}

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return one of some texts."""
        value = self._get(name)
        return value if value in choices else self._wrong(name, f"one of {', '.join(choices)}") or ""

    def _get(self, name: str) -> Any:
        return (self.fields or {}).get(name)

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            found = json.loads(line.decode("utf-8"))
            if b"\\u" in line:
                json.dumps(found, ensure_ascii=False).encode("utf-8")
        except UnicodeDecodeError as error:
            return self._fault(f"expected UTF-8, found byte {line[error.start]:#04x} at column {error.start + 1}")
        except UnicodeEncodeError:
            return self._fault("expected text, found half of a surrogate pair (such as \\ud83d without its other half)")
        except json.JSONDecodeError as error:
            return self._fault(f"expected a JSON object, found bad JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            return self._fault("expected a JSON object, found one that is nested too deeply")
        return found if isinstance(found, dict) else self._fault(f"expected a JSON object, found {_shown(found)}")

    def _wrong(self, name: str, wanted: str) -> None:
        """Note that a key holds something else, or is absent (with the nearest key there is)."""
        keys = [*(self.fields or {})]
        found = _shown(self._get(name)) if name in keys else f"no such key{did_you_mean(name, keys)}"
        self._fault(f"{name}: expected {wanted}, found {found}")

    def _fault(self, text: str) -> None:
        self.faults.append(f"{self.place}: {text}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
