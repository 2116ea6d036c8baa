"""Bad inputs made by a seeded generator, and an oracle that knows which of them are still good.

Good questions, passages, profiles, manifests and model folders are cut at a random byte, have a byte of their
punctuation changed, a value of another type put in, a key misspelt or removed.  The oracles are written
by hand on plain ``json``, ``yaml`` and ``struct``; they share no code with the library.
"""

from __future__ import annotations

import json
import random
import struct
from typing import Any, Callable

import bad_input_cases as catalogue
import yaml
from bad_input_cases import Case, Place, Seen

from zerosearch import artifacts

OTHER_TYPES: tuple[Any, ...] = (None, True, 3, 2.5, "", [], {}, [""], "text", {"a": 1})
SMOKE = (artifacts.REPO / "profiles" / "smoke.yaml").read_text(encoding="utf-8")


# -- mutations ------------------------------------------------------------------------------------


def cut(content: bytes, draw: random.Random) -> bytes:
    """Return the beginning of the content, at least one byte shorter than what is in it."""
    return content[: draw.randrange(len(content.rstrip()))]


def flip(content: bytes, draw: random.Random) -> bytes:
    """Return the content with one bit of one punctuation character flipped."""
    at = draw.choice([i for i, byte in enumerate(content) if byte in b'{}[]",:'])
    return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]


