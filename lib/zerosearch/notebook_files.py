"""Looking at notebook files without running them, with nothing but the standard library."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from zerosearch.errors import BadInput


def code_cells(notebook: Path) -> list[tuple[frozenset[str], str]]:
    """Return (tags, source) of the code cells in order; BadInput for a file that is no notebook."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [
            (frozenset(cell["metadata"].get("tags", ())), "".join(cell["source"]))
            for cell in cells
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{notebook}: expected a Jupyter notebook, found {type(error).__name__}: {error}; restore it "
            f"with `git checkout {notebook.name}`"
        ) from error


def code_digest(notebook: Path) -> str:
    """Return a hash of what the notebook computes: its code, without outputs, texts and exercises."""
    sources = [source for tags, source in code_cells(notebook) if "exercise" not in tags]
    return hashlib.sha256("\x1e".join(sources).encode("utf-8")).hexdigest()[:16]
