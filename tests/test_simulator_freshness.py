"""simulator_freshness.py: a world of three facts, one of which changed, and sources whose age is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_simulator_quality import PROMPTS, ScriptedSimulator, field

from zerosearch.microworld.language import BY_NOUN, query_text, state
from zerosearch.retrievers.bm25 import BM25Retriever
from zerosearch.schema import Passage, Question
from zerosearch.training import simulator_freshness as freshness
from zerosearch.training.simulator_freshness import COLUMNS, changed_facts, freshness_table

PUBLISHER, FOUNDER = BY_NOUN["publisher"], BY_NOUN["founder"]
BOOK, OLD, NEW = "Autumn Letters", "Birch Press", "Cedar Mills"


def hop(subject: str, relation: str, target: str, wording: int = 0) -> dict[str, str]:
    sentence = state(BY_NOUN[relation], subject, target, wording)
    return {"subject": subject, "relation": relation, "object": target, "sentence": sentence}


def chain(publisher: str, founder: str, wording: int = 0) -> Question:
    """Who founded the publisher of the book: the first hop is the one that changes."""
    hops = [hop(BOOK, "publisher", publisher, wording), hop(publisher, "founder", founder)]
    return Question("musique/1", "musique", f"Who is the founder of the publisher of {BOOK}?", (founder,), "eval",
                    {"hops": hops})


PAST, LATER = chain(OLD, "Rosa Voss"), chain(NEW, "Milo Falk", wording=1)


def test_the_changed_hop_is_asked_in_the_wording_of_its_fact() -> None:
    (fact,) = changed_facts([PAST], [LATER], 10, seed=0)
    assert fact.query == query_text(PUBLISHER, BOOK, 1) != query_text(PUBLISHER, BOOK, 0)
    assert (fact.old.object, fact.new.object) == (OLD, NEW)
    (first,) = changed_facts([PAST], [chain(NEW, "Milo Falk")], 10, seed=0)
    assert first.query == query_text(PUBLISHER, BOOK, 0) == f"publisher of {BOOK}"


def test_a_change_that_the_prompt_gives_away_does_not_count() -> None:
    was = Question("nq/1", "nq", f"who published {BOOK}", (OLD,), "eval", {"hops": [hop(BOOK, "publisher", OLD)]})
    now = replace(was, golden_answers=(NEW,), metadata={"hops": [hop(BOOK, "publisher", NEW)]})
    assert changed_facts([was], [now], 10, seed=0) == []
    named = replace(LATER, question=f"Who founded {NEW}, which publishes {BOOK}?")
    assert changed_facts([PAST], [named], 10, seed=0) == []


def test_unchanged_unknown_and_repeated_facts_do_not_count() -> None:
    again = replace(LATER, id="musique/2")
    assert len(changed_facts([PAST, replace(PAST, id="musique/2")], [LATER, again], 10, seed=0)) == 1
    assert changed_facts([LATER], [LATER], 10, seed=0) == []
    assert changed_facts([], [LATER], 10, seed=0) == []
    elsewhere = replace(PAST, metadata={"hops": [hop("Other Letters", "publisher", OLD)]})
    assert changed_facts([elsewhere], [LATER], 10, seed=0) == []


def test_facts_are_drawn_by_seed_and_limited() -> None:
    books = [f"{word} Letters" for word in ("Apple", "Cherry", "Clover", "Desert", "Dragon")]
    past = [replace(PAST, id=str(i), metadata={"hops": [hop(b, "publisher", OLD)]}) for i, b in enumerate(books)]
    now = [replace(LATER, id=str(i), metadata={"hops": [hop(b, "publisher", NEW)]}) for i, b in enumerate(books)]
    drawn = changed_facts(past, now, 3, seed=1)
    assert len(drawn) == 3 and drawn == changed_facts(past, now, 3, seed=1)
    assert {f.query for f in drawn} < {f.query for f in changed_facts(past, now, 10, seed=2)}


def test_who_states_the_new_and_who_the_old() -> None:
    """Both real engines state the truth of their time; a page that says until when states neither."""
    facts = changed_facts([PAST], [LATER], 10, seed=0)
    old = Passage("1", BOOK, state(PUBLISHER, BOOK, OLD))
    new = [Passage("1", BOOK, state(PUBLISHER, BOOK, NEW, 1)),
           Passage("2", BOOK, f"{BOOK} had until 1930 as publisher {OLD}.")]
    answers = {"past": freshness.ask_engine(facts, BM25Retriever([old], 2)),
               "today": freshness.ask_engine(facts, BM25Retriever(new, 2)), "silent": [()]}
    table = freshness_table(facts, answers)
    assert list(table.columns) == COLUMNS and (table["n"] == 1).all()
    value = table.set_index(["source", "states"])["value"].to_dict()
    assert value == {("past", "new"): 0.0, ("past", "old"): 1.0, ("today", "new"): 1.0, ("today", "old"): 0.0,
                     ("silent", "new"): 0.0, ("silent", "old"): 0.0}
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()


@pytest.mark.parametrize(("known", "states"), [(OLD, (0.0, 1.0)), (NEW, (1.0, 0.0)), ("Wren Foods", (0.0, 0.0))])
def test_the_simulator_is_asked_usefully_and_told_todays_answer(known: str, states: tuple[float, float]) -> None:
    prompts: list[str] = []

    def remembering(prompt: str) -> str:
        prompts.append(prompt)
        return f"\n {state(PUBLISHER, BOOK, known)}\n {BOOK} is known for its publisher."

    facts = changed_facts([PAST], [LATER], 10, seed=0)
    written = freshness.ask_tuned(facts, 2, ScriptedSimulator(remembering), PROMPTS)
    assert [len(passages) for passages in written] == [2]
    (prompt,) = prompts
    assert "two useful passages" in prompt and field(prompt, "Answer:") == "Milo Falk"
    assert field(prompt, "Query:") == facts[0].query
    assert tuple(freshness_table(facts, {"simulator": written})["value"]) == states


def test_without_changed_facts_the_table_is_empty() -> None:
    assert freshness_table([], {"simulator": []}).empty and list(freshness_table([], {}).columns) == COLUMNS
