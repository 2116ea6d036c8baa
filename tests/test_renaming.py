"""renaming.py: one name for another, everywhere the same, and never a guess."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zerosearch import seeds
from zerosearch.schema import Passage
from zerosearch.scoring import contains_answer
from zerosearch.training.renaming import NameBook, SimulatorExample, apply_names, is_name, names_of, rename

FILMS = ("Silver Harbor", "Broken Crown", "Last Lantern", "Hidden Window")
PEOPLE = ("Anka Falk", "Bruno Holm", "Rosa Voss", "Olaf Stroud")
TOWNS = ("Port Amber", "Lake Birch", "New Selby")


def passage(subject: str, relation: str, target: str, index: int = 0) -> Passage:
    fact = {"subject": subject, "relation": relation, "object": target}
    return Passage(f"p{index}", subject, f"{subject} was directed by {target}.", fact)


def example(
    film: str = FILMS[0], person: str = PEOPLE[0], town: str = TOWNS[0], useful: bool = True
) -> SimulatorExample:
    return SimulatorExample(
        query=f"director of {film}", question=f"Where was the director of {film} born?", golden_answer=town,
        useful=useful, aliases=(town, town.upper()), facts=((film, "director", person), (person, "birthplace", town)),
        passages=(passage(film, "director", person), passage(FILMS[3], "director", PEOPLE[3], 1)), key=film,
    )


EXAMPLES = [example(f, p, t) for f, p, t in zip(FILMS, PEOPLE, [*TOWNS, TOWNS[0]])]


def test_names_come_from_titles_answers_and_facts() -> None:
    assert set(names_of(example())) == {FILMS[0], FILMS[3], PEOPLE[0], PEOPLE[3], TOWNS[0]}
    plain = SimulatorExample("who is he", "who is he", "yes", True, (Passage("p", "It", "It is he."),))
    assert names_of(plain) == []  # no capital, too short: nothing is guessed from the text


def test_what_counts_as_a_name() -> None:
    assert is_name("Port Amber") and is_name("1923") and is_name("iPod")
    assert not is_name("yes") and not is_name("Ox") and not is_name("  ")


def test_renaming_is_the_same_everywhere() -> None:
    mapping = {FILMS[0]: "Paper Moon", PEOPLE[0]: "Gino Ravel", TOWNS[0]: "Fort Elder"}
    made = apply_names(example(), mapping)
    assert made.query == "director of Paper Moon"
    assert made.question == "Where was the director of Paper Moon born?"
    assert made.golden_answer == "Fort Elder" and made.aliases[0] == "Fort Elder"
    assert made.passages[0].text == "Paper Moon was directed by Gino Ravel."
    assert made.passages[0].title == "Paper Moon" and made.passages[0].metadata["object"] == "Gino Ravel"
    assert made.facts == (("Paper Moon", "director", "Gino Ravel"), ("Gino Ravel", "birthplace", "Fort Elder"))
    assert made.passages[1] == example().passages[1]  # other names stay


def test_names_are_swapped_at_once_without_chains() -> None:
    made = apply_names(example(), {FILMS[0]: FILMS[3], FILMS[3]: FILMS[0]})
    assert made.passages[0].title == FILMS[3] and made.passages[1].title == FILMS[0]


def test_longer_names_win_and_word_ends_count() -> None:
    text = SimulatorExample("Port Amber Bay, Port Ambers, Port Amber", "", "X1x", True, ())
    made = apply_names(text, {"Port Amber": "Lake Wren", "Port Amber Bay": "Old Fallow"})
    assert made.query == "Old Fallow, Port Ambers, Lake Wren"


def test_kinds_follow_the_roles_of_facts() -> None:
    book = NameBook(EXAMPLES)
    kinds = [{book.kind_of[name] for name in group} for group in (FILMS, PEOPLE, TOWNS)]
    assert all(len(kind) == 1 for kind in kinds) and len(set.union(*kinds)) == 3


def test_a_new_name_is_of_the_same_kind() -> None:
    book = NameBook(EXAMPLES)
    firsts, lasts = {p.split()[0] for p in PEOPLE}, {p.split()[1] for p in PEOPLE}
    for i in range(30):
        first, last = book.new_name(PEOPLE[0], seeds.generator("test", i)).split()
        assert first in firsts and last in lasts and f"{first} {last}" != PEOPLE[0]


def test_years_become_years_between_the_known_ones() -> None:
    facts = [((f"Film {year}", "release year", year),) for year in ("1903", "1950", "1921")]
    book = NameBook([SimulatorExample("q", "q", fact[0][2], True, (), facts=fact) for fact in facts])
    made = {book.new_name("1903", seeds.generator("year", i)) for i in range(40)}
    assert len(made) > 10 and all(1903 < int(year) <= 1950 for year in made)


def test_a_name_without_company_keeps_itself() -> None:
    lonely = SimulatorExample("q", "q", "Zanzibar", True, ())
    book = NameBook([lonely])
    assert book.new_name("Zanzibar", seeds.generator(0)) == "Zanzibar"
    assert book.new_name("Unknown", seeds.generator(0)) == "Unknown"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(range(4)), st.booleans())
def test_what_a_passage_says_stays_true_under_new_names(seed: int, which: int, useful: bool) -> None:
    """A passage contains the golden answer after renaming exactly if it did before; queries keep their subject."""
    original = replace(EXAMPLES[which], golden_answer=PEOPLE[which], aliases=(PEOPLE[which],), useful=useful)
    book = NameBook(EXAMPLES)
    made = rename(original, book, seeds.generator("property", seed))
    for before, after in zip(original.passages, made.passages, strict=True):
        assert contains_answer(before.text, original.aliases) == contains_answer(after.text, made.aliases)
        assert after.text.startswith(after.title)
    assert made.query == f"director of {made.passages[0].title}" and made.query != original.query
    assert made.useful is useful and made.key == original.key
    assert len({*names_of(made)}) == len({*names_of(original)})  # two names never become one


def test_the_same_seed_gives_the_same_names() -> None:
    book = NameBook(EXAMPLES)
    made = [rename(EXAMPLES[1], book, np.random.default_rng(5)) for _ in range(2)]
    assert made[0] == made[1]
