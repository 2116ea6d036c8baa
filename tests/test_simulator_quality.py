"""simulator_quality.py: a scripted simulator whose faults are known, and the numbers that must show them."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Sequence

import numpy as np
import pytest
from test_renaming import EXAMPLES, PEOPLE, TOWNS, passage
from training_toys import FakeLedger

from zerosearch.engines.base import EngineCounts, Generation, GenerationRequest
from zerosearch.microworld.tokenizer import build_tokenizer
from zerosearch.prompts import Prompts
from zerosearch.schema import Passage
from zerosearch.training.renaming import SimulatorExample
from zerosearch.training.simulator_quality import (
    COLUMNS,
    QualityRequest,
    Written,
    ask_simulator,
    engine_reference,
    gate,
    measure,
    quality_report,
    quality_requests,
)

TOKENIZER = build_tokenizer()
PROMPTS = Prompts.load("micro", TOKENIZER)
# Last-hop examples: the golden answer stands in the first passage.
BEARING = [replace(e, golden_answer=p, aliases=(p,)) for e, p in zip(EXAMPLES[:3], PEOPLE)]


class ScriptedSimulator:
    """Writes what ``write(prompt)`` says, ends by itself unless told otherwise."""

    name = "scripted"

    def __init__(self, write: Callable[[str], str], stop: str = "eos"):
        self.tokenizer, self.counts, self.write, self.stop = TOKENIZER, EngineCounts(), write, stop

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        made = []
        for request in requests:
            ids = TOKENIZER(self.write(TOKENIZER.decode(request.prompt_ids)), add_special_tokens=False).input_ids
            ids += [TOKENIZER.eos_token_id] if self.stop == "eos" else []
            made.append(Generation(tuple(ids), (0.0,) * len(ids), self.stop))  # type: ignore[arg-type]
        return made

    def release(self) -> None:
        pass


def field(prompt: str, name: str) -> str:
    return next(line for line in prompt.splitlines() if line.startswith(name)).removeprefix(name).strip()


def obedient(prompt: str) -> str:
    film, answer = field(prompt, "Query:").removeprefix("director of "), field(prompt, "Answer:")
    said = answer if "useful" in prompt else "Nobody Known"
    return f"\n {film} was directed by {said}.\n {film} was directed in a hurry."


def rows(table, kind: str) -> dict[str, float]:  # noqa: ANN001, ANN201
    return table[table["kind"] == kind].set_index("metric")["value"].to_dict()


def test_an_obedient_simulator_passes_everything() -> None:
    requests = quality_requests(BEARING, 10, seed=0, names=EXAMPLES)
    table = quality_report(requests, ScriptedSimulator(obedient), PROMPTS, "after")
    assert list(table.columns) == COLUMNS and set(table["when"]) == {"after"}
    useful, misleading, altered = (rows(table, k) for k in ("useful", "misleading", "altered"))
    assert useful["answer_present"] == 1.0 and misleading["answer_present"] == 0.0
    assert altered["answer_present"] == 1.0 and altered["original_answer_present"] == 0.0
    assert all(part["format_valid"] == 1.0 and part["passages"] == 2.0 for part in (useful, misleading, altered))
    assert useful["names_the_entity"] == 1.0
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert not table.isna().any().any()


def test_a_simulator_that_remembers_is_found_out() -> None:
    memory = {e.query: e.golden_answer for e in BEARING}

    def remembering(prompt: str) -> str:
        return f"\n It was {memory[field(prompt, 'Query:')]}.\n Yes."

    requests = quality_requests(BEARING, 10, seed=0, names=EXAMPLES)
    altered = rows(quality_report(requests, ScriptedSimulator(remembering), PROMPTS, "before"), "altered")
    assert altered["answer_present"] == 0.0 and altered["original_answer_present"] == 1.0


def test_a_simulator_that_leaks_and_breaks_the_format_is_found_out() -> None:
    leaking = ScriptedSimulator(lambda prompt: f"\n The answer is {field(prompt, 'Answer:')}.", stop="length")
    table = quality_report(quality_requests(BEARING, 10, 0, EXAMPLES), leaking, PROMPTS, "before")
    misleading = rows(table, "misleading")
    assert misleading["answer_present"] == 1.0 and misleading["format_valid"] == 0.0
    assert misleading["passages"] == 1.0 and misleading["names_the_entity"] == 0.0


def test_earlier_hops_need_not_name_the_final_answer() -> None:
    """The real passages of these requests do not contain the golden answer, so useful ones need not either."""
    requests = quality_requests(EXAMPLES, 10, seed=0)
    table = quality_report(requests, ScriptedSimulator(obedient), PROMPTS, "after")
    assert "answer_present" not in rows(table, "useful") and "answer_present" in rows(table, "misleading")


def test_other_answers_are_of_the_same_kind() -> None:
    for request in quality_requests(BEARING, 10, seed=0, names=EXAMPLES):
        first, last = request.other_answer.split()
        assert first in {p.split()[0] for p in PEOPLE} and last in {p.split()[1] for p in PEOPLE}
        assert request.other_answer != request.example.golden_answer
    only = SimulatorExample("q", "q", "yes", True, (Passage("p", "", "It is so."),))
    (request,) = quality_requests([only], 5, seed=0)
    assert request.other_answer is None
    assert ask_simulator([request], "altered", ScriptedSimulator(obedient), PROMPTS) == [None]


def test_style_distance_is_zero_at_home_and_large_abroad() -> None:
    requests = [QualityRequest(e, None) for e in EXAMPLES]
    at_home = [Written(e.passages, True) for e in EXAMPLES]
    abroad = [Written((Passage("x", "", "quite different words here"),), True) for _ in EXAMPLES]
    renamed = [Written((passage(TOWNS[0], "director", TOWNS[1]),) * 2, True) for _ in EXAMPLES]
    tables = [measure(requests, written, "useful", "after") for written in (at_home, abroad, renamed)]
    found = [rows(table, "useful")["style_distance"] for table in tables]
    assert found[0] == pytest.approx(0.0, abs=1e-9) and found[1] == pytest.approx(1.0)
    assert found[2] == pytest.approx(0.0, abs=1e-9)  # names are no style


def test_shares_and_means_by_hand() -> None:
    requests = [QualityRequest(e, None) for e in BEARING]
    written = [
        Written(BEARING[0].passages, True),
        Written(BEARING[1].passages[1:], True),  # one of two, without the answer
        Written((), False),
    ]
    table = measure(requests, written, "useful", "after").set_index("metric")
    assert table.loc["answer_present", "value"] == pytest.approx(1 / 3) and table.loc["answer_present", "n"] == 3
    assert table.loc["passages", "value"] == 1.0
    assert table.loc["words_per_passage", "n"] == 2
    expected = 1.96 * np.std([2, 1, 0], ddof=1) / np.sqrt(3)
    assert table.loc["passages", "high"] == pytest.approx(1.0 + expected)
    low, high = table.loc["answer_present", ["low", "high"]]
    assert 0.0 < low < 1 / 3 < high < 1.0


def test_the_real_engine_as_reference() -> None:
    requests = quality_requests([*BEARING, *(replace(e, useful=False) for e in EXAMPLES)], 20, seed=0)
    table = engine_reference(requests)
    useful = rows(table, "useful")
    assert useful["answer_present"] == 1.0 and useful["style_distance"] == pytest.approx(0.0, abs=1e-9)
    assert rows(table, "misleading")["answer_present"] == 0.0 and set(table["when"]) == {"real engine"}


def test_what_asking_took_goes_to_the_ledger() -> None:
    ledger = FakeLedger()
    simulator = ScriptedSimulator(obedient)
    simulator.counts.prompt, simulator.counts.generated, simulator.counts.seconds = 30, 12, 0.5
    quality_report(quality_requests(BEARING, 3, 0), simulator, PROMPTS, "after", ledger=ledger)
    tokens, busy = ledger.events
    assert tokens == {"kind": "tokens", "role": "simulator", "model": "scripted", "prompt": 30, "generated": 12}
    assert busy["role"] == "simulator" and busy["seconds"] == 0.5


def test_the_gate_names_what_fails() -> None:
    requests = quality_requests(BEARING, 10, seed=0, names=EXAMPLES)
    good = gate(quality_report(requests, ScriptedSimulator(obedient), PROMPTS, "after"))
    assert good["passed"].all() and good["wanted"].tolist() == [">= 0.7", "<= 0.15", ">= 0.6", ">= 0.8"]
    leaking = ScriptedSimulator(lambda prompt: f"\n The answer is {field(prompt, 'Answer:')}.", stop="length")
    bad = gate(quality_report(requests, leaking, PROMPTS, "after"))
    assert bad["passed"].tolist() == [True, False, True, False]
    early_hops = quality_requests(EXAMPLES, 4, 0)
    unmeasured = gate(quality_report(early_hops, ScriptedSimulator(obedient), PROMPTS, "after"))
    assert not unmeasured["passed"].iloc[0] and np.isnan(unmeasured["value"].iloc[0])


def test_requests_are_drawn_without_repeats_and_the_same_twice() -> None:
    drawn = quality_requests(EXAMPLES, 3, seed=4)
    assert len({r.example.key for r in drawn}) == 3 and drawn == quality_requests(EXAMPLES, 3, seed=4)
