"""A method of your own: copy this file, rename the class, change what it does.

To run it from the command line, add the class to ``_CLASSES`` in ``methods/__init__.py`` and its name to
``METHODS`` in ``stage_parameters.py``; then ``--set 04.methods=search,one-search`` finds it.  The loop, the
limits, the scoring, the ledger and resuming are the same for every method: nothing of that is yours to write.
"""

from __future__ import annotations

from typing import Sequence

from zerosearch.engines.base import Engine
from zerosearch.evaluation.methods.base import Method
from zerosearch.prompts import Prompts
from zerosearch.retrievers.base import Retriever
from zerosearch.rollout import RolloutRequest
from zerosearch.schema import Question


class OneSearch(Method):
    """As ``search``, but with one search at most."""

    name = "one-search"  # in tables, figures and on the command line
    max_searches = 1  # as stored in every row; leave it out to take the run's own limit

    def requests(self, questions: Sequence[Question], prompts: Prompts) -> list[RolloutRequest]:
        """Return what the policy is shown: a prompt of your own goes into ``prompt=``."""
        return [RolloutRequest(q, max_searches=self.max_searches) for q in questions]

    def retriever(self, engine: Engine, prompts: Prompts) -> Retriever:
        """Return what answers the searches; wrap the engine here to change what the policy reads."""
        return self.bench.retriever
