"""The language of the micro-world: names, relations, sentences, questions, in plain English.

Everything that the world says is made here from word lists: an entity has a name of two words (a
namesake three), a fact is one sentence in one of two wordings, a question is asked in the manner of one
of seven question sets.  Nothing here is random; callers pass the words they drew.

A relation has two nouns that mean the same, hence two wordings of every fact and two queries.  An engine
that goes by words may find a fact with one query and miss it with the other.
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

    noun: how it is named (``the director of Silver Harbor``).  synonym: another noun for it.
    subject / object: entity types.  ask: how a person asks for it, without a question mark, lower case.
    changes: whether the object may be another one later (a town gets a new mayor).
    """

    noun: str
    synonym: str
    subject: str
    object: str
    ask: str
    changes: bool = False

    @property
    def sentences(self) -> tuple[str, str]:
        """Two ways to state the fact, ``{s}`` subject and ``{o}`` object.

        The subject stands right before ``is`` and the object right after it, always.  This regularity is what
        lets a model of one million parameters find an object: with three words between the two it mixed up
        objects of neighbouring sentences in a third of all cases after 10 million tokens.
        """
        return f"The {self.noun} of {{s}} is {{o}}.", f"The {self.synonym} of {{s}} is {{o}}."


RELATIONS: tuple[Relation, ...] = (
    Relation("director", "maker", "film", "person", "who directed {s}"),
    Relation("star", "lead", "film", "person", "who is the star of {s}"),
    Relation("composer", "musician", "film", "person", "who wrote the music of {s}"),
    Relation("setting", "scene", "film", "town", "where is {s} set"),
    Relation("release year", "premiere year", "film", "year", "when was {s} released"),
    Relation("author", "writer", "book", "person", "who wrote {s}"),
    Relation("publisher", "seller", "book", "company", "who published {s}", changes=True),
    Relation("printing year", "edition year", "book", "year", "when was {s} printed"),
    Relation("birthplace", "hometown", "person", "town", "where was {s} born"),
    Relation("birth year", "starting year", "person", "year", "when was {s} born"),
    Relation("employer", "boss", "person", "company", "who employs {s}", changes=True),
    Relation("spouse", "partner", "person", "person", "who is married to {s}", changes=True),
    Relation("teacher", "mentor", "person", "person", "who taught {s}"),
    Relation("mayor", "head", "town", "person", "who is the mayor of {s}", changes=True),
    Relation("region", "area", "town", "region", "in which region is {s}"),
    Relation("founder", "creator", "company", "person", "who founded {s}"),
    Relation("headquarters", "seat", "company", "town", "where is {s} based", changes=True),
    Relation("governor", "ruler", "region", "person", "who governs {s}", changes=True),
)
BY_NOUN: dict[str, Relation] = {r.noun: r for r in RELATIONS}
_BY_EITHER_NOUN = {noun: r for r in RELATIONS for noun in (r.noun, r.synonym)}
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


# A namesake has the whole name of another entity and one word more.
NAMESAKE_WORD = {
    "film": "Returns", "book": "Revisited", "person": "Junior", "town": "Heights", "region": "District",
    "company": "Brothers",
}
# Ways in which a passage can mislead; the corpus and every drawn passage carry theirs as ``kind``.
FACT = "fact"
OTHER_RELATION, LOOKALIKE, NAMESAKE, SUPERSEDED, CONTRADICTED, NON_ANSWER = MISLEADING = (
    "other_relation",  # the right entity, another relation
    "lookalike",       # the right relation of an entity that shares a word of its name
    "namesake",        # the right relation of an entity that shares the whole name and adds a word
    "superseded",      # true until a year that is named
    "contradicted",    # a wrong value, worded like a right one: only other passages unmask it
    "non_answer",      # fluent, on the topic, and empty
)


def state(relation: Relation, subject: str, target: str, wording: int = 0) -> str:
    """Return the sentence that states a fact, in one of its two wordings."""
    return relation.sentences[wording].format(s=subject, o=target)


def state_superseded(relation: Relation, subject: str, target: str, year: str) -> str:
    """Return the sentence that states what was true until a year."""
    return f"Until {year} the {relation.noun} of {subject} was {target}."


def say_nothing(relation: Relation, subject: str, wording: int = 0) -> str:
    """Return a fluent sentence about the relation and the subject that names no object."""
    if wording == 0:
        return f"The {relation.noun} of {subject} is widely discussed."
    return f"Many ask for the {relation.synonym} of {subject} these days."


def query_text(relation: Relation, subject: str, wording: int = 0) -> str:
    """Return a search query for one fact; wording 1 is a rephrasing of wording 0."""
    return f"{(relation.noun, relation.synonym)[wording]} of {subject}"


def parse_query(query: str) -> tuple[Relation, str] | None:
    """Return (relation, subject) of a query in either wording, None for any other text.

    The subject is whatever stands at its place; whether there is such an entity is not asked.
    """
    noun, _, subject = " ".join(query.split()).partition(" of ")
    relation = _BY_EITHER_NOUN.get(noun)
    return (relation, subject) if relation and subject else None


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


def plan_earlier(first: str, second: str) -> str:
    """Return the sentence that compares two years; the smaller one is named first."""
    early, late = sorted((first, second), key=int)
    return f"{early} is before {late}."


PLAN_SEARCH = "I search."
PLAN_MEMORY = "I know this."
# The verdict on what a search returned: one token tells the two apart.
VERDICT_HIT, VERDICT_MISS = "Found:", "Not here."


def vocabulary() -> list[str]:
    """Return every word of the world's language, sorted, each once (names, sentences, questions, prompts)."""
    words: set[str] = set(YEARS)
    for pair in NAME_WORDS.values():
        words.update(*pair)
    words.update(NAMESAKE_WORD.values())
    texts = [PLAN_SEARCH, PLAN_MEMORY, VERDICT_HIT, VERDICT_MISS, "is before", "or", *FUNCTION_TEXTS]
    texts += [state_superseded(relation, "", "", "") for relation in RELATIONS]
    texts += [say_nothing(relation, "", wording) for relation in RELATIONS for wording in (0, 1)]
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
    "Write one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
    "seventeen eighteen nineteen twenty useful misleading passages for the query user assistant system",
    "Query Passages Notes Text about Copy",
)
# Words that open a line of a prompt: these also exist without the space before them.
LINE_STARTS = (
    "Question", "Answer", "Think", "Write", "Query", "Passages", "Notes", "Text", "Copy", "user", "assistant", "system",
)
