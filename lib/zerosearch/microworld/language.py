"""The language of the micro-world: names, relations, sentences, questions, in plain English.

Everything that the world says is made here from word lists: an entity has a name of two words, a
fact is one sentence, a question is asked in the manner of one of seven question sets.  Nothing here
is random; callers pass the words they drew.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_NAMES = (
    "Alda Aldo Anka Arlo Berit Bodil Bruno Calla Cato Cyra Dario Delia Doran Edda Egon Elke Enzo Fenna "
    "Fergus Flora Gerda Gino Greta Hanno Hedda Hugo Ilka Ines Ivo Jarl Jona Juno Kaja Kasper Klara Lena "
    "Leopold Lorna Magda Marek Milo Nadia Nils Nora Odile Olaf Oskar Petra Piet Quinn Ramon Rosa Rufus "
    "Selma Signe Stellan Tilda Toma Ulla Viggo"
).split()
LAST_NAMES = (
    "Abrant Ankers Balfor Barlow Bellam Brenner Calder Carvel Corvin Dahlen Delmar Dorsey Eklund Elster "
    "Fairley Falk Farrow Garrow Gellert Hadley Halvor Harker Holm Ibsen Jensby Jurgens Kalder Keller "
    "Kirsten Langley Lindqvist Lomax Marlow Merrin Mostyn Nagel Norden Oakes Orlan Palmgren Perrin Quist "
    "Ravel Renfrew Rowan Sandoz Selwyn Stroud Tarrant Thorne Tolland Ulmer Vance Verner Voss Walden "
    "Wexler Whitby Yarrow Zander"
).split()
PLACE_WORDS = "Port Lake New North South East West Fort Mount Saint Upper Lower Great Little Old Castle".split()
PLACE_STEMS = (
    "Amber Arden Ashby Birch Bolden Bramble Carrow Cedar Corran Dalby Denholm Drayton Elder Emsby Fallow "
    "Fenwick Gorse Granby Hallow Hazel Heath Holden Imber Ivory Jasper Kellin Kestrel Kirkby Larch Linden "
    "Maple Marden Melby Misten Moorby Nether Oster Otter Pebble Penrose Quarry Raven Redby Rushmore "
    "Sable Selby Sorrel Stanmore Tamar Tarnby Thistle Umber Varley Wander Weldon Willow Winslow Wolden "
    "Wren Yewby"
).split()
REGION_WORDS = "Valley Hills Coast Plains Marsh Highlands Forest Islands".split()
COMPANY_WORDS = "Works Foods Motors Press Mills Airways Shipping Glass Tools Textiles Records Energy".split()
FILM_FIRST = (
    "Silver Broken Crimson Distant Empty Fading Frozen Gentle Golden Hidden Hollow Iron Last Lonely Lost "
    "Midnight Painted Quiet Restless Scarlet Second Secret Silent Sleeping Stolen Summer Sunken Twisted "
    "Velvet Wandering White Wild Winter Wooden Yellow Burning Double Final Paper Perfect"
).split()
FILM_SECOND = (
    "Harbor Anchor Arrow Bargain Bridge Carnival Circle Crossing Crown Dancer Echo Empire Feather Fortune "
    "Garden Horizon Hunter Island Journey Kingdom Lantern Legend Mirror Mountain Orchard Passage Promise "
    "Rider Shadow Signal Station Stranger Theater Tower Traveler Voyage Waltz Whisper Window Witness"
).split()
BOOK_FIRST = (
    "Apple Autumn Cherry Clover Desert Dragon Eagle Evening Falcon Family Forgotten Glacier Granite "
    "Honey Jungle Lavender Lion Marble Meadow Monsoon Morning Nightfall Ocean Olive Pearl Prairie Rain "
    "River Sapphire Salt Sparrow Storm Thunder Tiger Tulip Village Violet Wolf Blossom Copper"
).split()
BOOK_SECOND = (
    "Letters Songs Diary Almanac Ballad Chronicle Essays Fables Guide Handbook Hymns Journal Lessons "
    "Memoirs Notebook Poems Portrait Riddles Sketches Stories Tales Verses Papers Dialogues Sonnets"
).split()
YEARS = tuple(str(year) for year in range(1880, 1960))

# The two word lists whose product gives the names of a type; years are one word.
NAME_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "person": (tuple(FIRST_NAMES), tuple(LAST_NAMES)),
    "town": (tuple(PLACE_WORDS), tuple(PLACE_STEMS)),
    "region": (tuple(PLACE_STEMS), tuple(REGION_WORDS)),
    "company": (tuple(PLACE_STEMS), tuple(COMPANY_WORDS)),
    "film": (tuple(FILM_FIRST), tuple(FILM_SECOND)),
    "book": (tuple(BOOK_FIRST), tuple(BOOK_SECOND)),
}


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact.

    noun: how it is named (``the director of Silver Harbor``).  subject / object: entity types.
    sentences: two ways to state it, ``{s}`` subject and ``{o}`` object; the subject stands first
    and three words stand between the two, always.  This regularity is what lets a model of one million
    parameters find an object: with freer sentences it still read 3 of 10 objects after 3 million tokens.
    ask: how a person asks for it, without a question mark, lower case.
    """

    noun: str
    subject: str
    object: str
    sentences: tuple[str, str]
    ask: str


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "director", "film", "person", ("{s} was directed by {o}.", "{s} was made by {o}."),
        "who directed {s}",
    ),
    Relation(
        "star", "film", "person", ("{s} was headlined by {o}.", "{s} was fronted by {o}."),
        "who is the star of {s}",
    ),
    Relation(
        "composer", "film", "person", ("{s} has music by {o}.", "{s} was scored by {o}."),
        "who wrote the music of {s}",
    ),
    Relation(
        "setting", "film", "town", ("{s} is set in {o}.", "{s} takes place in {o}."),
        "where is {s} set",
    ),
    Relation(
        "release year", "film", "year", ("{s} was released in {o}.", "{s} came out in {o}."),
        "when was {s} released",
    ),
    Relation(
        "author", "book", "person", ("{s} was written by {o}.", "{s} was penned by {o}."),
        "who wrote {s}",
    ),
    Relation(
        "publisher", "book", "company", ("{s} was published by {o}.", "{s} was issued by {o}."),
        "who published {s}",
    ),
    Relation(
        "printing year", "book", "year", ("{s} was printed in {o}.", "{s} was typeset in {o}."),
        "when was {s} printed",
    ),
    Relation(
        "birthplace", "person", "town", ("{s} was born in {o}.", "{s} is native to {o}."),
        "where was {s} born",
    ),
    Relation(
        "birth year", "person", "year", ("{s} has lived since {o}.", "{s} entered life in {o}."),
        "when was {s} born",
    ),
    Relation(
        "employer", "person", "company", ("{s} is employed by {o}.", "{s} does work for {o}."),
        "who employs {s}",
    ),
    Relation(
        "spouse", "person", "person", ("{s} is married to {o}.", "{s} was wedded to {o}."),
        "who is married to {s}",
    ),
    Relation(
        "teacher", "person", "person", ("{s} was taught by {o}.", "{s} has studied under {o}."),
        "who taught {s}",
    ),
    Relation(
        "mayor", "town", "person", ("{s} is headed by {o}.", "{s} is run by {o}."),
        "who is the mayor of {s}",
    ),
    Relation(
        "region", "town", "region", ("{s} is located in {o}.", "{s} is situated in {o}."),
        "in which region is {s}",
    ),
    Relation(
        "founder", "company", "person", ("{s} was founded by {o}.", "{s} was started by {o}."),
        "who founded {s}",
    ),
    Relation(
        "headquarters", "company", "town", ("{s} is based in {o}.", "{s} is headquartered in {o}."),
        "where is {s} based",
    ),
    Relation(
        "governor", "region", "person", ("{s} is governed by {o}.", "{s} is ruled by {o}."),
        "who governs {s}",
    ),
)
BY_NOUN: dict[str, Relation] = {r.noun: r for r in RELATIONS}
BY_SUBJECT: dict[str, tuple[Relation, ...]] = {
    kind: tuple(r for r in RELATIONS if r.subject == kind) for kind in NAME_WORDS
}
WH = {"person": "Who", "town": "Which town", "region": "Which region", "company": "Which company", "year": "Which year"}