def swap_type(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return the row with one value replaced by one of another type."""
    name = draw.choice(list(row))
    return {**row, name: draw.choice([v for v in OTHER_TYPES if type(v) is not type(row[name])])}


def misspell(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return the row with two letters of a key exchanged, or the key removed when they are equal."""
    name = draw.choice(list(row))
    at = draw.randrange(len(name) - 1)
    other = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    rest = {key: value for key, value in row.items() if key != name}
    return rest if other == name else {**rest, other: row[name]}


# -- a reader's own files -------------------------------------------------------------------------


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _constant(name: str) -> None:
    raise ValueError(name)


def _filled(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def good_lines(content: bytes, row_is_good: Callable[[dict[str, Any]], bool]) -> bool:
    """Say whether the content is lines of good rows, one at least, each with an id of its own."""
    ids: list[str] = []
    for line in content.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
        except ValueError:
            return False
        if not isinstance(row, dict) or not row_is_good(row):
            return False
        key = row.get("id")
        if not (_filled(key) or (isinstance(key, int) and not isinstance(key, bool))):
            return False
        ids.append(str(key))
    return len(ids) > 0 and len(set(ids)) == len(ids)


def good_question(row: dict[str, Any]) -> bool:
    """Say whether a row is a question."""
    answers = row.get("golden_answers")
    return _filled(row.get("question")) and isinstance(answers, list) and answers != [] and all(map(_filled, answers))


def good_passage(row: dict[str, Any]) -> bool:
    """Say whether a row is a passage."""
    title = row.get("title")
    return _filled(row.get("text")) and (title is None or title == "" or _filled(title))


def data_cases(file: str, rows: list[dict[str, Any]], is_good: Callable[[dict[str, Any]], bool], n: int) -> list[Case]:
    """Return n mutations of a question file or of the passages."""
    made = []
    for number in range(n):
        draw = random.Random(f"{file} {number}")
        kind = ("cut", "flip", "swap", "misspell")[number % 4]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        if kind in ("cut", "flip"):
            content = (cut if kind == "cut" else flip)(content, draw)
        else:
            changed = list(rows)
            at = draw.randrange(len(rows))
            changed[at] = (swap_type if kind == "swap" else misspell)(rows[at], draw)
            content = "".join(json.dumps(row) + "\n" for row in changed).encode()
        good = good_lines(content, is_good)
        made.append(Case(f"generated {file} {number}: {kind}", _data_act(file, content, good), "" if good else file,
                         goes_on=good))
    return made


def _data_act(file: str, content: bytes, good: bool) -> Callable[[Place], Seen]:
    def act(place: Place) -> Seen:
        (place.corpus if file == catalogue.P else place.questions / file).write_bytes(content)
        return catalogue.load_data(place) if good else catalogue.check_data(place)

    return act


# -- profiles -------------------------------------------------------------------------------------


def good_profile(text: str) -> bool:
    """Say whether a mutated smoke profile is one that a run can use: all keys there, values of their types."""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return False
    return _same_shape(yaml.safe_load(SMOKE), found)


def _same_shape(wanted: Any, found: Any) -> bool:
    """Compare two YAML documents: keys equal, texts equal but for a description, numbers of the same type and sign."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and set(found) == set(wanted) and all(
            _same_shape(wanted[key], found[key]) or (key == "description" and _filled(found[key])) for key in wanted
        )
    if isinstance(wanted, list):
        return found == wanted
    if isinstance(wanted, (bool, str)):
        return found == wanted and type(found) is type(wanted)
    return type(found) in (type(wanted), int) and type(found) is not bool and found == wanted


def profile_cases(n: int) -> list[Case]:
    """Return n mutations of the smoke profile: cut, a line removed, a key misspelt, a value of another type."""
    made = []
    for number in range(n):
        draw = random.Random(f"profile {number}")
        kind = ("cut", "line removed", "misspell", "swap")[number % 4]
        text = _mutated_profile(kind, draw)
        good = good_profile(text)
        act = catalogue.profile(lambda _, text=text: text)
        names = "would run" if good else _names_in(text)
        made.append(Case(f"generated profile {number}: {kind}", act, names, goes_on=good))
    return made


def _names_in(text: str) -> str:
    """Return what the message names: the profile, or, cut within its last value, the price book of that name."""
    return "05.price_book" if text.rpartition("price_book: ")[1] and text[-1:] not in " \n" else "smoke.yaml"


def _mutated_profile(kind: str, draw: random.Random) -> str:
    if kind == "cut":
        return cut(SMOKE.encode(), draw).decode("utf-8", errors="ignore")
    lines = [line for line in SMOKE.splitlines() if line.strip() and not line.startswith("#")]
    at = draw.choice([i for i, line in enumerate(lines) if line.startswith("    ") and ": " in line])
    name, _, value = lines[at].strip().partition(": ")
    if kind == "misspell":
        lines[at] = f"    {name[1:]}{name[0]}: {value}"
    elif kind == "swap":
        lines[at] = f"    {name}: {draw.choice(['[1, 2]', '{a: 1}', 'null', '-1', '[]', '.nan'])}"
    else:
        del lines[at]
    return "\n".join(lines) + "\n"


# -- manifests ------------------------------------------------------------------------------------


def good_manifest(content: bytes) -> bool:
    """Say whether a manifest can be compared: an object with what is compared, each of its type."""
    try:
        found = json.loads(content.decode("utf-8"))
    except ValueError:
        return False
    if not isinstance(found, dict) or not isinstance(found.get("stage"), str):
        return False
    parts = [found.get(name) for name in ("parameters", "results", "inputs", "outputs")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    optional = {"versions": dict, "python": str, "platform": str, "cpu": str, "device": str, "dirty": bool}
    if not all(type(found[name]) is kind for name, kind in optional.items() if name in found):
        return False
    if not isinstance(found.get("commit"), (str, type(None))):
        return False
    numbers = [found[name] for name in ("wall_seconds", "peak_rss_mib") if name in found]
    return all(isinstance(number, (int, float)) for number in numbers) and all(
        isinstance(digest, str) for part in parts[2:] for digest in part.values()
    )


def manifest_cases(n: int) -> list[Case]:
    """Return n mutations of a finished stage's manifest, each met by the comparison of two runs."""
    kinds = ("cut", "flip", "swap", "misspell")
    chosen = [(number, kinds[number % 4]) for number in range(n)]
    return [Case(f"generated manifest {i}: {kind}", _manifest_act(kind, i), "manifest.json") for i, kind in chosen]


def _manifest_act(kind: str, number: int) -> Callable[[Place], Seen]:
    def act(place: Place) -> Seen:
        path = place.broken / catalogue.MANIFEST
        draw = random.Random(f"manifest {number}")
        content = path.read_bytes()
        if kind in ("cut", "flip"):
            content = (cut if kind == "cut" else flip)(content, draw)
        else:
            content = json.dumps((swap_type if kind == "swap" else misspell)(json.loads(content), draw)).encode()
        path.write_bytes(content)
        seen = catalogue.ENTRIES["compare"][0]()
        if good_manifest(content):  # it is compared: the two runs are the same, or what differs is told
            assert seen.code in (0, 1) and "the runs are" in seen.text
            return Seen(2, f"{seen.text}\nmanifest.json was still good; restore it")
        assert seen.code == 2 and "--from 04" in seen.text
        return seen

    return act


# -- models ---------------------------------------------------------------------------------------


def good_weights(content: bytes) -> bool:
    """Say whether bytes are a safetensors file: a header that parses, data exactly as long as it says."""
    if len(content) < 8:
        return False
    (size,) = struct.unpack("<Q", content[:8])
    if 8 + size > len(content):
        return False
    try:
        header = json.loads(content[8 : 8 + size].decode("utf-8"))
    except ValueError:
        return False
    if not isinstance(header, dict):
        return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return max(ends, default=0) == len(content) - 8 - size


def model_cases(n: int) -> list[Case]:
    """Return n model folders with one file cut at a random byte."""
    names = (catalogue.W, "config.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")
    made = []
    for number in range(n):
        name = names[number % len(names)]
        content = cut((catalogue.MODEL / name).read_bytes(), random.Random(f"model {number}"))
        assert not good_weights(content) if name == catalogue.W else not _is_json(content)
        act = catalogue.model(lambda folder, name=name, content=content: (folder / name).write_bytes(content))
        made.append(Case(f"generated model {number}: {name} cut", act, name, ("copy it again",)))
    return made


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


assert good_weights((catalogue.MODEL / catalogue.W).read_bytes()) and good_profile(SMOKE)
CASES = [
    *data_cases(catalogue.Q, catalogue.QUESTIONS, good_question, 28),
    *data_cases(catalogue.P, catalogue.PASSAGES, good_passage, 28),
    *profile_cases(24), *manifest_cases(24), *model_cases(16),
]
