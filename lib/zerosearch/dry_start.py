"""Does a way of spreading a model over processes start at all?  One step of a tiny batch, and who holds what.

    python -m zerosearch.dry_start --sharding none|fsdp|zero1|zero2|zero3 --processes N [--model NAME]

Starts the processes as a training does, lays the model out as the layout in force says, spreads it, goes forward and
backward on recorded trajectories, takes a step, and prints a line for every process.  ``zero1`` to ``zero3`` need the
package deepspeed.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Sequence

from zerosearch import commands, layouts
from zerosearch.errors import ConfigError
from zerosearch.training import launching
from zerosearch.training.dry_steps import parser

COLUMNS = ("rank", "device", "parameters", "weights MiB", "gradients MiB", "optimiser MiB", "loss", "gradient norm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the processes and print what they held; errors as those of any command."""
    options = parser().parse_args(arguments)
    return commands.ended(partial(start, options))


def start(options: argparse.Namespace) -> int:
    """Do as the options say and return the exit code; ConfigError where DeepSpeed is asked for and absent."""
    require_deepspeed(options.sharding)
    launching.check(options.processes, options.processes)
    folder = Path(tempfile.mkdtemp(prefix="zerosearch-dry-"))  # stays, with its log, where the start fails
    given = ["--dry-start", "--sharding", options.sharding, "--model", options.model, "--folder", str(folder)]
    done = launching.run(folder, options.processes, given, lambda _: None)
    print(table(done["rows"]))
    shutil.rmtree(folder)
    return 0


def require_deepspeed(sharding_: str) -> None:
    """Raise ConfigError for a sharding of DeepSpeed's where that package is not installed."""
    if sharding_ in layouts.DRY and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            f"sharding {sharding_}: expected the package deepspeed, found none; install it with `pip install deepspeed`, "
            "or use fsdp, which spreads what zero3 does and needs nothing"
        )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as text, one line each below the columns' names."""
    cells = [COLUMNS, *([_cell(row[name]) for name in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