FAMILIES = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
TRAINING_FAMILIES = ("nq", "hotpotqa")
# Comparisons: relation that yields a year -> how the question starts, per family.
COMPARE = {
    "release year": ("Which came out first", "Which film was released earlier"),
    "printing year": ("Which was printed first", "Which book was printed earlier"),
    "birth year": ("Who was born first", "Which person was born earlier"),
}


def query_text(relation: Relation, subject: str, wording: int = 0) -> str:
    """Return a search query for one fact; wording 1 is a rephrasing of wording 0."""
    return f"{relation.noun} of {subject}" if wording == 0 else f"{subject} {relation.noun}"


def noun_phrase(path: tuple[Relation, ...], subject: str) -> str:
    """Return ``the birthplace of the director of Silver Harbor`` for a path (innermost relation first)."""
    phrase = subject
    for relation in path:
        phrase = f"the {relation.noun} of {phrase}"
    return phrase


def ask_chain(family: str, path: tuple[Relation, ...], subject: str, wording: int = 0) -> str:
    """Return a question of one family for the relation path (innermost first) that starts at subject.

    Raises ValueError for an unknown family.
    """
    last, phrase = path[-1], noun_phrase(path, subject)
    if family == "nq":  # as typed into a search box: no capital, no question mark
        return last.ask.format(s=noun_phrase(path[:-1], subject))
    if family == "hotpotqa":
        asked = last.ask.format(s=noun_phrase(path[:-1], subject))
        return asked[0].upper() + asked[1:] + "?"
    if family == "triviaqa":
        return f"Name {phrase}." if wording else f"{WH[last.object]} is known as {phrase}?"
    if family in ("popqa", "musique"):
        return f"{'Who' if last.object == 'person' else 'What'} is {phrase}?"
    if family == "2wikimultihopqa":
        return f"{WH[last.object]} is {phrase}?"
    if family == "bamboogle":
        return f"Tell me {phrase}." if wording else f"What was {phrase}?"
    raise ValueError(f"unknown question family {family!r}; expected one of {FAMILIES}")


