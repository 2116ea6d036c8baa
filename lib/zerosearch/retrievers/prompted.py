"""The simulator without tuning: an untuned model reads a few examples and goes on like them.

Published as the prompt-based simulator.  The examples are searches of stage 01, useful and misleading
in turn, drawn for every search by (run seed, step, question, sample, turn), and as many as the budget
has room for.  Examples of the question that is asked are passed over where there are others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from zerosearch.engines.base import Engine
from zerosearch.errors import BadInput
from zerosearch.prompts import Prompts
from zerosearch.retrievers.simulator import SimulatorRetriever
from zerosearch.retrievers.writers import Writer
from zerosearch.schema import Passage, SearchRequest


@dataclass(frozen=True, slots=True)
class Shown:
    """One example: what the real engine returned for a query, and whether that was useful."""

    query: str
    question: str
    golden_answer: str
    useful: bool
    passages: tuple[Passage, ...]


class PromptedSimulatorRetriever(SimulatorRetriever):
    """A simulator that is told by examples what to write; everything else as in ``SimulatorRetriever``.

    examples: of both kinds.  n_examples: shown before each search, half of them useful.  max_tokens: of
    all examples together; whole examples are left out, none is cut.  Raises BadInput where a kind has no
    example.
    """

    name = "simulator-prompted"

    def __init__(
        self, engine: Engine | Writer, prompts: Prompts, examples: Sequence[Shown], k: int = 5, run_seed: int = 0,
        temperature: float = 1.0, max_new_tokens: int = 160, n_examples: int = 2, max_tokens: int = 512,
    ):
        super().__init__(engine, prompts, k, run_seed, temperature, max_new_tokens)
        self.n_examples, self.max_tokens = n_examples, max_tokens
        self._by_kind = [[e for e in examples if e.useful is useful] for useful in (True, False)]
        if not all(self._by_kind):
            n_useful, n_misleading = map(len, self._by_kind)
            raise BadInput(
                f"examples for the simulator: expected useful and misleading searches, found {n_useful} and "
                f"{n_misleading}; collect more with --set 01.n_questions=1000"
            )
        self._texts: dict[int, tuple[str, int]] = {}  # by id of the example, which this object keeps alive

    def prompt(self, request: SearchRequest, useful: bool) -> str:
        """Return the examples drawn for this search, and the instruction for it."""
        pieces, left = [], self.max_tokens
        for number in range(self.n_examples):
            text, n_tokens = self._rendered(self._draw(request, number))
            if n_tokens > left:
                break
            pieces.append(text)
            left -= n_tokens
        return "".join(pieces) + super().prompt(request, useful)

    def _draw(self, r: SearchRequest, number: int) -> Shown:
        kind = self._by_kind[number % 2]
        others = [e for e in kind if e.question != r.question.question] or kind
        return others[int(len(others) * self._uniform(f"example {number}", r))]

    def _rendered(self, example: Shown) -> tuple[str, int]:
        """Return (text of an example, its tokens); each is rendered once."""
        if id(example) not in self._texts:
            asked = self.prompts.simulator_prompt(
                example.query, example.question, example.golden_answer, example.useful, len(example.passages)
            )
            text = f"{asked}{self.prompts.simulator_target(example.passages)}\n\n"
            n_tokens = len(self.prompts.tokenizer(text, add_special_tokens=False).input_ids)
            self._texts[id(example)] = text, n_tokens
        return self._texts[id(example)]
