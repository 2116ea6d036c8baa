"""Record and replay: what an engine answered once is on disk and never asked, or paid for, again.

    python -m zerosearch.retrievers.cache show FOLDER                answers by engine
    python -m zerosearch.retrievers.cache export FOLDER FILE         all answers as one file (.jsonl or .jsonl.gz)
    python -m zerosearch.retrievers.cache import FILE FOLDER         add them to a folder
    python -m zerosearch.retrievers.cache check FOLDER               take out what cannot be read

FOLDER may be left out: that of the paid and remote engines is meant.  An answer is on the disk before it is
used (rule 10); failures are returned and not recorded.  In mode ``replay`` nobody is asked: no key, no
network, and a query that is not on record is refused.  Simulators are not replayed: they depend on more than
the query.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Callable, Mapping, Sequence

from zerosearch import artifacts
from zerosearch.errors import WorkbookError
from zerosearch.retrievers.answer_files import export, import_file
from zerosearch.retrievers.answers import Answer, Answers, key_of, normalised, now
from zerosearch.retrievers.base import PAID_ENGINES, RemoteRetriever, ReplayableRetriever, check_rows
from zerosearch.schema import Retrieval, SearchRequest

MODES = ("live", "replay")


class NotRecorded(WorkbookError):
    """Mode ``replay``, and a query that has no recorded answer."""


class ReplayCache:
    """A retriever that answers from its record, and asks the wrapped engine for what is not there.

    retriever: the engine.  folder: the record, made if it is not there.  mode: ``live`` or ``replay``.
    write_every: queries that a local engine is asked at a time; a remote one's answers are kept one by one.
    on_paid: called with the address of every answer that was billed, once it is on disk.  account: for whom
    it is paid; what an earlier process of the same account paid for and could not tell is told at the start.
    n_fresh, n_cached, n_paid: searches since the start that were asked, replayed, billed.
    """

    def __init__(
        self, retriever: ReplayableRetriever, folder: Path | str, mode: str = "live", write_every: int = 64,
        on_paid: Callable[[str], object] | None = None, account: str = "",
    ):
        self._retriever, self.name, self.write_every = retriever, retriever.name, write_every
        self.mode, self.identity, self.bills = mode, retriever.identity, retriever.name in PAID_ENGINES
        self.answers, self._on_paid, self._account = Answers(folder), on_paid, account
        self.n_fresh = self.n_cached = self.n_paid = 0
        self._counting = threading.Lock()
        self._take_over()
        if on_paid is not None:
            self._tell(self.answers.untold(account))
        self.answers.close()

    def __len__(self) -> int:
        """Return the number of recorded answers, those of other engines in the same folder included."""
        try:
            return len(self.answers)
        finally:
            self.answers.close()

    def search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        """Return one Retrieval per request, in order; ``cached`` says which were replayed.

        A query that occurs several times, or is being asked for by another thread or process, is asked once;
        its other rows are replayed.  Raises NotRecorded in mode ``replay`` for queries without an answer.
        """
        try:
            return self._search(requests)
        finally:
            self.answers.close()

    def _search(self, requests: Sequence[SearchRequest]) -> list[Retrieval]:
        keys = [key_of(self.identity, r.query) for r in requests]
        known = {key: found for key in dict.fromkeys(keys) if (found := self.answers.get(key)) is not None}
        first = {key: row for row, key in reversed([*enumerate(keys)]) if key not in known}
        missing = {keys[row]: requests[row] for row in sorted(first.values())}
        made = self._obtain(missing, known) if missing else {}
        found = [
            self._one(request, known.get(key), made.get(key), first.get(key) == row)
            for row, (request, key) in enumerate(zip(requests, keys, strict=True))
        ]
        with self._counting:
            self.n_cached += sum(r.cached for r in found)
            self.n_fresh += sum(not r.cached for r in found)
        return found

    def counts(self) -> str:
        """Return what was fresh, cached and paid so far, for people."""
        return f"{self.name}: {self.n_fresh:,} fresh, {self.n_cached:,} cached, {self.n_paid:,} paid"

    def _one(
        self, request: SearchRequest, known: Answer | None, made: Retrieval | None, is_first: bool
    ) -> Retrieval:
        if made is not None and (is_first or made.error is not None):
            return replace(made, request=request)
        passages = known.passages if known is not None else made.passages if made is not None else ()
        return Retrieval(request, passages, self.name, cached=True)

    def _obtain(self, missing: Mapping[str, SearchRequest], known: dict[str, Answer]) -> dict[str, Retrieval]:
        """Return fresh retrievals by key, their answers recorded by then.

        What others asked for and got meanwhile goes to known.
        """
        if self.mode == "replay":
            raise self._refusal([r.query for r in missing.values()])
        if not isinstance(self._retriever, RemoteRetriever):
            return self._ask(missing)
        made: dict[str, Retrieval] = {}
        left = list(missing)
        while left:
            mine = self.answers.claim(left)
            try:
                made |= self._ask({key: missing[key] for key in mine}) if mine else {}
            finally:
                self.answers.release(mine)
            theirs = [key for key in left if key not in made]
            known |= {key: found for key in theirs if (found := self.answers.get(key)) is not None}
            left = [key for key in theirs if key not in known]
            if left and not mine:
                self.answers.wait()
        return made

    def _ask(self, missing: Mapping[str, SearchRequest]) -> dict[str, Retrieval]:
        """Return the engine's retrievals by key; what is an answer is on the disk."""
        keys = list(missing)
        asked = [replace(r, query=normalised(r.query, self.identity)) for r in missing.values()]
        if isinstance(self._retriever, RemoteRetriever):
            found = self._retriever.search_each(asked, lambda _, r: self._keep([r]))
            return dict(zip(keys, check_rows(asked, found, self.name), strict=True))
        made: dict[str, Retrieval] = {}
        for start in range(0, len(asked), self.write_every):
            batch = asked[start : start + self.write_every]
            found = check_rows(batch, self._retriever.search(batch), self.name)
            self._keep(found)
            made |= zip(keys[start : start + self.write_every], found)
        return made

    def _keep(self, found: Sequence[Retrieval]) -> None:
        """Put answers on the disk, and then tell of those that were paid for."""
        answered, time = [r for r in found if r.error is None], now()
        fresh = [Answer(self.identity, r.request.query, r.passages, time, self.bills) for r in answered]
        self.answers.add(fresh, self._account)
        if self.bills:
            with self._counting:
                self.n_paid += len(fresh)
            if self._on_paid is not None:
                self._tell([answer.key for answer in fresh])

    def _tell(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._on_paid(key)  # type: ignore[misc] - called only where there is one
        if keys:
            self.answers.told(self._account, keys)

    def _take_over(self) -> None:
        """Take in the record that an earlier version left beside the folder."""
        old = self.answers.folder.with_suffix(".jsonl")
        if old.is_file():
            import_file(old, self.answers)
            old.rename(old.with_suffix(".jsonl.imported"))

    def _refusal(self, queries: Sequence[str]) -> NotRecorded:
        more = f" and {len(queries) - 1} more" if len(queries) > 1 else ""
        return NotRecorded(
            f"{self.name}: expected a recorded answer to {queries[0]!r}{more} (mode: replay), found none of "
            f"{self.identity!r} in {self.answers.folder}; record it with `--set 01.retriever_mode=live` (04 for the "
            "evaluation), or add answers with `python -m zerosearch.retrievers.cache import FILE`"
        )


def _show(answers: Answers) -> str:
    counts = Counter((a.engine, a.paid) for a in answers)
    lines = [f"{n:>8,}  {engine}{' (paid)' if paid else ''}" for (engine, paid), n in sorted(counts.items())]
    return "\n".join(lines or ["no answers"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m zerosearch.retrievers.cache", description="Recorded answers of engines."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("show", "answers by engine"), ("check", "take out what cannot be read"),
        ("export", "write all answers into one file"), ("import", "add the answers of a file"),
    ):
        made = commands.add_parser(name, help=about)
        if name == "import":
            made.add_argument("file", type=Path)
        made.add_argument("folder", type=Path, nargs="?" if name != "export" else None, default=None)
        if name == "export":
            made.add_argument("file", type=Path)
    return parser


def _run(options: argparse.Namespace) -> str:
    folder = options.folder or artifacts.answers_dir()
    if options.command != "import" and not folder.is_dir():
        raise WorkbookError(f"answers: expected a folder, found none at {folder}; check the path")
    answers = Answers(folder)
    if options.command == "export":
        return f"{export(answers, options.file):,} answers written to {options.file}"
    if options.command == "import":
        new, total = import_file(options.file, answers)
        return f"{total:,} answers in {options.file}, {new:,} of them new in {folder}"
    if options.command == "check":
        return f"{answers.mend():,} damaged answers taken out, {len(answers):,} left"
    return _show(answers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        print(_run(options))
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
