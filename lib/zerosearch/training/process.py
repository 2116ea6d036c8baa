"""Where a process of a training begins: it takes its own GPU before anything that could ask for GPUs is imported.

``accelerate launch ... -m`` this module with a job's folder, or with the options of a dry start.  transformers trains on
every GPU that it sees; so that each process trains on one, each sees one.
"""

from __future__ import annotations

import os
import sys
from typing import MutableMapping


def own_card(environment: MutableMapping[str, str]) -> None:
    """Leave of the visible GPUs the one whose place is this process's rank on its machine."""
    local, visible = int(environment["LOCAL_RANK"]), environment.get("CUDA_VISIBLE_DEVICES", "")
    environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[local] if visible else str(local)


def main() -> int:
    """Take the card; do what the command line says."""
    own_card(os.environ)
    if "--dry-start" in sys.argv:
        from zerosearch.training import dry_steps

        return dry_steps.work(sys.argv[1:])
    from zerosearch.training import worker

    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
