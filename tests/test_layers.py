"""The library's layers: imports point downwards only, and nothing imports a notebook.

commands -> training, evaluation, costs, figures, report -> rollout -> retrievers, engines, ... -> records
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from zerosearch import artifacts

LIBRARY = artifacts.REPO / "lib" / "zerosearch"
LAYERS: tuple[tuple[str, ...], ...] = (  # the lowest first; a module may import its own layer and lower ones
    (
        "schema",
        "seeds",
        "plain_text",
        "errors",
        "files",
        "processes",
        "interrupts",
        "ledger",
        "parts",
        "appended",
        "remote_batch",
        "remote_failures",
        "remote",
        "chat",
        "judging",
        "progress",
        "environment",
        "artifacts",
        "layouts",
        "simulator_weights",
        "stage_parameters",
        "profiles",
        "notebook_files",
        "model_files",
    ),
    (
        "retrievers",
        "engines",
        "prompts",
        "scoring",
        "curriculum",
        "kernels",
        "adapters",
        "arithmetic",
        "heads",
        "labels",
        "labels_judge",
        "microworld",
        "questions",
        "rows",
        "row_files",
        "json_documents",
        "checked_json",
        "passages",
        "question_sets",
        "file_forms",
    ),
    ("rollout", "rollout_async", "timeline", "waiting"),
    (
        "training",
        "evaluation",
        "collection",
        "costs",
        "spending",
        "published_costs",
        "published",
        "published_rows",
        "prices",
        "planning",
        "comparing",
        "reference",
        "readme_tables",
        "figures",
        "report",
        "display",
        "explorer_records",
        "explorer",
    ),
    (
        "commands", "jobs", "checks", "temporary", "cluster", "pipeline", "console", "run_log", "stalls", "watch",
        "notebook_runner", "options", "verify", "compare_runs", "dry_start", "cli",
    ),
)
# Modules that stand higher than the rest of their package: they let bases and sentinels play.
LIFTED = {"microworld.abilities": "evaluation", "microworld.bases": "evaluation", "microworld.sentinels": "evaluation"}
FILES = sorted(LIBRARY.rglob("*.py"))


def part_of(path: Path) -> str:
    """Return the first name below zerosearch, a module or a package; a lifted module has its own."""
    names = [part.removesuffix(".py") for part in path.relative_to(LIBRARY).parts]
    return whole if (whole := ".".join(names)) in LIFTED else names[0]


def layer_of(part: str) -> int:
    part = LIFTED.get(part, part)
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def imported_parts(source: str) -> set[str]:
    """Return the parts of zerosearch that a source imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import; write `from zerosearch...`"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {_imported_part(name) for name in names if name.startswith("zerosearch.")}
    return found


def _imported_part(name: str) -> str:
    """Return the part that a dotted name of the library lies in."""
    first, *rest = name.removeprefix("zerosearch.").split(".")
    lifted = f"{first}.{rest[0]}" if rest else first
    return lifted if lifted in LIFTED else first


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_imports_point_downwards(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        assert imported_parts(path.read_text(encoding="utf-8")) == set()
        return
    for imported in imported_parts(path.read_text(encoding="utf-8")) - {"__version__"}:
        assert layer_of(imported) <= layer_of(part), (
            f"{path.name} (layer {layer_of(part)}) imports {imported}"
        )


def test_every_part_has_a_layer() -> None:
    known = {part for parts in LAYERS for part in parts}
    assert {part_of(path) for path in FILES} - known == {"__init__", *LIFTED}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_the_library_knows_no_notebook(path: Path) -> None:
    names = [
        node.module or ""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    assert not [
        name
        for name in names
        if name.split(".")[0] in ("notebooks", "solutions", *artifacts.NOTEBOOKS.values())
    ]


def test_upward_imports_are_seen() -> None:
    source = "def f():\n    from zerosearch import cli, schema\n    import zerosearch.training.arms\n"
    assert imported_parts(source) == {"cli", "schema", "training"}
    lifted = "from zerosearch.microworld import bases, world\nfrom zerosearch.microworld.sentinels import play\n"
    assert imported_parts(lifted) == {"microworld.bases", "microworld", "microworld.sentinels"}
    assert layer_of("microworld") < layer_of("rollout") < layer_of("microworld.bases")
    assert (
        layer_of("cli")
        > layer_of("training")
        > layer_of("rollout")
        > layer_of("retrievers")
        > layer_of("schema")
    )