def ask_comparison(family: str, relation: Relation, left: str, right: str) -> str:
    """Return the question which of two entities is the earlier one."""
    return f"{COMPARE[relation.noun][family == '2wikimultihopqa']}, {left} or {right}?"


def plan_need(relation: Relation, subject: str) -> str:
    """Return the sentence with which the policy plans a search."""
    return f"I need {noun_phrase((relation,), subject)}."


def plan_miss(relation: Relation, subject: str) -> str:
    """Return the sentence with which the policy notes that no passage helped."""
    return f"Nothing here tells {noun_phrase((relation,), subject)}."


def plan_earlier(first: str, second: str) -> str:
    """Return the sentence that compares two years; the smaller one is named first."""
    early, late = sorted((first, second), key=int)
    return f"{early} is before {late}."


PLAN_MEMORY = "I know this."
PLAN_UNSURE = "I am not sure."


def vocabulary() -> list[str]:
    """Return every word of the world's language, sorted, each once (names, sentences, questions, prompts)."""
    words: set[str] = set(YEARS)
    for pair in NAME_WORDS.values():
        words.update(*pair)
    texts = [PLAN_MEMORY, PLAN_UNSURE, "is before", "Nothing here tells", "I need", "or", *FUNCTION_TEXTS]
    for relation in RELATIONS:
        texts += [*relation.sentences, relation.noun, relation.ask, relation.ask[0].upper() + relation.ask[1:]]
    texts += [t for pair in COMPARE.values() for t in pair] + list(WH.values())
    texts += ["is known as", "Name", "Tell me", "What is", "What was", "of the"]
    for text in texts:
        cleaned = text.replace("{s}", " ").replace("{o}", " ")
        words.update(w.strip(".,?:;") for w in cleaned.split())
    return sorted(w for w in words if w)


# Words of the micro templates in prompts.py and of the texts that the bases are pretrained on.
FUNCTION_TEXTS = (
    "Question Answer at once Think then answer using these passages",
    "Write one two three four five six seven eight nine ten useful misleading passages for the query",
    "Query Passages Notes Text about Copy",
)
# Words that open a line of a prompt: these also exist without the space before them.
LINE_STARTS = ("Question", "Answer", "Think", "Write", "Query", "Passages", "Notes", "Text", "Copy")
